"""Episodes with an external memory, made by hand, and where a panel lies in a picture of them."""

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


def places(picture: np.ndarray, plot: np.ndarray) -> list[tuple[int, int]]:
    """Every row and column of the picture at which the plot lies in it, pixel by pixel."""
    height, width = plot.shape[:2]
    rows, columns = picture.shape[0] - height + 1, picture.shape[1] - width + 1
    there = np.ones((rows, columns), np.bool_)
    for y in np.linspace(0, height - 1, 9).astype(int):
        for x in np.linspace(0, width - 1, 9).astype(int):
            there &= (picture[y : y + rows, x : x + columns] == plot[y, x]).all(axis=-1)
    return [(y, x) for y, x in np.argwhere(there).tolist() if (picture[y : y + height, x : x + width] == plot).all()]
