"""PQN on tasks whose exact values are known, with parts broken one at a time, and what a rollout holds, step by step."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from conformance import assert_equal
from saccade.agents import PQN, Reinforce
from saccade.agents.pqn import lanes_in_minibatch
from saccade.agents.rollout import Rollout
from saccade.envs import (
    BatchedTask,
    Catch,
    Probe,
    ProbeAction,
    ProbeConstant,
    ProbeDiscount,
    ProbeMemory,
    ProbeObservation,
    ProbePolicy,
    TaskStep,
    TaskVecEnv,
)
from saccade.policies import GRU, CoreOutput, DuelingOutput, LearnedGaze, Retina
from saccade.policies.core import map_state, reset_state

GAMMA = 0.5


def agent(
    policy: str, env: VecEnv, agent_class: type[PQN] = PQN, core_kwargs: dict[str, Any] | None = None, **arguments: Any
) -> PQN:
    """A small agent that learns fast, one minibatch an epoch."""
    policy_kwargs: dict[str, Any] = {"head_hidden_size": 16, "optimizer_class": torch.optim.Adam}
    if policy == "GlimpsePolicy":
        policy_kwargs["core_kwargs"] = core_kwargs or {"hidden_size": 13, "glimpse_size": 17, "pathway_size": 19}
    else:
        policy_kwargs["features_extractor_kwargs"] = {"net_arch": (16,)}
    if policy in {"LstmPolicy", "GruPolicy"}:
        policy_kwargs["core_kwargs"] = {"hidden_size": 16}
    n_steps = arguments.setdefault("n_steps", 3)
    defaults = {"learning_rate": 0.02, "gamma": GAMMA, "batch_size": n_steps * env.num_envs, "seed": 0, "device": "cpu"}
    return agent_class(policy, env, policy_kwargs=policy_kwargs, **(defaults | arguments))


def learn_probe(probe: type[Probe], policy: str = "MlpPolicy", agent_class: type[PQN] = PQN, updates: int = 60) -> float:
    """How far the learned values are from the exact ones, after so many updates; large steps first, small ones last."""
    env = TaskVecEnv(probe(num_envs=16, seed=0))
    n_steps = 6 if probe is ProbeMemory else 2
    schedule = partial(falling, start=0.02)
    model = agent(
        policy,
        env,
        agent_class,
        learning_rate=schedule,
        n_steps=n_steps,
        q_lambda=0.0 if probe is ProbeMemory else 0.65,
        exploration_fraction=1.0,
        exploration_final_eps=0.3,
    )
    model.learn(updates * n_steps * env.num_envs)
    exact = env.task.expected_q(GAMMA)  # type: ignore[attr-defined]
    observations = torch.as_tensor(exact.observations)
    starts = torch.zeros(observations.shape[:2], dtype=torch.bool)
    starts[0] = True
    with torch.no_grad():
        q = model.policy(observations, model.policy.initial_state(starts.shape[1]), starts).head.q
    return float((q - torch.as_tensor(exact.q)).abs().max())


def falling(progress: float, start: float) -> float:
    return start * (0.2 + 0.8 * progress)


PROBES = [
    (ProbeConstant, "MlpPolicy", 60),
    (ProbeObservation, "MlpPolicy", 60),
    (ProbeDiscount, "MlpPolicy", 60),
    (ProbeAction, "MlpPolicy", 60),
    (ProbePolicy, "MlpPolicy", 60),
    (ProbePolicy, "LstmPolicy", 80),
    (ProbeMemory, "LstmPolicy", 120),
    (ProbeMemory, "GruPolicy", 120),
]


@pytest.mark.parametrize(("probe", "policy", "updates"), PROBES)
def test_the_exact_values_are_learned(probe: type[Probe], policy: str, updates: int) -> None:
    assert learn_probe(probe, policy, updates=updates) < 0.1


# Agents with one part broken, and the probe that says so.


class ForgetsToDiscount(PQN):
    def targets(self, batch: Rollout, q: Tensor) -> Tensor:
        kept, self.gamma = self.gamma, 1.0
        try:
            return super().targets(batch, q)
        finally:
            self.gamma = kept


class BootstrapsBeyondTheEnd(PQN):
    def targets(self, batch: Rollout, q: Tensor) -> Tensor:
        endless = copy.copy(batch)
        endless.episode_starts = torch.zeros_like(batch.episode_starts)
        return super().targets(endless, q)


class HasNoAdvantage(PQN):
    def _setup_model(self) -> None:
        super()._setup_model()
        self.policy.head.register_forward_hook(without_advantage)


def without_advantage(module: Any, arguments: Any, output: DuelingOutput) -> DuelingOutput:
    return DuelingOutput(output.value, 0 * output.advantage, output.value.expand_as(output.q))


class HasNoValue(PQN):
    def _setup_model(self) -> None:
        super()._setup_model()
        self.policy.head.register_forward_hook(without_value)


def without_value(module: Any, arguments: Any, output: DuelingOutput) -> DuelingOutput:
    return DuelingOutput(0 * output.value, output.advantage, output.advantage)


class IsBlind(PQN):
    def _setup_model(self) -> None:
        super()._setup_model()
        self.policy.features_extractor.register_forward_pre_hook(lambda module, arguments: (torch.zeros_like(arguments[0]),))


class LearnsFromTheWorstAction(PQN):
    def targets(self, batch: Rollout, q: Tensor) -> Tensor:
        return super().targets(batch, -((-q).amax(-1, keepdim=True).expand_as(q)))


class TrainsTheWrongAction(PQN):
    def targets(self, batch: Rollout, q: Tensor) -> Tensor:
        batch.actions = 1 - batch.actions
        return super().targets(batch, q)


class ResetsAtEveryStep(PQN):
    """A memory that learning wipes all the time."""

    def loss(self, batch: Rollout, targets: Tensor | None = None) -> Any:
        targets = self.targets(batch, self.policy(batch.observations, batch.state, batch.episode_starts).head.q.detach())
        wiped = copy.copy(batch)
        wiped.episode_starts = torch.ones_like(batch.episode_starts)
        return super().loss(wiped, targets)


FAULTS = [
    (ForgetsToDiscount, ProbeDiscount, "MlpPolicy", [ProbeConstant]),
    (BootstrapsBeyondTheEnd, ProbeConstant, "MlpPolicy", []),
    (HasNoValue, ProbeConstant, "MlpPolicy", []),
    (IsBlind, ProbeObservation, "MlpPolicy", [ProbeConstant]),
    (HasNoAdvantage, ProbeAction, "MlpPolicy", [ProbeConstant, ProbeDiscount]),
    (TrainsTheWrongAction, ProbeAction, "MlpPolicy", []),
    (ResetsAtEveryStep, ProbeMemory, "LstmPolicy", []),
    (LearnsFromTheWorstAction, ProbeMemory, "LstmPolicy", [ProbePolicy]),
    (PQN, ProbeMemory, "MlpPolicy", []),
]


@pytest.mark.parametrize(("broken", "probe", "policy", "passes"), FAULTS)
def test_a_broken_part_is_named_by_its_probe(
    broken: type[PQN], probe: type[Probe], policy: str, passes: list[type[Probe]]
) -> None:
    assert learn_probe(probe, policy, broken) > 0.3
    for other in passes:
        assert learn_probe(other, policy, broken) < 0.1


# Episodes that are cut short.


class Paid(BatchedTask):
    """Shows nothing, pays 1 a step; ends, or is cut off, every ``length`` steps."""

    lane_arrays = ("time",)

    def __init__(self, num_envs: int = 1, length: int = 3, ends: bool = False, cut: bool = True, seed: int | None = None) -> None:
        super().__init__(num_envs, spaces.Box(0, 1, (1,), np.float32), spaces.Discrete(2), seed)
        self.length, self.ends, self.cut = length, ends, cut
        self.time = np.zeros(num_envs, np.int64)

    def reset(self, lanes: np.ndarray) -> None:
        self.time[lanes] = 0

    def step(self, actions: np.ndarray) -> TaskStep:
        self.time += 1
        over = self.time == self.length
        return TaskStep(np.ones(self.num_envs, np.float32), over & self.ends, over & self.cut)

    def observe(self) -> np.ndarray:
        return np.zeros((self.num_envs, 1), np.float32)


class PaidEnv(gym.Env[np.ndarray, np.int64]):
    """The same as an ordinary environment, to be cut off by Gymnasium's ``TimeLimit``."""

    observation_space = spaces.Box(0, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        return np.zeros(1, np.float32), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return np.zeros(1, np.float32), 1.0, False, False, {}


def time_limited() -> VecEnv:
    return make_vec_env(lambda: gym.wrappers.TimeLimit(PaidEnv(), 3), 16)


@pytest.mark.parametrize(
    ("make", "q_lambda", "expected"),
    [
        (lambda: TaskVecEnv(Paid(16, length=3)), 0.9, 2.0),
        (lambda: TaskVecEnv(Paid(16, length=1)), 0.0, 2.0),
        (lambda: TaskVecEnv(Paid(16, length=1, ends=True, cut=False)), 0.5, 1.0),
        (lambda: TaskVecEnv(Paid(16, length=1, ends=True, cut=True)), 0.5, 1.0),
        (time_limited, 0.5, 2.0),
    ],
    ids=["cut at 3", "cut at 1", "ends at 1", "ends and is cut at 1", "TimeLimit"],
)
def test_a_cut_episode_is_worth_what_was_to_come_and_an_ended_one_is_not(
    make: Callable[[], VecEnv], q_lambda: float, expected: float
) -> None:
    env = make()
    model = agent("MlpPolicy", env, n_steps=5, q_lambda=q_lambda).learn(50 * 5 * env.num_envs)
    with torch.no_grad():
        q = model.policy(torch.zeros(1, 1, 1), (), torch.ones(1, 1, dtype=torch.bool)).head.q
    assert q.flatten().tolist() == pytest.approx([expected] * 2, abs=0.1)


# What a rollout holds.


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


T, B = 7, 5


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
    model.exploration_rate, model.exploration_schedule = 0.0, lambda _: 0.0  # type: ignore[assignment, return-value]
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


# Hard attention, end to end.


class Peek(BatchedTask):
    """Dark, then for one step a light at the right of the picture, upper or lower: which of the two must be named.

    Who looks at the middle does not see it. Where to look has to be decided in the dark.
    """

    lane_arrays = ("time", "cue")

    def __init__(self, num_envs: int = 1, seed: int | None = None) -> None:
        super().__init__(num_envs, spaces.Box(0, 255, (1, 7, 13), np.uint8), spaces.Discrete(2), seed)
        self.time, self.cue = np.zeros(num_envs, np.int64), np.zeros(num_envs, np.int64)
        self.reset(np.ones(num_envs, np.bool_))

    def reset(self, lanes: np.ndarray) -> None:
        self.time[lanes] = 0
        self.cue[lanes] = self.rng.integers(2, size=int(lanes.sum()))

    def step(self, actions: np.ndarray) -> TaskStep:
        self.time += 1
        last = self.time == 2
        rewards = np.where(last, np.where(actions == self.cue, 1, -1), 0).astype(np.float32)
        return TaskStep(rewards, last, np.zeros(self.num_envs, np.bool_), rewards == 1)

    def observe(self) -> np.ndarray:
        pictures = np.zeros((self.num_envs, 1, 7, 13), np.uint8)
        lit = self.time == 1
        pictures[lit, 0, 2 + 2 * self.cue[lit], 10] = 255
        return pictures


def test_a_gaze_is_learned_that_nothing_but_the_reward_asks_for() -> None:
    env = TaskVecEnv(Peek(num_envs=64, seed=0))
    sizes = {"hidden_size": 16, "glimpse_size": 16, "pathway_size": 16, "memory": GRU}
    core_kwargs = sizes | {"gaze": partial(LearnedGaze, sigma=0.3), "retina": partial(Retina, patch_size=3, scales=1)}
    explores = {"exploration_fraction": 1.0, "exploration_final_eps": 0.1, "reinforce": Reinforce(coef=1.0)}
    model = agent(
        "GlimpsePolicy", env, core_kwargs=core_kwargs, learning_rate=0.01, n_steps=4, gamma=0.9, q_lambda=0.5, **explores
    ).learn(120 * 4 * 64)
    pictures = torch.zeros(2, 2, 1, 7, 13, dtype=torch.uint8)
    pictures[1, 0, 0, 2, 10] = pictures[1, 1, 0, 4, 10] = 255
    starts = torch.tensor([[True, True], [False, False]])
    with torch.no_grad():
        output = model.policy(pictures, model.policy.initial_state(2), starts, deterministic=True)
    x = output.core.decision.value[0, :, 0]  # type: ignore[union-attr]
    # The column of the light is 10.5 / 13 of the way across; half a field is 1.5 / 13.
    assert (abs(x - (2 * 10.5 / 13 - 1)) < 2 * 1.5 / 13).all()
    assert output.head.q[1].argmax(-1).tolist() == [0, 1]
    torch.testing.assert_close(output.head.q[1], torch.tensor([[1.0, -1], [-1, 1]]), rtol=0, atol=0.4)


# Arguments.


@pytest.mark.parametrize(
    ("batch_size", "n_steps", "n_envs", "lanes"), [(None, 3, 1, 1), (32, 32, 8, 1), (256, 32, 8, 8), (15, 5, 9, 3)]
)
def test_lanes_in_a_minibatch(batch_size: int | None, n_steps: int, n_envs: int, lanes: int) -> None:
    assert lanes_in_minibatch(batch_size, n_steps, n_envs) == lanes


@pytest.mark.parametrize(
    ("batch_size", "nearest"), [(100, "64, 128"), (33, "32, 64"), (96, "64, 128"), (1000, "128, 256"), (1, "32, 64")]
)
def test_a_batch_size_that_cuts_sequences_is_refused_with_the_nearest(batch_size: int, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"batch_size={batch_size} .*8 environments x 32 steps") as error:
        lanes_in_minibatch(batch_size, 32, 8)
    assert nearest in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"n_steps": 0}, "n_steps must be at least 1; got 0"), ({"gamma": 1.5}, "gamma must be in .*1.5"), ({"gamma": -0.1}, "gamma")],
)
def test_impossible_numbers_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PQN("MlpPolicy", TaskVecEnv(ProbeConstant(2)), **arguments)
