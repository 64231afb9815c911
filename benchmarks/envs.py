"""Environment steps a second: Catch as one array program against loops over single environments.

    python benchmarks/envs.py --json FILE

The peer is SB3's own way, a ``DummyVecEnv`` of ``Monitor``-wrapped environments: once around a Catch written in plain
Python for one lane, about as fast as such a loop gets, and once around our own array program with one lane in it.
"""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import harness
import numpy as np
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from saccade.envs import Catch, TaskEnv, TaskVecEnv

LANES = (8, 64, 1024)
GOAL_LANES, GOAL_STEPS = 1024, 1e6
EPISODE = 23


class PlainCatch(gym.Env[np.ndarray, np.int64]):
    """The same game, one lane, plain Python."""

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Box(0, 255, (1, 24, 24), np.uint8)
        self.action_space = gym.spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode."""
        super().reset(seed=seed)
        self.row = 0
        self.column = int(self.np_random.integers(24))
        self.velocity = int(self.np_random.integers(-1, 2))
        self.left = int(self.np_random.integers(23))
        return self._screen(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move the paddle, then the ball."""
        self.left = min(max(self.left + int(action) - 1, 0), 22)
        if not 0 <= self.column + self.velocity < 24:
            self.velocity = -self.velocity
        self.column += self.velocity
        self.row += 1
        landed = self.row == 23
        caught = landed and 0 <= self.column - self.left < 2
        return self._screen(), float(caught), landed, False, {"is_success": caught} if landed else {}

    def _screen(self) -> np.ndarray:
        screen = np.zeros((1, 24, 24), np.uint8)
        screen[0, self.row, self.column] = 255
        screen[0, 23, self.left : self.left + 2] = 255
        return screen


def stepping(venv: VecEnv, episodes: int) -> harness.Work:
    """Whole episodes of random actions, drawn beforehand; every part of what a step returns is made."""
    actions = np.random.default_rng(0).integers(3, size=(EPISODE, venv.num_envs))
    venv.seed(0)
    venv.reset()

    def work() -> int:
        for _ in range(episodes):
            for action in actions:
                venv.step(action)
        return episodes * EPISODE * venv.num_envs

    return work


def loop_over(make: Callable[[], gym.Env[Any, Any]], lanes: int) -> VecEnv:
    """What SB3's `make_vec_env` builds."""
    return DummyVecEnv([lambda: Monitor(make()) for _ in range(lanes)])


def measure(settings: harness.Settings) -> list[harness.Row]:
    """All rows."""
    rows = []
    for lanes in LANES:
        episodes = max(1, 512 // lanes)  # of the peers in one timing; ours does 20 times as many, and 40 at the least
        work = {
            "ours": stepping(TaskVecEnv(Catch(lanes)), max(40, 20 * episodes)),
            "plain Python": stepping(loop_over(PlainCatch, lanes), episodes),
            "TaskEnv": stepping(loop_over(lambda: TaskEnv(Catch), lanes), episodes),
        }
        rates = harness.median_rates(work, rounds=3 if settings.quick else 15)
        for peer in ("plain Python", "TaskEnv"):
            name, peer_name = f"Catch, {lanes} lanes, against {peer}", f"DummyVecEnv of {peer}"
            goal = GOAL_STEPS if lanes == GOAL_LANES else None
            rows.append(harness.compare(name, "steps/s", rates["ours"], rates[peer], peer_name, at_least=goal))
    return rows


if __name__ == "__main__":
    harness.main(__doc__, measure)
