"""Experiments that belong together: one heading, one table and one figure of the docs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TITLES = {
    "straight_catch": "Catch through a glimpse",
    "glimpse_catch": "Catch at the paper's size",
    "cartpole": "CartPole",
    "cartpole_novel": "CartPole without velocities",
    "pendulum_novel": "Pendulum without velocities",
    "poc_memory": "Proof-of-concept memory",
    "tmaze": "T-maze",
    "dueling_corridor": "Dueling corridor",
    "minigrid_memory": "MiniGrid Memory",
    "gtrxl_minigrid": "MiniGrid Memory, a longer corridor",
    "ntm_copy": "Copy, with an NTM",
    "dnc_copy": "Copy, with a DNC",
    "ntm_repeat_copy": "Repeat copy",
    "ntm_recall": "Associative recall",
    "ntm_ngrams": "Dynamic n-grams",
    "ntm_sort": "Priority sort",
    "copy": "Copy, from rewards",
    "repeat_previous": "Repeat previous",
    "gtrxl_tmaze": "T-maze of 100 steps",
    "gtrxl_stability": "Transformers at three learning rates",
    "act_parity": "Parity",
    "universal_copy": "Copy, with a Universal Transformer",
    "universal_reverse": "Reverse",
    "universal_addition": "Addition",
    "spotlight": "Spotlight",
    "spotlight_maps": "What attention lies on in Spotlight",
    "canvas": "A step, as the canvas grows",
    "graph_traversal": "Graph traversal",
    "shortest_path": "Shortest path",
    "shrdlu": "Mini-SHRDLU",
    "shrdlu_plan": "The first move in Mini-SHRDLU, decoded",
    "transformers": "Transformers over a window",
    "parity_ponder": "Pondering parity, by how much there is to count",
}
"""Families in the order of the page, and benchmarks; all others follow by name."""

PANELS = {"dueling_corridor": "{} actions", "gtrxl_stability": "{} rate"}
"""Families whose experiments name, first of all, which of several pictures side by side they belong to; and its title."""

AGENTS = {"ppo", "pqn", "dqn", "r2d2", "supervised"}
"""As they are spelt in the names of experiments: there the family's name ends."""
ABBREVIATIONS = AGENTS | {"lstm", "gru", "mlp", "ntm", "dnc"}
SPELT = {"gtrxl": "GTrXL", "trxl": "TrXL", "universal": "Universal Transformer"}
CORES = {*SPELT, "relational"}
"""What may stand before a family's name, for one of its experiments."""
LEVELS = ("low", "middle", "high")
"""In this order."""


def title_of(name: str) -> str:
    """The heading of a family or a benchmark.

    >>> title_of("repeat_previous"), title_of("my_own")
    ('Repeat previous', 'My own')
    """
    return TITLES.get(name, name.replace("_", " ").capitalize())


@dataclass(frozen=True)
class Family:
    """Reports (results files) that are compared with one another.

    Attributes:
        name: also the file name of its figure.
        reports: sorted by experiment, numbers by their size.
    """

    name: str
    reports: Sequence[dict[str, Any]]

    @property
    def title(self) -> str:
        """The heading."""
        return title_of(self.name)

    def panels(self) -> "dict[str, Family]":
        """The parts of the family that are drawn side by side, by title; one without a title where all is one picture."""
        if self.name not in PANELS:
            return {"": self}
        words = {report["experiment"]: self.rest(report).partition("_")[0] for report in self.reports}
        return {
            PANELS[self.name].format(word): Family(
                f"{self.name}_{word}", [report for report in self.reports if words[report["experiment"]] == word]
            )
            for word in dict.fromkeys(words.values())
        }

    def rest(self, report: dict[str, Any]) -> str:
        """An experiment's name without the family's."""
        before, _, after = str(report["experiment"]).partition(self.name)
        return (before + after).strip("_")

    def label(self, report: dict[str, Any]) -> str:
        """What tells an experiment from its siblings: the rest of its name, the core that it begins with, or all of it."""
        name, first = report["experiment"], report["experiment"].split("_")[0]
        rest = self.rest(report) or (first if first in CORES else "")
        words = (SPELT.get(word, word.upper() if word in ABBREVIATIONS else word) for word in rest.split("_"))
        return ", ".join(words) if rest else name


def family_name(report: dict[str, Any]) -> str:
    """What the report belongs to.

    Its ``group``; else the longest known name that its own begins with, or goes on with after a core's; else what stands
    before the agent.
    """
    if report.get("group"):
        return str(report["group"])
    words = report["experiment"].split("_")
    for named in (words, words[1:] if words[0] in CORES else []):
        for end in range(len(named), 0, -1):
            start = "_".join(named[:end])
            if start in TITLES:
                return start
    agents = [index for index, word in enumerate(words) if word in AGENTS and index > 0]
    return "_".join(words[: agents[0]]) if agents else "_".join(words)


def by_number(path: Path) -> list[tuple[int, str]]:
    """What to sort results files by, so that 5 comes before 10, and low before high."""
    ranks = {level: rank for rank, level in enumerate(LEVELS)}
    return [(int(word) if word.isdigit() else ranks.get(word, -1), word) for word in path.stem.split("_")]


def families(folder: Path) -> list[Family]:
    """Every family of which ``folder`` holds results, in the order of the page."""
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"), key=by_number)]
    names = {family_name(report) for report in reports}
    known = list(TITLES)
    ordered = sorted(names, key=lambda name: (known.index(name) if name in TITLES else len(known), name))
    return [Family(name, [report for report in reports if family_name(report) == name]) for name in ordered]
