"""What PPO learns from: sequences that start from the stored states, every transition once, and the same numbers as acting."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from torch import Tensor

from saccade.agents import PPO, Reinforce
from saccade.agents.policy_batch import PolicyBatch
from saccade.agents.ppo import SEQUENCE, steps_in_sequence
from saccade.envs import Catch, TaskVecEnv
from saccade.policies import LearnedGaze, Retina
from saccade.policies.core import map_state
from small_agents import ppo, weights

T, B, L = 12, 5, 4


class Numbered(gym.Env[np.ndarray, Any]):
    """Shows lane, episode and time, and pays their number; episodes take 2 + lane steps, every second is cut off."""

    observation_space = spaces.Box(-100, 100, (3,), np.float32)

    def __init__(self, lane: int, actions: gym.Space[Any] | None = None) -> None:
        self.action_space = actions or spaces.Discrete(3)
        self.lane, self.episode, self.time = lane, -1, 0

    def look(self) -> np.ndarray:
        return np.float32([self.lane, self.episode, self.time])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.episode, self.time = self.episode + 1, 0
        return self.look(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        reward = 100.0 * self.lane + 10 * self.episode + self.time
        self.time += 1
        over, cut = self.time == 2 + self.lane, self.episode % 2 == 1
        return self.look(), reward, over and not cut, over and cut, {}


def numbered(actions: gym.Space[Any] | None = None) -> VecEnv:
    return DummyVecEnv([partial(Numbered, lane, actions) for lane in range(B)])


def collected(policy: str, rollouts: int = 2, **arguments: Any) -> PPO:
    """An agent with weights that do not change, after some rollouts: the last one starts from a state in mid-episode."""
    env = arguments.pop("env", None) or numbered()
    arguments = {"n_steps": T, "batch_size": T * B, "learning_rate": 0.0, "n_epochs": 1, "sequence_length": L} | arguments
    return ppo(policy, env, **arguments).learn(rollouts * T * B)


def glimpsing(**arguments: Any) -> PPO:
    core_kwargs = {
        "hidden_size": 13,
        "glimpse_size": 17,
        "pathway_size": 19,
        "gaze": partial(LearnedGaze, sigma=0.3),
        "retina": partial(Retina, patch_size=3, scales=2),
    }
    env = TaskVecEnv(Catch(B, height=4, width=7, ball_speed=1, seed=0))
    return collected("GlimpsePolicy", env=env, policy_kwargs={"core_kwargs": core_kwargs}, **arguments)


REMEMBERING: dict[str, Callable[[], PPO]] = {
    "lstm": lambda: collected("LstmPolicy"),
    "gru": lambda: collected("GruPolicy"),
    "twin": lambda: collected("TwinPolicy"),
    "glimpse": glimpsing,
    "box": lambda: collected("LstmPolicy", env=numbered(spaces.Box(-1, 1, (2,), np.float32))),
}
EveryMemory = pytest.mark.parametrize("make", REMEMBERING.values(), ids=REMEMBERING)


def check_recomputed(model: PPO, batch: PolicyBatch) -> None:
    """What the policy thinks of the batch is what it thought when it acted."""
    with torch.no_grad():
        output, core = model.policy(batch.observations, batch.state, batch.episode_starts, batch.replay())
        scores = model.policy.score(output.parameters, batch.actions)
    torch.testing.assert_close(output.value, batch.values, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scores.log_prob, batch.log_probs, rtol=1e-5, atol=1e-5)
    if core.decision is not None:
        torch.testing.assert_close(core.decision.log_prob, batch.decision_log_probs, rtol=1e-4, atol=1e-4)
        assert batch.decision_log_probs.all()


@EveryMemory
def test_learning_starts_from_the_stored_states_and_computes_what_acted(make: Callable[[], PPO]) -> None:
    model = make()
    batch = model.batch()
    assert batch.n_sequences == T // L * B
    assert batch.episode_starts[1:].any(), "no episode starts in mid-sequence"
    assert (~batch.episode_starts[0]).any(), "no sequence starts in mid-episode"
    check_recomputed(model, batch)
    for minibatch in batch.minibatches(7):
        check_recomputed(model, minibatch)


@EveryMemory
@pytest.mark.parametrize("spoil", ["state", "episode_starts"])
def test_a_lost_state_or_reset_is_noticed(make: Callable[[], PPO], spoil: str) -> None:
    model = make()
    batch = model.batch()
    if spoil == "state":
        batch = replace(batch, state=map_state(torch.zeros_like, batch.state))
    else:
        batch = replace(batch, episode_starts=torch.zeros_like(batch.episode_starts))
    with pytest.raises(AssertionError):
        check_recomputed(model, batch)


def test_the_first_loss_has_a_ratio_of_one() -> None:
    for make in REMEMBERING.values():
        model = make()
        metrics = model.loss(model.batch()).metrics
        assert metrics["approx_kl"] == pytest.approx(0, abs=1e-6)
        assert metrics["clip_fraction"] == 0


def test_every_number_stands_where_it_belongs() -> None:
    model = collected("LstmPolicy", gae_lambda=0.0)
    batch = model.batch()
    assert isinstance(batch.observations, Tensor)
    lane, episode, time = batch.observations.unbind(-1)
    assert (lane == lane[0]).all(), "a sequence is of one lane"
    own = 100 * lane + 10 * episode + time
    over = time == 1 + lane
    cut = over & (episode % 2 == 1)
    assert torch.equal(batch.rewards[~cut], own[~cut])
    assert not torch.equal(batch.rewards[cut], own[cut])
    assert torch.equal(batch.continues == 0, over)
    assert torch.equal(batch.episode_starts, time == 0)
    assert ((time[1:] == time[:-1] + 1) | batch.episode_starts[1:]).all()
    torch.testing.assert_close(batch.advantages, batch.returns - batch.values)
    following = torch.cat([batch.values[1:], torch.zeros_like(batch.values[:1])])
    one_step = batch.rewards + model.gamma * batch.continues * following
    torch.testing.assert_close(batch.returns[:-1], one_step[:-1])


def test_what_is_after_the_rollout_is_valued_with_its_memory() -> None:
    model = collected("LstmPolicy")
    rollout, batch = model.rollout, model.batch()
    last = batch.state
    assert isinstance(rollout.observations, Tensor)
    with torch.no_grad():
        output, _ = model.policy(rollout.observations, rollout.state, rollout.episode_starts)
    torch.testing.assert_close(output.value, model.judgement.values, rtol=1e-5, atol=1e-5)
    assert [len(leaf) for leaf in last] == [T // L * B] * len(last)


@pytest.mark.parametrize("sequences_each", [1, 4, 7, 15, 100])
def test_every_transition_is_in_one_minibatch_an_epoch(sequences_each: int) -> None:
    batch = collected("LstmPolicy").batch()
    batches = list(batch.minibatches(sequences_each))
    sizes = [one.n_sequences for one in batches]
    assert sum(sizes) == 15
    assert all(size == sequences_each for size in sizes[:-1]), "only the last has less"
    assert sizes[-1] == (15 % sequences_each or sequences_each)
    together = torch.cat([one.rewards for one in batches], dim=1)
    for mine, theirs in zip(together, batch.rewards, strict=True):
        assert torch.equal(mine.sort().values, theirs.sort().values)


def test_minibatches_are_shuffled_anew_and_keep_together_what_belongs_together() -> None:
    batch = collected("LstmPolicy").batch()
    orders = [torch.cat([one.values[0] for one in batch.minibatches(4)]) for _ in range(2)]
    assert not torch.equal(*orders)
    index = torch.tensor([11, 2, 5])
    picked = batch.pick(index)
    for name, value in vars(batch).items():
        if isinstance(value, Tensor):
            assert torch.equal(getattr(picked, name), value[:, index]), name
    for mine, theirs in zip(picked.state, batch.state, strict=True):
        assert torch.equal(mine, theirs[index])


def test_the_last_minibatch_is_learned_from_though_it_is_smaller() -> None:
    model = collected("LstmPolicy", batch_size=4 * L, learning_rate=0.01, n_epochs=3, rollouts=1)
    (steps,) = {int(entry["step"]) for entry in model.policy.optimizer.state.values()}
    assert steps == 3 * 4, "15 sequences are 4, 4, 4 and 3"


# How long sequences are.


@pytest.mark.parametrize(
    ("given", "n_steps", "batch_size", "remembers", "expected"),
    [
        (None, 128, 256, True, SEQUENCE),
        (None, 2048, 64, True, 32),
        (None, 12, 60, True, 12),
        (None, 7, 35, True, 7),
        (None, 5, 7, True, 5),
        (None, 125, 64, True, 25),
        (None, 100, 3, True, 2),
        (None, 48, 48, True, 24),
        (None, 128, 256, False, 1),
        (64, 128, 256, True, 64),
        (8, 128, 256, False, 8),
        (1, 5, 7, True, 1),
    ],
)
def test_steps_in_a_sequence(given: int | None, n_steps: int, batch_size: int, remembers: bool, expected: int) -> None:
    assert steps_in_sequence(given, n_steps, batch_size, remembers) == expected


@pytest.mark.parametrize(
    ("given", "nearest"), [(5, "3, 4, 6"), (9, "4, 6, 12"), (24, "4, 6, 12"), (0, "1, 2, 3"), (-3, "1, 2, 3")]
)
def test_a_sequence_that_does_not_fit_is_refused_with_the_nearest(given: int, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"sequence_length={given} .*n_steps=12 and batch_size=60; nearest valid: {nearest}"):
        collected("LstmPolicy", sequence_length=given)


def test_without_a_memory_single_steps_are_shuffled() -> None:
    model = collected("MlpPolicy", sequence_length=None)
    batch = model.batch()
    assert model.state_every == 1
    assert batch.returns.shape == (1, T * B)
    assert batch.state == ()
    check_recomputed(model, batch)
    order = torch.cat([one.rewards for one in batch.minibatches(13)], dim=1)
    assert not torch.equal(order, batch.rewards)


def test_how_long_sequences_are_changes_nothing_of_what_a_feed_forward_policy_learns_in_one_batch() -> None:
    one, other = (collected("MlpPolicy", 1, sequence_length=length, learning_rate=0.01, n_epochs=3) for length in (1, 6))
    for ours, theirs in zip(weights(one), weights(other), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_gradients_flow_back_through_a_whole_sequence() -> None:
    model = collected("LstmPolicy")
    batch = model.batch()
    observations = batch.observations.clone().requires_grad_()  # type: ignore[union-attr]
    output, _ = model.policy(observations, batch.state, batch.episode_starts)
    (gradient,) = torch.autograd.grad(output.value[-1].sum(), observations)
    unbroken = ~batch.episode_starts[1:].any(0)
    assert unbroken.any()
    assert gradient[0, unbroken].any(-1).all()
    broken = batch.episode_starts[-1]
    assert broken.any()
    assert not gradient[:-1, broken].any(), "nothing flows over the start of an episode"


# The gaze.


def test_the_gaze_has_a_clipped_ratio_of_its_own() -> None:
    model = glimpsing()
    batch = model.batch()
    gaze = list(model.policy.core.gaze_policy.parameters())
    assert gaze

    def gradient(**changes: Any) -> list[Tensor]:
        loss = model.loss(replace(batch, **changes)).loss
        return [torch.zeros(()) if one is None else one for one in torch.autograd.grad(loss, gaze, allow_unused=True)]

    assert all(one.any() for one in gradient()), "REINFORCE does not reach the gaze"
    # A ratio far above the clip, for good gazes, and far below, for bad ones, moves nothing any more.
    followed = (batch.returns - batch.rewards) - model.policy.baseline(encoded(model, batch)).squeeze(-1)  # type: ignore[misc]
    clipped = batch.decision_log_probs - 2 * followed.detach().sign()
    assert not any(one.any() for one in gradient(decision_log_probs=clipped))
    # The ratio of the actions does not matter to the gaze, nor the other way round.
    for ours, theirs in zip(gradient(), gradient(log_probs=batch.log_probs - 2), strict=True):
        torch.testing.assert_close(ours, theirs)
    other = model.loss(replace(batch, decision_log_probs=clipped)).metrics
    assert other["policy_gradient_loss"] == model.loss(batch).metrics["policy_gradient_loss"]
    assert other["gaze_clip_fraction"] == 1


def encoded(model: PPO, batch: PolicyBatch) -> Tensor:
    with torch.no_grad():
        _, core = model.policy(batch.observations, batch.state, batch.episode_starts, batch.replay())
    return core.features


def test_the_gaze_is_learned_and_without_a_weight_it_is_not() -> None:
    for coef, moves in ((0.3, True), (0.0, False)):
        model = glimpsing(rollouts=1, learning_rate=0.01, reinforce=Reinforce(coef=coef))
        fresh = glimpsing(rollouts=1)
        before, after = (one.policy.core.gaze_policy.mean.weight for one in (fresh, model))
        assert torch.equal(before, after) != moves
