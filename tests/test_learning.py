"""Learning, at full length: the main job and what it has to beat. Seeds, thresholds and budgets are those of the configs."""

import json
from pathlib import Path

import numpy as np
import pytest

from commands import saccade
from saccade.agents import PQN
from saccade.envs import Catch, TaskVecEnv, make_vec_env


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def train(*overrides: str) -> Path:
    """Train by the command, and return the run folder."""
    assert saccade("train", "saliency.every=0", "progress_bar=false", "name=run", *overrides) == 0
    return Path("runs/run")


def gaze_and_ball(folder: Path, lanes: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Where a trained agent looks, and where the ball is, from left -1 to right 1; ``[T, lanes]``, without the first step."""
    agent = PQN.load(folder / "checkpoint.zip")
    env = make_vec_env("saccade/Catch-v0", lanes, 7, {"height": 10, "width": 10, "ball_drift": 0})
    assert isinstance(env, TaskVecEnv)
    assert isinstance(env.task, Catch)
    observations, state, starts = env.reset(), None, np.ones(lanes, np.bool_)
    gazes, balls = [], []
    while not (state is not None and starts.all()):
        if state is not None:
            gazes.append(state.gaze[:, 0].copy())
            balls.append((env.task.ball_column + 0.5) / 5 - 1)
        actions, state = agent.predict(observations, state, starts, deterministic=True)
        observations, _, starts, _ = env.step(actions)
    return np.array(gazes), np.array(balls)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_main_job_learns_to_catch_by_following_the_ball(seed: int) -> None:
    folder = train(f"seed={seed}")
    assert json.loads((folder / "evaluation.json").read_text())["success_rate"] >= 0.90
    gazes, balls = gaze_and_ball(folder)
    follows = np.corrcoef(gazes[-5:].ravel(), balls[-5:].ravel())[0, 1]
    assert follows >= 0.5, f"late in the episode, gaze and ball correlate by {follows:.2f} from left to right"
