"""Observations of many steps, a ring for each lane: stored as they are, or, for stacks of frames, each frame once.

A *position* counts a lane's observations from its first one; ``position % slots`` is its place in the ring. A lane's living
observations are the positions from ``tail`` up to, and not including, ``head``.
"""

import warnings
from abc import ABC, abstractmethod
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
from jaxtyping import Bool, Int, UInt8

from saccade.policies.policy import leaves, map_observations

Arrays: TypeAlias = np.ndarray | dict[str, np.ndarray]
"""Observations as arrays, or a dictionary of them."""


class ObservationStore(ABC):
    """A ring of ``slots`` observations in each of ``n_envs`` lanes, which need not go at one pace.

    Attributes:
        head: ``[B]``, the position that the lane's next observation will have.
        tail: ``[B]``, the position of its oldest living observation.
    """

    def __init__(self, slots: int, n_envs: int) -> None:
        self.slots = slots
        self.n_envs = n_envs
        self.head = np.zeros(n_envs, dtype=np.int64)
        self.tail = np.zeros(n_envs, dtype=np.int64)

    def append(self, lanes: Int[np.ndarray, " N"], observations: Arrays) -> None:
        """Store one more observation ``[N, ...]`` in each of some distinct lanes.

        Raises:
            ValueError: the observations do not have the space's shape.
        """
        self._write(lanes, self.head[lanes], observations)
        self.head[lanes] += 1
        self.tail[lanes] = np.maximum(self.tail[lanes], self.head[lanes] - self.slots)
        self._evict(lanes)

    def flat(self, positions: Int[np.ndarray, "*#batch"], lanes: Int[np.ndarray, "*#batch"]) -> Int[np.ndarray, "..."]:
        """Places of observations in arrays of ``slots * n_envs`` rows."""
        return positions % self.slots * self.n_envs + lanes

    @abstractmethod
    def read(self, positions: Int[np.ndarray, "*#batch"], lanes: Int[np.ndarray, "*#batch"]) -> Arrays:
        """Living observations, ``[*batch, ...]``: a copy."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of the observations and of what is needed to find them."""

    @abstractmethod
    def _write(self, lanes: np.ndarray, positions: np.ndarray, observations: Arrays) -> None:
        """Store observations at positions."""

    @abstractmethod
    def _evict(self, lanes: np.ndarray) -> None:
        """Move tails on past observations that have their slot and yet are lost."""


class PlainStore(ObservationStore):
    """Observations of any space of fixed shape, whole, in the space's own dtype.

    Raises:
        ValueError: the space has no fixed shape.
    """

    def __init__(self, space: gym.Space[Any], slots: int, n_envs: int) -> None:
        super().__init__(slots, n_envs)
        rows = slots * n_envs
        self.arrays: Arrays = map_observations(lambda part: np.zeros((rows, *part.shape), part.dtype), _spaces(space))

    @classmethod
    def predicted_bytes(cls, space: gym.Space[Any], slots: int, n_envs: int) -> int:
        """Bytes of such a store before it is made."""
        one = map_observations(lambda part: int(np.prod(part.shape)) * np.dtype(part.dtype).itemsize, _spaces(space))
        return slots * n_envs * sum(leaves(one))

    @property
    def nbytes(self) -> int:
        """Bytes of the observations."""
        return sum(array.nbytes for array in leaves(self.arrays))

    def read(self, positions: Int[np.ndarray, "*#batch"], lanes: Int[np.ndarray, "*#batch"]) -> Arrays:
        """Living observations, ``[*batch, ...]``: a copy."""
        rows = self.flat(positions, lanes)
        read: Arrays = map_observations(lambda array: array[rows], self.arrays)
        return read

    def _write(self, lanes: np.ndarray, positions: np.ndarray, observations: Arrays) -> None:
        rows = self.flat(positions, lanes)
        for array, values in zip(leaves(self.arrays), leaves(observations), strict=True):
            _check_shape(values, (len(lanes), *array.shape[1:]))
            array[rows] = values

    def _evict(self, lanes: np.ndarray) -> None:
        """None is lost before its slot is needed."""


class FrameStore(ObservationStore):
    """Stacks of ``k`` frames ``[k * c, H, W]``, oldest first, as SB3's ``VecFrameStack`` and ale-py's vector environment give.

    A stack that is the lane's last one moved on by a frame adds that frame; any other, at an episode's start or wherever else,
    adds all its ``k``. So a stack is always ``k`` consecutive frames of its lane and comes back exactly. The frames have a ring
    of their own, a twelfth longer than the stacks': enough for episodes of ``12 (k - 1)`` steps. With shorter ones the oldest
    stacks lose their frames, and die, before their slots are needed.

    Args:
        space: bytes of shape ``[k * c, H, W]``.
        slots: stacks in each lane.
        n_envs: lanes.
        frames: ``k``.

    Raises:
        ValueError: the space is not one of such stacks.
    """

    def __init__(self, space: gym.Space[Any], slots: int, n_envs: int, frames: int) -> None:
        super().__init__(slots, n_envs)
        if not is_byte_image(space) or space.shape is None or frames < 2 or space.shape[0] % frames:
            raise ValueError(f"a stack of {frames} frames has bytes of shape [{frames} * channels, H, W]; got {space}")
        self.shape = space.shape
        self.stack = frames
        self.ring = ring_frames(slots, frames)
        self.frames = np.zeros((n_envs * self.ring, int(np.prod(self.shape)) // frames), dtype=np.uint8)
        # Frames count as positions do. Each lane begins as though black frames had gone before.
        self.written = np.full(n_envs, frames - 1, dtype=np.int64)
        self.newest = np.zeros(slots * n_envs, dtype=np.int64)
        self._offsets = np.arange(1 - frames, 1)
        self._warned = False

    @classmethod
    def predicted_bytes(cls, space: gym.Space[Any], slots: int, n_envs: int, frames: int) -> int:
        """Bytes of such a store before it is made."""
        frame = int(np.prod(space.shape or ())) // frames
        return n_envs * (ring_frames(slots, frames) * frame + slots * 8)

    @property
    def nbytes(self) -> int:
        """Bytes of the frames and of the numbers that find them."""
        return self.frames.nbytes + self.newest.nbytes

    def read(self, positions: Int[np.ndarray, "*#batch"], lanes: Int[np.ndarray, "*#batch"]) -> UInt8[np.ndarray, "... C H W"]:
        """Living stacks, ``[*batch, k * c, H, W]``: a copy."""
        newest = self.newest[self.flat(positions, lanes)]
        rows = self._rows(newest[..., None] + self._offsets, lanes[..., None])
        return self.frames.take(rows.ravel(), axis=0).reshape(*rows.shape[:-1], *self.shape)

    def _rows(self, numbers: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        """Where frames stand; a lane's are neighbours, as its stacks are read together."""
        return lanes * self.ring + numbers % self.ring

    def _write(self, lanes: np.ndarray, positions: np.ndarray, observations: Arrays) -> None:
        if isinstance(observations, dict):
            raise ValueError(f"expected stacks {list(self.shape)}; got a dictionary of {sorted(observations)}")
        _check_shape(observations, (len(lanes), *self.shape))
        stacks = observations.reshape(len(lanes), self.stack, -1)
        moved_on = self._moved_on(lanes, stacks)
        self.written[lanes] += np.where(moved_on, 1, self.stack)
        newest = self.written[lanes] - 1
        if moved_on.all():
            self.frames[self._rows(newest, lanes)] = stacks[:, -1]
        else:
            self.frames[self._rows(newest, lanes)[moved_on]] = stacks[moved_on, -1]
            rows = self._rows(newest[:, None] + self._offsets, lanes[:, None])
            self.frames[rows[~moved_on]] = stacks[~moved_on]
        self.newest[self.flat(positions, lanes)] = newest

    def _moved_on(self, lanes: np.ndarray, stacks: np.ndarray) -> Bool[np.ndarray, " N"]:
        """Where the older frames of a stack are the last frames written to its lane."""
        same = np.empty(len(lanes), dtype=np.bool_)
        rows = self._rows(self.written[lanes, None] + self._offsets[:-1], lanes[:, None])
        # A slice is no copy; most stacks are in one piece.
        whole = (rows[:, -1] - rows[:, 0] == self.stack - 2).tolist()
        for i, (first, in_one_piece) in enumerate(zip(rows[:, 0].tolist(), whole, strict=True)):
            before = self.frames[first : first + self.stack - 1] if in_one_piece else self.frames[rows[i]]
            same[i] = np.array_equal(before, stacks[i, :-1])
        return same

    def _evict(self, lanes: np.ndarray) -> None:
        while True:
            oldest = self.newest[self.flat(self.tail[lanes], lanes)] + 1 - self.stack
            dead = oldest < self.written[lanes] - self.ring
            if not dead.any():
                return
            self.tail[lanes[dead]] += 1
            if not self._warned and (self.head - self.tail)[lanes[dead]].min() < self.slots // 2:
                self._warned = True
                warnings.warn(
                    f"observations {list(self.shape)} seldom are the last ones moved on by one of {self.stack} frames, so "
                    "fewer than half of them fit; frames=1 stores them whole",
                    stacklevel=2,
                )


def ring_frames(slots: int, frames: int) -> int:
    """Frames kept in a lane of ``slots`` stacks."""
    return slots + slots // 12 + 2 * frames


def is_byte_image(space: gym.Space[Any]) -> bool:
    """Whether observations are bytes of shape ``[channels, H, W]``."""
    return isinstance(space, gym.spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3


def stacked_frames(space: gym.Space[Any], frames: int | None = None) -> int:
    """How many frames an observation stacks; 1: it is to be stored whole.

    Args:
        space: the observation space.
        frames: the answer, where it is known. ``None`` takes bytes ``[k, H, W]``, if ``H`` and ``W`` are at least 36, for ``k``
            frames, or for ``k / 3`` where 3 divides ``k``: those have colours.

    Raises:
        ValueError: the number of frames does not suit the space.
    """
    if frames is None:
        if not is_byte_image(space) or space.shape is None:
            return 1
        k, height, width = space.shape
        return (k // 3 if k % 3 == 0 else k) if min(height, width) >= 36 else 1
    if frames < 1 or (frames > 1 and (not is_byte_image(space) or space.shape is None or space.shape[0] % frames)):
        raise ValueError(f"frames={frames} needs bytes of shape [{frames} * channels, H, W]; got {space}; frames=1 suits any")
    return frames


def observation_store(space: gym.Space[Any], slots: int, n_envs: int, frames: int | None = None) -> ObservationStore:
    """The store that suits a space; ``frames`` as in :func:`stacked_frames`."""
    k = stacked_frames(space, frames)
    return PlainStore(space, slots, n_envs) if k == 1 else FrameStore(space, slots, n_envs, k)


def predicted_bytes(space: gym.Space[Any], slots: int, n_envs: int, frames: int | None = None) -> int:
    """Bytes of :func:`observation_store` before it is made."""
    k = stacked_frames(space, frames)
    if k == 1:
        return PlainStore.predicted_bytes(space, slots, n_envs)
    return FrameStore.predicted_bytes(space, slots, n_envs, k)


def _spaces(space: gym.Space[Any]) -> Any:
    """A space, or a dictionary of them, each of fixed shape."""
    parts = dict(space.spaces) if isinstance(space, gym.spaces.Dict) else space
    for part in leaves(parts):
        if part.shape is None or part.dtype is None:
            raise ValueError(f"{part} has no fixed shape; flatten it, or use Box, Discrete, MultiDiscrete, MultiBinary or Dict")
    return parts


def _check_shape(values: np.ndarray, expected: tuple[int, ...]) -> None:
    if values.shape != expected:
        raise ValueError(f"expected observations of shape {list(expected)}; got {list(values.shape)}")


def stack_observations(observations: list[Any]) -> Arrays:
    """Single observations as a batch ``[n, ...]``, or a dictionary of them."""
    if isinstance(observations[0], dict):
        return {key: np.stack([one[key] for one in observations]) for key in observations[0]}
    return np.stack(observations)
