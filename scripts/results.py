"""``saccade results``: run an experiment's seeds and write ``results/EXPERIMENT.json``; nothing in it is typed by hand."""

import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_module
from omegaconf import DictConfig

from saccade.agents.checkpoint import write_atomically
from saccade.scripts.command import CONFIGS, RunError, UserError, check_overrides, run_command
from saccade.scripts.machine import machine, versions
from saccade.scripts.run_folder import EVALUATION, METRICS, read_metrics

CURVE_POINTS = 60


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry of ``saccade results``."""
    run_command(results, "results", sys.argv[1:] if arguments is None else arguments)


def results(options: DictConfig) -> None:
    """Train and evaluate every seed in a process of its own, then write the file.

    Raises:
        UserError: no such experiment, or one that claims nothing.
        RunError: a run failed.
    """
    if options.experiment is None:
        raise UserError("which experiment? saccade results experiment=straight_catch")
    seeds = list(options.seeds)
    cfg = experiment_config(options.experiment)
    if cfg.claim is None:
        raise UserError(f"experiment={options.experiment} names no claim: it has no metric to report")
    with ThreadPoolExecutor(options.jobs) as pool:
        folders = list(pool.map(lambda seed: run_seed(options, seed), seeds))
    report = summarise(options.experiment, seeds, cfg, folders)
    path = Path(options.folder) / f"{options.experiment}.json"
    write_atomically(path, (json.dumps(report, indent=1) + "\n").encode())
    print(f"{report['metric']} {report['values']}, goal {report['goal']}, met: {report['met']}  ({path})")


def experiment_config(experiment: str) -> DictConfig:
    """What ``saccade train experiment=...`` would train.

    Raises:
        UserError: no such experiment; names the nearest.
    """
    overrides = [f"experiment={experiment}"]
    check_overrides("train", overrides)
    with initialize_config_module(config_module=CONFIGS, version_base="1.3"):
        return compose("train", overrides)


def run_seed(options: DictConfig, seed: int) -> Path:
    """Train one seed and return its run folder.

    Raises:
        RunError: it ended with an error.
    """
    overrides = [f"experiment={options.experiment}", f"seed={seed}", f"runs={options.runs}", "saliency.every=0"]
    command = [sys.executable, "-m", "saccade.scripts.main", "train", *overrides, "progress_bar=false"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RunError(f"seed {seed} ended with status {done.returncode}: {done.stderr.strip()}")
    folder = next(line.split(maxsplit=2)[2] for line in done.stdout.splitlines() if line.startswith("run folder"))
    print(f"seed {seed}: {folder}", flush=True)
    return Path(folder)


def summarise(experiment: str, seeds: list[int], cfg: DictConfig, folders: list[Path]) -> dict[str, Any]:
    """The content of the results file."""
    evaluations = [json.loads((folder / EVALUATION).read_text()) for folder in folders]
    values = [evaluation[cfg.claim.metric] for evaluation in evaluations]
    goal = cfg.claim.goal
    return {
        "experiment": experiment,
        "command": f"saccade results experiment={experiment} seeds=[{','.join(map(str, seeds))}]",
        "seeds": seeds,
        "metric": cfg.claim.metric,
        "values": values,
        "goal": goal,
        "met": None if goal is None else bool(min(values) >= goal),
        "episodes": [evaluation["episodes"] for evaluation in evaluations],
        "steps": [evaluation["steps"] for evaluation in evaluations],
        "wall_seconds": [evaluation["wall_seconds"] for evaluation in evaluations],
        "machine": machine(cfg.threads),
        "versions": versions(),
        "date": datetime.now(UTC).date().isoformat(),
        "curves": [curve(folder / METRICS) for folder in folders],
    }


def curve(path: Path) -> dict[str, list[float]]:
    """Steps, mean return and success rate while training, at no more than ``CURVE_POINTS`` points."""
    rows = [row for row in read_metrics(path) if "rollout/ep_rew_mean" in row]
    chosen = np.unique(np.linspace(0, max(len(rows) - 1, 0), CURVE_POINTS).astype(int)).tolist()
    keys = {"step": "step", "return": "rollout/ep_rew_mean", "success_rate": "rollout/success_rate"}
    return {name: [round(rows[index][key], 4) for index in chosen] for name, key in keys.items() if rows and key in rows[-1]}


if __name__ == "__main__":
    main()
