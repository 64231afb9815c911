"""What an agent did with an external memory over an episode, in one picture: written where, read where, and what was left.

Time goes from left to right in every panel but those of the episode's end. It is the manner of figures 3 to 6 of Graves,
Wayne & Danihelka 2014 (arXiv:1410.5401).

Shapes: ``T`` steps of the episode, ``N`` slots, ``W`` numbers in a slot.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Float, UInt8

from saccade.policies.tap import TapKind
from saccade.saliency.episode import Episode, TapRecord
from saccade.saliency.film import FilmError
from saccade.saliency.panel import Axis, Panel, Scale, cells_panel
from saccade.saliency.sheet import check_finite, draw_sheet, entries, steps_axis

AXES = {
    TapKind.MEMORY: ("T", "...", "N"),
    TapKind.USAGE: ("T", "N"),
    TapKind.CONTENT: ("T", "N", "W"),
    TapKind.LINK: ("T", "N", "N"),
    TapKind.GATE: ("T", "..."),
}
"""The axes of every kind of tap that is in the picture."""
FROM_0_TO_1 = Scale(0.0, 1.0)
SLOTS, LINKS, NUMBERS = (384, 12), (320, 12), (240, 12)
"""About how many pixels an axis takes, and at most how many a slot, linked slot, or number in a slot."""
NAMED_ROW = 13
"""Pixels of a row with a name."""
MOST_NAMED = 24
"""Rows of a gate that are named; more are numbered."""
TIMES_EVEN = 16


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
    blocks = [*([panel] for panel in over_time(records)), *([panel] for panel in at_the_end(records)), list(gates(records))]
    return draw_sheet(episode, blocks, "what the memory did")


def check(name: str, record: TapRecord) -> None:
    """Whether a tap is what its kind says.

    Raises:
        FilmError: it has other axes, or a number that is not finite.
    """
    shape, wanted = record.values.shape, AXES[record.kind]
    right = len(shape) >= len(wanted) - 1 if "..." in wanted else len(shape) == len(wanted)
    if not right or (record.kind is TapKind.LINK and shape[1] != shape[2]):
        raise FilmError(f"the tap {name}, of kind {record.kind}, needs axes [{', '.join(wanted)}]; got {list(shape)}")
    check_finite(name, record)


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
