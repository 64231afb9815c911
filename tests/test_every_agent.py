"""What users of stable-baselines3 do with an agent, done with every one of ours."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CheckpointCallback,
    EvalCallback,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecMonitor, VecNormalize
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from saccade.agents.algorithm import CoreAlgorithm
from small_agents import EVERY_AGENT, catch, memory, same, weights

Make = Callable[..., CoreAlgorithm]
EveryAgent = pytest.mark.parametrize("make", EVERY_AGENT, ids=lambda make: make.__name__)
STEPS = 140
"""Enough for every agent to have learned: from 5 environments, a multiple of 35."""


@EveryAgent
def test_learn_gives_back_the_agent_that_has_learned(make: Make) -> None:
    model = make()
    before = weights(model)
    assert model.learn(STEPS) is model
    assert STEPS <= model.num_timesteps < STEPS + 35
    assert model._n_updates > 0
    assert not any(torch.equal(ours, theirs) for ours, theirs in zip(before, weights(model), strict=True))
    steps = model.num_timesteps
    model.learn(STEPS, reset_num_timesteps=False)
    assert model.num_timesteps >= steps + STEPS
    model.learn(35)
    assert 35 <= model.num_timesteps < 70


@EveryAgent
def test_the_same_seed_gives_the_same_weights_and_another_gives_others(make: Make) -> None:
    first = weights(make(seed=3).learn(STEPS))
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002 - SB3 draws from numpy's global generator
    assert same(first, weights(make(seed=3).learn(STEPS)))
    assert not same(first, weights(make(seed=4).learn(STEPS)))


class Stops(BaseCallback):
    def _on_step(self) -> bool:
        assert {"infos", "dones", "rewards", "new_obs"} <= self.locals.keys()
        return self.n_calls < 3


@EveryAgent
def test_a_callback_stops_training_and_it_goes_on_from_there(make: Make) -> None:
    env = memory()
    model = make(env).learn(1000, callback=Stops())
    assert model.num_timesteps == 15
    assert (model._last_obs == env.task.observe()).all()
    assert model.learn(STEPS, reset_num_timesteps=False).num_timesteps >= STEPS


@EveryAgent
def test_callbacks_of_sb3(make: Make, tmp_path: Path) -> None:
    model = make()
    callbacks: list[BaseCallback] = [
        CheckpointCallback(7, str(tmp_path), name_prefix="agent"),
        EvalCallback(memory(3), eval_freq=7, n_eval_episodes=3, best_model_save_path=str(tmp_path), verbose=0),
        StopTrainingOnMaxEpisodes(1000),
    ]
    model.learn(70, callback=callbacks)
    assert (tmp_path / "agent_35_steps.zip").exists()
    assert (tmp_path / "agent_70_steps.zip").exists()
    best = type(model).load(tmp_path / "best_model", device="cpu")
    assert best.predict(np.zeros((2, 2), np.float32))[0].shape == (2,)


@EveryAgent
def test_training_stops_at_a_reward(make: Make) -> None:
    stop = StopTrainingOnRewardThreshold(reward_threshold=-2.0, verbose=0)
    evaluation = EvalCallback(memory(3), callback_on_new_best=stop, eval_freq=7, n_eval_episodes=3, verbose=0)
    assert make().learn(10_000, callback=evaluation).num_timesteps == 35


@EveryAgent
def test_a_checkpoint_gives_back_the_agent_to_learn_on(make: Make, tmp_path: Path) -> None:
    model = make().learn(STEPS)
    model.save(tmp_path / "agent")
    loaded = type(model).load(tmp_path / "agent", env=memory(), device="cpu")
    assert same(weights(model), weights(loaded))
    assert loaded.num_timesteps == model.num_timesteps
    observations = np.random.default_rng(0).uniform(-1, 1, (11, 2)).astype(np.float32)
    ours, theirs = (one.predict(observations, deterministic=True)[0] for one in (model, loaded))
    assert (ours == theirs).all()
    loaded.learn(STEPS, reset_num_timesteps=False)
    assert loaded.num_timesteps >= 2 * STEPS
    assert not same(weights(model), weights(loaded))


@EveryAgent
def test_parameters_out_and_in(make: Make) -> None:
    model, other = make(seed=0).learn(STEPS), make(seed=1)
    parameters = model.get_parameters()
    assert {"policy", "policy.optimizer"} <= parameters.keys()
    other.set_parameters(parameters)
    assert same(weights(model), weights(other))


@EveryAgent
def test_another_environment(make: Make) -> None:
    model, other = make().learn(35), memory(5, seed=1)
    model.set_env(other)
    assert model.get_env() is other
    model.learn(STEPS, reset_num_timesteps=False)
    with pytest.raises(AssertionError, match="number of environments"):
        model.set_env(memory(3))
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        model.set_env(catch())


# Environments.


def cartpoles() -> VecEnv:
    return DummyVecEnv([lambda: Monitor(gym.make("CartPole-v1")) for _ in range(5)])


WRAPPED: list[Callable[[], VecEnv]] = [
    cartpoles,
    lambda: VecNormalize(cartpoles()),
    lambda: VecFrameStack(cartpoles(), 3),
    lambda: VecMonitor(DummyVecEnv([lambda: gym.make("CartPole-v1")] * 5)),
]


@EveryAgent
@pytest.mark.parametrize("env", WRAPPED, ids=["monitor", "normalised", "frames", "monitored outside"])
def test_environments_in_sb3s_wrappers(make: Make, env: Callable[[], VecEnv]) -> None:
    made = env()
    model = make(made).learn(STEPS)
    assert model.predict(made.reset())[0].shape == (5,)
    assert len(model.ep_info_buffer or ()) > 0


@EveryAgent
def test_one_environment(make: Make) -> None:
    model = make(gym.make("CartPole-v1")).learn(70)
    assert model.num_timesteps >= 70
    mean, spread = evaluate_policy(model, Monitor(gym.make("CartPole-v1")), n_eval_episodes=2)
    assert mean > 0
    assert spread >= 0


# Policies.


class Doubled(BaseFeaturesExtractor):
    def __init__(self, observation_space: gym.Space[Any], features_dim: int = 3) -> None:
        super().__init__(observation_space, features_dim)
        self.linear = nn.Linear(int(np.prod(observation_space.shape or ())), features_dim)

    def forward(self, observations: Tensor) -> Tensor:
        return 2 * self.linear(observations)


@EveryAgent
def test_a_features_extractor_and_an_optimiser_of_ones_own(make: Make) -> None:
    kwargs = {
        "features_extractor_class": Doubled,
        "features_extractor_kwargs": {"features_dim": 7},
        "optimizer_class": torch.optim.AdamW,
        "optimizer_kwargs": {"weight_decay": 0.3},
    }
    model = make(policy_kwargs=kwargs)
    assert model.policy.core.input_shape == (7,)
    assert isinstance(model.policy.optimizer, torch.optim.AdamW)
    before = model.policy.features_extractor.linear.weight.detach().clone()  # type: ignore[union-attr, operator]
    model.learn(STEPS)
    assert not torch.equal(before, model.policy.features_extractor.linear.weight)  # type: ignore[union-attr, arg-type]


@EveryAgent
def test_a_learning_rate_can_be_a_schedule(make: Make) -> None:
    model = make(learning_rate=LinearSchedule(0.01, 0.001, 1.0)).learn(STEPS)
    assert model.policy.optimizer.param_groups[0]["lr"] == pytest.approx(0.001, abs=0.001)


# What is shown.


@EveryAgent
def test_tensorboard_gets_finite_numbers(make: Make, tmp_path: Path) -> None:
    make(tensorboard_log=str(tmp_path)).learn(STEPS, tb_log_name="seen")
    (folder,) = tmp_path.iterdir()
    assert folder.name == "seen_1"
    events = EventAccumulator(str(folder)).Reload()
    tags = set(events.Tags()["scalars"])
    assert {"rollout/ep_rew_mean", "rollout/ep_len_mean", "rollout/success_rate", "time/fps"} <= tags
    assert {"train/loss", "train/grad_norm"} <= tags
    for tag in tags:
        assert all(np.isfinite(event.value) for event in events.Scalars(tag)), tag


@EveryAgent
def test_the_progress_bar_shows_steps_and_returns(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    make().learn(STEPS, progress_bar=True)
    shown = capfd.readouterr().err
    assert f"{STEPS}/{STEPS}" in shown
    assert "return=" in shown
