"""From a composed config to live objects: the one place that instantiates, with an exact list of what may be named."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.vec_env import VecEnv

import saccade.agents as agents
from saccade.agents.checkpoint import CheckpointError
from saccade.agents.manifest import ManifestError, allowed_classes, name_of
from saccade.agents.sequence import SequenceAlgorithm
from saccade.envs import CannotMakeEnvironment, make_vec_env
from saccade.scripts.command import UserError

AGENTS: dict[str, type[SequenceAlgorithm]] = {name_of(agents.PQN): agents.PQN}


def targets(cfg: Any) -> Iterator[str]:
    """Every ``_target_`` in a config."""
    if isinstance(cfg, dict):
        if "_target_" in cfg:
            yield str(cfg["_target_"])
        for value in cfg.values():
            yield from targets(value)
    elif isinstance(cfg, list):
        for value in cfg:
            yield from targets(value)


def build(cfg: DictConfig) -> Any:
    """Instantiate a config whose every ``_target_`` stands on the list.

    Raises:
        UserError: a target that does not, or arguments that it does not take.
    """
    allowed = {*AGENTS, *allowed_classes()}
    for target in targets(OmegaConf.to_container(cfg, resolve=True)):
        if target not in allowed:
            near = get_close_matches(target, allowed, n=3)
            hint = f"; the nearest: {', '.join(near)}" if near else ""
            raise UserError(f"_target_ {target!r} is not one of the classes that a config may name{hint}")
    try:
        return instantiate(cfg, _convert_="all")
    except Exception as error:  # Hydra wraps whatever a constructor raises
        cause = error.__cause__ or error
        if isinstance(cause, TypeError | ValueError):
            raise UserError(str(cause)) from error
        raise


def make_env(cfg: DictConfig, n_envs: int | None = None, seed: int | None = None) -> VecEnv:
    """The environments of ``cfg.env``.

    Raises:
        UserError: there is no such environment, or it does not take these arguments.
    """
    kwargs = OmegaConf.to_container(cfg.env.kwargs, resolve=True)
    assert isinstance(kwargs, dict)
    try:
        return make_vec_env(cfg.env.id, n_envs or cfg.env.n_envs, cfg.seed if seed is None else seed, kwargs)  # type: ignore[arg-type]
    except (CannotMakeEnvironment, ValueError) as error:
        raise UserError(str(error)) from error


def policy_kwargs(cfg: DictConfig) -> dict[str, Any]:
    """SB3's ``policy_kwargs`` from ``cfg.policy``: a part that is built later becomes its class and its arguments."""
    kwargs: dict[str, Any] = {}
    for name, part in build(cfg.policy).items():
        if isinstance(part, partial):
            kwargs[f"{name}_class"] = part.func
            kwargs[f"{name}_kwargs"] = part.keywords
        elif part is not None:
            kwargs[name] = part
    return kwargs


def make_agent(cfg: DictConfig, env: VecEnv) -> SequenceAlgorithm:
    """The agent of ``cfg.agent`` with the policy of ``cfg.policy``, ready to learn in ``env``.

    Raises:
        UserError: a value is out of its range, or the policy cannot read what the environment shows.
    """
    make = build(cfg.agent)
    kwargs = policy_kwargs(cfg)
    if kwargs["core_class"].reads_image and not is_image_space(env.observation_space, check_channels=False):
        raise UserError(
            f"{kwargs['core_class'].__name__} looks at images, and {cfg.env.id} shows {env.observation_space}; "
            "policy=lstm, gru or mlp reads vectors"
        )
    try:
        model: SequenceAlgorithm = make("CorePolicy", env, policy_kwargs=kwargs, seed=cfg.seed, device=cfg.device)
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(f"cannot build this agent for {cfg.env.id}: {error}") from error
    return model


def load_agent(cfg: DictConfig, path: Path) -> SequenceAlgorithm:
    """The agent that ``cfg`` describes, with the weights of a checkpoint.

    Raises:
        UserError: no such file, or not a checkpoint of this agent.
    """
    name = str(cfg.agent._target_)
    if name not in AGENTS:
        raise UserError(f"{name!r} is not an agent; there are {', '.join(AGENTS)}")
    try:
        return AGENTS[name].load(path, device=cfg.device)
    except (OSError, CheckpointError, ManifestError) as error:
        raise UserError(f"cannot load {path}: {error}") from error


def set_threads(cfg: DictConfig) -> None:
    """Let torch use ``cfg.threads`` threads."""
    torch.set_num_threads(int(cfg.threads))


def drop_foreign_kwargs(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """``env.kwargs`` of a group's file belong to that file's id: naming another id leaves only those named beside it."""
    keys = {text.lstrip("+").partition("=")[0] for text in overrides}
    if "env.id" in keys:
        with open_dict(cfg):
            cfg.env.kwargs = {key: value for key, value in cfg.env.kwargs.items() if f"env.kwargs.{key}" in keys}
