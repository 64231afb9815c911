"""Probe environments: tiny tasks whose exact values are known, each of which tests one part of an agent.

The first five are Andy Jones's, "Debugging RL, Without the Agonizing Pain" (andyljones.com, 2021). They are meant to be
tried in order: the first one that an agent fails says which part is broken.
"""

from abc import abstractmethod
from typing import NamedTuple

import numpy as np
from gymnasium import spaces
from jaxtyping import Bool, Float32, Integer

from saccade.envs.task import BatchedTask, TaskStep, require_at_least


class ExactQ(NamedTuple):
    """The values of the best policy, along every episode that can happen. ``T`` steps, ``K`` episodes, ``A`` actions.

    Attributes:
        observations: what is seen from the first step to the last; the actions do not change it.
        q: the best return, discounted, that each action leaves within reach.
    """

    observations: Float32[np.ndarray, "T K D"]
    q: Float32[np.ndarray, "T K A"]


class Probe(BatchedTask):
    """What the probes share: ``horizon`` steps, a reward at the last one only, and a random sign in every lane.

    Observations are float32 vectors in [-1, 1].

    Args:
        num_envs: the number of lanes.
        observation_size: ``D``, how many numbers are observed.
        actions: how many actions there are.
        horizon: how many steps an episode takes.
        seed: the seed of all lanes together.
    """

    lane_arrays = ("time", "cue")

    def __init__(self, num_envs: int, observation_size: int, actions: int, horizon: int, seed: int | None) -> None:
        space = spaces.Box(-1.0, 1.0, (observation_size,), np.float32)
        super().__init__(num_envs, space, spaces.Discrete(actions), seed)
        self.horizon = horizon
        self.time = np.zeros(num_envs, np.int64)
        self.cue = np.zeros(num_envs, np.float32)
        self.reset(np.ones(num_envs, np.bool_))

    def reset(self, lanes: Bool[np.ndarray, " N"]) -> None:
        """Go back to time 0 and draw -1 or 1."""
        self.time[lanes] = 0
        self.cue[lanes] = 2 * self.rng.integers(2, size=int(lanes.sum())) - 1

    def step(self, actions: Integer[np.ndarray, " N"]) -> TaskStep:
        """Let time pass; the last step brings the reward, and success where that is the best there is."""
        self.time += 1
        last = self.time == self.horizon
        rewards = np.where(last, self.final_rewards(actions), np.float32(0))
        success = rewards == 1 if self.action_space.n > 1 else None
        return TaskStep(rewards, last, np.zeros(self.num_envs, np.bool_), success)

    @abstractmethod
    def final_rewards(self, actions: Integer[np.ndarray, " N"]) -> Float32[np.ndarray, " N"]:
        """The reward in every lane if this is its last step."""

    @abstractmethod
    def expected_q(self, gamma: float) -> ExactQ:
        """What a correct agent learns under the discount ``gamma``."""

    def _signs(self, actions: Integer[np.ndarray, " N"]) -> Float32[np.ndarray, " N"]:
        return (2 * actions - 1).astype(np.float32)


class ProbeConstant(Probe):
    """Probe 1: one action, one step, reward 1. Tests that a value is learned at all."""

    def __init__(self, num_envs: int = 1, seed: int | None = None) -> None:
        super().__init__(num_envs, observation_size=1, actions=1, horizon=1, seed=seed)

    def observe(self) -> Float32[np.ndarray, "N 1"]:
        """Zero."""
        return np.zeros((self.num_envs, 1), np.float32)

    def final_rewards(self, actions: Integer[np.ndarray, " N"]) -> Float32[np.ndarray, " N"]:
        """One."""
        return np.ones(self.num_envs, np.float32)

    def expected_q(self, gamma: float) -> ExactQ:
        """1, whatever the discount."""
        return _exact([[[0]]], [[[1]]])


class ProbeObservation(Probe):
    """Probe 2: one action, one step, reward = observation (±1). Tests that gradients reach the network's input."""

    def __init__(self, num_envs: int = 1, seed: int | None = None) -> None:
        super().__init__(num_envs, observation_size=1, actions=1, horizon=1, seed=seed)

    def observe(self) -> Float32[np.ndarray, "N 1"]:
        """The sign."""
        return self.cue[:, None].copy()

    def final_rewards(self, actions: Integer[np.ndarray, " N"]) -> Float32[np.ndarray, " N"]:
        """The sign."""
        return self.cue.copy()

    def expected_q(self, gamma: float) -> ExactQ:
        """The observation, whatever the discount."""
        return _exact([[[-1], [1]]], [[[-1], [1]]])


class ProbeDiscount(Probe):
    """Probe 3: one action, two steps, observation = time, reward 1 at the end. Tests discounting and bootstrapping."""

    def __init__(self, num_envs: int = 1, seed: int | None = None) -> None:
        super().__init__(num_envs, observation_size=1, actions=1, horizon=2, seed=seed)

    def observe(self) -> Float32[np.ndarray, "N 1"]:
        """0, then 1; the end of the episode shows 1 as well."""
        return np.minimum(self.time, 1).astype(np.float32)[:, None]

    def final_rewards(self, actions: Integer[np.ndarray, " N"]) -> Float32[np.ndarray, " N"]:
        """One."""
        return np.ones(self.num_envs, np.float32)

    def expected_q(self, gamma: float) -> ExactQ:
        """``gamma``, then 1."""
        return _exact([[[0]], [[1]]], [[[gamma]], [[1]]])


class ProbeAction(Probe):
    """Probe 4: two actions, one step, reward -1 or 1 by the action. Tests that better actions are preferred."""

    def __init__(self, num_envs: int = 1, seed: int | None = None) -> None:
        super().__init__(num_envs, observation_size=1, actions=2, horizon=1, seed=seed)

    def observe(self) -> Float32[np.ndarray, "N 1"]:
        """Zero."""
        return np.zeros((self.num_envs, 1), np.float32)

    def final_rewards(self, actions: Integer[np.ndarray, " N"]) -> Float32[np.ndarray, " N"]:
        """-1 for action 0, 1 for action 1."""
        return self._signs(actions)

    def expected_q(self, gamma: float) -> ExactQ:
        """-1 and 1, whatever the discount."""
        return _exact([[[0]]], [[[-1, 1]]])


class ProbePolicy(Probe):
    """Probe 5: two actions, one step, reward ±1 as the action matches the observation (±1). Tests the policy."""

    def __init__(self, num_envs: int = 1, seed: int | None = None) -> None:
        super().__init__(num_envs, observation_size=1, actions=2, horizon=1, seed=seed)

    def observe(self) -> Float32[np.ndarray, "N 1"]:
        """The sign."""
        return self.cue[:, None].copy()

    def final_rewards(self, actions: Integer[np.ndarray, " N"]) -> Float32[np.ndarray, " N"]:
        """1 where action 0 meets the sign -1 or action 1 the sign 1, else -1."""
        return self._signs(actions) * self.cue

    def expected_q(self, gamma: float) -> ExactQ:
        """Action times observation, whatever the discount."""
        return _exact([[[-1], [1]]], [[[1, -1], [-1, 1]]])


class ProbeMemory(Probe):
    """Probe 6: a sign shown at the first step only must be matched at the last. Tests memory, and nothing else.

    Two numbers are observed: the sign (-1 or 1) in the first step, 0 afterwards; and how much of the delay has
    passed, so that the sign is all there is to remember. Actions before the last step change nothing.

    Args:
        num_envs: the number of lanes.
        delay: steps between the sign and the action that must match it; the episode takes ``delay + 1`` steps.
        seed: the seed of all lanes together.

    Raises:
        ValueError: ``delay`` is below 1.
    """

    def __init__(self, num_envs: int = 1, delay: int = 2, seed: int | None = None) -> None:
        require_at_least("delay", delay, 1)
        self.delay = delay
        super().__init__(num_envs, observation_size=2, actions=2, horizon=delay + 1, seed=seed)

    def observe(self) -> Float32[np.ndarray, "N 2"]:
        """The sign if time is 0, and the time from 0 to 1."""
        sign = np.where(self.time == 0, self.cue, np.float32(0))
        passed = np.minimum(self.time / self.delay, 1).astype(np.float32)
        return np.stack([sign, passed], axis=1)

    def final_rewards(self, actions: Integer[np.ndarray, " N"]) -> Float32[np.ndarray, " N"]:
        """1 where action 0 meets the sign -1 or action 1 the sign 1, else -1."""
        return self._signs(actions) * self.cue

    def expected_q(self, gamma: float) -> ExactQ:
        """``gamma`` to the power of the steps to come, then action times sign."""
        observations = np.zeros((self.horizon, 2, 2))
        observations[0, :, 0] = [-1, 1]
        observations[:, :, 1] = np.arange(self.horizon)[:, None] / self.delay
        q = np.zeros((self.horizon, 2, 2))
        q[:] = (gamma ** np.arange(self.delay, -1, -1.0))[:, None, None]
        q[-1] = [[1, -1], [-1, 1]]
        return _exact(observations, q)


def _exact(observations: object, q: object) -> ExactQ:
    return ExactQ(np.asarray(observations, np.float32), np.asarray(q, np.float32))
