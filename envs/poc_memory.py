"""PoC-Memory, the proof-of-concept memory environment of Pleines et al.

Source: github.com/MarcoMeter/recurrent-ppo-truncated-bptt, ``environments/poc_memory_env.py``.
"""

import numpy as np
from gymnasium import spaces
from jaxtyping import Bool, Float32, Integer

from saccade.envs.task import BatchedTask, TaskStep, require_at_least

LEFT, RIGHT = 0, 1
TIME_PENALTY = 0.1
START_REACH = 0.4
"""How far from the middle an episode starts, at least two steps, unless ``glob`` is set."""


class PocMemory(BatchedTask):
    """PoC-Memory: which end of a line is the good one is shown at first, and must be remembered to go there.

    The agent is on a line from -1 to 1. One end is good, the other bad, at random. An observation is three numbers in
    [-1, 1]: left end, position, right end, where an end shows as 1 (good) or -1 (bad) until ``num_show_steps`` steps
    have been taken, and as 0 afterwards. The actions are 0 left, 1 right. A step moves by ``step_size`` and costs 0.1;
    reaching an end terminates, with ``1 + 0.1 (1 / step_size + 1)`` in place of the cost, negative at the bad end.
    With ``freeze``, the steps during which the ends are shown move nothing, cost nothing and cannot end an episode.

    The best mean return is exactly 1.2 (:attr:`optimal_return`), whatever the parameters. The first free step is taken
    while the ends still show, as published. Without ``freeze`` there are more of these, and by default enough for the
    position alone to say, from then on, where the good end is: no memory is needed.

    The defaults are the published setting, with the time limit of the later version
    (github.com/MarcoMeter/episodic-transformer-memory-ppo); here the limit truncates. Differences: the observation space
    is [-1, 1], which the observations need, and not the published [0, 1]; positions are whole steps, not rounded floats.

    Args:
        num_envs: the number of lanes.
        step_size: how far a step moves, 1 divided by a whole number.
        num_show_steps: steps after which the ends are hidden. The first observation shows them in any case.
        freeze: whether the agent cannot move while the ends are shown.
        glob: whether episodes start anywhere between the ends, and not just within 0.4 (or two steps) of the middle.
        max_episode_steps: steps after which an episode is cut off.
        seed: the seed of all lanes together.

    Raises:
        ValueError: a parameter is out of its range, or the time limit is below what the farther end takes.
    """

    lane_arrays = ("time", "ticks", "good_side")

    def __init__(
        self,
        num_envs: int = 1,
        step_size: float = 0.2,
        num_show_steps: int = 2,
        freeze: bool = True,
        glob: bool = False,
        max_episode_steps: int = 32,
        seed: int | None = None,
    ) -> None:
        require_at_least("num_show_steps", num_show_steps, 0)
        self.half = _steps_to_one(step_size)
        reach = max(2, int(START_REACH * self.half + 1e-9))
        self.reach = self.half - 1 if glob else reach
        frozen = num_show_steps if freeze else 0
        require_at_least("max_episode_steps", max_episode_steps, frozen + self.half + min(self.reach, self.half - 1))
        super().__init__(num_envs, spaces.Box(-1.0, 1.0, (3,), np.float32), spaces.Discrete(2), seed)
        self.step_size, self.num_show_steps, self.frozen_steps = step_size, num_show_steps, frozen
        self.max_episode_steps = max_episode_steps
        self.end_reward = 1 + TIME_PENALTY * (self.half + 1)

        self.time = np.zeros(num_envs, np.int64)
        self.ticks = np.zeros(num_envs, np.int64)
        self.good_side = np.zeros(num_envs, np.int64)
        self.reset(np.ones(num_envs, np.bool_))

    @property
    def optimal_return(self) -> float:
        """The best mean return, undiscounted: 1.2.

        The way to the good end costs 0.1 for each step but the last. Starts are symmetric, so that it takes
        ``1 / step_size`` steps in the mean, of which the reward at the end pays all, and two more.
        """
        return self.end_reward - TIME_PENALTY * (self.half - 1)

    def reset(self, lanes: Bool[np.ndarray, " N"]) -> None:
        """Draw a start and the good end."""
        count = int(lanes.sum())
        # As published: drawn within the reach, then kept off the ends, which makes the outermost starts likelier
        # where the reach is wider than the line.
        drawn = self.rng.integers(-self.reach, self.reach + 1, size=count)
        self.ticks[lanes] = drawn.clip(1 - self.half, self.half - 1)
        self.good_side[lanes] = 2 * self.rng.integers(2, size=count) - 1
        self.time[lanes] = 0

    def step(self, actions: Integer[np.ndarray, " N"]) -> TaskStep:
        """Move every agent that is not frozen."""
        self.time += 1
        free = self.time > self.frozen_steps
        self.ticks += np.where(free, 2 * actions.astype(np.int64) - 1, 0)

        ended = np.abs(self.ticks) == self.half
        success = self.ticks == self.good_side * self.half
        rewards = np.where(ended, np.where(success, self.end_reward, -self.end_reward), -TIME_PENALTY * free)
        return TaskStep(rewards.astype(np.float32), ended, ~ended & (self.time >= self.max_episode_steps), success)

    def observe(self) -> Float32[np.ndarray, "N 3"]:
        """Left end, position, right end."""
        shown = np.where(self.time <= self.num_show_steps, self.good_side, 0)
        return np.stack([-shown, self.ticks / self.half, shown], axis=1).astype(np.float32)


def _steps_to_one(step_size: float) -> int:
    """How many steps lead from the middle to an end."""
    if not 0 < step_size <= 1:
        raise ValueError(f"step_size is {step_size!r}; it must be above 0 and at most 1")
    steps = round(1 / step_size)
    if abs(steps * step_size - 1) > 1e-6:
        raise ValueError(f"step_size is {step_size!r}; whole steps must lead to the ends: the nearest is {1 / steps:.6g}")
    return steps
