"""Learning curves of the docs, drawn from the results files: the same files give the same bytes."""

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from saccade.scripts.claims import stated
from saccade.scripts.families import Family

# Matplotlib comes with the extra `docs` only; every module of the package imports without it.
if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Okabe and Ito's, which the colour-blind can tell apart, without the yellow that vanishes on white."""
DASHES = ("solid", (0, (5, 1.5)), (0, (1, 1.2)))
"""Where there are more lines than colours, and in black and white."""
MEASURED = {"success_rate": "success rate", "return": "return", "train/squared_error": "squared error of all values"}
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "saccade",  # otherwise the ids differ from one run to the next
    "svg.fonttype": "path",  # the same shapes on every machine
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.labelcolor": "#222222",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "legend.frameon": False,
    "legend.handlelength": 2.4,
}


class Band(NamedTuple):
    """A curve over the seeds, at ``K`` steps that all seeds have reached."""

    step: Float[np.ndarray, " K"]
    low: Float[np.ndarray, " K"]
    mean: Float[np.ndarray, " K"]
    high: Float[np.ndarray, " K"]


def band(curves: Sequence[dict[str, list[int | float]]], key: str) -> Band:
    """Mean, lowest and highest seed, interpolated where seeds were measured at different steps.

    Args:
        curves: one a seed, each with ``step`` and ``key``.
        key: what is drawn.
    """
    first, last = max(curve["step"][0] for curve in curves), min(curve["step"][-1] for curve in curves)
    steps = np.unique(np.concatenate([np.asarray(curve["step"], dtype=float) for curve in curves]))
    steps = steps[(steps >= first) & (steps <= last)]
    values = np.stack([np.interp(steps, curve["step"], curve[key]) for curve in curves])
    return Band(steps, values.min(axis=0), values.mean(axis=0), values.max(axis=0))


def measured(family: Family) -> str | None:
    """What is drawn: what every claim is about, if there are curves of it, else the return; none where that is missing."""
    curves = [curve for report in family.reports for curve in report["curves"]]
    metrics = {report["metric"] for report in family.reports}
    keys = [*metrics, "return"] if len(metrics) == 1 else ["return"]
    return next((key for key in keys if curves and all(curve.get(key) for curve in curves)), None)


def figure(family: Family, kind: str = "svg") -> bytes | None:
    """The family's learning curves as a picture; none where there is nothing to draw.

    Args:
        family: one line an experiment.
        kind: ``svg``, or ``png`` for looking at it.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    key = measured(family)
    if key is None:
        return None
    with mpl.rc_context(STYLE):
        panels = family.panels()
        size = (7.2, 3.4) if len(panels) == 1 else (2.4 * len(panels) + 1.4, 3.2)
        picture = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
        row = picture.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (title, part) in zip(row, panels.items(), strict=True):
            lines = draw(axes, part, key, alone=len(panels) == 1)
            axes.set_title(title, fontsize=10)
            axes.label_outer()
        axes.legend(handles=lines, loc="center left", bbox_to_anchor=(1.01, 0.5), labelcolor="#222222")
        return as_bytes(picture, kind)


def as_bytes(picture: "Figure", kind: str = "svg") -> bytes:
    """The same picture, the same bytes: no date and no version. Opaque, and so readable on a dark page as well."""
    content = BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    picture.savefig(content, format=kind, metadata=metadata, facecolor="white", dpi=110)
    return content.getvalue()


def draw(axes: "Axes", family: Family, key: str, alone: bool) -> "list[Line2D]":
    """A band and a line an experiment, and the goals as dashed lines; returns what is to be named, the best at the end first.

    Args:
        axes: drawn into.
        family: whose curves; on a logarithmic axis where all claims are that they become small.
        key: what is drawn.
        alone: no other panel has a goal of its own, or needs room beside this one.
    """
    from matplotlib.ticker import EngFormatter

    falling = all(report.get("at_most") and report["metric"] == metric_of(key) for report in family.reports)
    ends = []
    for index, report in enumerate(family.reports):
        curve = band(report["curves"], key)
        colour, dash = COLOURS[index % len(COLOURS)], DASHES[index // len(COLOURS) % len(DASHES)]
        axes.fill_between(curve.step, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
        [line] = axes.plot(curve.step, curve.mean, color=colour, linestyle=dash, linewidth=1.6, label=family.label(report))
        ends.append((curve.mean[-1] if falling else -curve.mean[-1], index, line))
    lines = [line for _, _, line in sorted(ends, key=lambda end: end[:2])]
    for goal in goals(family, key):
        dashed = axes.axhline(
            goal, color="#555555", linestyle=(0, (4, 3)), linewidth=1, label=f"goal: {goal:g}" if alone else "goal"
        )
        lines.append(dashed)
    if key == "success_rate":
        axes.set_ylim(-0.02, 1.02)
    if falling:
        axes.set_yscale("log")
    axes.margins(x=0)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.set_xlabel("environment steps")
    axes.set_ylabel(f"{MEASURED.get(key, key)}, while training")
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    if not alone:
        axes.locator_params(axis="x", nbins=4)
    return lines


def goals(family: Family, key: str) -> list[float]:
    """The goals that are about what is drawn, each once."""
    figures = [figure for report in family.reports for figure, _ in stated(report)]
    found = {figure.goal for figure in figures if figure.metric == metric_of(key) and figure.goal is not None}
    return sorted(found)


def metric_of(key: str) -> str:
    """What claims call a curve."""
    return {"return": "mean_reward"}.get(key, key)
