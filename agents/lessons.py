"""What a supervised agent learns from: lessons, and where they come from."""

import sys
from typing import Any, NamedTuple, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Bool, Float
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize
from torch import Tensor


@runtime_checkable
class Lesson(Protocol):
    """What is learned from, ``saccade.envs.Lesson``: ``B`` whole episodes, time-major, padded to the longest, ``T`` steps."""

    @property
    def inputs(self) -> np.ndarray:
        """What is seen, ``[T, B, I]``."""

    @property
    def targets(self) -> np.ndarray:
        """The right actions, ``[T, B, *action shape]``."""

    @property
    def answers(self) -> np.ndarray:
        """Where they are asked for, ``[T, B]``."""

    @property
    def lengths(self) -> np.ndarray:
        """Steps of each episode, ``[B]``."""


@runtime_checkable
class Teacher(Protocol):
    """What gives lessons: ``saccade.envs.SequenceTask``."""

    def generate(self, episodes: int) -> Lesson:
        """Draw that many episodes."""

    def grade(self, right: float) -> None:
        """Be told the share of episodes whose every answer was right."""


class Batch(NamedTuple):
    """A lesson on the agent's device; ``M`` answers in all.

    Attributes:
        inputs: what is seen.
        episode_starts: true in the first step.
        real: false where a shorter episode has ended.
        answers: where an answer is asked.
        targets: the right ones ``[M, *action shape]``, in the order of ``answers``.
    """

    inputs: Float[Tensor, "T B I"]
    episode_starts: Bool[Tensor, "T B"]
    real: Bool[Tensor, "T B"]
    answers: Bool[Tensor, "T B"]
    targets: Tensor

    def per_step(self, values: Float[Tensor, " M"]) -> Float[Tensor, "T B"]:
        """One value an answer, where it was asked; zeros elsewhere."""
        return torch.zeros_like(self.answers, dtype=values.dtype).masked_scatter(self.answers, values)


def find_teacher(env: VecEnv) -> Teacher:
    """The task behind an environment.

    Raises:
        ValueError: it gives no lessons (the message names the environments that do), or is shown otherwise than it is.
    """
    task: Any = env.get_attr("task", indices=0)[0] if env.has_attr("task") else None
    teaches = isinstance(task, Teacher)
    if not teaches:
        known = teaching_environments()
        named = f"these do: {', '.join(known)}" if known else "import saccade.envs, which has some that do"
        raise ValueError(f"Supervised learns from right answers, which this environment does not give; {named}")
    normalised = unwrap_vec_normalize(env)
    changed = normalised is not None and normalised.norm_obs
    if changed or env.observation_space != task.observation_space:
        raise ValueError("Supervised needs observations as the task gives them; leave out VecNormalize and VecFrameStack")
    teacher: Teacher = task
    return teacher


def teaching_environments() -> list[str]:
    """The ids of all registered environments that give lessons."""
    found = []
    for env_id, spec in gym.registry.items():
        module, _, name = str(spec.kwargs.get("task", "")).partition(":")
        task = getattr(sys.modules.get(module), name, None)
        if isinstance(task, type) and issubclass(task, Teacher):
            found.append(env_id)
    return found
