"""The steps of all lanes in rings: what the replays of single transitions and of sequences share.

Every step has a slot of its lane's ring; what was seen next is in the slot after it. Where a time limit cuts an episode, the
slot after its last step holds the final observation, and no step. What follows a terminal step has value 0, and is not kept.
"""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Bool, Int, Num

from saccade.agents.frames import Arrays, observation_store, predicted_bytes, stack_observations
from saccade.policies.policy import map_observations

GOES_ON, TERMINATED, TRUNCATED, FINAL = range(4)
"""What a slot holds: a step within an episode, its last one (two ways), or a final observation without a step."""


class StepRing:
    """Observations, actions, rewards and endings of the last ``slots`` steps in each of ``B = n_envs`` lanes.

    Arrays have ``slots * n_envs`` rows; row ``slot * n_envs + lane`` is a step's *index*. Positions are those of ``store``.
    Of the living observations ``n_finals`` are final ones, without a step.

    Args:
        observation_space: what is seen.
        action_space: what can be done.
        slots: steps in each lane.
        n_envs: ``B``.
        frames: frames in a stacked observation, 1 to store observations whole; ``None`` to tell by the space.

    Raises:
        ValueError: a space has no fixed shape, or does not suit ``frames``.
    """

    def __init__(
        self, observation_space: gym.Space[Any], action_space: gym.Space[Any], slots: int, n_envs: int, frames: int | None
    ) -> None:
        shape, dtype = _action_layout(action_space)
        self.store = observation_store(observation_space, slots, n_envs, frames)
        self.slots = slots
        self.n_envs = n_envs
        self.actions = np.zeros((slots * n_envs, *shape), dtype=dtype)
        self.rewards = np.zeros(slots * n_envs, dtype=np.float32)
        self.ends = np.zeros(slots * n_envs, dtype=np.uint8)
        self.lanes = np.arange(n_envs)
        self.n_finals = 0

    @staticmethod
    def predicted_bytes(
        observation_space: gym.Space[Any], action_space: gym.Space[Any], slots: int, n_envs: int, frames: int | None
    ) -> int:
        """Bytes of such a ring before it is made."""
        shape, dtype = _action_layout(action_space)
        step = int(np.prod(shape)) * dtype.itemsize + 4 + 1
        return slots * n_envs * step + predicted_bytes(observation_space, slots, n_envs, frames)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.store.nbytes + self.actions.nbytes + self.rewards.nbytes + self.ends.nbytes

    def append(
        self,
        observations: Arrays,
        actions: Num[np.ndarray, "B ..."],
        rewards: Num[np.ndarray, " B"],
        dones: Bool[np.ndarray, " B"],
        truncated: Bool[np.ndarray, " B"],
        finals: dict[int, Any],
    ) -> tuple[Int[np.ndarray, " B"], Int[np.ndarray, " gone"]]:
        """Store a step of every lane.

        Args:
            observations: ``[B, ...]``, what was acted on.
            actions: what was done.
            rewards: what came of it.
            dones: where the episode ended with this step.
            truncated: where that was by a limit, so that the final observation still has a value.
            finals: that observation, by lane.

        Returns:
            the positions of the steps, and the indices whose observations are gone for them (of steps or of final ones).

        Raises:
            ValueError: an episode is truncated and not done, or its final observation is missing, or a shape is wrong.
        """
        if (truncated & ~dones).any():
            raise ValueError(f"lanes {np.flatnonzero(truncated & ~dones).tolist()} are truncated but not done")
        cut = np.flatnonzero(truncated)
        missing = [lane for lane in cut.tolist() if lane not in finals]
        if missing:
            raise ValueError(f"finals lacks the final observations of the truncated lanes {missing}; it has {sorted(finals)}")
        if actions.shape != (self.n_envs, *self.actions.shape[1:]):
            raise ValueError(f"expected actions of shape {[self.n_envs, *self.actions.shape[1:]]}; got {list(actions.shape)}")
        positions = self.store.head.copy()
        gone = self._store(self.lanes, observations)
        rows = self.store.flat(positions, self.lanes)
        self.actions[rows] = actions
        self.rewards[rows] = rewards
        self.ends[rows] = np.where(truncated, TRUNCATED, np.where(dones, TERMINATED, GOES_ON))
        if len(cut):
            at = self.store.flat(self.store.head[cut], cut)
            gone = np.concatenate([gone, self._store(cut, stack_observations([finals[lane] for lane in cut.tolist()]))])
            self.ends[at] = FINAL
            self.n_finals += len(cut)
        return positions, gone

    def break_off(self) -> Int[np.ndarray, " N"]:
        """Let the episodes under way end here, as when the environments are reset between two calls of ``learn``.

        What the last step of each led to is not known. It is given up, and its observation is the final one of the step before.

        Returns:
            the lanes in which there was such a step.
        """
        last = self.store.flat(self.store.head - 1, self.lanes)
        open_ = np.flatnonzero((self.store.head > 0) & (self.ends[last] == GOES_ON))
        self.ends[last[open_]] = FINAL
        self.n_finals += len(open_)
        before = self.store.flat(self.store.head[open_] - 2, open_)
        before = before[(self.store.head[open_] - 2 >= self.store.tail[open_]) & (self.ends[before] == GOES_ON)]
        self.ends[before] = TRUNCATED
        return open_

    def indices(
        self, start: Int[np.ndarray, " N"], stop: Int[np.ndarray, " N"], lanes: Int[np.ndarray, " N"]
    ) -> Int[np.ndarray, " total"]:
        """The indices of the positions from ``start`` up to ``stop`` of each lane, one lane after another."""
        counts = np.maximum(stop - start, 0)
        ends = counts.cumsum()
        positions = np.arange(ends[-1] if len(ends) else 0) + (start - ends + counts).repeat(counts)
        return self.store.flat(positions, lanes.repeat(counts))

    def locate(self, indices: Int[np.ndarray, " N"]) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
        """Positions and lanes of living steps."""
        slots, lanes = np.divmod(indices, self.n_envs)
        newest = self.store.head[lanes] - 1
        return newest - (newest - slots) % self.slots, lanes

    def _store(self, lanes: np.ndarray, observations: Arrays) -> np.ndarray:
        """One more observation for some lanes; the indices of those that die for it."""
        before = self.store.tail[lanes]
        self.store.append(lanes, observations)
        gone = self.indices(before, self.store.tail[lanes], lanes)
        self.n_finals -= int(np.count_nonzero(self.ends[gone] == FINAL))
        return gone


def to_tensors(observations: Arrays, device: torch.device | str) -> Any:
    """Arrays of this process's own as tensors on a device; on the CPU they share memory."""
    return map_observations(lambda part: torch.from_numpy(part).to(device), observations)


def lane_slots(buffer_size: int, n_envs: int, needed: int) -> int:
    """Slots in each lane of a buffer.

    Raises:
        ValueError: there are fewer than needed.
    """
    if buffer_size // n_envs < needed:
        raise ValueError(
            f"buffer_size={buffer_size} gives each of {n_envs} environments {buffer_size // n_envs} steps; they need "
            f"{needed}: buffer_size must be at least {needed * n_envs}"
        )
    return buffer_size // n_envs


def _action_layout(space: gym.Space[Any]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    if space.shape is None or space.dtype is None:
        raise ValueError(f"{space} has no fixed shape; use Discrete, Box, MultiDiscrete or MultiBinary actions")
    return space.shape, np.dtype(space.dtype)
