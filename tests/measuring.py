"""An environment that measures its episodes, for the tests of evaluations and of claims."""

from pathlib import Path

import pytest
from hydra import compose
from omegaconf import DictConfig

from saccade.scripts.overrides import config_loader

MEASURING = """
import gymnasium as gym
import numpy as np

class Measuring(gym.Env):
    # The return of an episode is a number drawn at its start, and one of its measures as well.
    def __init__(self, length=3, size=2, actions=2, kind="fine"):
        self.length, self.kind = length, kind
        self.action_space = gym.spaces.Discrete(actions)
        self.observation_space = gym.spaces.Box(-1, 1, (size,), np.float32)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time, self.drawn = 0, int(self.np_random.integers(1000))
        return np.zeros(self.observation_space.shape, np.float32), {}
    def step(self, action):
        self.time += 1
        ended = self.time == self.length and self.kind != "endless"
        measures = {"drawn": self.drawn if ended else 1e6, "steps": np.int64(self.time)}
        odd = {"infinite": measures | {"drawn": np.inf}, "word": {"drawn": "many"}, "list": [3]}
        info = {} if self.kind == "silent" else {"measures": odd.get(self.kind, measures)}
        return np.zeros(self.observation_space.shape, np.float32), float(self.drawn * ended), ended, False, info

class Fixed(Measuring):
    def __init__(self):
        super().__init__(length=11)

gym.register("Measuring-v0", Measuring, disable_env_checker=True)
gym.register("Fixed-v0", Fixed, disable_env_checker=True)
"""
ENV = ["env.id=measuring_envs:Measuring-v0", "policy=mlp"]
LONG = "+evaluation.also.long.kwargs.length=7"


def enter(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Put the environment into a folder, and work there."""
    (folder / "measuring_envs.py").write_text(MEASURING)
    patch.syspath_prepend(str(folder))
    patch.chdir(folder)


def composed(*overrides: str) -> DictConfig:
    """What ``saccade results`` would get."""
    with config_loader(None):
        return compose("results", ["experiment=cartpole_ppo", *ENV, "threads=1", "env.n_envs=2", *overrides])
