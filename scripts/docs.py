"""Everything in ``docs/`` that is generated: ``python -m saccade.scripts.docs results docs``.

``results.md`` and the figures are written whole. In all other pages whatever stands between two comments is::

    <!-- make docs: arguments saccade.agents.PQN -->
    <!-- end -->

    <!-- make docs: results straight_catch* *_pqn* -->
    <!-- end -->
"""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from os.path import relpath
from pathlib import Path
from typing import Any

from saccade.scripts.arguments import arguments_table
from saccade.scripts.families import Family, families
from saccade.scripts.figures import figure
from saccade.scripts.tables import benchmark_section, family_section, picture_link, results_table
from saccade.scripts.trends import trend_figure

PAGE, FIGURES = "results.md", "images/results"
HEADER = """# Results

Every number and every curve on this page is generated from a file in `results/` by `make docs`; every file is written by the
command below it.

## Learning

A value in the tables is the mean of a seed's {episodes} episodes *after* training, with the most likely action and, where there
is a gaze, the mean gaze; one named `train/...` is the last that was recorded in training. A goal is met if every seed meets it.
The curves are taken *while* training, from exploring agents: the line is the mean over the seeds, and the band reaches from the
lowest seed to the highest.

"""
BENCHMARKS = """## Benchmarks

*Of the arithmetic's floor* is our rate as a share of the one at which the network's multiplications alone would run on the same
machine; 100 % would leave no time for environments, copies or Python. *Network's time* is how long one call of `predict` takes,
as a multiple of the network's own forward pass; 1 would be no overhead. Faster arithmetic makes larger ratios: what the peers
spend is largely Python's time.

"""
BEGIN = "<!-- make docs: "
BLOCK = re.compile(r"<!-- make docs: (\w+) ([^\n]+?) -->\n(?:(?!<!-- make docs: ).)*?<!-- end -->", re.DOTALL)


def generate(results: Path, docs: Path) -> dict[Path, bytes]:
    """The content of every file that is generated, or partly so, by its path."""
    groups = families(results)
    benchmarks = {path.stem: json.loads(path.read_text()) for path in sorted((results / "benchmarks").glob("*.json"))}
    pictures = {group.name: figure(group) for group in groups}
    pictures |= {name: trend_figure(report["rows"]) for name, report in benchmarks.items()}
    drawn = {docs / FIGURES / f"{name}.svg": content for name, content in pictures.items() if content is not None}
    files = {**drawn, docs / PAGE: results_page(benchmarks, groups, docs, set(drawn)).encode()}
    for page in sorted(docs.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        if BEGIN in text and page not in files:
            files[page] = fill(text, groups, page, docs, set(drawn)).encode()
    return files


def results_page(benchmarks: Mapping[str, dict[str, Any]], groups: Sequence[Family], docs: Path, drawn: set[Path]) -> str:
    """What agents learn, then what benchmarks measure."""
    numbers = {number for group in groups for report in group.reports for number in report["episodes"]}
    episodes = " to ".join(map(str, sorted({min(numbers), max(numbers)}))) if numbers else ""
    learning = [family_section(group, where(group.name, docs / PAGE, docs, drawn)) for group in groups]
    measured = [benchmark_section(name, report, where(name, docs / PAGE, docs, drawn)) for name, report in benchmarks.items()]
    return HEADER.format(episodes=episodes) + "\n".join([*learning, BENCHMARKS, *measured])


def where(name: str, page: Path, docs: Path, drawn: set[Path]) -> str | None:
    """The way from a page to the figure of a family or a benchmark; none where it has none."""
    picture = docs / FIGURES / f"{name}.svg"
    return Path(relpath(picture, page.parent)).as_posix() if picture in drawn else None


def fill(text: str, groups: Sequence[Family], page: Path, docs: Path, drawn: set[Path]) -> str:
    """A page with the content of its blocks made anew.

    Raises:
        ValueError: a block has no end, asks for something unknown, or for results that do not exist.
    """

    def content(match: re.Match[str]) -> str:
        kind, asked = match[1], match[2]
        begin, end = match[0].splitlines()[0], "<!-- end -->"
        if kind == "arguments":
            return f"{begin}\n\n{arguments_table(asked)}\n{end}"
        if kind == "results":
            return f"{begin}\n\n{chosen_results(asked.split(), groups, page, docs, drawn)}\n{end}"
        raise ValueError(f"{page.name}: a block of {kind!r} is not known; there are: arguments, results")

    filled, found = BLOCK.subn(content, text)
    if found != text.count(BEGIN):
        raise ValueError(
            f"{page.name}: {text.count(BEGIN)} blocks begin with {BEGIN!r}, and {found} of them are closed by <!-- end -->"
        )
    return filled


def chosen_results(patterns: Sequence[str], groups: Sequence[Family], page: Path, docs: Path, drawn: set[Path]) -> str:
    """The experiments that match, a table a family, under the figure of the whole family.

    Raises:
        ValueError: none matches.
    """
    parts = []
    for group in groups:
        reports = [report for report in group.reports if any(fnmatchcase(report["experiment"], text) for text in patterns)]
        if reports:
            picture = picture_link(group.title, where(group.name, page, docs, drawn))
            parts.append(f"### {group.title}\n\n{picture}{results_table(reports)}")
    if not parts:
        names = ", ".join(report["experiment"] for group in groups for report in group.reports)
        raise ValueError(f"{page.name}: no results match {' '.join(patterns)}; there are: {names}")
    return "\n".join(parts)


def main(arguments: Sequence[str]) -> None:
    """Write what has changed, and remove figures whose results are gone."""
    results, docs = map(Path, arguments)
    files = generate(results, docs)
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for stale in set((docs / FIGURES).glob("*")) - set(files):
        stale.unlink()
    print(f"wrote {len(files)} files of {docs}")


if __name__ == "__main__":
    main(sys.argv[1:3])
