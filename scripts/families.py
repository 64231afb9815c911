"""Experiments that belong together: one heading, one table and one figure of the docs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TITLES = {
    "straight_catch": "Catch through a glimpse",
    "cartpole": "CartPole",
    "cartpole_novel": "CartPole without velocities",
    "pendulum_novel": "Pendulum without velocities",
    "poc_memory": "Proof-of-concept memory",
    "tmaze": "T-maze",
    "dueling_corridor": "Dueling corridor",
    "minigrid_memory": "MiniGrid Memory",
}
"""Families in the order of the page; all others follow by name."""

AGENTS = {"ppo", "pqn", "dqn", "r2d2"}
"""As they are spelt in the names of experiments: there the family's name ends."""
ABBREVIATIONS = AGENTS | {"lstm", "gru", "mlp", "ntm", "dnc"}


@dataclass(frozen=True)
class Family:
    """Reports (results files) that are compared with one another.

    Attributes:
        name: also the file name of its figure.
        reports: sorted by experiment.
    """

    name: str
    reports: Sequence[dict[str, Any]]

    @property
    def title(self) -> str:
        """The heading."""
        return TITLES.get(self.name, self.name.replace("_", " ").capitalize())

    def label(self, report: dict[str, Any]) -> str:
        """What tells an experiment from its siblings: the rest of its name, or all of it where nothing is left."""
        name: str = report["experiment"]
        rest = name.removeprefix(self.name).strip("_")
        return ", ".join(word.upper() if word in ABBREVIATIONS else word for word in rest.split("_")) if rest else name


def family_name(report: dict[str, Any]) -> str:
    """The report's ``group``; else the longest known name that its own begins with; else what stands before the agent."""
    if report.get("group"):
        return str(report["group"])
    words = report["experiment"].split("_")
    starts = ["_".join(words[:end]) for end in range(len(words), 0, -1)]
    for start in starts:
        if start in TITLES:
            return start
    agents = [index for index, word in enumerate(words) if word in AGENTS and index > 0]
    return "_".join(words[: agents[0]]) if agents else "_".join(words)


def families(folder: Path) -> list[Family]:
    """Every family of which ``folder`` holds results, in the order of the page."""
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    names = {family_name(report) for report in reports}
    known = list(TITLES)
    ordered = sorted(names, key=lambda name: (known.index(name) if name in TITLES else len(known), name))
    return [Family(name, [report for report in reports if family_name(report) == name]) for name in ordered]
