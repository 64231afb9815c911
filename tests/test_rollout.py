"""What a rollout holds, step by step: every number in its place, and a memory that acting and learning share."""

import copy
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from examples import assert_equal
from saccade.agents import PQN
from saccade.agents.rollout import Rollout
from saccade.envs import (
    BatchedTask,
    Catch,
    TaskStep,
    TaskVecEnv,
)
from saccade.policies import CoreOutput, LearnedGaze, Retina
from saccade.policies.core import map_state, reset_state
from small_agents import GAMMA, agent

T, B = 7, 5


class Counting(BatchedTask):
    """Shows lane, steps since the start, episodes before, and the last action plus one (0 at the start).

    Lane ``i`` ends after ``2 + i`` steps; every second episode is cut off instead. Rewards say lane, step and action.
    """

    lane_arrays = ("time", "episode", "last")

    def __init__(self, num_envs: int = 5, seed: int | None = None) -> None:
        super().__init__(num_envs, spaces.Box(0, 1000, (4,), np.float32), spaces.Discrete(3), seed)
        self.time, self.episode, self.last = (np.zeros(num_envs, np.int64) for _ in range(3))
        self.episode -= 1
        self.reset(np.ones(num_envs, np.bool_))

    def reset(self, lanes: np.ndarray) -> None:
        self.time[lanes] = self.last[lanes] = 0
        self.episode[lanes] += 1

    def step(self, actions: np.ndarray) -> TaskStep:
        rewards = 100 * np.arange(self.num_envs) + 10 * self.time + actions
        self.time += 1
        self.last = actions + 1
        over = self.time == 2 + np.arange(self.num_envs)
        cut = self.episode % 2 == 1
        return TaskStep(rewards.astype(np.float32), over & ~cut, over & cut)

    def observe(self) -> np.ndarray:
        return np.stack([np.arange(self.num_envs), self.time, self.episode, self.last], axis=1).astype(np.float32)


class Snapshots(BaseCallback):
    """A copy of every rollout before it is learned from, and everything the environment said."""

    def __init__(self) -> None:
        super().__init__()
        self.rollouts: list[Rollout] = []
        self.said: list[tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]] = []

    def _on_step(self) -> bool:
        names = ("new_obs", "rewards", "dones", "infos")
        self.said.append(tuple(copy.deepcopy(self.locals[name]) for name in names))  # type: ignore[arg-type]
        return True

    def _on_rollout_end(self) -> None:
        self.rollouts.append(copy.deepcopy(self.model.rollout))


def watch(model: PQN, rollouts: int) -> Snapshots:
    """Some rollouts by weights that do not change."""
    callback = Snapshots()
    model.learn(rollouts * model.n_steps * model.n_envs, callback=callback)
    assert len(callback.rollouts) == rollouts
    return callback


def counting_agent(policy: str = "LstmPolicy") -> PQN:
    return agent(policy, TaskVecEnv(Counting(B)), n_steps=T, learning_rate=0.0)


def test_every_number_of_a_rollout_stands_where_it_belongs() -> None:
    seen = watch(counting_agent(), 4)
    assert len(seen.said) == 4 * T
    for k, rollout in enumerate(seen.rollouts):
        observations, starts = rollout.observations, rollout.episode_starts
        assert isinstance(observations, Tensor)
        assert observations.shape == (T + 1, B, 4)
        assert rollout.actions.shape == rollout.rewards.shape == (T, B)
        # A start shows time 0 and no last action; anything else follows from the step before.
        assert (observations[..., 1] == 0).equal(starts)
        assert (observations[..., 0] == torch.arange(B)).all()
        going = ~starts[1:]
        assert (observations[1:, :, 1] == observations[:-1, :, 1] + 1)[going].all()
        assert (observations[1:, :, 3] == rollout.actions + 1)[going].all()
        assert (observations[1:, :, 2] == observations[:-1, :, 2] + starts[1:]).all()
        for t in range(T):
            new_obs, rewards, dones, infos = seen.said[k * T + t]
            assert (observations[t + 1].numpy() == new_obs).all()
            assert (starts[t + 1].numpy() == dones).all()
            own = 100 * np.arange(B) + 10 * observations[t, :, 1].numpy() + rollout.actions[t].numpy()
            assert (rewards == own).all()
            cut = np.array([info.get("TimeLimit.truncated", False) for info in infos])
            assert (rollout.rewards[t].numpy() == own)[~cut].all()
        if k:
            before = seen.rollouts[k - 1]
            assert (before.observations[-1] == observations[0]).all()
            assert (before.episode_starts[-1] == starts[0]).all()
    assert seen.rollouts[0].episode_starts[0].all()
    ends = torch.stack([rollout.episode_starts[1:] for rollout in seen.rollouts])
    assert ends.any(0).any(0).all()


@pytest.mark.parametrize("policy", ["LstmPolicy", "GruPolicy", "MlpPolicy"])
def test_a_cut_step_holds_the_discounted_value_of_its_final_observation(policy: str) -> None:
    model = counting_agent(policy)
    seen = watch(model, 4)
    checked = 0
    for k, rollout in enumerate(seen.rollouts):
        state = rollout.state
        for t in range(T):
            with torch.no_grad():
                step = model.policy.encode(rollout.observations[t : t + 1], state, rollout.episode_starts[t : t + 1])
            state = step.state
            _, rewards, _, infos = seen.said[k * T + t]
            for lane, info in enumerate(infos):
                if info.get("TimeLimit.truncated", False):
                    final = torch.as_tensor(info["terminal_observation"])[None, None]
                    one = map_state(lambda leaf, lane=lane: leaf[[lane]], state)
                    with torch.no_grad():
                        q = model.policy(final, one, torch.zeros(1, 1, dtype=torch.bool)).head.q
                    expected = rewards[lane] + GAMMA * q.max().item()
                    assert rollout.rewards[t, lane].item() == pytest.approx(expected, abs=1e-4)
                    checked += 1
    assert checked > 5


def check_stored_states(model: PQN, seen: Snapshots) -> None:
    """The state that the next rollout starts from is the one that replaying this rollout ends in."""
    for rollout, following in zip(seen.rollouts, seen.rollouts[1:], strict=False):
        replay = None if rollout.replay() is None else rollout.decisions
        with torch.no_grad():
            core = model.policy.encode(rollout.observations[:-1], rollout.state, rollout.episode_starts[:-1], replay)  # type: ignore[index]
        fresh, starts = model.policy.initial_state(B), following.episode_starts[0]
        assert_equal(reset_state(following.state, fresh, starts), reset_state(core.state, fresh, starts), 1e-5)


def check_replayed_scores(model: PQN, seen: Snapshots) -> None:
    """Before any update, replayed decisions have the log-probabilities that were stored; greedy actions are greedy."""
    for rollout in seen.rollouts:
        with torch.no_grad():
            output = model.policy(rollout.observations, rollout.state, rollout.episode_starts, rollout.replay())
        if output.core.decision is not None:
            assert_equal(output.core.decision.log_prob[:-1], rollout.decision_log_probs, 1e-4)
        q = output.head.q[:-1]
        gap = q.amax(-1) - q.gather(-1, rollout.actions[..., None])[..., 0]
        assert (gap <= 1e-5).all()


def greedy(model: PQN) -> PQN:
    model.exploration_schedule = lambda _: 0.0  # type: ignore[assignment, return-value]
    return model


@pytest.mark.parametrize("policy", ["LstmPolicy", "GruPolicy"])
def test_states_are_stored_where_sequences_start(policy: str) -> None:
    model = greedy(counting_agent(policy))
    seen = watch(model, 4)
    check_stored_states(model, seen)
    check_replayed_scores(model, seen)


def glimpse_agent(agent_class: type[PQN] = PQN) -> PQN:
    core_kwargs = {
        "hidden_size": 13,
        "glimpse_size": 17,
        "pathway_size": 19,
        "gaze": partial(LearnedGaze, sigma=0.3),
        "retina": partial(Retina, 3, 2),
    }
    env = TaskVecEnv(Catch(num_envs=B, height=4, width=7, ball_speed=1, seed=0))
    return greedy(agent("GlimpsePolicy", env, agent_class, core_kwargs, n_steps=T, learning_rate=0.0))


def test_a_glimpse_is_replayed_as_it_acted() -> None:
    model = glimpse_agent()
    seen = watch(model, 4)
    assert torch.stack([rollout.episode_starts for rollout in seen.rollouts]).any()
    check_stored_states(model, seen)
    check_replayed_scores(model, seen)
    assert seen.rollouts[0].decision_log_probs.any(0).all()


class ActsWithoutReset(PQN):
    """Its memory runs on from one episode into the next while acting."""

    def collect_rollouts(self, env: VecEnv, callback: BaseCallback) -> bool:
        encode = self.policy.encode

        def without(observations: Any, state: Any, episode_starts: Tensor, *how: Any, **named: Any) -> CoreOutput:
            return encode(observations, state, torch.zeros_like(episode_starts), *how, **named)

        self.policy.encode = without  # type: ignore[method-assign]
        try:
            return super().collect_rollouts(env, callback)
        finally:
            del self.policy.encode


class StoresNoState(PQN):
    """It acts with a memory from before the rollout that it does not keep for learning."""

    def collect_rollouts(self, env: VecEnv, callback: BaseCallback) -> bool:
        encode, remembered = self.policy.encode, [self._last_state]

        def with_memory(observations: Any, state: Any, *rest: Any, **named: Any) -> CoreOutput:
            before = remembered.pop() if remembered else None
            return encode(observations, state if before is None else before, *rest, **named)

        self._last_state = None
        self.policy.encode = with_memory  # type: ignore[method-assign]
        try:
            return super().collect_rollouts(env, callback)
        finally:
            del self.policy.encode


@pytest.mark.parametrize("broken", [ActsWithoutReset, StoresNoState])
def test_acting_and_learning_apart_is_noticed(broken: type[PQN]) -> None:
    model = glimpse_agent(broken)
    seen = watch(model, 4)
    with pytest.raises(AssertionError):
        check_replayed_scores(model, seen)
    with pytest.raises(AssertionError):
        check_stored_states(model, seen)


def test_minibatches_are_whole_lanes_each_once() -> None:
    rollout = watch(counting_agent(), 1).rollouts[0]
    batches = list(rollout.minibatches(2))
    assert [batch.n_envs for batch in batches] == [2, 2, 1]
    lanes = torch.cat([batch.observations[0, :, 0] for batch in batches]).long()
    assert sorted(lanes.tolist()) == list(range(B))
    for batch in batches:
        own = batch.observations[0, :, 0].long()
        assert_equal(batch.rewards, rollout.rewards[:, own])
        assert_equal(batch.actions, rollout.actions[:, own])
        assert_equal(batch.episode_starts, rollout.episode_starts[:, own])
        assert_equal(batch.state, map_state(lambda leaf, own=own: leaf[own], rollout.state))
