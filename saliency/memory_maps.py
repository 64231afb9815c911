"""What an agent did with an external memory over an episode, in one picture: written where, read where, and what was left.

Time goes from left to right in every panel but those of the episode's end. It is the manner of figures 3 to 6 of Graves,
Wayne & Danihelka 2014 (arXiv:1410.5401).

Shapes: ``T`` steps of the episode, ``N`` slots, ``W`` numbers in a slot.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from PIL import Image

from saccade.policies.tap import TapKind
from saccade.saliency.draw import BACKGROUND, captioned
from saccade.saliency.episode import Episode, TapRecord
from saccade.saliency.film import FilmError
from saccade.saliency.panel import Axis, Panel, Scale, cells_panel, draw_panel

AXES = {
    TapKind.MEMORY: ("T", "...", "N"),
    TapKind.USAGE: ("T", "N"),
    TapKind.CONTENT: ("T", "N", "W"),
    TapKind.LINK: ("T", "N", "N"),
    TapKind.GATE: ("T", "..."),
}
"""The axes of every kind of tap that is in the picture."""
FROM_0_TO_1 = Scale(0.0, 1.0)
STEPS, SLOTS, LINKS, NUMBERS, STRIP = (320, 24), (384, 12), (320, 12), (240, 12), (72, 10)
"""About how many pixels an axis takes, and at most how many a step, slot, linked slot, number in a slot, or row of a strip."""
NAMED_ROW = 13
"""Pixels of a row with a name."""
MOST_NAMED = 24
"""Rows of a gate that are named; more are numbered."""
MOST_INPUTS = 512
"""Observations of more numbers than that are shown as pictures, if at all."""
MOST_CHOICES = 64
"""Of more actions than that, the number of the one taken is shown, instead of a row for each."""
TIMES_EVEN = 16
THUMBNAIL = 48
"""Pixels of a small frame's longer side."""
GAP = 6
ASPECT = 1.25
"""Width by height of the whole picture, as far as the panels allow."""


def memory_records(episode: Episode) -> dict[str, TapRecord]:
    """What an episode holds of external memories, by name, gates included; nothing where its core has none."""
    records = {name: record for name, record in episode.taps.items() if record.kind in AXES}
    return records if any(record.kind is not TapKind.GATE for record in records.values()) else {}


def memory_map(episode: Episode) -> UInt8[np.ndarray, "H W 3"]:
    """Every weighting, usage and gate over the steps of an episode, and links and contents after the last one.

    On top of each column is what was seen, done and given, step by step, aligned with what is below.

    Raises:
        FilmError: the episode holds nothing of an external memory; or a tap is not finite, or has other axes than its kind.
    """
    records = memory_records(episode)
    if not records:
        raise FilmError(f"no tap of this episode is of an external memory; it holds {sorted(episode.taps) or 'none'}")
    for name, record in records.items():
        check(name, record)
    strips = [*seen(episode), *done(episode)]
    blocks = [*([panel] for panel in over_time(records)), *([panel] for panel in at_the_end(records)), list(gates(records))]
    left = max(panel.left for panels in (strips, *blocks) for panel in panels)
    top, *pictures = (stacked([draw_panel(panel, left) for panel in panels]) for panels in (strips, *blocks) if panels)
    total = f"return {episode.rewards.sum():.3g} in {len(episode)} steps"
    return captioned(arranged(top, pictures), [f"what the memory did: {total}"])


def check(name: str, record: TapRecord) -> None:
    """Whether a tap is what its kind says.

    Raises:
        FilmError: it has other axes, or a number that is not finite.
    """
    shape, wanted = record.values.shape, AXES[record.kind]
    right = len(shape) >= len(wanted) - 1 if "..." in wanted else len(shape) == len(wanted)
    if not right or (record.kind is TapKind.LINK and shape[1] != shape[2]):
        raise FilmError(f"the tap {name}, of kind {record.kind}, needs axes [{', '.join(wanted)}]; got {list(shape)}")
    finite = np.isfinite(record.values).reshape(shape[0], -1).all(axis=1)
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


# --- What the memory did ------------------------------------------------------------------------------------------------------


def over_time(records: Mapping[str, TapRecord]) -> Iterator[Panel]:
    """Of each head's weights, and of usage, slots over steps. The heads of a tap have one scale."""
    for name, record in records.items():
        if record.kind not in (TapKind.MEMORY, TapKind.USAGE):
            continue
        steps, *heads, slots = record.values.shape
        scale = FROM_0_TO_1 if record.kind is TapKind.USAGE else weights_scale(record.values)
        by_head = record.values.reshape(steps, -1, slots).transpose(1, 2, 0)
        for head, cells in zip(entries(record, heads), by_head, strict=True):
            title = f"{name}, {head}" if head else name
            yield cells_panel(title, cells, Axis("slot", slots, *SLOTS), steps_axis(steps), scale)


def weights_scale(weights: Float[np.ndarray, "... N"]) -> Scale:
    """From 0 to the largest weight, and to :data:`TIMES_EVEN` times an even one at the least: all slots alike are dark."""
    return Scale(0.0, max(float(weights.max()), min(TIMES_EVEN / weights.shape[-1], 1.0)))


def gates(records: Mapping[str, TapRecord]) -> Iterator[Panel]:
    """A thin row for every number of a gate, named while they are few; steps are numbered below the last panel."""
    chosen = {name: record for name, record in records.items() if record.kind is TapKind.GATE}
    for i, (name, record) in enumerate(chosen.items(), 1):
        names = entries(record, record.values.shape[1:])
        rows = Axis("", len(names), len(names) * NAMED_ROW, NAMED_ROW, names)
        if len(names) > MOST_NAMED:
            rows = Axis("gate", len(names), *SLOTS)
        cells = record.values.reshape(len(record.values), -1).T
        yield cells_panel(name, cells, rows, steps_axis(len(record.values), "step" if i == len(chosen) else ""), FROM_0_TO_1)


def at_the_end(records: Mapping[str, TapRecord]) -> Iterator[Panel]:
    """What slots hold, and how they are linked, after the last step."""
    for name, record in records.items():
        if record.kind not in (TapKind.CONTENT, TapKind.LINK):
            continue
        rows, columns = record.values.shape[1:]
        last, end = record.values[-1], f"{name}, at the end"
        if record.kind is TapKind.LINK:
            slots = Axis("slot", rows, *LINKS)
            yield cells_panel(f"{end}: row written after column", last, slots, slots)
        else:
            yield cells_panel(end, last, Axis("slot", rows, *SLOTS), Axis("number", columns, *NUMBERS))


def entries(record: TapRecord, shape: Sequence[int]) -> list[str]:
    """The names of all entries along axes of this shape: those in the tap's notes, else ``head 0``, ``head 1`` and so on."""
    given: Any = record.notes.get("names", ())
    usual = [[f"head {i}" for i in range(shape[0])], *([str(i) for i in range(size)] for size in shape[1:])] if shape else []
    named = [names if len(names) == len(default) else default for names, default in zip(given, usual, strict=False)]
    return [" ".join(parts) for parts in product(*named, *usual[len(named) :])]


# --- The sheet ----------------------------------------------------------------------------------------------------------------


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
