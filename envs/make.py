"""Any environment as a ``VecEnv``: a batched task directly, everything else through Gymnasium and SB3."""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from inspect import Parameter, signature
from itertools import count
from typing import Any, TypeAlias

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, load_env_creator
from stable_baselines3.common import env_util
from stable_baselines3.common.vec_env import VecEnv

from saccade.envs.atari import AtariVecEnv
from saccade.envs.checked import CheckedExperience
from saccade.envs.registry import (
    ATARI,
    CannotMakeEnvironment,
    UnknownEnvironment,
    check_game,
    find_spec,
    install_hint,
    task_class,
)
from saccade.envs.task import BatchedTask, require_at_least
from saccade.envs.vec_env import TaskVecEnv
from saccade.envs.vector_adapter import GymnasiumVecEnv

Wrapper: TypeAlias = Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]]
"""What is put around one environment: a wrapper's class, with its arguments bound by ``functools.partial``."""

# Arguments of `gymnasium.make` itself, taken whatever the environment.
_MAKE_ARGUMENTS = ("render_mode", "max_episode_steps", "disable_env_checker")


class BadEnvironmentArguments(CannotMakeEnvironment):
    """The environment does not take these arguments; the message names those it takes."""


def make_vec_env(
    env_id: str | Callable[..., gym.Env[Any, Any]],
    n_envs: int = 1,
    seed: int | None = None,
    kwargs: Mapping[str, Any] | None = None,
    wrappers: Sequence[Wrapper] = (),
    env_kwargs: Mapping[str, Any] | None = None,
) -> VecEnv:
    """Make ``n_envs`` environments of one kind, with episode statistics in the infos as SB3 expects them.

    Args:
        env_id: an id registered with Gymnasium, ours included, ``module:Id``, or ``atari/game``; or a class or function that
            makes one environment.
        n_envs: how many.
        seed: applied by the first ``reset``; ``None`` for a random one.
        kwargs: arguments of the environment. ``render_mode`` is ``"rgb_array"`` unless given, where that exists.
        wrappers: put around each environment in turn, the first innermost, and all outside of ``Monitor`` as SB3's
            ``wrapper_class``: episode statistics are of the environment as it was.
        env_kwargs: SB3's word for ``kwargs``.

    Returns:
        A :class:`TaskVecEnv` for a batched task, an :class:`AtariVecEnv` for a game, a :class:`GymnasiumVecEnv` for what
        exists as a vector environment only, else a ``DummyVecEnv`` of ``Monitor``-wrapped environments.

    Raises:
        UnknownEnvironment: nothing is registered under this id.
        BadEnvironmentArguments: the environment does not take one of the arguments, or needs another.
        CannotMakeEnvironment: a package that the environment needs is not installed, or there are wrappers for one that
            steps all lanes at once.
        ValueError: ``n_envs`` is below 1, or the environment or a wrapper refuses the value of an argument.
    """
    require_at_least("n_envs", n_envs, 1)
    arguments = {**(kwargs or {}), **(env_kwargs or {})}
    if not isinstance(env_id, str):
        return env_util.make_vec_env(_checked(partial(env_id, **arguments)), n_envs, seed, wrapper_class=_wrapped(wrappers))
    if env_id.startswith(ATARI):
        _refuse_wrappers(env_id, wrappers)
        return _seeded(_make_atari(env_id, n_envs, arguments), seed)
    spec = find_spec(env_id)
    task = task_class(spec)
    try:
        if task is not None:
            _refuse_wrappers(spec.id, wrappers)
            return _seeded(_make_task(spec.id, task, n_envs, arguments), seed)
        if spec.entry_point is None:
            _refuse_wrappers(spec.id, wrappers)
            envs = gym.make_vec(spec.id, n_envs, vectorization_mode="vector_entry_point", **arguments)
            return _seeded(GymnasiumVecEnv(envs), seed)
        return env_util.make_vec_env(_one_env(spec, arguments), n_envs, seed, wrapper_class=_wrapped(wrappers))
    except (gym.error.DependencyNotInstalled, ImportError) as error:
        raise CannotMakeEnvironment(f"{spec.id} needs a package that is not installed: {error}") from error


def _seeded(venv: VecEnv, seed: int | None) -> VecEnv:
    if seed is not None:
        venv.seed(seed)
        venv.action_space.seed(seed)
    return venv


def _wrapped(wrappers: Sequence[Wrapper]) -> Wrapper:
    """All wrappers as one; a misspelt argument is said to be one."""

    def wrap(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
        for wrapper in wrappers:
            try:
                env = wrapper(env)
            except TypeError as error:
                raise BadEnvironmentArguments(f"wrapper {_name(wrapper)} cannot be made: {error}") from error
        return env

    return wrap


def _refuse_wrappers(env_id: str, wrappers: Sequence[Wrapper]) -> None:
    if wrappers:
        raise CannotMakeEnvironment(
            f"{env_id} steps all lanes at once, and {', '.join(map(_name, wrappers))} wraps single environments; "
            "make it without wrappers, and put a VecEnvWrapper around it instead"
        )


def _name(wrapper: Wrapper) -> str:
    inner = wrapper.func if isinstance(wrapper, partial) else wrapper
    return getattr(inner, "__name__", str(inner))


def _make_atari(env_id: str, n_envs: int, arguments: dict[str, Any]) -> AtariVecEnv:
    taken = [name for name in signature(AtariVecEnv).parameters if name not in ("game", "num_envs")]
    _refuse_unknown(env_id, arguments, taken)
    game = env_id.removeprefix(ATARI)
    try:
        check_game(game)
    except ImportError as error:
        raise CannotMakeEnvironment(
            f"{env_id} needs ale-py, which cannot be imported ({error}){install_hint('ale_py')}"
        ) from error
    except ValueError as error:
        raise UnknownEnvironment(str(error)) from error
    return AtariVecEnv(game, n_envs, **arguments)


def _make_task(env_id: str, task: type[BatchedTask], n_envs: int, arguments: dict[str, Any]) -> TaskVecEnv:
    render_mode = arguments.pop("render_mode", "rgb_array")
    taken = [name for name in signature(task).parameters if name not in ("num_envs", "seed")]
    _refuse_unknown(env_id, arguments, taken)
    return TaskVecEnv(task(num_envs=n_envs, **arguments), render_mode)


def _one_env(spec: EnvSpec, arguments: dict[str, Any]) -> Callable[[], gym.Env[Any, Any]]:
    """How one environment is made, its arguments checked."""
    assert spec.entry_point is not None
    creator = spec.entry_point if callable(spec.entry_point) else load_env_creator(spec.entry_point)
    parameters = signature(creator).parameters
    if not any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values()):
        _refuse_unknown(spec.id, arguments, [*parameters, *_MAKE_ARGUMENTS])
    metadata = getattr(creator, "metadata", None)
    if isinstance(metadata, dict) and "rgb_array" in metadata.get("render_modes", ()):
        arguments.setdefault("render_mode", "rgb_array")

    def make() -> gym.Env[Any, Any]:
        try:
            return gym.make(spec.id, **arguments)
        except TypeError as error:
            raise BadEnvironmentArguments(f"{spec.id} cannot be made with {arguments}: {error}") from error

    return _checked(make)


def _checked(make: Callable[[], gym.Env[Any, Any]]) -> Callable[[], gym.Env[Any, Any]]:
    """Environments that check what they return, and know which they are."""
    index = count()
    return lambda: CheckedExperience(make(), next(index))


def _refuse_unknown(env_id: str, arguments: Mapping[str, Any], taken: list[str]) -> None:
    for name in arguments:
        if name not in taken:
            near = get_close_matches(name, taken, 1)
            hint = f"the nearest is {near[0]!r}; " if near else ""
            allowed = ", ".join(dict.fromkeys(taken)) or "none"
            raise BadEnvironmentArguments(f"{env_id} takes no argument {name!r}: {hint}it takes {allowed}")
