"""Results files: written by a command, and complete."""

import json
import shlex
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from commands import TINY, refused, saccade
from repository import ROOT
from saccade.scripts.claims import last_value, stated
from saccade.scripts.command import RunError
from saccade.scripts.families import families
from saccade.scripts.figures import measured
from saccade.scripts.results import curve
from saccade.scripts.run_folder import EVALUATION, METRICS, MetricsWriter, read_metrics

KEYS = {
    *("experiment", "command", "seeds", "metric", "values", "goal", "met", "episodes", "steps", "wall_seconds"),
    *("machine", "versions", "date", "curves"),
}


def test_an_experiment_fills_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = [text for text in TINY if not text.startswith(("saliency", "progress_bar", "total"))]
    assert saccade("results", "experiment=straight_catch", "seeds=[0,1]", "jobs=2", "total_timesteps=640", *tiny) == 0
    report = json.loads(Path("results/straight_catch.json").read_text())
    assert set(report) == KEYS
    assert report["seeds"] == [0, 1]
    assert report["steps"] == [640, 640]
    assert len(report["values"]) == len(report["curves"]) == 2
    assert report["met"] is (min(report["values"]) >= 0.9)
    assert report["command"].startswith("saccade results experiment=straight_catch ")
    assert shlex.split(report["command"])[-1] == "seeds=[0,1]"
    assert "jobs" not in report["command"]
    assert report["curves"][0]["step"][-1] == 640


def test_results_need_an_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "which experiment?" in refused(capsys, "results")
    assert "straight_catch" in refused(capsys, "results", "experiment=straight")
    assert list(tmp_path.iterdir()) == []


def test_the_learned_gaze_beats_both_baselines() -> None:
    learned, centre, random = (
        json.loads((ROOT / "results" / f"straight_catch{name}.json").read_text()) for name in ("", "_centre", "_random")
    )
    assert learned["seeds"] == centre["seeds"] == random["seeds"] == [0, 1, 2]
    assert learned["steps"] == centre["steps"] == random["steps"]
    assert min(learned["values"]) > max(centre["values"] + random["values"])


def corridor_errors(n_actions: int) -> tuple[list[float], list[float]]:
    """Squared errors at an equal budget, a seed each: of the dueling network and of the single stream."""
    dueling, single = (
        json.loads((ROOT / "results" / f"dueling_corridor_{n_actions}_{network}.json").read_text())
        for network in ("dueling", "single")
    )
    assert dueling["seeds"] == single["seeds"] == [0, 1, 2, 3, 4]
    assert dueling["steps"] == single["steps"] == [60_000] * 5
    assert dueling["metric"] == single["metric"] == "train/squared_error"
    return dueling["values"], single["values"]


@pytest.mark.parametrize("n_actions", [10, 20])
def test_a_dueling_network_is_ahead_where_many_actions_are_alike(n_actions: int) -> None:
    dueling, single = corridor_errors(n_actions)
    assert mean(dueling) < mean(single) / 2
    assert all(ours < theirs for ours, theirs in zip(dueling, single, strict=True))


@pytest.mark.parametrize("path", sorted((ROOT / "results").glob("*.json")), ids=lambda path: path.stem)
def test_committed_results_are_whole_and_met(path: Path) -> None:
    report = json.loads(path.read_text())
    assert set(report) - {"group", "at_most", "more"} == KEYS
    assert report["experiment"] == path.stem
    for figure, values in stated(report):
        assert len(values) == len(report["seeds"])
        if figure.goal is not None:
            assert report["met"]
            assert max(values) <= figure.goal if figure.at_most else min(values) >= figure.goal


def run_folder(folder: Path, *rows: dict[str, Any], success_rate: float | None = 0.5) -> Path:
    """A run that wrote these rows, 10 steps apart."""
    writer = MetricsWriter(folder / METRICS)
    for index, row in enumerate(rows):
        writer.write(row, {}, step=10 * index)
    writer.close()
    (folder / EVALUATION).write_text(json.dumps({"mean_reward": 3, "success_rate": success_rate}))
    return folder


def test_a_claim_is_about_the_evaluation_or_the_last_row_that_has_the_metric(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, {"train/error": 5.0}, {"train/error": 2.0}, {"rollout/ep_rew_mean": 7.0})
    assert last_value(folder, "train/error") == 2
    assert last_value(folder, "mean_reward") == 3
    assert last_value(folder, "success_rate") == 0.5


def test_a_metric_that_no_run_has_is_named_with_those_there_are(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, {"train/error": 5.0}, {"train/error": float("nan")}, success_rate=None)
    with pytest.raises(RunError, match="train/eror is in no row; there are: step, train/error"):
        last_value(folder, "train/eror")
    with pytest.raises(RunError, match="train/error is not finite"):
        last_value(folder, "train/error")
    with pytest.raises(RunError, match="mean_reward is always there"):
        last_value(folder, "success_rate")


def test_curves_hold_the_claim_s_metric_where_it_is_one_of_the_training(tmp_path: Path) -> None:
    played = {"rollout/ep_rew_mean": 1.0}
    folder = run_folder(tmp_path, {"train/error": 9.0}, played, *({**played, "train/error": error} for error in (5.0, 4.0)))
    assert curve(folder / METRICS, "mean_reward") == {"step": [10, 20, 30], "return": [1.0] * 3}
    assert curve(folder / METRICS, "train/error") == {"step": [20, 30], "return": [1.0] * 2, "train/error": [5.0, 4.0]}


@pytest.mark.parametrize(("at_most", "met"), [(True, True), (False, False)])
def test_a_goal_may_be_reached_from_above(at_most: bool, met: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    claim = ["claim.metric=train/loss", "claim.goal=1000", f"claim.at_most={at_most}"]
    tiny = [text for text in TINY if not text.startswith(("saliency", "progress_bar", "total"))]
    small = ["total_timesteps=1536", "log_interval=1", "seeds=[3]", *claim, *tiny]
    assert saccade("results", "experiment=straight_catch_centre", *small) == 0
    report = json.loads(Path("results/straight_catch_centre.json").read_text())
    assert report["met"] is met
    assert set(report) == KEYS | ({"at_most"} if at_most else set())
    assert report["curves"][0]["train/loss"][-1] == pytest.approx(report["values"][0], abs=1e-4)


def test_a_metric_that_there_is_not_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    said = refused(capsys, "results", "experiment=straight_catch", "claim.metric=reward")
    assert "mean_reward" in said
    assert "train/loss" in said
    assert list(tmp_path.iterdir()) == []


def test_corridors_stand_side_by_side_by_their_number_of_actions() -> None:
    corridor = next(family for family in families(ROOT / "results") if family.name == "dueling_corridor")
    panels = corridor.panels()
    assert list(panels) == ["5 actions", "10 actions", "20 actions"]
    assert [[part.label(report) for report in part.reports] for part in panels.values()] == [["dueling", "single"]] * 3
    assert measured(corridor) == "train/squared_error"
    catch = next(family for family in families(ROOT / "results") if family.name == "straight_catch")
    assert catch.panels() == {"": catch}


def test_numbers_that_are_not_finite_are_null_in_metrics(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path / "metrics.jsonl")
    writer.write({"train/loss": float("nan"), "train/grad_norm": float("inf"), "time/fps": 7}, {}, step=5)
    writer.close()
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 5, "train/loss": None, "train/grad_norm": None, "time/fps": 7}]
