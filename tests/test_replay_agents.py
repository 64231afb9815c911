"""What users of stable-baselines3 do with an agent, done with those that learn from a replay."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecFrameStack, VecNormalize

from replay_agents import assert_clocks_go_on, clocks, dqn, memory, r2d2, weights_of
from saccade.agents import DQN, R2D2, memory_limit
from small_agents import same

BOTH = [dqn, r2d2]
IMAGE_KWARGS = {"head_hidden_size": 17, "features_extractor_kwargs": {"features_dim": 19}}


class Stop(BaseCallback):
    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def _on_step(self) -> bool:
        return self.n_calls < self.after


# Bad input.


def test_dqn_refuses_a_memory_and_names_r2d2() -> None:
    for policy in ("LstmPolicy", "GruPolicy"):
        with pytest.raises(ValueError, match="has a memory; R2D2 learns from sequences"):
            DQN(policy, memory(), buffer_size=100)


@pytest.mark.parametrize("make", BOTH)
def test_a_replay_above_memory_is_refused_with_sizes_before_the_first_step(monkeypatch: pytest.MonkeyPatch, make: Any) -> None:
    monkeypatch.setattr(memory_limit, "available_memory", lambda: 10**6)
    with pytest.raises(ValueError, match=r"buffer_size=10000000 needs .* GiB; .* largest buffer_size that fits is \d+"):
        make(memory(), buffer_size=10**7)


WRONG: list[tuple[Any, dict[str, Any], str]] = [
    *((make, {name: 0}, name) for make in BOTH for name in ("buffer_size", "batch_size", "train_freq", "n_steps")),
    *((make, {"gradient_steps": value}, "gradient_steps must be at least 1, or -1") for make in BOTH for value in (0, -2)),
    *((make, {name: 1.5}, name) for make in BOTH for name in ("tau", "gamma", "exploration_fraction", "priority_correction")),
    *((make, {"exploration_final_eps": -0.1}, "exploration_final_eps") for make in BOTH),
    *((make, {"learning_starts": -1}, "learning_starts") for make in BOTH),
    *((make, {"target_update_interval": 0}, "target_update_interval") for make in BOTH),
    *((make, {"priority_exponent": -0.5}, "priority_exponent must be at least 0") for make in BOTH),
    *((make, {"buffer_size": 7}, "buffer_size must be at least") for make in BOTH),
    (r2d2, {"burn_in": -1}, "burn_in"),
    (r2d2, {"sequence_length": 0}, "sequence_length"),
    (r2d2, {"priority_mix": 1.1}, "priority_mix"),
]


@pytest.mark.parametrize(("make", "arguments", "message"), WRONG)
def test_impossible_numbers_are_refused(make: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(memory(), **arguments)


@pytest.mark.parametrize(("agent", "policy"), [(DQN, "MlpPolicy"), (R2D2, "LstmPolicy")])
def test_other_actions_are_refused_in_sb3s_words(agent: Any, policy: str) -> None:
    with pytest.raises(AssertionError, match="The algorithm only supports .*Discrete"):
        agent(policy, "Pendulum-v1")


# learn


@pytest.mark.parametrize("make", BOTH)
def test_learning_twice(make: Any) -> None:
    model = make(memory())
    assert model.learn(100) is model
    held = len(model.replay)
    model.learn(100, reset_num_timesteps=False)
    assert model.num_timesteps == 200
    assert len(model.replay) > held
    updates = model._n_updates
    model.learn(100)
    assert model.num_timesteps == 100
    assert model._n_updates > updates
    assert all(torch.isfinite(weight).all() for weight in weights_of(model.policy))


@pytest.mark.parametrize("stop_after", [1, 2, 3, 4, 7, 9])
def test_no_transition_crosses_where_a_callback_stopped(stop_after: int) -> None:
    # Clocks show their episode and their time, and pay the time: what follows what is plain to see.
    model = dqn(clocks(2), n_steps=1, train_freq=3, learning_starts=10**6, priority_exponent=0.0)
    model.learn(1000, callback=Stop(stop_after))
    model.learn(2 * 23, reset_num_timesteps=False)
    assert_clocks_go_on(model)


@pytest.mark.parametrize("stop_after", [2, 3, 7])
def test_a_memory_replayed_after_a_stop_is_the_one_that_acted(stop_after: int) -> None:
    model = r2d2(clocks(1, length=9), train_freq=3, learning_starts=10**6)
    acted = {}
    look = model.look

    def remember(observations: Any, starts: Any) -> Any:
        core = look(observations, starts)
        acted[observations[0].numpy().tobytes()] = core.features[0, 0]
        return core

    model.look = remember
    model.learn(1000, callback=Stop(stop_after))
    model.learn(40, reset_num_timesteps=False)
    batch = model.replay.sample(53)
    with torch.no_grad():
        features = model.unroll(model.policy, batch).core.features
    for t, n in (batch.mask > 0).nonzero().tolist():
        torch.testing.assert_close(features[t, n], acted[batch.observations[t, n].numpy().tobytes()], atol=1e-5, rtol=0)


@pytest.mark.parametrize("make", BOTH)
def test_rows_come_by_episodes_and_hold_what_is_learned(tmp_path: Path, make: Any) -> None:
    model = make(memory())
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(3000, log_interval=4)
    model.logger.close()
    header, *rows = (tmp_path / "progress.csv").read_text().strip().splitlines()
    assert {"rollout/exploration_rate", "train/td_loss", "rollout/ep_rew_mean", "time/fps"} <= set(header.split(","))
    assert 2 <= len(rows) <= 4
    assert "nan" not in "".join(rows)


def test_rows_wait_for_episodes(tmp_path: Path) -> None:
    model = dqn(clocks(7, length=100), train_freq=50)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(3500, log_interval=14)
    model.logger.close()
    steps = [line.split(",") for line in (tmp_path / "progress.csv").read_text().strip().splitlines()]
    column = steps[0].index("time/total_timesteps")
    assert [int(row[column]) for row in steps[1:]] == [1400, 2800, 3500]


@pytest.mark.parametrize("make", BOTH)
def test_equal_seeds_give_equal_weights(make: Any) -> None:
    def run(seed: int) -> list[torch.Tensor]:
        return weights_of(make(memory(), seed=seed).learn(200).policy)

    first = run(3)
    torch.manual_seed(99)
    assert same(first, run(3))
    assert not same(first, run(4))


# Environments.


@pytest.mark.parametrize("make", BOTH)
def test_set_env(make: Any) -> None:
    model, other = make(memory()).learn(100), memory()
    model.set_env(other)
    assert model.get_env() is other
    held = len(model.replay)
    model.learn(100, reset_num_timesteps=False)
    assert len(model.replay) > held
    with pytest.raises(AssertionError, match="number of environments"):
        model.set_env(memory(3))


@pytest.mark.parametrize("make", BOTH)
@pytest.mark.parametrize("kind", ["dict", "normalised"])
def test_other_environments(make: Any, kind: str) -> None:
    if kind == "dict":
        policy = {"policy": "MultiInputPolicy"} if make is dqn else {}
        kwargs = {"head_hidden_size": 17} | ({"core_kwargs": {"hidden_size": 11}} if make is r2d2 else {})
        model = make(clocks(3, kind="dict"), policy_kwargs=kwargs, batch_size=5, **policy)
    else:
        model = make(VecNormalize(clocks(3)))
    model.learn(90)
    assert model._n_updates > 0
    assert all(torch.isfinite(weight).all() for weight in weights_of(model.policy))


@pytest.mark.parametrize("make", BOTH)
def test_stacked_frames_are_stored_once_and_come_back_whole(make: Any) -> None:
    env = VecFrameStack(clocks(2, kind="image", length=7), 4)
    kwargs = IMAGE_KWARGS if make is dqn else IMAGE_KWARGS | {"core_kwargs": {"hidden_size": 11}}
    model = make(env, policy_kwargs=kwargs, learning_starts=10**6, buffer_size=400)
    model.learn(2 * 60)
    frame = 36 * 37
    assert model.replay.nbytes < 400 * 1.4 * frame
    observations = model.replay.sample(31).observations
    stacks = observations.reshape(-1, 4, frame)[:, :, 0].int()
    for older, newer in zip(stacks.T, stacks.T[1:], strict=False):
        assert torch.equal(newer[older > 0], older[older > 0] + 1)


class LongFrames(gym.Env[np.ndarray, np.int64]):
    """Frames of Atari's size, in one long episode."""

    observation_space = spaces.Box(0, 255, (1, 84, 84), np.uint8)
    action_space = spaces.Discrete(3)
    time = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        return np.zeros((1, 84, 84), np.uint8), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.time += 1
        return np.full((1, 84, 84), self.time % 251, np.uint8), 0.0, False, False, {}


def test_a_transition_of_atari_takes_hardly_more_than_a_frame() -> None:
    env = VecFrameStack(make_vec_env(LongFrames, 2), 4)
    model = dqn(env, policy_kwargs=IMAGE_KWARGS, learning_starts=10**6, buffer_size=1000, train_freq=50)
    model.learn(1200)
    assert len(model.replay) >= 990
    assert model.replay.nbytes / 1000 <= 1.1 * 84 * 84 + 32


# Saving.


@pytest.mark.parametrize(("make", "agent"), [(dqn, DQN), (r2d2, R2D2)])
def test_saved_and_loaded_with_its_target_network(tmp_path: Path, make: Any, agent: Any) -> None:
    model = make(memory(), target_update_interval=10**6).learn(160)
    assert not same(weights_of(model.policy), weights_of(model.target))
    model.save(tmp_path / "agent")
    loaded = agent.load(tmp_path / "agent", env=memory(), device="cpu")
    assert same(weights_of(model.policy), weights_of(loaded.policy))
    assert same(weights_of(model.target), weights_of(loaded.target))
    assert loaded.exploration_rate == model.exploration_rate
    assert not any(parameter.requires_grad for parameter in loaded.target.parameters())
    before = weights_of(loaded.policy)
    loaded.learn(100, reset_num_timesteps=False)
    assert loaded.num_timesteps == 260
    assert not same(before, weights_of(loaded.policy))
    other = agent.load(tmp_path / "agent", env=memory(3), device="cpu")
    assert other.learn(90, reset_num_timesteps=False).replay.n_envs == 3


@pytest.mark.parametrize("make", BOTH)
def test_parameters_out_and_in(make: Any) -> None:
    model, other = make(memory(), seed=0, target_update_interval=10**6).learn(150), make(memory(), seed=1)
    parameters = model.get_parameters()
    assert parameters.keys() == {"policy", "target", "policy.optimizer"}
    other.set_parameters(parameters)
    assert same(weights_of(model.policy), weights_of(other.policy))
    assert same(weights_of(model.target), weights_of(other.target))


# Acting.


@pytest.mark.parametrize("make", BOTH)
def test_predict_is_greedy_or_explores(make: Any) -> None:
    model = make(memory(), exploration_initial_eps=1.0, learning_starts=0)
    seen = np.zeros((64, 2), np.float32)
    greedy = model.predict(seen, deterministic=True)[0]
    assert len(set(greedy.tolist())) == 1
    assert set(model.predict(seen)[0].tolist()) == {0, 1}
    assert model.predict(seen[0])[0].shape == ()
    model.exploration_fraction, model.exploration_final_eps = 0, 0.0
    assert (model.predict(seen)[0] == greedy).all()


@pytest.mark.parametrize("make", BOTH)
def test_evaluation(make: Any) -> None:
    model = make(memory())
    evaluation = EvalCallback(memory(2), n_eval_episodes=3, eval_freq=10, verbose=0)
    model.learn(200, callback=evaluation)
    assert np.isfinite(evaluation.last_mean_reward)
    mean, _ = evaluate_policy(model, memory(2), n_eval_episodes=4)
    assert -1 <= mean <= 1


def test_every_parameter_is_trained_and_the_target_is_not() -> None:
    for model in (dqn(memory(), target_update_interval=10**6), r2d2(memory(), target_update_interval=10**6)):
        before, target = weights_of(model.policy), weights_of(model.target)
        model.learn(300)
        moved = [not torch.equal(old, new) for old, new in zip(before, model.policy.parameters(), strict=True)]
        assert all(moved)
        assert same(target, weights_of(model.target))
