"""Any environment as a ``VecEnv``: a batched task directly, everything else through Gymnasium and SB3."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from inspect import Parameter, signature
from itertools import count
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, load_env_creator
from stable_baselines3.common import env_util
from stable_baselines3.common.vec_env import VecEnv

from saccade.envs.checked import CheckedExperience
from saccade.envs.registry import CannotMakeEnvironment, find_spec, task_class
from saccade.envs.task import BatchedTask, require_at_least
from saccade.envs.vec_env import TaskVecEnv

# Arguments of `gymnasium.make` itself, taken whatever the environment.
_MAKE_ARGUMENTS = ("render_mode", "max_episode_steps", "disable_env_checker")


class BadEnvironmentArguments(CannotMakeEnvironment):
    """The environment does not take these arguments; the message names those it takes."""


def make_vec_env(env_id: str, n_envs: int = 1, seed: int | None = None, kwargs: Mapping[str, Any] | None = None) -> VecEnv:
    """Make ``n_envs`` environments of one kind, with episode statistics in the infos as SB3 expects them.

    Args:
        env_id: an id registered with Gymnasium, ours included, or ``module:Id``.
        n_envs: how many.
        seed: applied by the first ``reset``; ``None`` for a random one.
        kwargs: arguments of the environment. ``render_mode`` is ``"rgb_array"`` unless given, where that exists.

    Returns:
        A :class:`TaskVecEnv` for a batched task, else a ``DummyVecEnv`` of ``Monitor``-wrapped environments.

    Raises:
        UnknownEnvironment: nothing is registered under this id.
        BadEnvironmentArguments: the environment does not take one of the arguments, or needs another.
        CannotMakeEnvironment: a package that the environment needs is not installed.
        ValueError: ``n_envs`` is below 1, or the environment refuses the value of an argument.
    """
    require_at_least("n_envs", n_envs, 1)
    spec = find_spec(env_id)
    arguments = dict(kwargs or {})
    task = task_class(spec)
    if task is not None:
        return _make_task(spec.id, task, n_envs, seed, arguments)
    try:
        return env_util.make_vec_env(_one_env(spec, arguments), n_envs, seed)
    except (gym.error.DependencyNotInstalled, ImportError) as error:
        raise CannotMakeEnvironment(f"{spec.id} needs a package that is not installed: {error}") from error


def _make_task(env_id: str, task: type[BatchedTask], n_envs: int, seed: int | None, arguments: dict[str, Any]) -> TaskVecEnv:
    render_mode = arguments.pop("render_mode", "rgb_array")
    taken = [name for name in signature(task).parameters if name not in ("num_envs", "seed")]
    _refuse_unknown(env_id, arguments, taken)
    venv = TaskVecEnv(task(num_envs=n_envs, **arguments), render_mode)
    if seed is not None:
        venv.seed(seed)
        venv.action_space.seed(seed)
    return venv


def _one_env(spec: EnvSpec, arguments: dict[str, Any]) -> Callable[[], gym.Env[Any, Any]]:
    """How one environment is made, its arguments checked."""
    if spec.entry_point is None:
        raise CannotMakeEnvironment(f"{spec.id} exists as a vector environment only")
    creator = spec.entry_point if callable(spec.entry_point) else load_env_creator(spec.entry_point)
    parameters = signature(creator).parameters
    if not any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values()):
        _refuse_unknown(spec.id, arguments, [*parameters, *_MAKE_ARGUMENTS])
    metadata = getattr(creator, "metadata", None)
    if isinstance(metadata, dict) and "rgb_array" in metadata.get("render_modes", ()):
        arguments.setdefault("render_mode", "rgb_array")

    index = count()

    def make() -> gym.Env[Any, Any]:
        try:
            return CheckedExperience(gym.make(spec.id, **arguments), next(index))
        except TypeError as error:
            raise BadEnvironmentArguments(f"{spec.id} cannot be made with {arguments}: {error}") from error

    return make


def _refuse_unknown(env_id: str, arguments: Mapping[str, Any], taken: list[str]) -> None:
    for name in arguments:
        if name not in taken:
            near = get_close_matches(name, taken, 1)
            hint = f"the nearest is {near[0]!r}; " if near else ""
            allowed = ", ".join(dict.fromkeys(taken)) or "none"
            raise BadEnvironmentArguments(f"{env_id} takes no argument {name!r}: {hint}it takes {allowed}")
