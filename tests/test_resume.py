"""What goes on from a checkpoint is what would have gone on: optimisers, replays, other environments, normalised ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import VecNormalize

from saccade.agents import DQN, PPO, PQN, R2D2
from saccade.envs import make_vec_env
from small_agents import SMALL_LSTM, catch, memory


@pytest.mark.parametrize("make", [lambda env: PPO("CnnPolicy", env, n_steps=7, batch_size=35, device="cpu")])
def test_moments_of_convolutions_belong_to_their_weights(make: Callable[[Any], PPO], tmp_path: Path) -> None:
    model = make(catch()).learn(70)
    model.save(tmp_path / "agent")
    loaded, other = PPO.load(tmp_path / "agent", device="cpu"), make(catch())
    other.set_parameters(str(tmp_path / "agent"))
    for agent in (model, loaded, other):
        torch.manual_seed(3)
        for parameter in agent.policy.parameters():
            parameter.grad = torch.empty_like(parameter).copy_(torch.randn(parameter.shape))
        agent.policy.optimizer.step()
    for name, parameter in model.policy.named_parameters():
        for agent in (loaded, other):
            torch.testing.assert_close(agent.policy.get_parameter(name), parameter, rtol=0, atol=0, msg=name)


def test_an_agent_is_loaded_for_other_environments_and_learns_where_it_can(tmp_path: Path) -> None:
    PQN("LstmPolicy", memory(6), n_steps=7, batch_size=42, policy_kwargs=SMALL_LSTM, device="cpu").save(tmp_path / "agent")
    loaded = PQN.load(tmp_path / "agent", env=memory(1), device="cpu")
    assert loaded.predict(np.zeros((1, 2), np.float32))[0].shape == (1,)
    with pytest.raises(ValueError, match="batch_size=42"):
        loaded.learn(7)


def test_memory_does_not_grow_where_no_row_is_ever_written() -> None:
    model = DQN("MlpPolicy", memory(), learning_starts=10, train_freq=1, gradient_steps=-1, buffer_size=500, batch_size=2)
    kept = [0]

    def count(*_: Any) -> bool:
        kept.append(max((len(values) for values in model.updater._seen.values()), default=0))
        return True

    model.learn(1200, log_interval=None, callback=count)
    assert model._n_updates > 1100
    assert max(kept) == 1000


@pytest.mark.parametrize("make", [DQN, R2D2])
def test_a_replay_holds_what_was_before_normalisation(make: type[DQN | R2D2]) -> None:
    env = VecNormalize(make_vec_env("CartPole-v1", 3, seed=0))
    policy = "MlpPolicy" if make is DQN else "LstmPolicy"
    model = make(policy, env, learning_starts=150, buffer_size=3000, batch_size=16, n_steps=1, device="cpu", seed=0).learn(900)
    rewards = model.replay.ring.rewards
    assert set(np.unique(rewards)) <= {0, 1}, "CartPole's own"
    drawn = model.normalized(model.replay.sample(16))
    assert float(drawn.rewards.max()) == pytest.approx(float(env.normalize_reward(np.ones(1, np.float32))[0]), rel=1e-3)
    assert float(drawn.observations.abs().max()) <= env.clip_obs


@pytest.mark.parametrize("make", [DQN, R2D2])
def test_a_seed_is_of_the_replay_too(make: type[DQN | R2D2]) -> None:
    model = make("MlpPolicy", "CartPole-v1", buffer_size=500, device="cpu")
    drawn = []
    for _ in range(2):
        model.set_random_seed(5)
        drawn.append(model.replay.rng.random())
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("make", [PQN, DQN, R2D2])
def test_exploration_keeps_to_what_is_allowed(make: Any) -> None:
    model = make("MlpPolicy", "CartPole-v1", device="cpu")
    masks = np.array([[True, False], [False, True]])
    for _ in range(20):
        assert model.predict(np.zeros((2, 4), np.float32), action_masks=masks)[0].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: PPO("MlpPolicy", None), "needs an environment"),
        (lambda: PPO("MlpPolicy", "Pendulum-v1", use_sde=True), "use_sde"),
        (lambda: DQN("MlpPolicy", "CartPole-v1", train_freq=(1, "episode")), "train_freq"),
    ],
)
def test_what_cannot_be_had_is_refused(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()


def test_a_frequency_in_sb3s_other_form() -> None:
    assert DQN("MlpPolicy", "CartPole-v1", train_freq=(3, "step"), device="cpu").train_freq == 3
