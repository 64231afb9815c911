"""``saccade results``: run an experiment's seeds and write ``results/EXPERIMENT.json``; nothing in it is typed by hand."""

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from stable_baselines3.common.utils import get_device

from saccade.agents.archive import write_atomically
from saccade.scripts.build import check_values
from saccade.scripts.command import RunError, UserError, run_command
from saccade.scripts.evaluate import Evaluation
from saccade.scripts.machine import machine, versions
from saccade.scripts.run_folder import EVALUATION, METRICS, read_metrics

CURVE_POINTS = 60
WHERE = {"folder", "jobs", "runs", "progress_bar", "saliency.every"}
"""Values that say where and how, and change no result."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry of ``saccade results``."""
    run_command(results, "results", sys.argv[1:] if arguments is None else arguments)


def results(cfg: DictConfig) -> None:
    """Train and evaluate every seed in a process of its own, then write the file.

    Raises:
        UserError: no experiment, one that claims nothing, or a value out of its range.
        RunError: a run failed.
    """
    hydra = HydraConfig.get()
    experiment = dict(hydra.runtime.choices)["experiment"]
    if experiment is None or cfg.claim is None:
        raise UserError("which experiment? saccade results experiment=straight_catch; only one with a claim has results")
    seeds, overrides = list(cfg.seeds), train_overrides(cfg, hydra.overrides.task)
    path = Path(cfg.folder) / f"{experiment}.json"
    check_first(cfg, path)
    with ThreadPoolExecutor(cfg.jobs) as pool:
        folders = list(pool.map(lambda seed: run_seed([*overrides, f"seed={seed}"]), seeds))
    listed = f"seeds=[{','.join(map(str, seeds))}]"
    command = shlex.join(["saccade", "results", *asked(hydra.overrides.task, WHERE | {"seeds"}), listed])
    report = summarise(experiment, command, seeds, cfg, folders)
    write_atomically(path, (json.dumps(report, indent=1) + "\n").encode())
    print(f"{report['metric']} {report['values']}, goal {report['goal']}, met: {report['met']}  ({path})")


def check_first(cfg: DictConfig, path: Path) -> None:
    """Find out before hours of training what would make them useless.

    Raises:
        UserError: a value is out of its range, the metric is none, or nothing can be written where the file goes.
    """
    check_values(cfg)
    if cfg.jobs < 1:
        raise UserError(f"jobs is a whole number from 1 on, not {cfg.jobs}")
    if not cfg.seeds or min(cfg.seeds) < 0:
        raise UserError(f"seeds is a list of whole numbers from 0 on, such as [0,1,2], not {list(cfg.seeds)}")
    metrics = [field.name for field in fields(Evaluation) if field.type is not str]
    metric = OmegaConf.select(cfg, "claim.metric")
    if metric not in metrics and not in_rows(metric):
        raise UserError(
            f"claim.metric {metric!r} is not in {EVALUATION}; there are: {', '.join(metrics)}; "
            "or one of the training's rows, such as train/loss"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UserError(f"cannot write to {path.parent.resolve()}: {error.strerror or error}") from error


def train_overrides(cfg: DictConfig, overrides: Sequence[str]) -> list[str]:
    """What ``saccade train`` is asked for: the same, without what only ``results`` knows."""
    return [
        *asked(overrides, WHERE | {"seeds"}),
        f"runs={cfg.runs}",
        f"progress_bar={cfg.progress_bar}",
        f"saliency.every={cfg.saliency.every}",
    ]


def asked(overrides: Sequence[str], without: set[str]) -> list[str]:
    """The overrides whose key is not among ``without``."""
    return [text for text in overrides if text.lstrip("+").partition("=")[0] not in without]


def run_seed(overrides: Sequence[str]) -> Path:
    """Train once and return the run folder.

    Raises:
        RunError: it ended with an error.
    """
    command = [sys.executable, "-m", "saccade.scripts.main", "train", *overrides]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RunError(f"{' '.join(overrides)} ended with status {done.returncode}: {done.stderr.strip()}")
    folder = next(line.split(maxsplit=2)[2] for line in done.stdout.splitlines() if line.startswith("run folder"))
    print(f"{overrides[-1]}: {folder}", flush=True)
    return Path(folder)


def summarise(experiment: str, command: str, seeds: list[int], cfg: DictConfig, folders: list[Path]) -> dict[str, Any]:
    """The content of the results file.

    Raises:
        RunError: a run has no value for the claim's metric.
    """
    evaluations = [json.loads((folder / EVALUATION).read_text()) for folder in folders]
    metric, goal, at_most = cfg.claim.metric, cfg.claim.goal, cfg.claim.at_most
    values = [last_value(folder, metric) for folder in folders]
    return {
        "experiment": experiment,
        "command": command,
        "seeds": seeds,
        "metric": metric,
        "values": values,
        "goal": goal,
        "met": None if goal is None else bool(max(values) <= goal if at_most else min(values) >= goal),
        **({"at_most": True} if at_most else {}),
        "episodes": [evaluation["episodes"] for evaluation in evaluations],
        "steps": [evaluation["steps"] for evaluation in evaluations],
        "wall_seconds": [evaluation["wall_seconds"] for evaluation in evaluations],
        "machine": machine(cfg.threads, str(get_device(cfg.device))),
        "versions": versions(),
        "date": datetime.now(UTC).date().isoformat(),
        "curves": [curve(folder / METRICS, metric) for folder in folders],
    }


def in_rows(metric: str) -> bool:
    """Whether a metric is one of the training's rows, which SB3 names ``group/name``, and not of the evaluation."""
    return "/" in metric


def last_value(folder: Path, metric: str) -> float:
    """What a run has come to: a number of its evaluation, or of its last row of metrics that has it.

    Raises:
        RunError: there is none; names what there is.
    """
    if not in_rows(metric):
        value = json.loads((folder / EVALUATION).read_text())[metric]
        if value is None:
            raise RunError(
                f"{folder / EVALUATION} has no {metric}: its environment does not say whether an episode succeeded; "
                "claim.metric=mean_reward is always there"
            )
        return float(value)
    rows = read_metrics(folder / METRICS)
    values = [row[metric] for row in rows if metric in row]
    if not values or values[-1] is None:
        found = "is not finite at the end" if values else f"is in no row; there are: {', '.join(sorted(set().union(*rows)))}"
        raise RunError(f"{metric} {found} ({folder / METRICS})")
    return float(values[-1])


def curve(path: Path, metric: str) -> dict[str, list[int | float]]:
    """Steps, mean return, success rate and the claim's metric while training, at no more than ``CURVE_POINTS`` points."""
    keys = {"step": "step", "return": "rollout/ep_rew_mean", "success_rate": "rollout/success_rate"}
    keys |= {metric: metric} if in_rows(metric) else {}
    needed = {"rollout/ep_rew_mean", keys.get(metric, "step")}
    rows = [row for row in read_metrics(path) if all(row.get(name) is not None for name in needed)]
    chosen = np.unique(np.linspace(0, max(len(rows) - 1, 0), CURVE_POINTS).astype(int)).tolist()
    return {name: [round(rows[index][key], 4) for index in chosen] for name, key in keys.items() if rows and key in rows[-1]}


if __name__ == "__main__":
    main()
