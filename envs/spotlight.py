"""Spotlight, a small task in which the place and the moment that matter are known: maps of attention can be scored on it.

Shapes: ``N`` lanes, ``P`` places, ``H W`` height and width of the screen.
"""

import numpy as np
from gymnasium import spaces
from jaxtyping import Bool, Integer, UInt8

from saccade.envs.task import BatchedTask, TaskStep, require_at_least

SIGN = 3
"""Pixels of a sign, each way."""

SIGNS = np.array(
    [
        [[1, 0, 1], [0, 0, 0], [1, 0, 1]],
        [[0, 1, 0], [1, 0, 1], [0, 1, 0]],
        [[1, 1, 0], [1, 1, 0], [0, 0, 0]],
        [[0, 0, 1], [0, 0, 1], [0, 1, 1]],
        [[1, 1, 1], [0, 1, 0], [0, 0, 0]],
        [[0, 0, 0], [1, 0, 0], [1, 1, 1]],
    ],
    np.uint8,
)
"""What a place can show. All have four pixels: who sees only how bright a place is knows nothing."""


class Spotlight(BatchedTask):
    """Spotlight: of many places that show signs, one is lit; name the sign that it showed when the signal was given.

    The screen is ``rows`` by ``columns`` places of ``cell`` by ``cell`` pixels. Every step, each place shows one of ``signs``
    signs, drawn anew. One place is lit. At one moment, drawn from ``first_moment`` to ``steps - 2``,
    all equally likely, the signal is given. In the last step the action has to name the sign that this place showed at that
    moment: 1 if it does, else 0. Other actions do not matter.

    An observation is uint8 ``[3, H, W]``, 0 or 255: the signs; the light, over all pixels of the lit place; the signal, over
    the whole screen at its moment.

    The best return is 1 (:attr:`optimal_return`), for whoever finds the light, looks there at the moment of the signal, and
    remembers what was there; a guess has ``1 / signs``.

    Attributes:
        place: the place of each lane that is lit, row by row.
        moment: when the signal is given.
        time: the present step, from 0 on.

    Args:
        num_envs: the number of lanes.
        rows: of places.
        columns: of places.
        cell: pixels of a place, each way.
        signs: how many signs there are, 2 to 6.
        steps: of an episode.
        lit: how many steps the light is on, from the first; where it was has to be remembered then. ``None``: all along.
        first_moment: the earliest step in which the signal may be given, at most ``steps - 2``.
        seed: the seed of all lanes together.

    Raises:
        ValueError: a parameter is out of its range; names it, its value and what it may be.
    """

    lane_arrays = ("place", "moment", "time", "shown", "wanted")

    def __init__(
        self,
        num_envs: int = 1,
        rows: int = 3,
        columns: int = 3,
        cell: int = 4,
        signs: int = 3,
        steps: int = 6,
        lit: int | None = None,
        first_moment: int = 2,
        seed: int | None = None,
    ) -> None:
        limits = {"rows": (rows, 1), "columns": (columns, 1), "cell": (cell, SIGN), "signs": (signs, 2), "steps": (steps, 2)}
        for name, (value, least) in limits.items():
            require_at_least(name, value, least)
        require_at_least("first_moment", first_moment, 0)
        require_at_least("lit", steps if lit is None else lit, 1)
        if signs > len(SIGNS):
            raise ValueError(f"signs is {signs}; there are {len(SIGNS)}")
        if first_moment > steps - 2:
            raise ValueError(f"first_moment is {first_moment}; it must be at most steps - 2, {steps - 2}")
        space = spaces.Box(0, 255, (3, rows * cell, columns * cell), np.uint8)
        super().__init__(num_envs, space, spaces.Discrete(signs), seed)
        self.rows, self.columns, self.cell = rows, columns, cell
        self.signs, self.steps, self.first_moment = signs, steps, first_moment
        self.lit = steps if lit is None else lit
        self._glyphs = np.zeros((signs, cell, cell), np.uint8)
        first = (cell - SIGN) // 2
        self._glyphs[:, first : first + SIGN, first : first + SIGN] = SIGNS[:signs] * 255
        self._lanes = np.arange(num_envs)
        self.place, self.moment, self.time, self.wanted = np.zeros((4, num_envs), np.int64)
        self.shown = np.zeros((num_envs, rows * columns), np.int64)
        self.reset(np.ones(num_envs, np.bool_))

    @property
    def optimal_return(self) -> float:
        """The best return, undiscounted, of every episode."""
        return 1.0

    def reset(self, lanes: Bool[np.ndarray, " N"]) -> None:
        """Light a place, and draw when the signal is given."""
        count = int(lanes.sum())
        self.place[lanes] = self.rng.integers(self.rows * self.columns, size=count)
        self.moment[lanes] = self.rng.integers(self.first_moment, self.steps - 1, size=count)
        self.time[lanes] = 0
        self.draw(lanes)

    def draw(self, lanes: Bool[np.ndarray, " N"]) -> None:
        """New signs; the one that matters is noted."""
        self.shown[lanes] = self.rng.integers(self.signs, size=(int(lanes.sum()), self.shown.shape[1]))
        now = lanes & (self.time == self.moment)
        self.wanted[now] = self.shown[self._lanes, self.place][now]

    def step(self, actions: Integer[np.ndarray, " N"]) -> TaskStep:
        """Compare in the last step, and show new signs in the others."""
        last = self.time >= self.steps - 1
        right = last & (actions == self.wanted)
        self.time += 1
        self.draw(~last)
        return TaskStep(right.astype(np.float32), last, np.zeros(self.num_envs, np.bool_), right)

    def relevant(self) -> Bool[np.ndarray, "N H W"]:
        """The pixels of each lane's place, lit or not."""
        lit = np.zeros((self.num_envs, self.rows * self.columns), np.bool_)
        lit[self._lanes, self.place] = True
        return self._enlarged(lit)

    def observe(self) -> UInt8[np.ndarray, "N 3 H W"]:
        """Signs, light and signal."""
        N, cell = self.num_envs, self.cell
        screens = np.zeros((N, 3, self.rows * cell, self.columns * cell), np.uint8)
        glyphs = self._glyphs[self.shown].reshape(N, self.rows, self.columns, cell, cell)
        screens[:, 0] = glyphs.transpose(0, 1, 3, 2, 4).reshape(N, self.rows * cell, self.columns * cell)
        screens[:, 1] = (self.relevant() & (self.time < self.lit)[:, None, None]) * np.uint8(255)
        screens[:, 2] = ((self.time == self.moment) * np.uint8(255))[:, None, None]
        return screens

    def _enlarged(self, places: Bool[np.ndarray, "N P"]) -> Bool[np.ndarray, "N H W"]:
        grid = places.reshape(-1, self.rows, self.columns)
        return grid.repeat(self.cell, axis=1).repeat(self.cell, axis=2)
