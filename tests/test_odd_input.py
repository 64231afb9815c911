"""What is odd but valid: networks with buffers of any type, subclasses, whole numbers normalised, interrupts, lost losses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import Tensor, nn

from replay_agents import assert_clocks_go_on, clocks, dqn, r2d2
from saccade.agents import DQN, PPO
from saccade.agents.algorithm import CoreAlgorithm
from saccade.agents.update import LossTerms
from saccade.policies import LSTM, LSTMState
from small_agents import EVERY_AGENT, catch, lstm_agent, memory, ppo, ppo_agent, same, weights

Make = Callable[..., CoreAlgorithm]
EveryAgent = pytest.mark.parametrize("make", EVERY_AGENT, ids=lambda make: make.__name__)


# Networks.


class Buffers(BaseFeaturesExtractor):
    """Counts in whole numbers, and holds what no average survives."""

    def __init__(self, observation_space: gym.Space[Any]) -> None:
        super().__init__(observation_space, features_dim=7)
        self.network = nn.Sequential(nn.Flatten(), nn.LazyLinear(7), nn.BatchNorm1d(7))
        self.network(torch.zeros(2, *(observation_space.shape or ())))
        self.register_buffer("hidden", torch.tensor([0.0, -torch.inf]))
        self.register_buffer("flags", torch.tensor([True, False]))

    def forward(self, observations: Tensor) -> Tensor:
        return self.network(observations)


@pytest.mark.parametrize("make", [dqn, r2d2])
def test_a_target_network_follows_with_buffers_of_any_type(make: Any) -> None:
    model = make(memory(), policy_kwargs={"features_extractor_class": Buffers}).learn(280)
    ours, theirs = model.policy.features_extractor, model.target.features_extractor
    assert ours.network[2].num_batches_tracked > 0
    model.update_target()
    assert theirs.network[2].num_batches_tracked == ours.network[2].num_batches_tracked
    assert torch.equal(theirs.network[2].running_mean, ours.network[2].running_mean)
    assert torch.equal(theirs.hidden, ours.hidden) and torch.equal(theirs.flags, ours.flags)


@pytest.mark.parametrize("make", [dqn, r2d2])
def test_a_target_network_sees_with_the_policys_statistics(make: Any, tmp_path: Path) -> None:
    model = make(clocks(2), policy_kwargs={"normalize_observations": True}, target_update_interval=10**6).learn(100)
    assert model.policy.norm.mean.abs().min() > 0.1
    assert torch.equal(model.target.norm.mean, model.policy.norm.mean)
    model.save(tmp_path / "agent")
    again = type(model).load(tmp_path / "agent", env=clocks(2), device="cpu").learn(100, reset_num_timesteps=False)
    assert not torch.equal(again.policy.norm.mean, model.policy.norm.mean)
    assert torch.equal(again.target.norm.mean, again.policy.norm.mean)


def test_a_target_network_that_looks_follows() -> None:
    model = r2d2(catch(), "GlimpsePolicy", target_update_interval=35).learn(280)
    assert model._n_updates > 0
    model.update_target()
    assert same(weights(model), list(model.target.parameters()))


class LearnsItsStart(LSTM):
    """Begins every episode with a state that is learned."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.start = nn.Parameter(torch.zeros(1, 1, self.hidden_size))

    def initial_state(self, batch_size: int) -> LSTMState:
        start = torch.tanh(self.start).expand(batch_size, self.n_layers, -1)
        return LSTMState(start, torch.zeros_like(start))


@EveryAgent
def test_an_initial_state_can_be_learned(make: Make) -> None:
    if make.__name__ == "dqn_agent":
        pytest.skip("it has no memory")
    model = make(policy_kwargs={"core_class": LearnsItsStart, "core_kwargs": {"hidden_size": 11}}).learn(140)
    assert model.policy.core.start.abs().max() > 0


# Subclasses and arguments.


class Flexible(PPO):
    def __init__(self, *args: Any, mine: int = 1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.mine = mine


class Forgetful(DQN):
    def __init__(self, policy: Any, env: Any, lost: int = 1, **kwargs: Any) -> None:
        super().__init__(policy, env, **kwargs)


def test_a_subclass_that_hands_arguments_on_is_saved_with_them(tmp_path: Path) -> None:
    Flexible("MlpPolicy", memory(), mine=3, n_steps=14, gamma=0.7, device="cpu").save(tmp_path / "agent")
    again = Flexible.load(tmp_path / "agent", device="cpu")
    assert (again.mine, again.n_steps, again.gamma) == (3, 14, 0.7)
    assert Flexible.load(tmp_path / "agent", gamma=0.6, mine=4, device="cpu").mine == 4


def test_an_argument_without_an_attribute_is_asked_for_when_loading(tmp_path: Path) -> None:
    Forgetful("MlpPolicy", memory(), buffer_size=100, device="cpu").save(tmp_path / "agent")
    with pytest.raises(ValueError, match=r"lost could not be stored \(the agent has no attribute of that name\)"):
        Forgetful.load(tmp_path / "agent", device="cpu")
    assert Forgetful.load(tmp_path / "agent", lost=2, device="cpu").buffer_size == 100


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (ppo_agent, {"clip_rang": 0.1}, "PPO takes no argument 'clip_rang'; the nearest is 'clip_range'"),
        (lstm_agent, {"n_step": 3}, "PQN takes no argument 'n_step'; the nearest is 'n_steps'"),
        (EVERY_AGENT[2], {"optimize_memory_usage": True}, "DQN takes no .*; write nothing: frames are stored once"),
        (EVERY_AGENT[2], {"replay_buffer_class": None}, "DQN takes no argument 'replay_buffer_class'; "),
        (lstm_agent, {"policy_kwargs": {"lstm_hidden_size": 8}}, r"takes no .*; write core_kwargs=.*hidden_size"),
    ],
)
def test_an_argument_that_there_is_not_is_refused_by_name(make: Make, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make(**arguments)


def test_a_rollout_that_cannot_be_cut_is_warned_about() -> None:
    with pytest.warns(UserWarning, match=r"n_steps=127 divides into sequences of 1 .*; n_steps=128 into sequences of 32"):
        assert ppo("LstmPolicy", memory(), n_steps=127).state_every == 1
    assert ppo("LstmPolicy", memory(), n_steps=7).state_every == 7
    assert ppo("MlpPolicy", memory(), n_steps=127).state_every == 1


# Numbers.


class Whole(gym.Env[np.ndarray, Any]):
    """Whole numbers to see and to do."""

    observation_space = spaces.Box(0, 250, (3,), np.uint8)
    action_space = spaces.Box(-3, 3, (2,), np.int64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 1.0, False, False, {}


def test_what_was_seen_and_done_is_learned_from_unrounded() -> None:
    model = PPO("MlpPolicy", VecNormalize(DummyVecEnv([Whole])), n_steps=16, batch_size=16, n_epochs=1, device="cpu", seed=0)
    model.learn(16)
    batch = model.batch()
    assert batch.observations.is_floating_point() and (batch.observations % 1 != 0).any() and (batch.observations < 0).any()
    assert (batch.actions % 1 != 0).any()


@pytest.mark.parametrize("make", [dqn, r2d2])
def test_a_loss_that_is_not_finite_is_left_out(make: Any) -> None:
    model = make(memory())
    lesson, calls = model.lesson, []

    def sometimes() -> Any:
        calls.append(1)
        found = lesson()
        if len(calls) == 2:
            terms = LossTerms(found.terms.loss * torch.nan, found.terms.metrics)
            found = found._replace(terms=terms, priorities=torch.full_like(found.priorities, torch.nan))
        return found

    model.lesson = sometimes
    model.learn(280)
    assert len(calls) > 2
    assert model.updater.skipped == 1
    assert all(torch.isfinite(weight).all() for weight in weights(model))


# Interrupts.


@EveryAgent
def test_an_interrupted_update_is_what_comes_out(make: Make) -> None:
    model = make()

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    model.updater.step = interrupt  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        model.learn(280)


class Breaks(BaseCallback):
    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def _on_step(self) -> bool:
        if self.n_calls == self.after:
            raise InterruptedError
        return True


@pytest.mark.parametrize("after", [1, 2, 3, 4, 7, 9])
def test_no_transition_crosses_where_training_broke_off(after: int) -> None:
    model = dqn(clocks(2), n_steps=1, train_freq=3, learning_starts=10**6, priority_exponent=0.0)
    with pytest.raises(InterruptedError):
        model.learn(1000, callback=Breaks(after))
    model.learn(2 * 23, reset_num_timesteps=False)
    assert_clocks_go_on(model)


@pytest.mark.parametrize("make", [dqn, r2d2])
def test_a_replay_that_is_empty_again_is_filled_before_it_is_learned_from(make: Any, tmp_path: Path) -> None:
    model = make(memory(), learning_starts=70).learn(140)
    model.save(tmp_path / "agent")
    again = type(model).load(tmp_path / "agent", env=memory(3), device="cpu")
    updates = again._n_updates
    again.learn(60, reset_num_timesteps=False)
    assert again._n_updates == updates
    again.learn(24, reset_num_timesteps=False)
    assert again._n_updates > updates
