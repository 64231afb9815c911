"""Learning, at full length: the main job and what it has to beat. Seeds, thresholds and budgets are those of the configs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from commands import saccade
from saccade.agents import PQN
from saccade.envs import make_vec_env


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def train(*overrides: str) -> Path:
    """Train by the command, and return the run folder."""
    assert saccade("train", "saliency.every=0", "progress_bar=false", "name=run", *overrides) == 0
    return Path("runs/run")


def paddle_seen_last(folder: Path, lanes: int = 512) -> float:
    """In how many episodes the agent's last look before the ball lands has the paddle in it; from the middle, none has."""
    agent = PQN.load(folder / "checkpoint.zip", device="cpu")
    env = make_vec_env("saccade/Catch-v0", lanes, 7, {"height": 8, "width": 8, "ball_drift": 0})
    observations, state, starts = env.reset(), None, np.ones(lanes, np.bool_)
    seen = 0.0
    while state is None or not starts.all():
        if state is not None:
            bottom = torch.as_tensor(observations).clone()
            bottom[:, :, :-1] = 0  # the ball is above it
            seen = agent.policy.core.retina(bottom, torch.as_tensor(state.gaze)).flatten(1).any(dim=1).float().mean().item()
        actions, state = agent.predict(observations, state, starts, deterministic=True)
        observations, _, starts, _ = env.step(actions)
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_main_job_learns_to_catch_and_where_to_look(seed: int) -> None:
    folder = train(f"seed={seed}")
    assert json.loads((folder / "evaluation.json").read_text())["success_rate"] >= 0.90
    assert paddle_seen_last(folder) > 0.05  # from the middle: never


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["cartpole_dqn", "cartpole_r2d2", "poc_memory_ppo_gru"])
def test_a_claim_holds_anew(experiment: str) -> None:
    folder = train(f"experiment={experiment}", "seed=0")
    claim = OmegaConf.load(folder / "config.yaml").claim
    assert json.loads((folder / "evaluation.json").read_text())[claim.metric] >= claim.goal
