"""What an experiment claims: figures, each with its goal, and what a run has come to."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from saccade.scripts.errors import RunError
from saccade.scripts.run_folder import EVALUATION, METRICS, read_metrics

OF_EVALUATION = ("measures.", "also.")
"""What dotted names of ``evaluation.json`` begin with."""


class Claimed(NamedTuple):
    """One figure of a claim.

    Attributes:
        metric: a number of ``evaluation.json``, dotted where it lies deeper (``also.length_60.measures.errors``), or one of
            the training's rows.
        goal: none for a baseline.
        at_most: whether the goal is reached from above.
    """

    metric: str
    goal: float | None
    at_most: bool

    def met(self, values: Sequence[float]) -> bool | None:
        """Whether every seed's value reaches the goal; none where there is none.

        >>> Claimed("measures.errors", goal=2.0, at_most=True).met([0.5, 2.0])
        True
        """
        if self.goal is None:
            return None
        return max(values) <= self.goal if self.at_most else min(values) >= self.goal


def claimed(claim: DictConfig) -> list[Claimed]:
    """Every figure of a config's claim, the main one first."""
    more = [Claimed(str(metric), part.goal, part.at_most) for metric, part in claim.more.items()]
    return [Claimed(str(OmegaConf.select(claim, "metric")), claim.goal, claim.at_most), *more]


def stated(report: dict[str, Any]) -> list[tuple[Claimed, list[float]]]:
    """Every figure of a results file with its value for each seed, the main one first."""
    figures = [(report["metric"], report), *report.get("more", {}).items()]
    return [(Claimed(metric, part["goal"], part.get("at_most", False)), part["values"]) for metric, part in figures]


def in_rows(metric: str) -> bool:
    """Whether a metric is one of the training's rows, which SB3 names ``group/name``, and not of the evaluation."""
    return "/" in metric and not metric.startswith(OF_EVALUATION)


def last_value(folder: Path, metric: str) -> float:
    """What a run has come to: a number of its evaluation, or of its last row of metrics that has it.

    Raises:
        RunError: there is none; names what there is.
    """
    if not in_rows(metric):
        numbers = dict(flat(json.loads((folder / EVALUATION).read_text())))
        value = numbers.get(metric)
        if value is not None:
            return value
        if metric.rpartition(".")[2] == "success_rate" and "measures." not in metric:
            why = "its environment does not say whether an episode succeeded; claim.metric=mean_reward is always there"
        else:
            why = f"there are: {', '.join(name for name, number in numbers.items() if number is not None)}"
        raise RunError(f"{folder / EVALUATION} has no {metric}: {why}")
    rows = read_metrics(folder / METRICS)
    values = [row[metric] for row in rows if metric in row]
    if not values or values[-1] is None:
        found = "is not finite at the end" if values else f"is in no row; there are: {', '.join(sorted(set().union(*rows)))}"
        raise RunError(f"{metric} {found} ({folder / METRICS})")
    return float(values[-1])


def flat(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float | None]]:
    """Every number of an evaluation under its dotted name, and those that are missing.

    >>> dict(flat({"env": "Catch", "mean_reward": 1, "measures": {"errors": None}}))
    {'mean_reward': 1.0, 'measures.errors': None}
    """
    for name, value in content.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        elif value is None or isinstance(value, int | float):
            yield f"{prefix}{name}", None if value is None else float(value)
