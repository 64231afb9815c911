"""Episodes with an external memory, made by hand, and where a panel lies in a picture of them."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from saccade.policies import TapKind
from saccade.saliency.episode import Episode, TapRecord
from saccade.saliency.panel import UNSIGNED

STEPS, SLOTS, WIDTH = 7, 5, 3
STEP, SLOT, NUMBER, ROW = 24, 12, 12, 13  # pixels that each takes when there are so few
NONE, ALL = UNSIGNED[0], UNSIGNED[-1]
DIAGONAL = np.eye(STEPS, SLOTS, dtype=np.float32)


def record(kind: TapKind, values: Any, **notes: Any) -> TapRecord:
    return TapRecord(kind, np.asarray(values, dtype=np.float32), notes)


def make_episode(taps: dict[str, TapRecord], **changes: Any) -> Episode:
    """Seven steps of zeros, seen and done."""
    parts: dict[str, Any] = {
        "observations": np.zeros((STEPS, 2), np.float32),
        "actions": np.zeros(STEPS, np.int64),
        "rewards": np.zeros(STEPS, np.float32),
        "outputs": {"value": np.zeros((STEPS, 1)), "policy": np.zeros((STEPS, 3))},
        "masks": None,
        "episode_starts": np.arange(STEPS) == 0,
        "decisions": None,
        "taps": taps,
        "frames": None,
        "frames_are_observations": False,
        "finished": True,
    }
    return Episode(**{**parts, **changes})


def places(picture: np.ndarray, plot: np.ndarray) -> Iterator[tuple[int, int]]:
    """Every row and column of the picture at which the plot lies in it, pixel by pixel."""
    whole, part = (pixels.astype(np.int32) @ np.array([65536, 256, 1], np.int32) for pixels in (picture, plot))
    height, width = part.shape
    rows, columns = len(whole) - height + 1, whole.shape[1] - width + 1
    there = np.ones((rows, columns), np.bool_)
    for y in np.linspace(0, height - 1, 5).astype(int):
        for x in np.linspace(0, width - 1, 5).astype(int):
            there &= whole[y : y + rows, x : x + columns] == part[y, x]
    for y, x in np.argwhere(there).tolist():
        if (whole[y : y + height, x : x + width] == part).all():
            yield y, x
