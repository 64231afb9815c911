"""R2D2 against slow loops written from the papers, and on tasks whose exact values are known."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from replay_agents import Paid, clocks, memory, r2d2, r2d2_probe, schedule, surprising
from saccade.agents import R2D2
from saccade.agents.replay import Lesson
from saccade.agents.sequences import Sequences
from saccade.envs import (
    Probe,
    ProbeAction,
    ProbeConstant,
    ProbeDiscount,
    ProbeMemory,
    ProbeObservation,
    ProbePolicy,
    TaskVecEnv,
)
from saccade.policies.core import map_state
from sequence_properties import burn_in_gradients, example, replayed_error, slow_lesson

# Exactness.


@pytest.mark.parametrize("policy", ["LstmPolicy", "GruPolicy"])
@pytest.mark.parametrize("n_steps", [1, 2, 5, 11])
@pytest.mark.parametrize(("burn_in", "rescale_epsilon"), [(0, 1e-3), (2, 1e-2), (2, None), (3, 0.0)])
def test_loss_and_priorities_are_those_of_a_slow_loop(
    policy: str, n_steps: int, burn_in: int, rescale_epsilon: float | None
) -> None:
    model, batch = example(policy, n_steps, burn_in, rescale_epsilon)
    lesson = model.judge(batch, None)
    expected, priorities, returns = slow_lesson(model, batch)
    torch.testing.assert_close(lesson.terms.loss, expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(lesson.priorities, priorities, atol=1e-6, rtol=1e-6)
    assert (lesson.indices == batch.indices).all()
    with torch.no_grad():
        targets = model.targets(batch, model.unroll(model.policy, batch).head.q)
    torch.testing.assert_close(targets * batch.mask, returns, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("policy", ["LstmPolicy", "GruPolicy"])
def test_gradients_are_those_of_a_slow_loop_that_stops_them_after_the_burn_in(policy: str) -> None:
    model, batch = example(policy, 3, 2, 1e-3)
    losses = model.judge(batch, None).terms.loss, slow_lesson(model, batch)[0]
    gradients = [torch.autograd.grad(loss, list(model.policy.parameters()), allow_unused=True) for loss in losses]
    assert any(gradient is not None and gradient.abs().max() > 1e-3 for gradient in gradients[0])
    for ours, slow in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, slow, atol=1e-8, rtol=1e-6)


def test_padding_changes_nothing() -> None:
    model, batch = example("LstmPolicy", 3, 2, 1e-3)
    assert isinstance(batch.observations, Tensor)
    padding = batch.mask == 0
    assert padding.any()
    observations = batch.observations.clone()
    length = batch.mask.sum(dim=0).long()
    beyond = torch.arange(len(observations))[:, None] > length
    observations[beyond] = 99.0
    other = batch._replace(observations=observations, actions=torch.where(padding, 2 - batch.actions, batch.actions))
    first, second = model.judge(batch, None), model.judge(other, None)
    torch.testing.assert_close(first.terms.loss, second.terms.loss)
    torch.testing.assert_close(first.priorities, second.priorities)


def test_no_gradient_flows_into_a_burn_in_but_where_an_episode_begins() -> None:
    model, batch = example("LstmPolicy", 3, 2, 1e-3)
    touched = burn_in_gradients(model, batch)
    assert touched.tolist() == batch.episode_starts[0].tolist()
    assert 0 < touched.sum() < len(touched)


def test_steps_of_a_burn_in_are_learned_from_only_where_an_episode_begins() -> None:
    model, batch = example("LstmPolicy", 3, 2, 1e-3)
    learned = model.learned(batch)
    for lane, first in enumerate(batch.episode_starts[0].tolist()):
        expected = batch.mask[:, lane].clone()
        if not first:
            expected[:2] = 0
        assert learned[:, lane].tolist() == expected.tolist()
        assert learned[:, lane].any()


def test_a_weight_scales_the_loss_of_its_sequence() -> None:
    model, batch = example("LstmPolicy", 3, 2, 1e-3)
    singles: list[Tensor] = []
    for lane in range(len(batch.weights)):
        weights = torch.zeros_like(batch.weights)
        weights[lane] = 1
        singles.append(model.judge(batch._replace(weights=weights), None).terms.loss)
    expected = (torch.stack(singles) * batch.weights).sum()
    torch.testing.assert_close(model.judge(batch, None).terms.loss, expected)


@pytest.mark.parametrize("policy", ["LstmPolicy", "GruPolicy", "GlimpsePolicy"])
@pytest.mark.parametrize(("burn_in", "length"), [(0, 3), (2, 5)])
def test_features_from_the_stored_state_are_those_that_acted(policy: str, burn_in: int, length: int) -> None:
    assert replayed_error(policy, burn_in, length) < 1e-5


def test_an_episode_that_begins_does_not_need_a_state() -> None:
    model, batch = example("LstmPolicy", 3, 2, 1e-3)
    fresh = batch.episode_starts[0]
    noise = map_state(lambda leaf: torch.where(fresh.view(-1, 1, 1), torch.randn_like(leaf), leaf), batch.state)
    other = map_state(lambda leaf: torch.where(fresh.view(-1, 1, 1), leaf, torch.randn_like(leaf)), batch.state)
    loss = model.judge(batch, None).terms.loss
    torch.testing.assert_close(model.judge(batch._replace(state=noise), None).terms.loss, loss)
    assert abs(model.judge(batch._replace(state=other), None).terms.loss - loss).item() > 1e-4


# Exploration.


def test_every_environment_explores_with_its_own_epsilon() -> None:
    model = r2d2(memory(5), exploration_spread=7.0, exploration_initial_eps=0.4, exploration_final_eps=0.4, learning_starts=0)
    greedy = torch.zeros(5, dtype=torch.long)
    moved = torch.stack([model.exploration(greedy) for _ in range(4000)]).float().mean(dim=0)
    expected = [0.4 ** (1 + 7 * lane / 4) / 2 for lane in range(5)]
    assert moved.tolist() == pytest.approx(expected, abs=0.03)
    even = r2d2(memory(5), exploration_initial_eps=0.4, exploration_final_eps=0.4, learning_starts=0)
    moved = torch.stack([even.exploration(greedy) for _ in range(4000)]).float().mean(dim=0)
    assert moved.tolist() == pytest.approx([0.2] * 5, abs=0.03)


@pytest.mark.parametrize("spread", [0.0, 7.0])
def test_one_environment_and_one_observation_explore_with_the_plain_epsilon(spread: float) -> None:
    model = r2d2(memory(1), exploration_spread=spread, exploration_initial_eps=1.0, exploration_final_eps=1.0)
    drawn = {int(model.predict(np.zeros(2, np.float32))[0]) for _ in range(30)}
    assert drawn == {0, 1}
    assert model.predict(np.zeros((1, 2), np.float32))[0].shape == (1,)


# Values.

SWITCHES: list[dict[str, Any]] = [
    {},
    {"rescale_epsilon": None},
    {"burn_in": 1},
    {"priority_exponent": 0.0, "policy": "GruPolicy"},
]


@pytest.mark.parametrize("switches", SWITCHES)
@pytest.mark.parametrize("probe", [ProbeConstant, ProbeObservation, ProbeDiscount, ProbeAction, ProbePolicy, ProbeMemory])
def test_the_exact_values_are_learned(probe: type[Probe], switches: dict[str, Any]) -> None:
    assert r2d2_probe(probe, updates=160 if probe is ProbeMemory else 80, batch_size=32, **switches) < 0.2


@pytest.mark.parametrize("n_steps", [2, 5])
def test_returns_of_several_steps_are_exact_too(n_steps: int) -> None:
    assert r2d2_probe(ProbeDiscount, updates=80, n_steps=n_steps, burn_in=1) < 0.1


def test_memory_from_before_the_sequence_is_used() -> None:
    assert r2d2_probe(ProbeMemory, updates=300, sequence_length=2, rescale_epsilon=None) < 0.2


def test_what_surprises_is_drawn_more_and_does_not_weigh_more() -> None:
    assert surprising(R2D2) == pytest.approx(1 / 9, abs=0.03)


@pytest.mark.parametrize("settings", [{}, {"burn_in": 1, "n_steps": 3, "rescale_epsilon": None}])
@pytest.mark.parametrize(("length", "ends", "expected"), [(5, False, 2.0), (3, False, 2.0), (1, False, 2.0), (1, True, 1.0)])
def test_a_cut_episode_is_worth_what_was_to_come_and_an_ended_one_is_not(
    length: int, ends: bool, expected: float, settings: dict[str, Any]
) -> None:
    env = TaskVecEnv(Paid(8, length, ends))
    model = r2d2(env, learning_rate=schedule, train_freq=1, target_update_interval=24, **settings).learn(8 * 90)
    with torch.no_grad():
        output = model.policy(torch.zeros(1, 1, 1), model.policy.initial_state(1), torch.ones(1, 1, dtype=torch.bool))
        q = model.unscaled(output.head.q)
    assert q.flatten().tolist() == pytest.approx([expected] * 2, abs=0.15)


def test_a_batch_of_a_real_replay_is_learned_from_as_the_slow_loop_does() -> None:
    model = r2d2(clocks(3, length=8), burn_in=2, sequence_length=5, n_steps=3, learning_starts=10**6, buffer_size=600).learn(
        3 * 40
    )
    batch: Sequences = model.replay.sample(53)
    assert (batch.mask == 0).any() and batch.episode_starts[0].any() and not batch.episode_starts[0].all()
    lesson: Lesson = model.judge(batch, None)
    expected, priorities, _ = slow_lesson(model, batch)
    torch.testing.assert_close(lesson.terms.loss, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(lesson.priorities, priorities, atol=1e-5, rtol=1e-5)
