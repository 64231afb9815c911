"""Policies, observation spaces and action spaces: taken, or refused in words."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from torch import Tensor, nn

from examples import assert_equal, example, leaves, step_by_step
from saccade.agents import PQN
from saccade.policies import GRU, FeedForward, QPolicy
from small_agents import SMALL, SMALL_GLIMPSE, SMALL_LSTM, lstm_agent, memory


def test_every_short_name() -> None:
    for name in ("MlpPolicy", "LstmPolicy", "GruPolicy"):
        assert PQN(name, memory(), n_steps=7, policy_kwargs=SMALL, device="cpu").learn(35).num_timesteps == 35


def test_a_policy_class_and_a_core_by_policy_kwargs() -> None:
    kwargs = SMALL | {"core_class": GRU, "core_kwargs": {"hidden_size": 11, "n_layers": 2}}
    model = PQN(QPolicy, memory(), n_steps=7, policy_kwargs=kwargs, device="cpu").learn(35)
    assert isinstance(model.policy.core, GRU)
    assert model.policy.core.n_layers == 2


def test_the_optimiser_is_the_users_choice() -> None:
    kwargs = SMALL | {"optimizer_class": torch.optim.AdamW, "optimizer_kwargs": {"weight_decay": 0.3}}
    model = PQN("MlpPolicy", memory(), learning_rate=0.07, policy_kwargs=kwargs, device="cpu")
    assert isinstance(model.policy.optimizer, torch.optim.AdamW)
    assert model.policy.optimizer.param_groups[0]["weight_decay"] == 0.3
    assert model.policy.optimizer.param_groups[0]["lr"] == 0.07


class Doubled(BaseFeaturesExtractor):
    def __init__(self, observation_space: gym.Space[Any], features_dim: int = 3, gain: float = 1.0) -> None:
        super().__init__(observation_space, features_dim)
        self.gain = gain
        self.linear = nn.Linear(int(np.prod(observation_space.shape or ())), features_dim)

    def forward(self, observations: Tensor) -> Tensor:
        return self.gain * self.linear(observations)


def test_a_features_extractor_of_ones_own() -> None:
    kwargs = {"features_extractor_class": Doubled, "features_extractor_kwargs": {"features_dim": 7, "gain": 2.0}}
    model = PQN("LstmPolicy", memory(), n_steps=7, policy_kwargs=kwargs, device="cpu").learn(35)
    assert model.policy.core.input_shape == (7,)
    assert model.policy.features_extractor.gain == 2  # type: ignore[union-attr]
    model = PQN("MlpPolicy", memory(), policy_kwargs={"features_extractor_class": FlattenExtractor}, device="cpu")
    assert model.policy.core.features_dim == 2


class Any2(gym.Env[Any, np.int64]):
    """Random observations of a space."""

    def __init__(self, space: gym.Space[Any], actions: gym.Space[Any] | None = None) -> None:
        self.observation_space, self.action_space = space, actions or spaces.Discrete(3)
        self.time = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.time = 0
        return self.observation_space.sample(), {}

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), f"{action} is not in {self.action_space}"
        self.time += 1
        return self.observation_space.sample(), 1.0, False, self.time == 3, {}


def several(space: gym.Space[Any], actions: gym.Space[Any] | None = None) -> VecEnv:
    return DummyVecEnv([lambda: Monitor(Any2(space, actions)) for _ in range(5)])


BOX = spaces.Box(-1, 1, (3,), np.float32)
DICT = spaces.Dict({"vector": BOX, "other": spaces.Box(0, 1, (2,), np.float32)})


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (3,), np.float64),
        spaces.Box(-np.inf, np.inf, (3, 5), np.float32),
        spaces.Box(0, 7, (3,), np.int64),
        spaces.Discrete(7),
        spaces.MultiDiscrete([3, 5]),
        spaces.MultiBinary(5),
        spaces.Box(0, 255, (3, 17, 19), np.uint8),
    ],
    ids=str,
)
def test_every_observation_space_that_sb3_takes(space: gym.Space[Any]) -> None:
    model = PQN("LstmPolicy", several(space), n_steps=7, policy_kwargs={"core_kwargs": {"hidden_size": 11}}, device="cpu")
    model.learn(35)
    action, state = model.predict(np.asarray(space.sample()), deterministic=True)
    assert spaces.Discrete(3).contains(int(action))
    assert model.predict(np.asarray(space.sample()), state, deterministic=True)[0].shape == ()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_glimpse_at_a_float_image(dtype: type) -> None:
    env = several(spaces.Box(-1, 1, (3, 17, 19), dtype))
    model = PQN("GlimpsePolicy", env, n_steps=7, policy_kwargs=SMALL_GLIMPSE, device="cpu").learn(35)
    assert model.predict(env.reset(), deterministic=True)[0].shape == (5,)


def test_a_dictionary_of_observations() -> None:
    kwargs = SMALL_LSTM | {"features_extractor_class": CombinedExtractor, "features_extractor_kwargs": {}}
    env = several(DICT)
    model = PQN("LstmPolicy", env, n_steps=7, policy_kwargs=kwargs, device="cpu").learn(35)
    assert model.predict(DICT.sample())[0].shape == ()
    assert model.predict(env.reset())[0].shape == (5,)


def made_or_refused(policy: str, env: VecEnv) -> PQN | str:
    """An agent that has learned, or the message of the ``ValueError`` with which it was refused before."""
    try:
        model = PQN(policy, env, n_steps=7, device="cpu")
    except ValueError as error:
        return str(error)
    return model.learn(35)


@pytest.mark.parametrize("policy", ["MlpPolicy", "LstmPolicy"])
def test_a_dictionary_works_without_naming_a_torso_or_is_refused_in_words(policy: str) -> None:
    made = made_or_refused(policy, several(DICT))
    if isinstance(made, str):
        # SB3's own message sends the user to a policy that has to exist, then.
        assert "dict" in made.lower()
        assert "MultiInputPolicy" not in made or "MultiInputPolicy" in PQN.policy_aliases
    else:
        assert made.predict(DICT.sample())[0].shape == ()


def test_a_glimpse_needs_an_image() -> None:
    with pytest.raises(ValueError, match="image") as error:
        PQN("GlimpsePolicy", memory(), device="cpu")
    assert "Box(-1.0, 1.0, (2,), float32)" in str(error.value) or "[2]" in str(error.value)
    with pytest.raises(ValueError, match="image"):
        PQN("GlimpsePolicy", several(DICT), device="cpu")


@pytest.mark.parametrize("actions", [spaces.Box(-1, 1, (2,)), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(2)], ids=str)
def test_other_actions_than_discrete_ones_are_refused(actions: gym.Space[Any]) -> None:
    with pytest.raises((AssertionError, ValueError), match="Discrete"):
        PQN("MlpPolicy", several(BOX, actions), device="cpu")


def test_actions_that_do_not_start_at_zero_are_taken_as_they_are_or_refused_at_once() -> None:
    made = made_or_refused("MlpPolicy", several(BOX, spaces.Discrete(2, start=3)))
    if isinstance(made, str):
        assert "start" in made
    else:
        assert made.action_space.contains(int(made.predict(BOX.sample())[0]))


def test_a_batch_that_is_not_whole_sequences_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="nearest valid: 7, 35"):
        lstm_agent(batch_size=10)
    with pytest.raises(TypeError, match="n_step"):
        lstm_agent(n_step=3)


def test_a_minibatch_a_lane() -> None:
    model = lstm_agent(batch_size=7, n_epochs=3).learn(35)
    assert model._n_updates == 3
    steps = [float(entry["step"]) for entry in model.policy.optimizer.state.values()]
    assert set(steps) == {15}


def test_the_environment_core_is_stateless_between_calls() -> None:
    """Learning twice from the same rollout gives the same loss: nothing is left of the first time."""
    model = lstm_agent().learn(35)
    losses = [model.loss(model.rollout).loss.item() for _ in range(2)]
    assert losses[0] == losses[1]


def test_stepping_a_policy_is_unrolling_it() -> None:
    core = lstm_agent().learn(35).policy.core
    assert not isinstance(core, FeedForward)
    call = example(core)
    with torch.no_grad():
        assert_equal(core(*call), step_by_step(core, call), 1e-5)
    assert all(leaf.isfinite().all() for leaf in leaves(core(*call)))
