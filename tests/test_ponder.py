"""Adaptive computation time: around a recurrent core, and within a Universal Transformer, against plain loops."""

from functools import partial
from typing import Any

import gymnasium as gym
import pytest
import torch

from conformance import assert_equal
from saccade.agents import PPO
from saccade.agents.reinforce import core_cost
from saccade.envs import make_vec_env
from saccade.policies import GRU, LSTM, NTM, Core, Dense, GTrXL, Ponder, RecurrentGlimpse, TapKind, Universal, recording
from saccade.policies.halting import Halting
from saccade.policies.ponder import make_core
from transformer_reference import run_universal

# Of a halting unit that starts shallow, some steps halt before others.
SHALLOW = {"halting_bias": 0.0}


def away_from_the_start(core: Core, by: float = 0.3) -> None:
    """Weights by which steps halt at different times."""
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.add_(torch.randn_like(parameter) * by)


def no_starts(steps: int, lanes: int) -> torch.Tensor:
    return torch.zeros(steps, lanes, dtype=torch.bool)


def ponder(**arguments: Any) -> Ponder:
    return Ponder((11,), partial(GRU, hidden_size=13), **arguments)


@torch.no_grad()
def test_a_step_is_what_a_plain_loop_makes_of_it() -> None:
    core = ponder(max_steps=5, cost=0.25, **SHALLOW)
    away_from_the_start(core)
    inputs, start = torch.randn(64, 11), torch.randn(64, 1, 13)
    state = core.initial_state(64)._replace(hidden=start)
    output = core.step(inputs, state)
    taken = []
    for lane in range(64):
        weights, hidden, total = [], [], torch.zeros(())
        state_n = state._replace(hidden=start[lane : lane + 1])
        for n in range(5):
            x = torch.cat([inputs[lane], torch.tensor([float(n == 0)])])[None]
            run = core.inner.step(x, state_n)
            state_n = run.state
            h = core.halting.unit(run.features)[0, 0].sigmoid()
            hidden.append(run.features[0])
            last = n == 4 or float(total + h) >= 0.99
            weights.append(1 - total if last else h)
            total = total + h
            if last:
                break
        taken.append(len(weights))
        mean = sum(w * h for w, h in zip(weights, hidden, strict=True))
        assert_equal(output.features[lane], mean, 1e-5)
        assert_equal(output.state.hidden[lane, 0], mean, 1e-5)  # of a GRU, features and state are the same
        assert_equal(output.cost[lane], 0.25 * (len(weights) + weights[-1]), 1e-5)
    assert output.ponder.tolist() == taken
    assert len(set(taken)) > 1


@torch.no_grad()
def test_a_universal_transformer_is_what_plain_loops_make_of_it() -> None:
    core = Universal((11,), hidden_size=15, n_heads=3, max_steps=4, window=3, feedforward_size=19, cost=0.25, **SHALLOW)
    away_from_the_start(core, 0.2)
    inputs = torch.randn(9, 1, 11)
    features, taken, costs = run_universal(core, inputs[:, 0])
    output = core(inputs, core.initial_state(1), no_starts(9, 1))
    assert_equal(output.features[:, 0], features, 1e-5)
    assert output.ponder[:, 0].tolist() == taken
    assert len(set(taken)) > 1
    assert_equal(output.cost[:, 0], 0.25 * torch.stack(costs), 1e-5)


def test_without_halting_every_step_takes_all_computations() -> None:
    core = Universal((11,), hidden_size=15, n_heads=3, max_steps=4, window=3, ponder=False)
    output = core(torch.randn(9, 2, 11), core.initial_state(2), no_starts(9, 2))
    assert output.cost is None
    assert output.ponder is None
    assert not any("halting" in name for name, _ in core.named_parameters())


@pytest.mark.parametrize("bias", [-3.0, 10.0])
def test_a_bias_far_below_zero_starts_deep_and_one_far_above_with_a_single_computation(bias: float) -> None:
    for core in (ponder(max_steps=7, halting_bias=bias), Universal((11,), max_steps=7, halting_bias=bias)):
        taken = core(torch.randn(5, 3, 11), core.initial_state(3), no_starts(5, 3)).ponder
        assert (taken == (7 if bias < 0 else 1)).all()


def test_the_cost_has_a_gradient_by_the_remainder_alone() -> None:
    halting = Halting(3, max_steps=4, cost=1.0, bias=0.0)
    features = torch.zeros(1, 3)
    with torch.no_grad():
        halting.unit.bias.fill_(-1.0)
    progress = Halting.begin(features)
    for n in range(4):
        _, progress = halting(features, progress, n == 3)
    (gradient,) = torch.autograd.grad(halting.charge(progress).sum(), halting.unit.bias)
    h = torch.tensor(-1.0).sigmoid()
    assert_equal(gradient, (-3 * h * (1 - h))[None], 1e-6)  # R = 1 - 3 h
    assert progress.taken == 4


def test_costs_and_ponder_steps_are_logged() -> None:
    core = ponder(max_steps=3, cost=0.5)
    terms = core_cost(core(torch.randn(5, 3, 11), core.initial_state(3), no_starts(5, 3)))
    assert terms.metrics["ponder"] == 3
    assert terms.metrics["core_cost"] == pytest.approx(float(terms.loss.detach()))
    assert 1.5 < float(terms.loss.detach()) < 2


def test_taps_of_the_core_are_means_over_its_runs() -> None:
    core = Ponder((11,), partial(NTM, slots=5, width=3, controller=partial(Dense, hidden_size=7)), **SHALLOW)
    away_from_the_start(core)
    with recording() as taps:
        output = core(torch.randn(6, 4, 11), core.initial_state(4), no_starts(6, 4))
    assert taps.stacked("ponder").tolist() == output.ponder.tolist()
    assert taps.kinds["ponder"] is TapKind.PONDER
    assert_equal(taps.stacked("memory")[-1], output.state.memory.mT, 1e-5)
    assert_equal(taps.stacked("read_weights").sum(-1), torch.ones(6, 4, 1), 1e-5)


def test_after_it_has_halted_a_step_of_a_universal_transformer_attends_to_itself() -> None:
    core = Universal((11,), hidden_size=15, n_heads=3, max_steps=4, window=3, **SHALLOW)
    away_from_the_start(core, 0.2)
    with recording() as taps:
        output = core(torch.randn(6, 4, 11), core.initial_state(4), no_starts(6, 4))
    attention, taken = taps.stacked("attention"), output.ponder
    assert taken.min() < 4
    for n in range(4):
        halted = attention[:, :, n][taken <= n]
        assert (halted[..., -1] == 1).all()
        assert not halted[..., :-1].any()


@pytest.mark.parametrize(("make", "why"), [(Dense, "Dense has no state"), (GTrXL, "GTrXL looks back.*use Universal")])
def test_cores_that_cannot_run_several_times_are_refused(make: type[Core], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Ponder((11,), make)
    with pytest.raises(ValueError, match="Ponder reads a vector"):
        Ponder((3, 5, 7), RecurrentGlimpse)


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="max_steps.*0"):
        ponder(max_steps=0)
    with pytest.raises(ValueError, match="cost of a computation must be at least 0; got -1.0"):
        ponder(cost=-1.0)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (7, "ponder is 7; it must be true, false, or a dictionary"),
        ({"maxsteps": 3}, "Ponder takes no argument 'maxsteps'.*'max_steps'"),
    ],
)
def test_what_is_no_way_to_ask_for_it_is_refused(asked: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make_core(GRU, (11,), {"ponder": asked})


@pytest.mark.parametrize(("asked", "most"), [(True, 10), ({"max_steps": 3}, 3), (False, None), (None, None)])
def test_a_policy_puts_it_around_its_core_if_so_asked(asked: Any, most: int | None) -> None:
    env = make_vec_env("saccade/PocMemory-v0", 2)
    model = PPO("LstmPolicy", env, n_steps=8, batch_size=16, policy_kwargs={"core_kwargs": {"hidden_size": 7, "ponder": asked}})
    core = model.policy.core
    inner = core.inner if isinstance(core, Ponder) else core
    assert isinstance(inner, LSTM)
    assert inner.hidden_size == 7
    assert (core.halting.max_steps if isinstance(core, Ponder) else None) == most
    model.learn(16)
    assert isinstance(model.observation_space, gym.spaces.Box)
