"""Digits on a canvas, looked at one glimpse after another: the classification of Mnih et al. 2014, section 4.1.

"Recurrent Models of Visual Attention" (arXiv:1406.6247).
Shapes: ``N`` lanes, ``S`` canvas side, ``d`` digit side, ``K`` digits.
"""

from enum import StrEnum
from functools import lru_cache

import numpy as np
from gymnasium import spaces
from jaxtyping import Bool, Float32, Int64, Integer, UInt8

from saccade.envs.task import BatchedTask, TaskStep, require_at_least

TESTED = 5
"""One digit in so many is kept for testing."""


class Split(StrEnum):
    """Which digits are shown."""

    TRAIN = "train"
    TEST = "test"
    ALL = "all"


class Digits(BatchedTask):
    """Digits: name the handwritten digit on a canvas that is too large to see at once.

    The 1,797 digits are scikit-learn's, of 8x8 pixels, enlarged; a fifth of them, always the same, is kept for testing. The
    picture stands still for ``steps`` steps. Only the last action counts: 1 if it is the digit's class, else 0. Clutter is
    pieces of other digits at random places, as in the paper.

    An observation is the canvas, uint8 ``[1, S, S]``. The best return is 1 (:attr:`optimal_return`); a guess has 1/10.

    Not as in the paper: digits of MNIST, of 28x28 pixels.

    Attributes:
        labels: the class of each lane's digit.
        corners: row and column of the digit's upper left pixel.
        time: the present step, from 0 on.

    Args:
        num_envs: the number of lanes.
        canvas: ``S``, pixels; 60 in the paper's translated and cluttered tasks.
        digit_size: ``d``, pixels of the enlarged digit.
        clutter: pieces of other digits; 4 in the paper's cluttered task on 60 pixels.
        clutter_size: pixels of a piece, each way; 8 in the paper.
        translated: put the digit anywhere; else in the middle.
        steps: of an episode: as many looks.
        split: ``train``, ``test`` or ``all`` digits.
        seed: the seed of all lanes together.

    Raises:
        ValueError: a parameter is out of its range; names it, its value and what it may be.
        ImportError: scikit-learn is not installed; says how.
    """

    lane_arrays = ("canvases", "labels", "corners", "time")

    def __init__(
        self,
        num_envs: int = 1,
        canvas: int = 60,
        digit_size: int = 24,
        clutter: int = 0,
        clutter_size: int = 8,
        translated: bool = True,
        steps: int = 8,
        split: str = "train",
        seed: int | None = None,
    ) -> None:
        for name, value, least in (
            ("digit_size", digit_size, 8),
            ("canvas", canvas, digit_size),
            ("clutter", clutter, 0),
            ("clutter_size", clutter_size, 1),
            ("steps", steps, 1),
        ):
            require_at_least(name, value, least)
        if clutter_size > digit_size:
            raise ValueError(f"clutter_size is {clutter_size}; it must be at most digit_size, {digit_size}")
        if split not in set(Split):
            raise ValueError(f"split is {split!r}; it must be one of {', '.join(Split)}")
        super().__init__(num_envs, spaces.Box(0, 255, (1, canvas, canvas), np.uint8), spaces.Discrete(10), seed)
        self.digits, self.classes = load(split, digit_size)
        self.canvas, self.digit_size, self.steps, self.translated = canvas, digit_size, steps, translated
        self.clutter, self.clutter_size = clutter, clutter_size
        self.canvases = np.zeros((num_envs, 1, canvas, canvas), np.uint8)
        self.labels, self.time = np.zeros((2, num_envs), np.int64)
        self.corners = np.zeros((num_envs, 2), np.int64)
        self.reset(np.ones(num_envs, np.bool_))

    @property
    def optimal_return(self) -> float:
        """The best return, undiscounted, of every episode."""
        return 1.0

    def reset(self, lanes: Bool[np.ndarray, " N"]) -> None:
        """Paint a digit, and clutter, on empty canvases."""
        index = np.flatnonzero(lanes)
        self.time[lanes] = 0
        if not index.size:
            return
        size, free = self.digit_size, self.canvas - self.digit_size
        chosen = self.rng.integers(len(self.digits), size=len(index))
        self.labels[index] = self.classes[chosen]
        anywhere = self.rng.integers(free + 1, size=(len(index), 2))
        self.corners[index] = anywhere if self.translated else free // 2
        self.canvases[index] = 0
        self._paint(index, self.digits[chosen], self.corners[index])
        size = self.clutter_size
        for _ in range(self.clutter):
            others = self.digits[self.rng.integers(len(self.digits), size=len(index))]
            from_rows, from_columns = (_span(first, size) for first in self._corners(len(index), self.digit_size).T)
            pieces = others[np.arange(len(index))[:, None, None], from_rows[:, :, None], from_columns[:, None]]
            self._paint(index, pieces, self._corners(len(index), self.canvas))

    def step(self, actions: Integer[np.ndarray, " N"]) -> TaskStep:
        """Compare in the last step."""
        last = self.time >= self.steps - 1
        right = last & (actions == self.labels)
        self.time += 1
        return TaskStep(right.astype(np.float32), last, np.zeros(self.num_envs, np.bool_), right)

    def observe(self) -> UInt8[np.ndarray, "N 1 S S"]:
        """The canvases."""
        return self.canvases.copy()

    def relevant(self) -> Bool[np.ndarray, "N S S"]:
        """The square of pixels that holds each lane's digit."""
        pixels = np.arange(self.canvas)
        rows, columns = ((pixels >= first[:, None]) & (pixels < first[:, None] + self.digit_size) for first in self.corners.T)
        square: Bool[np.ndarray, "N S S"] = rows[:, :, None] & columns[:, None, :]
        return square

    def _corners(self, count: int, room: int) -> Int64[np.ndarray, "count 2"]:
        """Where pieces of clutter may begin in a square of ``room`` pixels a side."""
        return self.rng.integers(room - self.clutter_size + 1, size=(count, 2))

    def _paint(
        self, index: Int64[np.ndarray, " M"], pieces: UInt8[np.ndarray, "M s s"], corners: Int64[np.ndarray, "M 2"]
    ) -> None:
        """Put pieces on the canvases of some lanes; where something is, the brighter of both stays."""
        rows, columns = (_span(first, pieces.shape[1]) for first in corners.T)
        where = index[:, None, None], 0, rows[:, :, None], columns[:, None, :]
        self.canvases[where] = np.maximum(self.canvases[where], pieces)


def _span(first: Int64[np.ndarray, " M"], size: int) -> Int64[np.ndarray, "M s"]:
    """So many pixels from each first one on."""
    return first[:, None] + np.arange(size)


@lru_cache(maxsize=8)
def load(split: str, size: int) -> tuple[UInt8[np.ndarray, "K d d"], Int64[np.ndarray, " K"]]:
    """The digits of a split, enlarged to ``size`` pixels a side, and their classes.

    Raises:
        ImportError: scikit-learn is not installed; says how.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(f"{error}; in a checkout of saccade, pip install -e '.[digits]' installs it") from error
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    tested = len(order) // TESTED
    chosen = np.sort({Split.TRAIN: order[tested:], Split.TEST: order[:tested], Split.ALL: order}[Split(split)])
    enlarged = (enlarge(data.images[chosen].astype(np.float32) / 16, size) * 255).round().astype(np.uint8)
    classes = data.target[chosen].astype(np.int64)
    for shared in (enlarged, classes):
        shared.setflags(write=False)
    return enlarged, classes


def enlarge(images: Float32[np.ndarray, "K s s"], size: int) -> Float32[np.ndarray, "K d d"]:
    """Bilinear interpolation to ``size`` pixels a side, the middles of pixels kept where they are."""
    small = images.shape[1]
    at = np.clip((np.arange(size, dtype=np.float32) + 0.5) * small / size - 0.5, 0, small - 1)
    low = np.minimum(at.astype(np.int64), max(small - 2, 0))
    matrix = np.zeros((size, small), np.float32)
    matrix[np.arange(size), low] = 1 - (at - low)
    matrix[np.arange(size), np.minimum(low + 1, small - 1)] += at - low
    enlarged: Float32[np.ndarray, "K d d"] = matrix @ images @ matrix.T
    return enlarged
