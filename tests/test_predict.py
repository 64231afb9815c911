"""``predict`` and what evaluates by it: a memory that the caller carries."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import (
    CheckpointCallback,
    EvalCallback,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.evaluation import evaluate_policy

from examples import assert_equal
from saccade.agents import PQN
from saccade.policies import LSTMState
from saccade.policies.core import map_state
from small_agents import SMALL_GLIMPSE, SMALL_LSTM, catch, flat, lstm_agent, memory, same, weights


def test_a_single_observation_and_a_batch() -> None:
    model = lstm_agent()
    action, state = model.predict(np.zeros(2, np.float32))
    assert np.shape(action) == ()
    assert model.action_space.contains(int(action))
    assert isinstance(state, LSTMState)
    assert all(isinstance(leaf, np.ndarray) and leaf.shape == (1, 1, 11) for leaf in state)
    actions, state = model.predict(np.zeros((3, 2), np.float32), deterministic=True)
    assert actions.shape == (3,)
    assert state.hidden.shape == (3, 1, 11)


def test_one_image_and_a_batch_of_them() -> None:
    model = PQN("GlimpsePolicy", catch(), policy_kwargs=SMALL_GLIMPSE, device="cpu")
    images = catch(3).reset()
    for deterministic in (True, False):
        assert np.shape(model.predict(images[0], deterministic=deterministic)[0]) == ()
        assert model.predict(images, deterministic=deterministic)[0].shape == (3,)


def test_a_memory_is_carried_by_the_caller_and_wiped_where_an_episode_starts() -> None:
    model, observations = lstm_agent(), np.random.default_rng(0).normal(size=(7, 5, 2)).astype(np.float32)
    starts = np.zeros((7, 5), bool)
    starts[0] = starts[3, 1] = starts[3, 4] = starts[5, 1] = True
    state, actions = None, []
    for observation, start in zip(observations, starts, strict=True):
        action, state = model.predict(observation, state, start, deterministic=True)
        actions.append(action)
    with torch.no_grad():
        arguments = torch.as_tensor(observations), model.policy.initial_state(5), torch.as_tensor(starts)
        output = model.policy(*arguments)
    assert (np.array(actions) == output.head.q.argmax(-1).numpy()).all()
    assert_equal(map_state(torch.as_tensor, state), output.core.state, 1e-5)
    # Without a state, an episode starts, whatever is said.
    for said in (None, np.zeros(5, bool), np.ones(5, bool)):
        fresh = model.predict(observations[0], None, said, deterministic=True)[1]
        assert_equal(tuple(map(torch.as_tensor, fresh)), tuple(output_state(model, observations[0])), 1e-6)
    # Without episode starts, it goes on.
    gone_on = model.predict(observations[1], fresh, deterministic=True)[1]
    assert (gone_on.hidden != model.predict(observations[1], None, deterministic=True)[1].hidden).any()


def output_state(model: PQN, observation: np.ndarray) -> Any:
    with torch.no_grad():
        starts = torch.ones(1, len(observation), dtype=torch.bool)
        return model.policy.encode(
            torch.as_tensor(observation)[None], model.policy.initial_state(len(observation)), starts
        ).state


def test_predict_leaves_the_given_state_alone() -> None:
    model = lstm_agent()
    _, state = model.predict(np.ones((5, 2), np.float32))
    kept = map_state(np.copy, state)
    model.predict(np.ones((5, 2), np.float32), state, np.ones(5, bool))
    assert all((a == b).all() for a, b in zip(state, kept, strict=True))


@pytest.mark.parametrize("policy", ["LstmPolicy", "GlimpsePolicy"])
def test_deterministic_is_deterministic_and_the_rest_explores(policy: str) -> None:
    glimpse = policy == "GlimpsePolicy"
    env, kwargs = (catch(), SMALL_GLIMPSE) if glimpse else (memory(), SMALL_LSTM)
    model = PQN(policy, env, policy_kwargs=kwargs, device="cpu")
    observations = env.reset()
    first = model.predict(observations, deterministic=True)
    for _ in range(5):
        again = model.predict(observations, deterministic=True)
        assert (again[0] == first[0]).all()
        assert all((a == b).all() for a, b in zip(flat(again[1]), flat(first[1]), strict=True))
    # ε is 1 before training.
    drawn = np.array([model.predict(observations)[0] for _ in range(30)])
    assert (drawn.std(0) > 0).all()
    model.exploration_schedule = lambda _: 0.0  # type: ignore[assignment, return-value]
    if not glimpse:
        assert (model.predict(observations)[0] == first[0]).all()


def test_predict_does_not_move_the_training() -> None:
    model = lstm_agent().learn(35)
    before, observation, state = weights(model), model._last_obs.copy(), model._last_state
    model.predict(np.ones((3, 2), np.float32), deterministic=True)
    assert same(before, weights(model))
    assert (model._last_obs == observation).all()
    assert_equal(model._last_state, state)


def test_the_policys_stateless_hook() -> None:
    model = lstm_agent()
    observation = torch.ones(3, 2)
    actions = model.policy._predict(observation, deterministic=True)
    assert actions.tolist() == model.predict(observation.numpy(), deterministic=True)[0].tolist()


@pytest.mark.parametrize(("wrong", "shape"), [(np.zeros(3, np.float32), "(3,)"), (np.zeros((5, 3), np.float32), "(5, 3)")])
def test_an_observation_of_the_wrong_shape_is_refused(wrong: np.ndarray, shape: str) -> None:
    with pytest.raises(ValueError, match="Unexpected observation shape") as error:
        lstm_agent().predict(wrong)
    assert shape in str(error.value)


@pytest.mark.parametrize("n_envs", [1, 3])
def test_evaluate_policy_hands_the_memory_through(n_envs: int) -> None:
    model, seen = lstm_agent(), []

    def record(local: dict[str, Any], _: dict[str, Any]) -> None:
        if local["i"] == 0:
            seen.append((local["observations"].copy(), local["actions"].copy(), local["episode_starts"].copy()))

    mean, std = evaluate_policy(model, memory(n_envs), n_eval_episodes=4 * n_envs, callback=record)
    assert -1 <= mean <= 1
    assert std >= 0
    assert len(seen) >= 4 * 3
    observations, actions, ends = (torch.as_tensor(np.array(part)) for part in zip(*seen, strict=True))
    # An environment starts at the first step and wherever it ended before. An observation is the last before its action.
    starts = torch.cat([torch.ones(1, n_envs, dtype=torch.bool), ends[:-1]])
    with torch.no_grad():
        output = model.policy(observations, model.policy.initial_state(n_envs), starts)
    assert (output.head.q.argmax(-1) == actions).all()


def test_eval_and_checkpoint_callbacks(tmp_path: Path) -> None:
    evaluation = EvalCallback(
        memory(2),
        n_eval_episodes=4,
        eval_freq=7,
        best_model_save_path=str(tmp_path / "best"),
        log_path=str(tmp_path / "log"),
        callback_on_new_best=StopTrainingOnRewardThreshold(reward_threshold=99),
        verbose=0,
    )
    checkpoints = CheckpointCallback(save_freq=7, save_path=str(tmp_path / "all"), name_prefix="pqn")
    model = lstm_agent().learn(35 * 3, callback=[evaluation, checkpoints])
    assert {path.name for path in (tmp_path / "all").iterdir()} == {f"pqn_{35 * k}_steps.zip" for k in (1, 2, 3)}
    assert (tmp_path / "log" / "evaluations.npz").exists()
    best = PQN.load(tmp_path / "best" / "best_model", device="cpu")
    assert np.isfinite(evaluation.best_mean_reward)
    assert [a.shape for a in weights(best)] == [b.shape for b in weights(model)]
    last = PQN.load(tmp_path / "all" / "pqn_105_steps", device="cpu")
    assert last.num_timesteps == 105
