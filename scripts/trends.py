"""Pictures of benchmarks whose rows are one measure after another for a growing number, as ``8 places: seconds``."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from saccade.scripts.figures import COLOURS, STYLE, as_bytes

WIDE = 50
"""Values that differ by more than so many times are drawn on a logarithmic axis."""

ROW = re.compile(r"(\d+) ([^:]+): (.+)")
"""How much, of what, and what was measured."""


class Trend(NamedTuple):
    """One measure over a number.

    Attributes:
        over: what the number counts.
        measure: what was measured, and its unit.
        points: number and value, in the order of the numbers.
        peer: the same of the peer, whose name is ``peer_name``, where every row has one.
    """

    over: str
    measure: str
    points: list[tuple[int, float]]
    peer: list[tuple[int, float]]
    peer_name: str


def trends(rows: Sequence[dict[str, Any]]) -> list[Trend]:
    """What a benchmark's rows say about a number; nothing if a row does not begin with one, or all have the same.

    >>> rows = [{"name": f"{n} places: time", "unit": "ms", "ours": 2.0 * n} for n in (4, 2)]
    >>> trends(rows)
    [Trend(over='places', measure='time (ms)', points=[(2, 4.0), (4, 8.0)], peer=[], peer_name='')]
    >>> trends([*rows, {"name": "in all", "unit": "ms", "ours": 1.0}])
    []
    """
    found: dict[tuple[str, str], list[tuple[int, dict[str, Any]]]] = {}
    for row in rows:
        match = ROW.fullmatch(row["name"])
        if match is None:
            return []
        found.setdefault((match[2], f"{match[3]} ({row['unit']})"), []).append((int(match[1]), row))
    if any(len(numbered) < 2 for numbered in found.values()):
        return []
    return [read_trend(over, measure, numbered) for (over, measure), numbered in found.items()]


def read_trend(over: str, measure: str, numbered: list[tuple[int, dict[str, Any]]]) -> Trend:
    """One measure, from its rows, each with its number."""
    ours = sorted((number, row["ours"]) for number, row in numbered)
    if any(row.get("peer") is None for _, row in numbered):
        return Trend(over, measure, ours, [], "")
    peer = sorted((number, row["peer"]) for number, row in numbered)
    return Trend(over, measure, ours, peer, numbered[0][1]["peer_name"])


def trend_figure(rows: Sequence[dict[str, Any]]) -> bytes | None:
    """A panel a measure, as SVG; none where there is no number to draw it over."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import MaxNLocator

    drawn = trends(rows)
    if not drawn:
        return None
    with mpl.rc_context(STYLE):
        picture = Figure(figsize=(3.4 * len(drawn) + 0.4, 2.8), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
        row = picture.subplots(1, len(drawn), squeeze=False)[0]
        for axes, trend in zip(row, drawn, strict=True):
            lines = [(trend.points, "ours"), (trend.peer, trend.peer_name)] if trend.peer else [(trend.points, "ours")]
            for colour, (points, label) in zip(COLOURS, lines, strict=False):
                axes.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=4, linewidth=1.6, label=label)
            axes.set_xlabel(trend.over)
            axes.set_ylabel(trend.measure)
            values = [value for points, _ in lines for _, value in points]
            if min(values) > 0 and max(values) > WIDE * min(values):
                axes.set_yscale("log")
            else:
                axes.set_ylim(0, 1.08 * max(values) or 1)
            if trend.peer:
                axes.legend(frameon=False, fontsize=8)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
            axes.set_axisbelow(True)
        return as_bytes(picture)
