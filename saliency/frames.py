"""From what an agent sees to pictures of one size: whole pixels enlarged, never smoothed."""

from typing import Any

import gymnasium as gym
import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

SIDE = 192
"""About how many pixels the longer side of a drawn frame has."""


def shows_image(space: gym.Space[Any]) -> bool:
    """Whether observations of this space are images ``[C, H, W]``: like SB3, by the first axis being the shortest."""
    if not isinstance(space, gym.spaces.Box) or len(space.shape) != 3:
        return False
    channels, height, width = space.shape
    return channels <= min(height, width) and min(height, width) >= 3


def observation_frames(observations: Any, space: gym.Space[Any]) -> UInt8[np.ndarray, "T H W 3"] | None:
    """Frames of image observations ``[T, C, H, W]``; ``None`` for other observations.

    Three channels, or a multiple of three, are colours, any other number is grey; of a stack of frames the latest is
    shown. Black and white are the bounds of the space; where the episode uses less than a quarter of them, or they are
    infinite, the episode's own lowest and highest number.
    """
    if not shows_image(space):
        return None
    assert isinstance(space, gym.spaces.Box)
    latest = 3 if space.shape[0] % 3 == 0 else 1
    pixels = observations[:, -latest:].astype(np.float32).transpose(0, 2, 3, 1)
    low, high = float(space.low.min()), float(space.high.max())
    darkest, brightest = float(pixels.min()), float(pixels.max())
    if not np.isfinite([low, high]).all() or 0 < brightest - darkest < (high - low) / 4:
        low, high = darkest, brightest
    scaled = (pixels - low) / max(high - low, np.finfo(np.float32).tiny)
    grey = (scaled * 255).round().astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(grey, (*grey.shape[:3], 3)))


def zoom(height: int, width: int) -> float:
    """The factor by which a frame is drawn: a whole one up, or one over a whole one down, to about :data:`SIDE`."""
    factor = SIDE / max(height, width)
    return float(max(round(factor), 1)) if factor > 2 / 3 else 1 / max(round(1 / factor), 1)


def enlarge(frames: Shaped[np.ndarray, "T H W *channels"]) -> Shaped[np.ndarray, "T H2 W2 *channels"]:
    """Every pixel as a square of :func:`zoom` pixels; frames that are too large are averaged down instead."""
    factor = zoom(*frames.shape[1:3])
    if factor >= 1:
        return frames.repeat(int(factor), axis=1).repeat(int(factor), axis=2)
    return np.stack([np.asarray(Image.fromarray(frame).reduce(round(1 / factor))) for frame in frames])
