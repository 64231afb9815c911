"""Tables of the docs, generated from the results files: ``python -m saccade.scripts.tables results docs/results.md``."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

HEADER = """# Results

Every number on this page is generated from a file in `results/` by `make docs`; every file is written by the command below it.

"""
COLUMNS = ("experiment", "metric", "mean", "each seed", "goal", "steps", "seconds a seed")


def table(reports: Sequence[dict[str, Any]]) -> str:
    """A Markdown table, a row an experiment, and the commands that make them."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    for report in reports:
        goal = "baseline" if report["goal"] is None else f"≥ {report['goal']:g}: {'met' if report['met'] else 'missed'}"
        cells = (
            f"`{report['experiment']}`",
            report["metric"].replace("_", " "),
            f"{mean(report['values']):.3f}",
            ", ".join(f"{value:.3f}" for value in report["values"]),
            goal,
            f"{max(report['steps']) / 1e6:.2f} M",
            f"{mean(report['wall_seconds']):.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    commands = "\n".join(report["command"] for report in reports)
    machines = sorted({describe(report) for report in reports})
    episodes = max(max(report["episodes"]) for report in reports)
    caption = f"A value a seed, of {episodes} episodes after training, with the greedy action and the mean gaze."
    return caption + "\n\n" + "\n".join(lines) + f"\n\n```\n{commands}\n```\n\nMeasured on: {'; '.join(machines)}.\n"


def benchmark_table(name: str, report: dict[str, Any]) -> str:
    """A Markdown table of a benchmark's rows, and the command that measures them."""
    lines = ["| what | unit | ours | peer | ratio | goal |", f"|{'---|' * 6}"]
    for row in report["rows"]:
        peer = "" if row["peer"] is None else f"{row['peer']:,.0f} ({row['peer_name']})"
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.1f}x"
        goal = "" if row["goal"] is None else f"{row['goal']}: {'met' if row['met'] else 'missed'}"
        lines.append(f"| {row['name']} | {row['unit']} | {row['ours']:,.0f} | {peer} | {ratio} | {goal} |")
    command = f"python benchmarks/{name}.py --json results/benchmarks/{name}.json"
    return "\n".join(lines) + f"\n\n```\n{command}\n```\n\nMeasured on: {describe(report)}.\n"


def describe(report: dict[str, Any]) -> str:
    """Machine and versions in words."""
    machine, versions = report["machine"], report["versions"]
    packages = ", ".join(f"{name} {number}" for name, number in versions.items())
    return f"{machine['processor']}, {machine['threads']} of {machine['cores']} cores a run, {packages}"


def page(folder: Path) -> str:
    """The whole page: what agents learn, then how fast things are."""
    reports = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    benchmarks = sorted((folder / "benchmarks").glob("*.json"))
    speed = [f"## Speed: {path.stem}\n\n" + benchmark_table(path.stem, json.loads(path.read_text())) for path in benchmarks]
    return "\n".join([HEADER + "## Learning\n\n" + table(reports), *speed])


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:3])
    target.write_text(page(source), encoding="utf-8")
