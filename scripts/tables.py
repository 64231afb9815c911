"""Tables of the docs, made from the results files."""

from collections.abc import Sequence
from statistics import mean
from typing import Any

from saccade.scripts.claims import stated
from saccade.scripts.families import Family, family_name, title_of

COLUMNS = ("experiment", "metric", "mean", "each seed", "goal", "steps", "seconds a seed")


def results_table(reports: Sequence[dict[str, Any]]) -> str:
    """A Markdown table, a row an experiment, and below it a row for every further figure of its claim."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    for report in reports:
        name, cost = f"`{report['experiment']}`", (f"{max(report['steps']) / 1e6:.2f} M", f"{mean(report['wall_seconds']):.0f}")
        for claimed, values in stated(report):
            goal = "baseline" if is_baseline(report) else ""
            if claimed.goal is not None:
                goal = f"{'≤' if claimed.at_most else '≥'} {claimed.goal:g}: {'met' if claimed.met(values) else 'missed'}"
            seeds = ", ".join(number(value, values) for value in values)
            cells = (name, words(claimed.metric), number(mean(values), values), seeds, goal, *cost)
            lines.append(f"| {' | '.join(cells)} |")
            name, cost = "", ("", "")
    return "\n".join(lines) + "\n"


def is_baseline(report: dict[str, Any]) -> bool:
    """Whether an experiment is there for comparison: it claims nothing, and is not what its family is named after."""
    return report["goal"] is None and report["experiment"] != family_name(report)


def words(metric: str) -> str:
    """A metric as people say it.

    >>> words("train/squared_error"), words("measures.errors"), words("also.length_60.measures.errors")
    ('train/squared error', 'errors', 'errors, length 60')
    """
    where, _, what = metric.removeprefix("also.").partition(".") if metric.startswith("also.") else ("", "", metric)
    return ", ".join(filter(None, [what.removeprefix("measures."), where])).replace("_", " ")


def number(value: float, values: Sequence[float]) -> str:
    """To one digit after the point, or to three where none of all the values reaches 10."""
    return f"{value:.3f}" if max(map(abs, values)) < 10 else f"{value:.1f}"


def family_section(family: Family, picture: str | None) -> str:
    """Figure, table, the commands that make them, and what they were measured on.

    Args:
        family: its reports.
        picture: where its figure is, seen from the page; none where it has none.
    """
    commands = "\n".join(report["command"] for report in family.reports)
    machines = "; ".join(sorted({describe(report) for report in family.reports}))
    return (
        f"### {family.title}\n\n{picture_link(family.title, picture)}{results_table(family.reports)}"
        f"\n```bash\n{commands}\n```\n\nMeasured on: {machines}.\n"
    )


def picture_link(title: str, picture: str | None, what: str = "Learning curves") -> str:
    """A figure, with the text that stands for it."""
    return "" if picture is None else f"![{what}: {title}]({picture})\n\n"


def benchmark_section(name: str, report: dict[str, Any], picture: str | None = None) -> str:
    """A Markdown table of a benchmark's rows under its figure, and the command that measures them.

    Args:
        name: of the benchmark.
        report: its results file.
        picture: where its figure is, seen from the page; none where it has none.
    """
    floors = any(row.get("share") is not None for row in report["rows"])
    columns = ["what", "unit", "ours", "peer", "ratio", "goal", *(["of the arithmetic's floor"] if floors else [])]
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for row in report["rows"]:
        peer = "" if row["peer"] is None else f"{figure(row['peer'])} ({row['peer_name']})"
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}x"
        goal = "" if row["goal"] is None else f"{row['goal']}: {'met' if row['met'] else 'missed'}"
        share = [] if not floors else ["" if row["share"] is None else f"{row['share']:.0%}"]
        lines.append(f"| {' | '.join([row['name'], row['unit'], figure(row['ours']), peer, ratio, goal, *share])} |")
    command = f"{report['command']} --json results/benchmarks/{name}.json"
    table = "\n".join(lines)
    shown = picture_link(title_of(name), picture, "Measured")
    return f"### {title_of(name)}\n\n{shown}{table}\n\n```bash\n{command}\n```\n\nMeasured on: {describe(report)}.\n"


def figure(value: float) -> str:
    """A whole number, or three digits where that is more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def describe(report: dict[str, Any]) -> str:
    """Machine and versions in words."""
    machine, versions = report["machine"], report["versions"]
    packages = ", ".join(f"{name.replace('_', '-')} {version}" for name, version in versions.items())
    accelerator = f", {machine['accelerator']}" if "accelerator" in machine else ""
    instructions = f" ({machine['instructions']})" if "instructions" in machine else ""
    return (
        f"{machine['processor']}{instructions}, {machine['threads']} of {machine['cores']} cores a run{accelerator}, {packages}"
    )
