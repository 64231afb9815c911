"""Results files: written by a command, and complete."""

import json
import shlex
from pathlib import Path

import pytest

from commands import TINY, refused, saccade
from repository import ROOT
from saccade.scripts.run_folder import MetricsWriter, read_metrics

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


@pytest.mark.parametrize("path", sorted((ROOT / "results").glob("*.json")), ids=lambda path: path.stem)
def test_committed_results_are_whole_and_met(path: Path) -> None:
    report = json.loads(path.read_text())
    assert set(report) - {"group"} == KEYS
    assert report["experiment"] == path.stem
    assert report["goal"] is None or (report["met"] and min(report["values"]) >= report["goal"])


def test_numbers_that_are_not_finite_are_null_in_metrics(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path / "metrics.jsonl")
    writer.write({"train/loss": float("nan"), "train/grad_norm": float("inf"), "time/fps": 7}, {}, step=5)
    writer.close()
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 5, "train/loss": None, "train/grad_norm": None, "time/fps": 7}]
