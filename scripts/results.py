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
from omegaconf import DictConfig
from stable_baselines3.common.utils import get_device

from saccade.agents.archive import write_atomically
from saccade.envs import WrongExperienceError
from saccade.scripts.build import check_values, drop_foreign_kwargs, make_agent, make_env, training_env
from saccade.scripts.claims import claimed, in_rows, last_value, stated
from saccade.scripts.command import RunError, UserError, run_command
from saccade.scripts.evaluate import Score, measures_of
from saccade.scripts.machine import machine, versions
from saccade.scripts.overrides import nearest
from saccade.scripts.run_folder import EVALUATION, METRICS, read_metrics
from saccade.scripts.settings import check_settings, settings

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
    drop_foreign_kwargs(cfg, hydra.overrides.task)
    check_first(cfg, path)
    with ThreadPoolExecutor(cfg.jobs) as pool:
        folders = list(pool.map(lambda seed: run_seed([*overrides, f"seed={seed}"]), seeds))
    listed = f"seeds=[{','.join(map(str, seeds))}]"
    command = shlex.join(["saccade", "results", *asked(hydra.overrides.task, WHERE | {"seeds"}), listed])
    report = summarise(experiment, command, seeds, cfg, folders)
    write_atomically(path, (json.dumps(report, indent=1) + "\n").encode())
    lines = [f"{figure.metric} {values}, goal {figure.goal}, met: {figure.met(values)}" for figure, values in stated(report)]
    lines += [f"all met: {report['met']}"] if "more" in report else []
    print("\n".join(lines) + f"  ({path})")


def check_first(cfg: DictConfig, path: Path) -> None:
    """Find out before hours of training what would make them useless.

    Raises:
        UserError: a value is out of its range, a setting or a metric is none, or nothing can be written where the file goes.
    """
    check_values(cfg)
    if cfg.jobs < 1:
        raise UserError(f"jobs is a whole number from 1 on, not {cfg.jobs}")
    if not cfg.seeds or min(cfg.seeds) < 0:
        raise UserError(f"seeds is a list of whole numbers from 0 on, such as [0,1,2], not {list(cfg.seeds)}")
    check_settings(cfg)
    check_claim(cfg)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UserError(f"cannot write to {path.parent.resolve()}: {error.strerror or error}") from error


def check_claim(cfg: DictConfig) -> None:
    """Whether every metric that a claim names will be there.

    Raises:
        UserError: one will not; names the nearest that will.
        RunError: an environment that was asked for what it measures returned what it should not.
    """
    named = [figure.metric for figure in claimed(cfg.claim) if not in_rows(figure.metric)]
    numbers = [field.name for field in fields(Score) if field.name != "measures"]
    places = {"": cfg, **{f"also.{name}.": other for name, other in settings(cfg).items()}}
    valid = [*numbers, "seed", "steps", "wall_seconds", *(f"{place}{number}" for place in places for number in numbers)]
    if any("measures." in metric for metric in named):
        for place, names in given_measures(cfg, places).items():
            prefix = f"{place}measures."
            unknown = [metric for metric in named if metric.startswith(prefix)]
            valid += unknown if names is None else [prefix + name for name in names]
    for metric in named:
        if metric not in valid:
            near, there = nearest(metric, valid), f"there are: {', '.join(dict.fromkeys(valid))}"
            raise UserError(
                f"the claim's metric {metric!r} is not in {EVALUATION}; {f'{near}; ' if near.startswith('the nearest') else ''}"
                f"{there}; or one of the training's rows, such as train/loss"
            )


def given_measures(cfg: DictConfig, places: dict[str, DictConfig]) -> dict[str, list[str] | None]:
    """What the environment of each place measures, by an episode of the agent before it learns; ``None`` if that says nothing.

    Raises:
        UserError: the agent or an environment cannot be made.
        RunError: an environment returned what it should not.
    """
    training = training_env(cfg)
    model = make_agent(cfg, training)
    names = {}
    for place, where in places.items():
        env = make_env(where, n_envs=1)
        try:
            names[place] = measures_of(model, env)
        except WrongExperienceError as error:
            raise RunError(str(error)) from error
        env.close()
    training.close()
    return names


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
        RunError: a run has no value for one of the claim's metrics.
    """
    evaluations = [json.loads((folder / EVALUATION).read_text()) for folder in folders]
    found = [(figure, [last_value(folder, figure.metric) for folder in folders]) for figure in claimed(cfg.claim)]
    (main, values), *others = found
    verdicts = [met for figure, of_seeds in found if (met := figure.met(of_seeds)) is not None]
    more = {
        figure.metric: {"values": of_seeds, "goal": figure.goal, "at_most": figure.at_most, "met": figure.met(of_seeds)}
        for figure, of_seeds in others
    }
    return {
        "experiment": experiment,
        "command": command,
        "seeds": seeds,
        "metric": main.metric,
        "values": values,
        "goal": main.goal,
        "met": all(verdicts) if verdicts else None,
        **({"at_most": True} if main.at_most else {}),
        **({"more": more} if more else {}),
        "episodes": [evaluation["episodes"] for evaluation in evaluations],
        "steps": [evaluation["steps"] for evaluation in evaluations],
        "wall_seconds": [evaluation["wall_seconds"] for evaluation in evaluations],
        "machine": machine(cfg.threads, str(get_device(cfg.device))),
        "versions": versions(),
        "date": datetime.now(UTC).date().isoformat(),
        "curves": [curve(folder / METRICS, main.metric) for folder in folders],
    }


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
