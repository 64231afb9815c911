"""What the benchmarks share: one thread, ours and the peer in turns, medians, a table, a JSON file."""

import argparse
import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from saccade.scripts.machine import machine, versions

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

Work = Callable[[], int]
"""Does a piece of work and returns how many units of it were done."""


class Settings(NamedTuple):
    """How to measure.

    Attributes:
        quick: the same rows in less time, more roughly.
        device: where networks are, ``cpu`` or ``cuda``.
    """

    quick: bool = False
    device: str = "cpu"

    def clock(self) -> float:
        """Seconds that agents take: what they use of a processor, whoever else uses it; on a GPU, on the wall."""
        if self.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def goal(self, ratio: float | None) -> float | None:
        """A goal for the ratio, where it is meant: on a processor."""
        return ratio if self.device == "cpu" else None


class Row(NamedTuple):
    """One comparison. ``goal`` says in words what ``met`` judges; both are ``None`` where nothing was promised.

    Attributes:
        ratio: how many times better ours is: ours by the peer's, or the other way round where less is better.
        floor: what ours could be if the processor did nothing but its arithmetic; ``share`` is ours by that.
    """

    name: str
    unit: str
    ours: float
    peer: float | None
    peer_name: str | None
    ratio: float | None
    goal: str | None
    met: bool | None
    floor: float | None = None
    share: float | None = None


def compare(
    name: str,
    unit: str,
    ours: float,
    peer: float | None = None,
    peer_name: str | None = None,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    ratio_at_least: float | None = None,
    floor: float | None = None,
) -> Row:
    """A row with at most one goal: for our own figure, or for its ratio to the peer's. More is better, unless ``at_most``.

    Raises:
        ValueError: two goals, or a goal for the ratio without a peer.
    """
    goals = [goal for goal in (at_least, at_most, ratio_at_least) if goal is not None]
    if len(goals) > 1:
        raise ValueError(f"{name}: {len(goals)} goals in one row")
    ratio = None if peer is None else ours / peer if at_most is None else peer / ours
    if ratio_at_least is not None and ratio is None:
        raise ValueError(f"{name}: a goal for the ratio needs a peer")
    goal, met = None, None
    if at_least is not None:
        goal, met = f"ours >= {at_least:g}", ours >= at_least
    elif at_most is not None:
        goal, met = f"ours <= {at_most:g}", ours <= at_most
    elif ratio_at_least is not None and ratio is not None:
        goal, met = f"ratio >= {ratio_at_least:g}", ratio >= ratio_at_least
    return Row(name, unit, ours, peer, peer_name, ratio, goal, met, floor, None if floor is None else ours / floor)


def cost(
    name: str,
    unit: str,
    ours: float,
    peer: float | None = None,
    peer_name: str | None = None,
    *,
    goal: float | None = None,
    floor: float | None = None,
) -> Row:
    """A row where less is better; ``goal`` is for how many times less ours is than the peer's."""
    inverse = [None if figure is None else 1 / figure for figure in (peer, floor)]
    row = compare(name, unit, 1 / ours, inverse[0], peer_name, ratio_at_least=goal, floor=inverse[1])
    return row._replace(ours=ours, peer=peer, floor=floor)


Clock = Callable[[], float]
"""Seconds: of the wall, or ``time.process_time``, which stands still while other programs have the processor."""


def median_rates(work: Mapping[str, Work], rounds: int, clock: Clock = time.perf_counter) -> dict[str, float]:
    """Units per second of every contestant: the median of ``rounds`` timings, taken in turns after one untimed call.

    Turns make contestants share what else the machine does; the order is reversed from one round to the next, so that
    none always comes first. Garbage collection waits until a timing is over.
    """
    for piece in work.values():
        piece()
    rates: dict[str, list[float]] = {name: [] for name in work}
    order = list(work.items())
    for _ in range(rounds):
        for name, piece in order:
            rates[name].append(_rate(piece, clock))
        order.reverse()
    return {name: statistics.median(samples) for name, samples in rates.items()}


def milliseconds(work: Mapping[str, Work], rounds: int, settings: Settings) -> dict[str, float]:
    """For one unit of work of each."""
    return {name: 1000 / rate for name, rate in median_rates(work, rounds, settings.clock).items()}


def _rate(piece: Work, clock: Clock) -> float:
    gc.collect()
    gc.disable()
    start = clock()
    units = piece()
    seconds = clock() - start
    gc.enable()
    return units / seconds


def main(description: str, measure: Callable[[Settings], list[Row]], devices: Sequence[str] = ("cpu",)) -> None:
    """The command line of a benchmark: ``--json FILE``, ``--quick``, ``--device``. Ends with status 1 if a goal was missed.

    Starts itself again where more than one thread is allowed: numpy and torch read that when they load.

    Args:
        description: what is measured, for ``--help``.
        measure: returns the rows.
        devices: where it can be measured, the first unless another is asked for.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write machine and rows to this file")
    parser.add_argument("--quick", action="store_true", help="the same rows in under a minute, less exactly")
    parser.add_argument("--device", choices=devices, default=devices[0], help="where networks are")
    arguments = parser.parse_args()
    if arguments.json is not None and not arguments.json.absolute().parent.is_dir():
        parser.error(f"--json {arguments.json}: there is no folder {arguments.json.absolute().parent}")
    if any(os.environ.get(name) != "1" for name in THREADS):
        os.environ.update(dict.fromkeys(THREADS, "1"))
        os.execv(sys.executable, sys.orig_argv)
    settings = Settings(arguments.quick, arguments.device)
    rows = measure(settings)
    print(table(rows))
    if arguments.json is not None:
        on = machine(threads=1, device=settings.device)
        command = f"python benchmarks/{Path(sys.argv[0]).name}"
        command += "" if settings.device == devices[0] else f" --device {settings.device}"
        command += " --quick" if settings.quick else ""
        content = {"command": command, "machine": on, "versions": versions(), "rows": [row._asdict() for row in rows]}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")
    raise SystemExit(any(row.met is False for row in rows))


def table(rows: list[Row]) -> str:
    """The rows as aligned text."""
    cells = [("", "unit", "ours", "peer", "ratio", "goal", "", "of the floor")]
    for row in rows:
        peer = "" if row.peer is None else f"{figure(row.peer)} ({row.peer_name})"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        verdict = {None: "", True: "met", False: "MISSED"}[row.met]
        share = "" if row.share is None else f"{row.share:.0%}"
        cells.append((row.name, row.unit, figure(row.ours), peer, ratio, row.goal or "", verdict, share))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)


def figure(number: float) -> str:
    """Whole numbers, or three digits where that is more."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
