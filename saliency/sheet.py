"""A sheet of panels about an episode: its steps from left to right, what was seen and done on top of each column.

Shapes: ``T`` steps of the episode.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

from saccade.saliency.draw import BACKGROUND, captioned
from saccade.saliency.episode import Episode, TapRecord
from saccade.saliency.film import FilmError
from saccade.saliency.panel import Axis, Panel, cells_panel, draw_panel

STEPS, STRIP = (320, 24), (72, 10)
"""About how many pixels steps take, and the rows of a strip, and at most how many each one does."""
MOST_INPUTS = 512
"""Observations of more numbers than that are shown as pictures, if at all."""
MOST_CHOICES = 64
"""Of more actions than that, the number of the one taken is shown, instead of a row for each."""
THUMBNAIL = 48
"""Pixels of a small frame's longer side."""
GAP = 6
ASPECT = 1.25
"""Width by height of the whole picture, as far as the panels allow."""


def draw_sheet(episode: Episode, blocks: Sequence[Sequence[Panel]], what: str) -> UInt8[np.ndarray, "H W 3"]:
    """Blocks of panels, each of which stays together, below what was seen and done, and a line that says ``what`` they show."""
    strips = [*seen(episode), *done(episode)]
    left = max(panel.left for panels in (strips, *blocks) for panel in panels)
    top, *pictures = (stacked([draw_panel(panel, left) for panel in panels]) for panels in (strips, *blocks) if panels)
    total = f"return {episode.rewards.sum():.3g} in {len(episode)} steps"
    return captioned(arranged(top, pictures), [f"{what}: {total}"])


def check_finite(name: str, record: TapRecord) -> None:
    """Refuse a tap that is not finite.

    Raises:
        FilmError: names the tap and the first such step.
    """
    finite = np.isfinite(record.values).reshape(len(record.values), -1).all(axis=1)
    if not finite.all():
        raise FilmError(f"the tap {name} is not finite at step {int(finite.argmin())}")


def steps_axis(count: int, word: str = "step") -> Axis:
    """Steps, which are as wide in every panel."""
    return Axis(word, count, *STEPS)


# --- What was seen and done ---------------------------------------------------------------------------------------------------


def seen(episode: Episode) -> Iterator[Panel]:
    """A strip of every vector that was observed; frames where what was observed, or nothing else, can be shown as such."""
    observed = episode.observations
    drawn = False
    for name, leaf in observed.items() if isinstance(observed, Mapping) else [("observation", observed)]:
        if not (episode.frames_are_observations or math.prod(leaf.shape[1:]) > MOST_INPUTS):
            drawn = True
            yield strip(name, choices(leaf) if leaf.ndim == 1 else leaf)
    if episode.frames is not None and not drawn:
        yield thumbnails(episode.frames)


def done(episode: Episode) -> Iterator[Panel]:
    """A strip of actions and one of rewards."""
    said = next((episode.outputs[name] for name in ("advantage", "policy") if name in episode.outputs), None)
    actions = episode.actions
    if actions.ndim == 1:
        actions = choices(actions, 0 if said is None else said.shape[1])
    yield strip("action", actions)
    yield strip("reward", episode.rewards, "step")


def choices(chosen: Shaped[np.ndarray, " T"], count: int = 0) -> Shaped[np.ndarray, "T _"]:
    """One row for each whole number that could be chosen, with a 1 where it was; other, or large, numbers as they are."""
    if chosen.dtype.kind not in "iu" or chosen.min() < 0 or max(int(chosen.max()) + 1, count) > MOST_CHOICES:
        return chosen[:, None]
    return chosen[:, None] == np.arange(max(int(chosen.max()) + 1, count))


def strip(title: str, values: Shaped[np.ndarray, "T ..."], word: str = "") -> Panel:
    """Numbers over the steps, a thin row each."""
    rows = values.reshape(len(values), -1).T
    return cells_panel(title, rows, Axis("", len(rows), *STRIP), steps_axis(len(values), word))


def thumbnails(frames: UInt8[np.ndarray, "T H W 3"]) -> Panel:
    """Small frames, each with its left edge at its step."""
    steps = steps_axis(len(frames))
    pixels = steps.cell / steps.shared
    every = math.ceil((THUMBNAIL + 2) / pixels)
    sheet = Image.new("RGB", (math.ceil(pixels * len(frames) - 1e-9), THUMBNAIL), BACKGROUND)
    for t in range(0, len(frames), every):
        small = Image.fromarray(frames[t])
        factor = THUMBNAIL / max(small.size)
        nearest = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.BOX
        small = small.resize((max(round(small.width * factor), 1), max(round(small.height * factor), 1)), nearest)
        sheet.paste(small, (round(t * pixels), 0))
    title = "seen" if every == 1 else f"seen, every {every} steps"
    return Panel(title, np.asarray(sheet), Axis("", 1, *STRIP), steps_axis(len(frames), ""))


def entries(record: TapRecord, shape: Sequence[int]) -> list[str]:
    """The names of all entries along axes of this shape: those in the tap's notes, else ``head 0``, ``head 1`` and so on."""
    given: Any = record.notes.get("names", ())
    usual = [[f"head {i}" for i in range(shape[0])], *([str(i) for i in range(size)] for size in shape[1:])] if shape else []
    named = [names if len(names) == len(default) else default for names, default in zip(given, usual, strict=False)]
    return [" ".join(parts) for parts in product(*named, *usual[len(named) :])]


def stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    """One below the other."""
    whole = Image.new("RGB", (max(one.width for one in pictures), sum(one.height for one in pictures)), BACKGROUND)
    y = 0
    for one in pictures:
        whole.paste(one, (0, y))
        y += one.height
    return whole


def arranged(top: Image.Image, pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures in as many columns as make the whole about as wide as it should be, each column below a copy of ``top``."""
    width = max(one.width for one in (top, *pictures)) + GAP
    sheets = [columns_of(count, pictures) for count in range(1, len(pictures) + 1)]
    heights = [max(sum(one.height + GAP for one in column) for column in sheet) + top.height for sheet in sheets]
    best = min(range(len(sheets)), key=lambda i: abs(math.log((i + 1) * width / heights[i] / ASPECT)))
    whole = Image.new("RGB", ((best + 1) * width, heights[best] + GAP), BACKGROUND)
    for i, column in enumerate(sheets[best]):
        whole.paste(top, (i * width, 0))
        y = top.height + GAP
        for one in column:
            whole.paste(one, (i * width, y))
            y += one.height + GAP
    return whole


def columns_of(count: int, pictures: Sequence[Image.Image]) -> list[list[Image.Image]]:
    """So many columns, each picture in the one that is shortest so far."""
    columns: list[list[Image.Image]] = [[] for _ in range(count)]
    for one in pictures:
        min(columns, key=lambda column: sum(each.height for each in column)).append(one)
    return columns
