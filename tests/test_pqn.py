"""PQN on tasks whose exact values are known, with parts broken one at a time, and what a rollout holds, step by step."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv

from saccade.agents import PQN
from saccade.agents.pqn import lanes_in_minibatch
from saccade.envs import (
    BatchedTask,
    Probe,
    ProbeAction,
    ProbeConstant,
    ProbeDiscount,
    ProbeMemory,
    ProbeObservation,
    ProbePolicy,
    TaskStep,
    TaskVecEnv,
)
from small_agents import agent, learn_probe

PROBES = [
    (ProbeConstant, "MlpPolicy", 60),
    (ProbeObservation, "MlpPolicy", 60),
    (ProbeDiscount, "MlpPolicy", 60),
    (ProbeAction, "MlpPolicy", 60),
    (ProbePolicy, "MlpPolicy", 60),
    (ProbePolicy, "LstmPolicy", 80),
    (ProbeMemory, "LstmPolicy", 120),
    (ProbeMemory, "GruPolicy", 120),
]


@pytest.mark.parametrize(("probe", "policy", "updates"), PROBES)
def test_the_exact_values_are_learned(probe: type[Probe], policy: str, updates: int) -> None:
    assert learn_probe(probe, policy, updates=updates) < 0.1


# Episodes that are cut short.


class Paid(BatchedTask):
    """Shows nothing, pays 1 a step; ends, or is cut off, every ``length`` steps."""

    lane_arrays = ("time",)

    def __init__(
        self, num_envs: int = 1, length: int = 3, ends: bool = False, cut: bool = True, seed: int | None = None
    ) -> None:
        super().__init__(num_envs, spaces.Box(0, 1, (1,), np.float32), spaces.Discrete(2), seed)
        self.length, self.ends, self.cut = length, ends, cut
        self.time = np.zeros(num_envs, np.int64)

    def reset(self, lanes: np.ndarray) -> None:
        self.time[lanes] = 0

    def step(self, actions: np.ndarray) -> TaskStep:
        self.time += 1
        over = self.time == self.length
        return TaskStep(np.ones(self.num_envs, np.float32), over & self.ends, over & self.cut)

    def observe(self) -> np.ndarray:
        return np.zeros((self.num_envs, 1), np.float32)


class PaidEnv(gym.Env[np.ndarray, np.int64]):
    """The same as an ordinary environment, to be cut off by Gymnasium's ``TimeLimit``."""

    observation_space = spaces.Box(0, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        return np.zeros(1, np.float32), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return np.zeros(1, np.float32), 1.0, False, False, {}


def time_limited() -> VecEnv:
    return make_vec_env(lambda: gym.wrappers.TimeLimit(PaidEnv(), 3), 16)


@pytest.mark.parametrize(
    ("make", "q_lambda", "expected"),
    [
        (lambda: TaskVecEnv(Paid(16, length=3)), 0.9, 2.0),
        (lambda: TaskVecEnv(Paid(16, length=1)), 0.0, 2.0),
        (lambda: TaskVecEnv(Paid(16, length=1, ends=True, cut=False)), 0.5, 1.0),
        (lambda: TaskVecEnv(Paid(16, length=1, ends=True, cut=True)), 0.5, 1.0),
        (time_limited, 0.5, 2.0),
    ],
    ids=["cut at 3", "cut at 1", "ends at 1", "ends and is cut at 1", "TimeLimit"],
)
def test_a_cut_episode_is_worth_what_was_to_come_and_an_ended_one_is_not(
    make: Callable[[], VecEnv], q_lambda: float, expected: float
) -> None:
    env = make()
    model = agent("MlpPolicy", env, n_steps=5, q_lambda=q_lambda).learn(50 * 5 * env.num_envs)
    with torch.no_grad():
        q = model.policy(torch.zeros(1, 1, 1), (), torch.ones(1, 1, dtype=torch.bool)).head.q
    assert q.flatten().tolist() == pytest.approx([expected] * 2, abs=0.1)


# Arguments.


@pytest.mark.parametrize(
    ("batch_size", "n_steps", "n_envs", "lanes"), [(None, 3, 1, 1), (32, 32, 8, 1), (256, 32, 8, 8), (15, 5, 9, 3)]
)
def test_lanes_in_a_minibatch(batch_size: int | None, n_steps: int, n_envs: int, lanes: int) -> None:
    assert lanes_in_minibatch(batch_size, n_steps, n_envs) == lanes


@pytest.mark.parametrize(
    ("batch_size", "nearest"), [(100, "64, 128"), (33, "32, 64"), (96, "64, 128"), (1000, "128, 256"), (1, "32, 64")]
)
def test_a_batch_size_that_cuts_sequences_is_refused_with_the_nearest(batch_size: int, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"batch_size={batch_size} .*8 environments x 32 steps") as error:
        lanes_in_minibatch(batch_size, 32, 8)
    assert nearest in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_steps": 0}, "n_steps must be at least 1; got 0"),
        ({"gamma": 1.5}, "gamma must be in .*1.5"),
        ({"gamma": -0.1}, "gamma"),
    ],
)
def test_impossible_numbers_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PQN("MlpPolicy", TaskVecEnv(ProbeConstant(2)), **arguments)
