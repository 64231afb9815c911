"""Transformers over a window: against plain loops, what they can see and cannot, and sizes that do not fit."""

from functools import partial

import pytest
import torch
from torch import Tensor

from conformance import assert_equal
from saccade.policies import Core, GTrXL, TapKind, TrXL, recording
from saccade.policies.core import map_state
from saccade.policies.transformer import WindowTransformer
from transformer_reference import run_episode

SIZES = {"hidden_size": 15, "n_heads": 3, "feedforward_size": 19}
both = pytest.mark.parametrize("make", [TrXL, GTrXL])


def small(make: type[WindowTransformer], **sizes: int) -> WindowTransformer:
    """Such a core, away from its start, where biases are zero."""
    core = make((11,), **{**SIZES, "n_layers": 2, "window": 3, **sizes})
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return core


def features(core: Core, inputs: Tensor, starts: Tensor | None = None) -> Tensor:
    """Of all steps, from the initial state."""
    steps, lanes = inputs.shape[:2]
    starts = torch.zeros(steps, lanes, dtype=torch.bool) if starts is None else starts
    return core(inputs, core.initial_state(lanes), starts).features


@both
@pytest.mark.parametrize("shared_values", [False, True])
def test_an_episode_is_what_plain_loops_make_of_it(make: type[WindowTransformer], shared_values: bool) -> None:
    core = small(make, shared_values=shared_values)
    inputs = torch.randn(9, 1, 11)
    torch.testing.assert_close(features(core, inputs)[:, 0], run_episode(core, inputs[:, 0]), rtol=1e-5, atol=1e-5)


@both
@pytest.mark.parametrize("max_distance", [1, 2, 7])
def test_steps_longer_ago_than_the_largest_distance_are_taken_to_be_just_so_long_ago(
    make: type[WindowTransformer], max_distance: int
) -> None:
    core = small(make, window=5, max_distance=max_distance)
    inputs = torch.randn(9, 1, 11)
    ours, loops = features(core, inputs)[:, 0], run_episode(core, inputs[:, 0], max_distance)
    torch.testing.assert_close(ours, loops, rtol=1e-5, atol=1e-5)
    assert torch.allclose(loops, run_episode(core, inputs[:, 0]), atol=1e-5) == (max_distance > 5)


@both
def test_a_step_sees_as_many_steps_as_the_window_has_and_itself(make: type[WindowTransformer]) -> None:
    core, window, steps = small(make, n_layers=1, window=4), 4, 11
    inputs = torch.randn(steps, 1, 11, requires_grad=True)
    for t in range(steps):
        (gradient,) = torch.autograd.grad(features(core, inputs)[t].sum(), inputs)
        seen = [step for step in range(steps) if gradient[step].any()]
        assert seen == list(range(max(0, t - window), t + 1))


@both
def test_layers_look_back_one_from_where_the_other_does(make: type[WindowTransformer]) -> None:
    core = small(make, n_layers=3, window=2)
    inputs = torch.randn(11, 1, 11, requires_grad=True)
    (gradient,) = torch.autograd.grad(features(core, inputs)[-1].sum(), inputs)
    assert [step for step in range(11) if gradient[step].any()] == list(range(4, 11))


@both
def test_a_first_step_does_not_depend_on_what_the_memory_holds(make: type[WindowTransformer]) -> None:
    core = small(make)
    inputs = torch.randn(1, 5, 11)
    empty = core.initial_state(5)
    nothing_filled = empty._replace(memory=torch.randn_like(empty.memory) * 100)
    for starts, state in ((False, nothing_filled), (True, nothing_filled._replace(filled=torch.ones_like(empty.filled)))):
        output = core(inputs, state, torch.full((1, 5), starts))
        assert_equal(output.features, features(core, inputs))
        assert_equal(core(inputs, core.hold(state), torch.full((1, 5), starts)).features, output.features, 1e-5)


@both
def test_gradients_flow_back_through_a_sequence_and_into_none_before(make: type[WindowTransformer]) -> None:
    core, starts = small(make), torch.zeros(2, 1, dtype=torch.bool)
    first, second = torch.randn(2, 1, 11, requires_grad=True), torch.randn(2, 1, 11, requires_grad=True)
    state = map_state(torch.detach, core(first, core.initial_state(1), starts).state)
    by_first, by_second = torch.autograd.grad(
        core(second, state, starts).features[-1].sum(), [first, second], allow_unused=True
    )
    assert by_first is None
    assert by_second[0].any()


def test_a_new_gate_passes_its_stream_on_almost_as_it_is() -> None:
    core = GTrXL((11,), hidden_size=32, n_layers=1, n_heads=4)
    gate = core.blocks[0].gate_read
    stream, update = torch.randn(64, 32), torch.randn(64, 32)
    changed = (gate(stream, update) - stream).norm() / stream.norm()
    assert changed < 0.3
    with torch.no_grad():
        gate.bias.fill_(20)
    assert_equal(gate(stream, update), stream, 1e-5)


@both
def test_where_values_are_shared_the_mean_of_the_weights_acts(make: type[WindowTransformer]) -> None:
    core = small(make, n_layers=1, shared_values=True)
    inputs = torch.randn(6, 2, 11)
    with recording() as taps:
        features(core, inputs)
    heads, mean = taps.stacked("attention"), taps.stacked("mean_attention")
    assert taps.kinds["attention"] is taps.kinds["mean_attention"] is TapKind.TIME
    assert heads.shape == (6, 2, 1, 3, 4)
    assert mean.shape == (6, 2, 1, 4)
    assert_equal(heads.mean(3), mean)
    block = core.blocks[0]
    shown = block.shown(core.embedding(inputs))
    values = block.attention.value(shown)
    by_hand = torch.stack([sum(mean[5, :, 0, 3 - back, None] * values[5 - back] for back in range(4))])
    attended = block.attention(shown[5:], torch.cat([shown[2:5], shown[5:]]), None)
    assert_equal(attended.features, block.attention.output(by_hand), 1e-5)


@both
def test_weights_of_a_tap_are_of_the_oldest_step_first(make: type[WindowTransformer]) -> None:
    core = small(make)
    with recording() as taps:
        features(core, torch.randn(2, 1, 11))
    weights = taps.stacked("attention")
    assert not weights[0, ..., :-1].any()
    assert (weights[0, ..., -1] == 1).all()
    assert not weights[1, ..., :-2].any()
    assert (weights[1, ..., -2:] > 0).all()


@both
def test_sizes_that_do_not_fit_are_refused(make: type[WindowTransformer]) -> None:
    with pytest.raises(ValueError, match="n_heads=5 does not divide hidden_size=64; nearest valid: 2, 4, 8"):
        make((11,), hidden_size=64, n_heads=5)
    for name in ("hidden_size", "n_layers", "n_heads", "window", "feedforward_size", "max_distance"):
        with pytest.raises(ValueError, match=f"{name}.*0"):
            partial(make, **{name: 0})((11,))
