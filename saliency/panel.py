"""A panel of a picture: cells in colours, below a title and their scale, with axes that say what they run over.

Shapes: ``R C`` rows and columns of cells, ``H W`` pixels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from PIL import Image, ImageDraw

from saccade.saliency.draw import BACKGROUND, FIELD, INK, LINE, PATH, font, line_width

UNSIGNED = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))
"""Colours from zero up; equal steps look equal, to the colour-blind too (matplotlib's *inferno*)."""
SIGNED = (FIELD, (0, 0, 0), PATH)
"""Colours from below zero to above."""
MOST_PIXELS = 512
"""How long an axis may be; of more cells than that, several share a pixel."""
BAR = (48, 8)
"""Width and height of the bar of colours above a panel."""
APART = 30
"""Pixels between two numbers of an axis, at the least."""
TICK = 3
RIGHT = 12
"""Room right of a panel."""
LETTER = 14
"""Room for a line of words that stands upright."""


class Scale(NamedTuple):
    """The numbers at both ends of the colours: 0 and another, or one and its negative."""

    low: float
    high: float


def scale_of(values: Float[np.ndarray, "..."]) -> Scale:
    """From 0 to the largest; where some are below 0, as far to that side too."""
    most = float(np.abs(values).max(initial=0)) or 1.0
    return Scale(-most if (values < 0).any() else 0.0, most)


def paint(cells: Float[np.ndarray, "R C"], scale: Scale) -> UInt8[np.ndarray, "R C 3"]:
    """The colour of each cell; beyond the scale, that of its end."""
    colours = np.array(SIGNED if scale.low < 0 else UNSIGNED, dtype=np.float64)
    place = (cells - scale.low) / (scale.high - scale.low)
    stops = np.linspace(0, 1, len(colours))
    return np.stack([np.interp(place, stops, part) for part in colours.T], axis=-1).round().astype(np.uint8)


@dataclass(frozen=True)
class Axis:
    """What the rows or the columns of a panel are.

    Attributes:
        word: what each one is, a slot say; without it, none is numbered.
        count: how many there are.
        length: about how many pixels all of them take, if none takes more than ``largest``.
        largest: pixels of one.
        names: of each; numbers where there are none.
    """

    word: str
    count: int
    length: int
    largest: int
    names: Sequence[str] = ()

    @property
    def shared(self) -> int:
        """How many lie in one cell."""
        return -(-self.count // MOST_PIXELS)

    @property
    def cell(self) -> int:
        """Pixels of a cell."""
        return min(max(round(self.length / -(-self.count // self.shared)), 1), self.largest)

    @property
    def title(self) -> str:
        """The word, and how many share a cell where some do."""
        return self.word if self.shared == 1 else f"{self.word}, {self.shared} a pixel"

    def pool(self, cells: Shaped[np.ndarray, "*cells"], along: int) -> Shaped[np.ndarray, "*pooled"]:
        """Of those that share a cell, the one furthest from 0."""
        starts = np.arange(0, self.count, self.shared)
        high, low = (extreme.reduceat(cells, starts, axis=along) for extreme in (np.maximum, np.minimum))
        return np.where(high >= -low, high, low)

    def ticks(self) -> Iterator[tuple[float, str]]:
        """Where to write what, in pixels from the first one's edge to the middle of each."""
        pixels = self.cell / self.shared
        if self.names:
            yield from (((i + 0.5) * pixels, name) for i, name in enumerate(self.names) if name)
        elif self.word:
            steps = (digit * 10**power for power in range(9) for digit in (1, 2, 5))
            step = next(step for step in steps if step * pixels >= APART)
            yield from (((i + 0.5) * pixels, str(i)) for i in range(0, self.count, step))


@dataclass(frozen=True)
class Panel:
    """A panel before it is drawn.

    Attributes:
        title: what it shows.
        plot: its pixels.
        rows: what they are.
        columns: what they are.
        scale: of the colours; ``None`` where they are not numbers.
    """

    title: str
    plot: UInt8[np.ndarray, "H W 3"]
    rows: Axis
    columns: Axis
    scale: Scale | None = None

    @property
    def left(self) -> int:
        """Pixels that are needed left of the plot."""
        beside = max((line_width(words) for _, words in self.rows.ticks()), default=0) + (LETTER if self.stands_upright else 0)
        below = line_width(self.columns.title) + TICK if self.columns.word else 0
        return TICK + max(beside, below)

    @property
    def stands_upright(self) -> bool:
        """Whether there is room for what the rows are."""
        return bool(self.rows.word) and line_width(self.rows.title) <= len(self.plot)


def cells_panel(title: str, cells: Shaped[np.ndarray, "R C"], rows: Axis, columns: Axis, scale: Scale | None = None) -> Panel:
    """A panel of numbers, each a rectangle in its colour, by a scale of their own unless another is given."""
    numbers = np.asarray(cells, dtype=np.float64)
    scale = scale or scale_of(numbers)
    colours = paint(columns.pool(rows.pool(numbers, 0), 1), scale)
    return Panel(title, colours.repeat(rows.cell, axis=0).repeat(columns.cell, axis=1), rows, columns, scale)


def draw_panel(panel: Panel, left: int) -> Image.Image:
    """The panel with its words; its plot begins ``left`` pixels from the left, below one line."""
    height, width = panel.plot.shape[:2]
    below = LINE + TICK if panel.columns.word else TICK
    needed = line_width(panel.title) + (scale_width(panel.scale) if panel.scale else 0)
    picture = Image.new("RGB", (max(left + width + RIGHT, needed), LINE + 2 + height + below), BACKGROUND)
    picture.paste(Image.fromarray(panel.plot), (left, LINE + 2))
    draw = ImageDraw.Draw(picture)
    draw.text((4, 0), panel.title, fill=INK, font=font())
    if panel.scale:
        draw_scale(picture, panel.scale)
    for y, words in panel.rows.ticks():
        draw.line((left - TICK, LINE + 2 + y, left - 1, LINE + 2 + y), fill=INK)
        draw.text((left - TICK - 2, LINE + 2 + y), words, fill=INK, font=font(), anchor="rm")
    if panel.stands_upright:
        picture.paste(upright(panel.rows.title), (0, LINE + 2 + (height - line_width(panel.rows.title)) // 2))
    bottom = LINE + 2 + height
    for x, words in panel.columns.ticks():
        draw.line((left + x, bottom, left + x, bottom + TICK - 1), fill=INK)
        draw.text((left + x, bottom + TICK), words, fill=INK, font=font(), anchor="mt")
    if panel.columns.word:
        draw.text((left - 2 * TICK - 2, bottom + TICK), panel.columns.title, fill=INK, font=font(), anchor="rt")
    return picture


def upright(words: str) -> Image.Image:
    """Words that are read from below."""
    picture = Image.new("RGB", (line_width(words), LETTER), BACKGROUND)
    ImageDraw.Draw(picture).text((4, LETTER // 2), words, fill=INK, font=font(), anchor="lm")
    return picture.transpose(Image.Transpose.ROTATE_90)


def scale_width(scale: Scale) -> int:
    """Pixels that a scale takes."""
    return sum(line_width(f"{end:.2g}") for end in scale) + BAR[0] + 2 * RIGHT


def draw_scale(picture: Image.Image, scale: Scale) -> None:
    """The colours of a scale between its ends, in the top right corner."""
    right = picture.width - RIGHT
    high = line_width(f"{scale.high:.2g}")
    bar = paint(np.linspace(*scale, BAR[0])[None].repeat(BAR[1], axis=0), scale)
    start = right - high - BAR[0]
    picture.paste(Image.fromarray(bar), (start, (LINE - BAR[1]) // 2))
    draw = ImageDraw.Draw(picture)
    draw.text((right, LINE / 2), f"{scale.high:.2g}", fill=INK, font=font(), anchor="rm")
    draw.text((start - 4, LINE / 2), f"{scale.low:.2g}", fill=INK, font=font(), anchor="rm")
