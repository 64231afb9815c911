"""Other settings of the environment, ``evaluation.also``, in which an agent that has learned is evaluated too.

An external memory can be larger there than it was in training (Graves et al. 2016, Extended Data Fig. 2).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
from omegaconf import DictConfig, OmegaConf

from saccade.agents.algorithm import CoreAlgorithm
from saccade.policies import DNC, NTM
from saccade.scripts.build import make_env
from saccade.scripts.errors import UserError
from saccade.scripts.overrides import nearest

CHANGEABLE = {"id", "kwargs", "wrappers"}
"""What every ``env`` may hold; ``n_envs`` is the training's, and evaluations have their own."""
SLOTS = "policy.core.slots"
"""Where a config says how many slots a memory has; beside what ``env`` holds, a setting may name ``slots``."""


def settings(cfg: DictConfig) -> dict[str, DictConfig]:
    """The config with ``env`` changed, for each setting of ``evaluation.also``, by name.

    Raises:
        UserError: a setting changes what cannot be changed; names the nearest that can.
    """
    also = OmegaConf.select(cfg, "evaluation.also") or {}
    return {str(name): changed(cfg, str(name), change) for name, change in also.items()}


def changed(cfg: DictConfig, name: str, change: object) -> DictConfig:
    """The config with one setting's values in ``env``; another ``id`` keeps only the ``kwargs`` named beside it.

    Raises:
        UserError: the setting changes what cannot be changed, and names the nearest that can; or the memory cannot have so
            many slots.
    """
    if not isinstance(change, DictConfig):
        raise UserError(f"also.{name} is {change!r}; it needs the values of env that differ, as in {{kwargs: {{length: 100}}}}")
    valid = sorted({*CHANGEABLE, *map(str, cfg.env)} - {"n_envs"})
    other, change = cfg.copy(), change.copy()
    OmegaConf.set_struct(other, False)
    OmegaConf.set_struct(change, False)
    if "slots" in change:
        OmegaConf.update(other, SLOTS, checked_slots(cfg, name, change.pop("slots")))
    for key in map(str, change):
        if key not in valid:
            raise UserError(f"also.{name} cannot change env.{key}; {nearest(key, [*valid, 'slots'])}")
    if change.get("id", cfg.env.id) != cfg.env.id:
        other.env.kwargs = {}
    other.env = OmegaConf.merge(other.env, change)
    return other


def checked_slots(cfg: DictConfig, name: str, slots: object) -> int:
    """How many slots a setting gives the memory.

    Raises:
        UserError: there is no such memory, it has learned what its slots hold at first, or it would be smaller.
    """
    trained = OmegaConf.select(cfg, SLOTS)
    if trained is None:
        raise UserError(f"also.{name}.slots is for a policy with {SLOTS}: policy=ntm, policy=dnc")
    if OmegaConf.select(cfg, "policy.core.learn_memory"):
        raise UserError(
            f"also.{name}.slots needs policy.core.learn_memory=false: what {trained} slots hold at first is learned"
        )
    if not isinstance(slots, int) or slots < trained:
        raise UserError(f"also.{name}.slots is {slots!r}; it must be a number of slots, at least the training's {trained}")
    return slots


@contextmanager
def resized(model: CoreAlgorithm, cfg: DictConfig) -> Iterator[None]:
    """An agent whose memory has, for a while, as many slots as the config says."""
    core, slots = model.policy.core, OmegaConf.select(cfg, SLOTS)
    if not isinstance(core, NTM | DNC) or slots is None:
        yield
        return
    before = core.slots
    core.resize(slots)
    try:
        yield
    finally:
        core.resize(before)


def check_settings(cfg: DictConfig) -> None:
    """Whether an agent that learns in ``cfg.env`` can play in every other setting.

    Raises:
        UserError: such an environment cannot be made, or has another observation or action space.
    """
    others = settings(cfg)
    ours = spaces(cfg) if others else {}
    for name, other in others.items():
        try:
            theirs = spaces(other)
        except UserError as error:
            raise UserError(f"also.{name}: {error}") from error
        for kind, space in ours.items():
            if theirs[kind] != space:
                raise UserError(f"also.{name} has other {kind} than the training: {theirs[kind]}, and not {space}")


def spaces(cfg: DictConfig) -> dict[str, gym.Space[Any]]:
    """The observation and the action space of ``cfg.env``.

    Raises:
        UserError: as :func:`make_env`.
    """
    env = make_env(cfg, n_envs=1)
    env.close()
    return {"observations": env.observation_space, "actions": env.action_space}
