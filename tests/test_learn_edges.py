"""The edges of ``learn``: nothing to do, nothing logged, callbacks made once, and what was recorded kept however it ends."""

from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure

from saccade.agents import PQN
from saccade.envs import ProbePolicy, TaskVecEnv
from saccade.policies import QPolicy, RecurrentGlimpse, Retina


def agent(**arguments: float) -> PQN:
    return PQN("MlpPolicy", TaskVecEnv(ProbePolicy(4)), n_steps=8, seed=0, device="cpu", **arguments)


class Counting(BaseCallback):
    made = 0

    def _init_callback(self) -> None:
        self.made += 1

    def _on_step(self) -> bool:
        if self.num_timesteps > 64:
            raise KeyboardInterrupt
        return True


def test_there_may_be_nothing_to_learn() -> None:
    assert agent().learn(0).num_timesteps == 0


def test_no_log_interval_is_no_log() -> None:
    assert agent().learn(64, log_interval=None).num_timesteps == 64


def test_exploration_may_be_over_from_the_start() -> None:
    model = agent(exploration_fraction=0.0, exploration_final_eps=0.25)
    assert model.exploration_rate == 0.25
    assert model.learn(64).exploration_rate == 0.25


def test_a_callback_is_made_once_with_the_progress_bar_too() -> None:
    callback = Counting()
    agent().learn(32, callback=callback, progress_bar=True)
    assert callback.made == 1


def test_what_was_recorded_is_kept_when_training_is_interrupted(tmp_path: Path) -> None:
    model = agent()
    model.set_logger(configure(str(tmp_path), ["csv"]))
    with pytest.raises(KeyboardInterrupt):
        model.learn(640, callback=Counting(), log_interval=100)
    model.logger.close()
    rows = (tmp_path / "progress.csv").read_text().splitlines()
    assert len(rows) == 2
    assert "train/td_loss" in rows[0]


@pytest.mark.parametrize(
    ("space", "brightest"),
    [
        (gym.spaces.Box(0, 255, (1, 5, 5), np.uint8), 255),
        (gym.spaces.Box(0, 1, (1, 5, 5), np.uint8), 1),
        (gym.spaces.Box(0, 1, (1, 5, 5), np.float32), 1),
    ],
    ids=["bytes", "bits", "floats"],
)
def test_the_brightest_pixel_is_one_to_the_retina(space: gym.spaces.Box, brightest: int) -> None:
    core_kwargs = {"retina": partial(Retina, patch_size=5, scales=1)}
    policy = QPolicy(space, gym.spaces.Discrete(2), lambda _: 0.1, core_class=RecurrentGlimpse, core_kwargs=core_kwargs)
    pixels = torch.as_tensor(np.full((1, 1, 5, 5), brightest, space.dtype))
    assert policy.core.retina(policy.extract(pixels), torch.zeros(1, 2)).unique().tolist() == [1.0]
    assert policy.preprocess(pixels).unique().tolist() == [1.0]


def test_a_memory_that_decides_is_no_memory_for_a_glimpse() -> None:
    def glimpse_again(input_shape: tuple[int, ...], hidden_size: int) -> RecurrentGlimpse:
        return RecurrentGlimpse((1, 5, 5), hidden_size=hidden_size)

    with pytest.raises(ValueError, match="takes decisions of its own"):
        RecurrentGlimpse((1, 5, 5), memory=glimpse_again)
