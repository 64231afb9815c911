"""Wrappers of single environments: less to see, or the same in a form that networks can read."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from jaxtyping import Float, Float32, UInt8


class HideVelocity(gym.ObservationWrapper[Float[np.ndarray, " D"], Any, Float[np.ndarray, " K"]]):
    """Keeps some entries of a vector observation: positions without velocities, so that the past has to be remembered.

    Args:
        env: an environment whose observations are vectors.
        keep: indices of the entries to keep, in this order. CartPole: position and angle are ``[0, 2]``; Pendulum:
            cosine and sine are ``[0, 1]``; MountainCar: position is ``[0]``; Acrobot: both joints are ``[0, 1, 2, 3]``.

    Raises:
        ValueError: the observations are no vectors, or ``keep`` is empty, repeats an entry or names one that is not there.
    """

    def __init__(self, env: gym.Env[Any, Any], keep: Sequence[int]) -> None:
        space = env.observation_space
        if not isinstance(space, spaces.Box) or len(space.shape) != 1:
            raise ValueError(f"HideVelocity needs vector observations, a Box [D]; got {space}")
        size = space.shape[0]
        if not keep or len(set(keep)) < len(keep) or not all(0 <= index < size for index in keep):
            raise ValueError(f"keep is {list(keep)}; it must name different entries of the observation, 0 to {size - 1}")
        super().__init__(env)
        self.keep = list(keep)
        self.observation_space = spaces.Box(space.low[self.keep], space.high[self.keep], dtype=np.dtype(space.dtype).type)

    def observation(self, observation: Float[np.ndarray, " D"]) -> Float[np.ndarray, " K"]:
        """The entries that are kept."""
        return observation[self.keep]


class GridView(gym.ObservationWrapper[Any, Any, Any]):
    """MiniGrid's view as 0/1 planes ``[C, H, W]``, ``H`` downwards: the kind of object, its colour and its state, in turn.

    The agent stands in the middle of the bottom row and looks up. The mission and the direction are left out, so that
    this is for tasks that have the same mission in every episode. SB3 does not take such planes for an image:
    the default torso reads them as a vector, ``ConvTorso`` and cores that look at images read them as they are.

    Args:
        env: a MiniGrid environment with its ordinary observations.

    Raises:
        ValueError: it is something else.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        space = env.observation_space
        view = space.spaces.get("image") if isinstance(space, spaces.Dict) else None
        if not isinstance(view, spaces.Box) or len(view.shape) != 3 or view.shape[2] != 3:
            raise ValueError(f"GridView needs MiniGrid's observations, a Dict with an image [width, height, 3]; got {space}")
        from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX  # an extra

        super().__init__(env)
        sizes = [len(names) for names in (OBJECT_TO_IDX, COLOR_TO_IDX, STATE_TO_IDX)]
        self._channel = np.repeat(np.arange(3), sizes)
        self._value = np.concatenate([np.arange(size) for size in sizes])[:, None, None]
        width, height, _ = view.shape
        self.observation_space = spaces.Box(0, 1, (sum(sizes), height, width), np.uint8)

    def observation(self, observation: dict[str, Any]) -> UInt8[np.ndarray, "C H W"]:
        """The planes."""
        codes = observation["image"].transpose(2, 1, 0)
        return (codes[self._channel] == self._value).astype(np.uint8)


class FlatObservation(gym.ObservationWrapper[Any, Any, Float32[np.ndarray, " D"]]):
    """Any observation as one vector: choices one-hot, numbers as they are, the parts of a tuple or dictionary in a row.

    This is what POPGym needs, whose tuples SB3 does not take.

    Args:
        env: one environment.
        previous_action: append the action that led here, flattened in the same way; zeros at the start of an episode.
            Without it some tasks cannot be solved (POPGym says which, as ``obs_requires_prev_action``).

    Raises:
        ValueError: the observations, or with ``previous_action`` the actions, have no fixed size.
    """

    def __init__(self, env: gym.Env[Any, Any], previous_action: bool = False) -> None:
        parts = [env.observation_space, *([env.action_space] if previous_action else [])]
        flat = [spaces.flatten_space(part) for part in parts]
        boxes = [box for box in flat if isinstance(box, spaces.Box)]
        if len(boxes) < len(flat):
            raise ValueError(f"FlatObservation needs spaces of a fixed size; got {', '.join(map(str, parts))}")
        super().__init__(env)
        low, high = (np.concatenate([getattr(box, end) for box in boxes]) for end in ("low", "high"))
        if previous_action:
            first = boxes[0].shape[0]  # zeros, at an episode's start, have to be within the bounds
            low[first:], high[first:] = np.minimum(low[first:], 0), np.maximum(high[first:], 0)
        self.observation_space = spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)
        self._previous = np.zeros(boxes[-1].shape[0] if previous_action else 0, np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32[np.ndarray, " D"], dict[str, Any]]:
        """Start an episode: no action has been taken yet."""
        self._previous = np.zeros_like(self._previous)
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Float32[np.ndarray, " D"], Any, bool, bool, dict[str, Any]]:
        """Take the action, and show it together with what it led to."""
        if self._previous.size:
            self._previous = np.asarray(spaces.flatten(self.env.action_space, action), np.float32)
        return super().step(action)

    def observation(self, observation: Any) -> Float32[np.ndarray, " D"]:
        """The vector."""
        flat = np.asarray(spaces.flatten(self.env.observation_space, observation), np.float32)
        return np.concatenate([flat, self._previous])


OURS = (HideVelocity, GridView, FlatObservation)
GYMNASIUMS = (
    gym.wrappers.ClipAction,
    gym.wrappers.ClipReward,
    gym.wrappers.DiscretizeAction,
    gym.wrappers.DiscretizeObservation,
    gym.wrappers.FilterObservation,
    gym.wrappers.FlattenObservation,
    gym.wrappers.GrayscaleObservation,
    gym.wrappers.MaxAndSkipObservation,
    gym.wrappers.RescaleAction,
    gym.wrappers.RescaleObservation,
    gym.wrappers.ResizeObservation,
    gym.wrappers.StickyAction,
    gym.wrappers.TimeAwareObservation,
    gym.wrappers.TimeLimit,
)
WRAPPERS: dict[str, type[gym.Wrapper[Any, Any, Any, Any]]] = {
    **{f"saccade.envs.{wrapper.__name__}": wrapper for wrapper in OURS},
    **{f"gymnasium.wrappers.{wrapper.__name__}": wrapper for wrapper in GYMNASIUMS},
}
"""Those that a config may name, by that name; of Gymnasium's, those that plain numbers set up and that write nothing."""
