"""A task as an array program: one call advances every lane (environment) at once.

Shapes: ``N`` lanes, ``H W`` the height and width of a picture.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
from gymnasium import spaces
from jaxtyping import Bool, Float32, Integer, Shaped, UInt8

ActionSpace = spaces.Discrete | spaces.MultiBinary | spaces.MultiDiscrete
"""What an action may be: one whole number, a vector of bits, or a vector of whole numbers."""

PICTURE_SIDE = 96
"""Pictures are enlarged by the whole factor that brings their longer side closest to this many pixels from above."""

CELL_HEIGHT = 32
"""Pixels: the numbers of a vector are drawn as cells of at least this height."""


class TaskStep(NamedTuple):
    """What a step brings, per lane.

    Attributes:
        rewards: the rewards.
        terminated: the episode has ended within the task.
        truncated: the episode was cut off from outside, by a time limit say.
        success: whether the episode reached its aim, read only where it has ended; ``None`` where a task has no aim.
        measures: further figures of an episode by name, read only where it has ended; ``None`` where a task has none.
    """

    rewards: Float32[np.ndarray, " N"]
    terminated: Bool[np.ndarray, " N"]
    truncated: Bool[np.ndarray, " N"]
    success: Bool[np.ndarray, " N"] | None = None
    measures: Mapping[str, Float32[np.ndarray, " N"]] | None = None


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
        self, num_envs: int, observation_space: spaces.Box, action_space: ActionSpace, seed: int | None = None
    ) -> None:
        require_at_least("num_envs", num_envs, 1)
        self.num_envs = num_envs
        self.observation_space = observation_space
        self.action_space: Any = action_space  # a subclass knows which kind it has
        self.rng = np.random.default_rng(seed)
        self._action_bounds = action_bounds(action_space)

    def seed(self, seed: int | None) -> None:
        """Draw everything from here on from a new generator; running episodes go on from where they are."""
        self.rng = np.random.default_rng(seed)

    @abstractmethod
    def reset(self, lanes: Bool[np.ndarray, " N"]) -> None:
        """Start a new episode in the lanes that are true; the others are left alone."""

    @abstractmethod
    def step(self, actions: Integer[np.ndarray, "N ..."]) -> TaskStep:
        """Advance every lane by one step. A lane whose episode has ended must be reset before the next step."""

    @abstractmethod
    def observe(self) -> Shaped[np.ndarray, "N ..."]:
        """What every lane shows now, in a new array."""

    def check_actions(self, actions: object) -> Integer[np.ndarray, "N ..."]:
        """The actions as an array: ``[N]``, or ``[N, K]`` where an action is a vector of ``K`` bits or whole numbers.

        Raises:
            ValueError: not one action a lane, or one outside the action space; names the lane.
        """
        array, shape = np.asarray(actions), self.action_space.shape
        if array.shape != (self.num_envs, *shape) or array.dtype.kind not in "iu":
            each = f"rows of {shape[0]} whole numbers, one row" if shape else "whole numbers, one"
            raise ValueError(
                f"actions must be {self.num_envs} {each} for each lane, "
                f"not an array of shape {array.shape} and type {array.dtype}"
            )
        first, last = self._action_bounds
        wrong = (array < first) | (array > last)
        if wrong.any():
            lane, *part = (int(index) for index in np.argwhere(wrong)[0])
            which = f"number {part[0]} of the action, " if part else "action "
            least, most = first[tuple(part)], last[tuple(part)]
            raise ValueError(f"lane {lane}: {which}{array[(lane, *part)]} is not one of {least} to {most}")
        return array

    def render(self) -> UInt8[np.ndarray, "N H W 3"]:
        """A picture of every lane: its observation, enlarged; a vector is drawn as a row of grey cells."""
        space, frames = self.observation_space, self.observe()
        if frames.dtype != np.uint8:
            frames = ((frames - space.low) / (space.high - space.low) * 255).round().astype(np.uint8)
        image = frames.ndim == 4
        frames = frames.transpose(0, 2, 3, 1) if image else frames.reshape(self.num_envs, 1, -1, 1)
        factor = -(-PICTURE_SIDE // max(frames.shape[1:3]))
        frames = frames.repeat(factor if image else max(factor, CELL_HEIGHT), axis=1).repeat(factor, axis=2)
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


def action_bounds(space: ActionSpace) -> tuple[Integer[np.ndarray, "..."], Integer[np.ndarray, "..."]]:
    """The smallest and the largest whole number of every part of an action, both included; of the action's shape."""
    if isinstance(space, spaces.MultiBinary):
        return np.zeros(space.shape, np.int64), np.ones(space.shape, np.int64)
    count = space.n if isinstance(space, spaces.Discrete) else space.nvec
    return np.asarray(space.start), np.asarray(space.start + count - 1)


def require_at_least(name: str, value: object, least: int) -> None:
    """Refuse anything but a whole number from ``least`` up with a ``ValueError`` that names the parameter."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} is {value!r}; it must be a whole number, {least} or more")
