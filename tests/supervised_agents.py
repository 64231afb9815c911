"""Small agents that learn from right answers, and what they learn."""

from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from saccade.agents import Supervised
from saccade.envs import Copy, Lesson, SequenceTask, TaskVecEnv
from small_agents import PPO_CORES

SHORT = {"min_length": 1, "max_length": 3, "bits": 2}
STEPS = 16 * 5 * 3
"""Of short copies: some three lessons."""


class Dials(SequenceTask):
    """Shows two numbers, each its own dial, and asks for them again two steps later, where an episode has four or five."""

    def __init__(self, num_envs: int = 1, seed: int | None = None) -> None:
        super().__init__(num_envs, 5, spaces.Box(0, 4, (2,), np.float32), spaces.MultiDiscrete([3, 5]), seed)
        self.grades: list[float] = []
        self.reset(np.ones(num_envs, np.bool_))

    def generate(self, episodes: int) -> Lesson:
        lengths = self.rng.integers(4, 6, size=episodes)
        shown = self.rng.integers([3, 5], size=(3, episodes, 2)) * (np.arange(3)[:, None] + 2 < lengths)[..., None]
        inputs, targets = np.zeros((5, episodes, 2), np.float32), np.zeros((5, episodes, 2), np.int64)
        inputs[:3], targets[2:] = shown, shown
        answers = (np.arange(5)[:, None] >= 2) & (np.arange(5)[:, None] < lengths)
        longest = lengths.max()
        return Lesson(inputs[:longest], targets[:longest], answers[:longest], lengths)

    def grade(self, right: float) -> None:
        self.grades.append(right)


class OneLesson(Copy):
    """Gives the same lesson again and again."""

    def generate(self, episodes: int) -> Lesson:
        self.rng = np.random.default_rng(5)
        return super().generate(episodes)


def copying(num_envs: int = 5, seed: int = 0) -> TaskVecEnv:
    return TaskVecEnv(Copy(num_envs, **SHORT, seed=seed))


def agent(env: VecEnv | None = None, policy: str = "LstmPolicy", **arguments: Any) -> Supervised:
    policy_kwargs = {"net_arch": (16,), **PPO_CORES[policy], **arguments.pop("policy_kwargs", {})}
    name = "CorePolicy" if policy == "TwinPolicy" else policy
    defaults = {"learning_rate": 0.01, "seed": 0, "device": "cpu"}
    return Supervised(name, env or copying(), policy_kwargs=policy_kwargs, **(defaults | arguments))
