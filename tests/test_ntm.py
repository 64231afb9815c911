"""The Neural Turing Machine: agreement with the paper's equations, what it starts from, what it refuses, that it learns."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ntm_reference
from examples import Example, assert_equal, example, leaves
from saccade.policies import GRU, LSTM, Core, CoreOutput, RecurrentGlimpse, TapKind, recording
from saccade.policies.controller import Dense
from saccade.policies.ntm import NTM

T, B, D, N, W = 7, 5, 3, 17, 11

KINDS: dict[str, dict[str, Any]] = {
    "lstm": {"controller": partial(LSTM, hidden_size=13)},
    "dense": {"controller": partial(Dense, hidden_size=13)},
    "dense, tanh": {"controller": partial(Dense, hidden_size=13, activation=nn.Tanh)},
    "several heads": {"controller": partial(LSTM, hidden_size=13), "read_heads": 2, "write_heads": 3, "max_shift": 2},
    "no shift": {"controller": partial(LSTM, hidden_size=13), "write_heads": 2, "max_shift": 0},
    "every shift": {"controller": partial(Dense, hidden_size=13), "read_heads": 2, "max_shift": N // 2},
    "learned memory": {"controller": partial(LSTM, hidden_size=13), "learn_memory": True},
    # Those that have to be stepped.
    "gru": {"controller": partial(GRU, hidden_size=13)},
    "two layers": {"controller": partial(LSTM, hidden_size=13, n_layers=2)},
    "dense, elu": {"controller": partial(Dense, hidden_size=13, activation=nn.ELU)},
}
every_kind = pytest.mark.parametrize("kind", KINDS)
Unroll = Callable[[Core, Tensor, Any, Tensor], CoreOutput]


def make(kind: str = "lstm", **arguments: Any) -> NTM:
    return NTM((D,), **({"slots": N, "width": W} | KINDS[kind] | arguments))


def run(core: NTM, call: Example, unroll: Unroll) -> tuple[CoreOutput, tuple[Tensor, ...]]:
    """Output and gradients by everything: of the features, each with a weight of its own, and of the state."""
    given = [call.inputs, *leaves(call.state), *core.parameters()]
    for tensor in given:
        tensor.requires_grad_()
    output = unroll(core, call.inputs, call.state, call.episode_starts)
    weights = torch.linspace(-1, 1, output.features.numel(), dtype=call.inputs.dtype).view_as(output.features)
    loss = (output.features * weights).sum() + sum(leaf.square().sum() for leaf in leaves(output.state))
    return output, torch.autograd.grad(loss, given)


# Against the equations.


@every_kind
@pytest.mark.parametrize("unroll", [NTM.unroll, Core.unroll], ids=["at once", "step by step"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)], ids=["double", "float"])
def test_it_is_its_equations_and_so_are_its_gradients(kind: str, unroll: Unroll, dtype: torch.dtype, tolerance: float) -> None:
    core = make(kind).to(dtype)
    call = example(core, T, B, dtype)
    ours, theirs = run(core, call, unroll), run(core, call, ntm_reference.unroll)
    assert_equal(ours[0], theirs[0], min(tolerance, 1e-5))
    assert_equal(ours[1], theirs[1], tolerance)


@pytest.mark.parametrize("kind", ["lstm", "dense", "several heads"])
def test_a_long_sequence_from_the_initial_state_stays_with_the_equations(kind: str) -> None:
    core, call = make(kind), example(make(kind), 61, 3)
    with torch.no_grad():
        core.interface.weight.mul_(5)
        state = core.initial_state(3)
        ours = core.unroll(call.inputs, state, call.episode_starts)
        theirs = ntm_reference.unroll(core, call.inputs, state, call.episode_starts)
    assert_equal(ours, theirs, 1e-4)


def test_a_gradient_of_the_gradient_is_refused() -> None:
    core = make()
    features = core.unroll(*example(core)[:3]).features
    with pytest.raises(RuntimeError, match="create_graph"):
        torch.autograd.grad(features.square().sum(), core.interface.weight, create_graph=True)


def test_going_back_twice_gives_the_same() -> None:
    core = make("several heads")
    loss = core.unroll(*example(core)[:3]).features.square().sum()
    first = torch.autograd.grad(loss, list(core.parameters()), retain_graph=True)
    assert_equal(torch.autograd.grad(loss, list(core.parameters())), first)


def test_a_controller_whose_step_is_overridden_is_stepped() -> None:
    class Louder(LSTM):
        def step(self, inputs: Tensor, state: Any, replay: Tensor | None = None, deterministic: bool = False) -> CoreOutput:
            output = super().step(inputs, state)
            return output._replace(features=2 * output.features)

    core = make(controller=partial(Louder, hidden_size=13))
    call = example(core)
    assert_equal(core.unroll(*call[:3]), Core.unroll(core, *call[:3]), 1e-6)


# What it starts from.


@pytest.mark.parametrize("learn_memory", [False, True])
def test_an_episode_begins_at_slot_0_with_the_initial_memory(learn_memory: bool) -> None:
    core = make("several heads", learn_memory=learn_memory)
    state = core.initial_state(B)
    assert torch.equal(state.weights, torch.eye(N)[0].expand(B, 5, N))
    if core.memory is None:
        assert torch.equal(state.memory, torch.full((B, W, N), 1e-6))
    else:
        assert torch.equal(state.memory, core.memory.expand(B, W, N))
        assert core.memory.std() > 0.1
    assert torch.equal(state.reads, state.memory[:, :, 0].unsqueeze(1).expand(B, 2, W))


def test_a_reset_in_mid_sequence_returns_to_the_initial_memory() -> None:
    core = make(learn_memory=True)
    call = example(core, T, 2)
    starts = torch.zeros(T, 2, dtype=torch.bool)
    starts[4, 1] = True
    whole = core(call.inputs, call.state, starts)
    alone = core(call.inputs[4:, 1:], core.initial_state(1), torch.zeros(T - 4, 1, dtype=torch.bool))
    torch.testing.assert_close(whole.features[4:, 1:], alone.features, rtol=0, atol=1e-6)
    torch.testing.assert_close(whole.state.memory[1:], alone.state.memory, rtol=0, atol=1e-6)
    # What the other lane remembers, the reset leaves alone.
    assert not torch.allclose(whole.state.memory[0], alone.state.memory[0], atol=1e-2)


def test_a_learned_memory_gets_a_gradient_from_where_an_episode_starts_and_only_there() -> None:
    core = make(learn_memory=True)
    assert core.memory is not None
    call = example(core, T, 2)
    starts = torch.zeros(T, 2, dtype=torch.bool)
    for start, found in ((False, False), (True, True)):
        starts[3, 0] = start
        features = core(call.inputs, call.state, starts).features
        (gradient,) = torch.autograd.grad(features.square().sum(), core.memory, allow_unused=True)
        assert (gradient is not None and bool(gradient.any())) == found


def test_a_constant_memory_is_not_a_parameter() -> None:
    assert make().memory is None
    assert {name for name, _ in make(learn_memory=True).named_parameters()} - {
        name for name, _ in make().named_parameters()
    } == {"memory"}


# What it is made of.


def test_features_are_the_controllers_and_the_vectors_read() -> None:
    core = make("several heads")
    call = example(core)
    output = core(*call)
    assert core.features_dim == 13 + 2 * W
    torch.testing.assert_close(output.features[-1, :, 13:], output.state.reads.flatten(1))
    torch.testing.assert_close(output.features[-1, :, :13], output.state.controller.hidden[:, 0])


def test_heads_read_the_memory_that_the_step_before_left() -> None:
    core = make()
    call = example(core, 2, 3)
    first = core.step(call.inputs[0], call.state)
    for before, after in ((call.state, first.state), (first.state, core.step(call.inputs[1], first.state).state)):
        expected = torch.einsum("bn,bwn->bw", after.weights[:, 0], before.memory)
        torch.testing.assert_close(after.reads[:, 0], expected)


def test_taps_are_what_heads_do_and_what_the_memory_holds() -> None:
    core = make("several heads")
    call = example(core)
    with recording() as taps:
        state = core(*call).state
    weights = ("write_weights", "read_weights", "content_weights")
    gates = {"interpolation_gate": TapKind.GATE, "shift_kernel": TapKind.GATE}
    assert taps.kinds == {**dict.fromkeys(weights, TapKind.MEMORY), **gates, "memory": TapKind.CONTENT}
    torch.testing.assert_close(torch.cat([taps.stacked("read_weights"), taps.stacked("write_weights")], 2)[-1], state.weights)
    assert taps.stacked("content_weights").shape == (7, 5, 5, N)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"slots": 0}, "slots must be at least 1; got slots=0"),
        ({"width": 0, "read_heads": -1}, "width, read_heads must be at least 1; got width=0, read_heads=-1"),
        ({"write_heads": 0}, "write_heads must be at least 1; got write_heads=0"),
        ({"max_shift": -1}, "max_shift=-1"),
        ({"slots": 4, "max_shift": 2}, "max_shift=2 and slots=4"),
        ({"controller": partial(Dense, hidden_size=0)}, "hidden_size=0"),
        ({"controller": partial(LSTM, hidden_size=-3)}, "-3"),
    ],
)
def test_impossible_sizes_are_refused_with_their_numbers(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**arguments)


def test_a_controller_that_takes_decisions_is_refused() -> None:
    class Deciding(Dense):
        def __init__(self, input_shape: tuple[int, ...]) -> None:
            super().__init__(input_shape, hidden_size=13)
            self.decision_size = 2

    with pytest.raises(ValueError, match="Deciding takes latent decisions, 2 numbers"):
        make(controller=Deciding)


def test_a_controller_that_reads_images_is_refused() -> None:
    with pytest.raises(ValueError, match="image"):
        make(controller=RecurrentGlimpse)


# Learning.


@pytest.mark.parametrize("kind", ["lstm", "dense, tanh"])
def test_it_learns_to_copy_a_sequence(kind: str) -> None:
    """Three vectors are shown and then asked for. A controller alone that keeps nothing gets 0.64: one answer for all three."""
    core, bits = make(kind, slots=7, width=5), torch.tensor([[[1.0, 0, 0]], [[0, 1, 1]], [[1, 1, 0]]])
    answer = nn.Linear(core.features_dim, D)
    inputs, starts = torch.cat([bits, torch.zeros_like(bits)]), torch.zeros(6, 1, dtype=torch.bool)
    optimizer = torch.optim.Adam([*core.parameters(), *answer.parameters()], lr=0.06)
    for _ in range(60):
        logits = answer(core(inputs, core.initial_state(1), starts).features[3:])
        loss = nn.functional.binary_cross_entropy_with_logits(logits, bits)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05
