"""From a composed config to live objects: the one place that instantiates, with an exact list of what may be named."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

import saccade.agents as agents
from saccade.agents.algorithm import CoreAlgorithm
from saccade.agents.archive import CheckpointError
from saccade.agents.manifest import ManifestError, allowed_classes, name_of
from saccade.envs import WRAPPERS, CannotMakeEnvironment, make_vec_env
from saccade.policies import Core, Reads
from saccade.scripts.errors import UserError

EXPORTED = [getattr(agents, name) for name in agents.__all__]
AGENTS: dict[str, type[CoreAlgorithm]] = {
    name_of(thing): thing for thing in EXPORTED if isinstance(thing, type) and issubclass(thing, CoreAlgorithm)
}
LEAST = {
    **dict.fromkeys(["total_timesteps", "log_interval", "threads", "env.n_envs"], 1),
    **dict.fromkeys(["evaluation.episodes", "evaluation.n_envs", "saliency.max_steps"], 1),
    **dict.fromkeys(["saliency.every", "seed"], 0),
}
"""The smallest that a value may be."""


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
    allowed = {*AGENTS, *allowed_classes(), *WRAPPERS}
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


def check_values(cfg: DictConfig) -> None:
    """Refuse what no type can: numbers out of their range, no environment, a name that is a path.

    Raises:
        UserError: one of them.
    """
    for group in ("agent", "policy", "env"):
        if not OmegaConf.is_dict(OmegaConf.select(cfg, group)):
            raise UserError(f"{group} is empty; choose one with {group}=NAME")
    for key, least in LEAST.items():
        value = OmegaConf.select(cfg, key)
        if value is not None and not (isinstance(value, int) and value >= least):
            raise UserError(f"{key} is a whole number from {least} on, not {value!r}")
    if not isinstance(OmegaConf.select(cfg, "env.id"), str):
        raise UserError("env.id is empty; saccade envs lists what there is")
    name = OmegaConf.select(cfg, "name")
    if name and (Path(name).name != name or name == ".." or "\\" in name):
        raise UserError(f"name={name} is a path; the run folder's name goes there, and the folder it lies in is runs=")


def check_device(name: str) -> None:
    """Refuse a device that this machine lacks, where stable-baselines3 would quietly take the CPU.

    Raises:
        UserError: there is no such device.
    """
    if name == "auto":
        return
    try:
        torch.zeros(1, device=name).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"device={name} cannot be used here ({reason}); cpu can, and auto takes what there is") from error


def make_env(cfg: DictConfig, n_envs: int | None = None, seed: int | None = None) -> VecEnv:
    """The environments of ``cfg.env``.

    Raises:
        UserError: a value is out of its range, there is no such environment, or it does not take these arguments.
    """
    check_values(cfg)
    kwargs: Any = OmegaConf.to_container(cfg.env.kwargs, resolve=True) if cfg.env.get("kwargs") else {}
    n_envs = cfg.env.n_envs if n_envs is None else n_envs
    wrappers = [build(part) for part in cfg.env.get("wrappers") or ()]
    try:
        return make_vec_env(cfg.env.id, n_envs, cfg.seed if seed is None else seed, kwargs, wrappers)
    except (CannotMakeEnvironment, ValueError) as error:
        raise UserError(str(error)) from error


def training_env(cfg: DictConfig) -> VecEnv:
    """The environments to train in: those of :func:`make_env`, their rewards normalised if so asked.

    Raises:
        UserError: as :func:`make_env`.
    """
    env = make_env(cfg)
    if not cfg.normalize_reward:
        return env
    return VecNormalize(env, norm_obs=False, gamma=cfg.agent.get("gamma", 0.99))


def policy_kwargs(parts: DictConfig) -> dict[str, Any]:
    """SB3's ``policy_kwargs`` from a config: a part that is built later becomes its class and its arguments.

    A name that ends in ``_fn`` (an activation) takes the class alone.
    """
    kwargs: dict[str, Any] = {}
    for name, part in build(parts).items():
        if isinstance(part, partial) and name.endswith("_fn"):
            kwargs[name] = part.func
        elif isinstance(part, partial):
            kwargs[f"{name}_class"] = part.func
            kwargs[f"{name}_kwargs"] = part.keywords
        elif part is not None:
            kwargs[name] = part
    return kwargs


def make_agent(cfg: DictConfig, env: VecEnv) -> CoreAlgorithm:
    """The agent of ``cfg.agent`` with the policy of ``cfg.policy``, ready to learn in ``env``.

    Raises:
        UserError: a value is out of its range, or the policy cannot read what the environment shows.
    """
    check_device(cfg.device)
    make = build(OmegaConf.masked_copy(cfg.agent, [key for key in cfg.agent if key != "policy_kwargs"]))
    kwargs = policy_kwargs(cfg.policy) | policy_kwargs(cfg.agent.get("policy_kwargs") or OmegaConf.create({}))
    core = kwargs.get("core_class")
    if not (isinstance(core, type) and issubclass(core, Core)):
        raise UserError(f"policy.core is {cfg.policy.get('core')}, and a policy needs a core: policy=lstm, for one")
    space = env.observation_space
    looks = Reads.VECTOR not in core.reads
    if looks and not (isinstance(space, gym.spaces.Box) and len(space.shape) in {3, *(kind.axes for kind in core.reads)}):
        what = "sequences or images" if Reads.SEQUENCE in core.reads else "images"
        raise UserError(
            f"{core.__name__} looks at {what}, and {cfg.env.id} shows {space}; policy=lstm, gru or mlp reads vectors"
        )
    try:
        model: CoreAlgorithm = make("CorePolicy", env, policy_kwargs=kwargs, seed=cfg.seed, device=cfg.device)
    except (TypeError, ValueError, AssertionError) as error:
        hint = "; agent=ppo takes all of SB3's actions" if "action" in str(error) and "PPO" not in str(make) else ""
        raise UserError(f"cannot build this agent for {cfg.env.id}: {error}{hint}") from error
    return model


def load_agent(cfg: DictConfig, path: Path) -> CoreAlgorithm:
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
    """Let torch use ``cfg.threads`` threads.

    Raises:
        UserError: a value is out of its range.
    """
    check_values(cfg)
    torch.set_num_threads(int(cfg.threads))


def drop_foreign_kwargs(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """``env.kwargs`` of a group's file belong to that file's id: naming another id leaves only those named beside it."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    without_id = [override.input_line or "" for override in parsed if override.key_or_group != "env.id"]
    kwargs = OmegaConf.select(cfg, "env.kwargs")
    if len(without_id) == len(parsed) or not kwargs:
        return
    hydra = HydraConfig.get()
    if compose(hydra.job.config_name, [*hydra.overrides.hydra, *without_id]).env.id == cfg.env.id:
        return
    named: set[str] = set()
    for override in parsed:
        value = override.value()
        if override.key_or_group.startswith("env.kwargs."):
            named.add(override.key_or_group.split(".")[2])
        elif override.key_or_group == "env.kwargs":
            named |= {str(key) for key in value} if isinstance(value, dict) else set(kwargs)
    with open_dict(cfg):
        cfg.env.kwargs = {key: value for key, value in kwargs.items() if str(key) in named}
