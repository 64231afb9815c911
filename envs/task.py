"""A task as an array program: one call advances every lane (environment) at once.

Shapes: ``N`` lanes, ``H W`` the height and width of a picture.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import numpy as np
from gymnasium import spaces
from jaxtyping import Bool, Float32, Integer, Shaped, UInt8

PICTURE_SIDE = 96
"""Pictures are enlarged by the whole factor that brings their longer side closest to this many pixels from above."""


class TaskStep(NamedTuple):
    """What a step brings, per lane.

    Attributes:
        rewards: the rewards.
        terminated: the episode has ended within the task.
        truncated: the episode was cut off from outside, by a time limit say.
        success: whether the episode reached its aim, read only where it has ended; ``None`` where a task has no aim.
    """

    rewards: Float32[np.ndarray, " N"]
    terminated: Bool[np.ndarray, " N"]
    truncated: Bool[np.ndarray, " N"]
    success: Bool[np.ndarray, " N"] | None = None


class BatchedTask(ABC):
    """A task in ``num_envs`` lanes, without Python work per lane.

    A subclass keeps its state in arrays whose first axis is the lane, names them in :attr:`lane_arrays`, and draws
    every random number from :attr:`rng`. It does not start new episodes by itself: whoever steps it calls
    :meth:`reset`. Every subclass takes ``num_envs`` and ``seed`` by these names; its other arguments are what users
    configure. The first line of its docstring is what lists of environments show.

    Args:
        num_envs: ``N``, the number of lanes.
        observation_space: the space of one lane's observation.
        action_space: the space of one lane's action.
        seed: seed of all lanes together; ``None`` draws one from the operating system.

    Raises:
        ValueError: ``num_envs`` is below 1.
    """

    lane_arrays: ClassVar[tuple[str, ...]]
    """The names of the attributes that are the task's state: arrays ``[N, ...]``."""

    def __init__(
        self, num_envs: int, observation_space: spaces.Box, action_space: spaces.Discrete, seed: int | None = None
    ) -> None:
        require_at_least("num_envs", num_envs, 1)
        self.num_envs = num_envs
        self.observation_space = observation_space
        self.action_space = action_space
        self.rng = np.random.default_rng(seed)

    def seed(self, seed: int | None) -> None:
        """Draw everything from here on from a new generator; running episodes go on from where they are."""
        self.rng = np.random.default_rng(seed)

    @abstractmethod
    def reset(self, lanes: Bool[np.ndarray, " N"]) -> None:
        """Start a new episode in the lanes that are true; the others are left alone."""

    @abstractmethod
    def step(self, actions: Integer[np.ndarray, " N"]) -> TaskStep:
        """Advance every lane by one step. A lane whose episode has ended must be reset before the next step."""

    @abstractmethod
    def observe(self) -> Shaped[np.ndarray, "N ..."]:
        """What every lane shows now, in a new array."""

    def check_actions(self, actions: object) -> Integer[np.ndarray, " N"]:
        """The actions as an array.

        Raises:
            ValueError: not one whole number a lane, or one outside the action space; names the lane.
        """
        array = np.asarray(actions)
        if array.shape != (self.num_envs,) or array.dtype.kind not in "iu":
            raise ValueError(
                f"actions must be {self.num_envs} whole numbers, one for each lane, "
                f"not an array of shape {array.shape} and type {array.dtype}"
            )
        wrong = (array < self.action_space.start) | (array >= self.action_space.start + self.action_space.n)
        if wrong.any():
            lane = int(wrong.argmax())
            first, last = self.action_space.start, self.action_space.start + self.action_space.n - 1
            raise ValueError(f"lane {lane}: action {array[lane]} is not one of {first} to {last}")
        return array

    def render(self) -> UInt8[np.ndarray, "N H W 3"]:
        """A picture of every lane: its observation, enlarged; a vector is drawn as a row of grey cells."""
        space, frames = self.observation_space, self.observe()
        image = frames.ndim == 4
        frames = frames.transpose(0, 2, 3, 1) if image else frames.reshape(self.num_envs, 1, -1, 1)
        if frames.dtype != np.uint8:
            low, high = float(space.low.min()), float(space.high.max())
            frames = ((frames - low) / (high - low) * 255).round().astype(np.uint8)
        factor = -(-PICTURE_SIDE // max(frames.shape[1:3]))
        frames = frames.repeat(factor, axis=1).repeat(factor, axis=2)
        return np.ascontiguousarray(np.broadcast_to(frames, (*frames.shape[:3], 3)))

    def get_state(self) -> dict[str, Any]:
        """Everything needed to go on exactly from here: copies of the arrays, the generator's state as plain data."""
        arrays = {name: getattr(self, name).copy() for name in self.lane_arrays}
        return {"rng": self.rng.bit_generator.state, "arrays": arrays}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a state that :meth:`get_state` returned.

        Raises:
            ValueError: the state is of another task, or of another number of lanes or size.
        """
        arrays = state["arrays"]
        for name in self.lane_arrays:
            now = getattr(self, name)
            if name not in arrays or arrays[name].shape != now.shape:
                raise ValueError(f"this state does not fit {type(self).__name__}: it needs {name} of shape {now.shape}")
        for name in self.lane_arrays:
            getattr(self, name)[...] = arrays[name]
        self.rng.bit_generator.state = state["rng"]


def require_at_least(name: str, value: object, least: int) -> None:
    """Refuse anything but a whole number from ``least`` up with a ``ValueError`` that names the parameter."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} is {value!r}; it must be a whole number, {least} or more")
