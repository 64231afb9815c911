"""What an agent looked back at over an episode, in one picture: for every layer and head, which step attended to which.

Time goes from left to right: a column is the step that attends, a row the one that it attends to. How many computations each
step took, where a core chooses that, is a panel of bars.

Shapes: ``T`` steps of the episode, ``W`` steps of a window before the present one.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Float, UInt8

from saccade.policies.tap import TapKind
from saccade.saliency.episode import Episode, TapRecord
from saccade.saliency.film import FilmError
from saccade.saliency.panel import Axis, Panel, Scale, cells_panel
from saccade.saliency.sheet import check_finite, draw_sheet, entries, steps_axis

PAST = (320, 24)
"""About how many pixels the steps that are attended to take, and at most how many each one does."""
BARS = (160, 10)
"""The same for computations."""
KINDS = (TapKind.TIME, TapKind.PONDER)


def attention_records(episode: Episode) -> dict[str, TapRecord]:
    """What an episode holds of attention over time and of computations, by name; nothing where its core has neither."""
    return {name: record for name, record in episode.taps.items() if record.kind in KINDS}


def attention_map(episode: Episode) -> UInt8[np.ndarray, "H W 3"]:
    """A square for every layer and head, and bars for computations, below what was seen, done and given.

    Raises:
        FilmError: the episode holds nothing of the kind; or a tap is not finite, or has other axes than its kind.
    """
    records = attention_records(episode)
    if not records:
        raise FilmError(f"no tap of this episode is of attention over time; it holds {sorted(episode.taps) or 'none'}")
    for name, record in records.items():
        check(name, record)
    panels = [*bars(records), *squares(records)]
    return draw_sheet(episode, [[panel] for panel in panels], "what was looked back at")


def check(name: str, record: TapRecord) -> None:
    """Whether a tap is what its kind says.

    Raises:
        FilmError: it has other axes, or a number that is not finite.
    """
    axes, wanted = record.values.ndim, "T" if record.kind is TapKind.PONDER else "T, ..., window"
    if (axes != 1) if record.kind is TapKind.PONDER else axes < 2:
        raise FilmError(f"the tap {name}, of kind {record.kind}, needs axes [{wanted}]; got {list(record.values.shape)}")
    check_finite(name, record)


def squares(records: Mapping[str, TapRecord]) -> Iterator[Panel]:
    """Steps that are attended to over steps that attend. The heads of a tap have one scale."""
    for name, record in records.items():
        if record.kind is not TapKind.TIME:
            continue
        steps, *heads, _ = record.values.shape
        scale = Scale(0.0, float(record.values.max()) or 1.0)
        weights = over_steps(record.values.reshape(steps, -1, record.values.shape[-1]))
        for head, cells in zip(entries(record, heads), weights.transpose(1, 2, 0), strict=True):
            title = f"{name}, {head}" if head else name
            yield cells_panel(title, cells, Axis("attended to", steps, *PAST), steps_axis(steps), scale)


def over_steps(weights: Float[np.ndarray, "T heads W1"]) -> Float[np.ndarray, "T heads T"]:
    """Weights by step of the episode, from weights by how long ago: the step ``W`` before first, the present one last."""
    steps, heads, reach = weights.shape
    whole = np.zeros((steps, heads, steps), weights.dtype)
    for t in range(steps):
        known = min(t + 1, reach)
        whole[t, :, t + 1 - known : t + 1] = weights[t, :, reach - known :]
    return whole


def bars(records: Mapping[str, TapRecord]) -> Iterator[Panel]:
    """As many cells as a step took computations, from the bottom up."""
    for name, record in records.items():
        if record.kind is TapKind.PONDER:
            most = max(int(np.ceil(record.values.max())), 1)
            cells = record.values[None] > np.arange(most)[::-1, None]
            names = [str(number) for number in range(most, 0, -1)]
            yield cells_panel(name, cells, Axis("", most, *BARS, names), steps_axis(len(record.values)), Scale(0.0, 1.0))
