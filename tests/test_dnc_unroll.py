"""A Differentiable Neural Computer's sequences in one node of the graph: as its steps are, and something to learn from."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from dnc_reference import HIDDEN, INPUT, B, T, gradients, lived, lstm, small
from examples import assert_equal, leaves, mid_sequence_starts
from saccade.policies import GRU, LSTM, Core, CoreOutput, State
from saccade.policies.controller import Dense
from saccade.policies.core import map_state
from saccade.policies.dnc import DNC


class Costly(LSTM):
    """An LSTM whose steps cost something, which depends on weights and inputs."""

    def step(self, inputs: Tensor, state: State, replay: Tensor | None = None, deterministic: bool = False) -> CoreOutput:
        output = super().step(inputs, state)
        return output._replace(cost=output.features.square().sum(1) + inputs.sum(1))


class LearnedStart(GRU):
    """A GRU whose initial state is learned."""

    def __init__(self, input_shape: tuple[int, ...], hidden_size: int) -> None:
        super().__init__(input_shape, hidden_size)
        self.start = nn.Parameter(torch.randn(1, hidden_size))

    def initial_state(self, batch_size: int) -> State:
        return super().initial_state(batch_size)._replace(hidden=self.start.expand(batch_size, -1, -1))


@pytest.mark.parametrize(
    "make",
    [
        small,
        partial(small, controller=partial(LSTM, hidden_size=HIDDEN, n_layers=2)),
        partial(small, controller=partial(GRU, hidden_size=HIDDEN)),
        partial(small, controller=partial(Dense, hidden_size=HIDDEN)),
        partial(small, controller=partial(Costly, hidden_size=HIDDEN)),
        partial(small, controller=partial(LearnedStart, hidden_size=HIDDEN)),
        partial(small, link_slots=5),
        partial(small, read_heads=1, link_slots=2, controller=partial(GRU, hidden_size=HIDDEN)),
        partial(small, slots=1),
    ],
    ids=["lstm", "two layers", "gru", "dense", "cost", "learned start", "sparse", "sparse, gru", "one slot"],
)
def test_a_sequence_is_its_steps_in_values_and_gradients(make: Callable[[], DNC]) -> None:
    core = make().double()
    stepped, by_steps = gradients(core, partial(Core.unroll, core))
    fast, by_fast = gradients(core, partial(DNC.unroll, core))
    assert (fast.cost is None) == (stepped.cost is None)
    assert_equal(fast, stepped, 1e-11)
    assert_equal(tuple(by_fast), tuple(by_steps), 1e-10)
    assert all(gradient.any() for gradient in by_fast[-len(list(core.parameters())) :])


@pytest.mark.parametrize("lanes", [1, 5])
@pytest.mark.parametrize("link_slots", [None, 5])
@torch.no_grad()
def test_acting_is_a_step(lanes: int, link_slots: int | None) -> None:
    core = small(link_slots=link_slots).double()
    inputs, state = torch.randn(1, lanes, INPUT, dtype=torch.float64), lived(core, lanes)
    starts = torch.arange(lanes)[None] % 2 == 1
    assert_equal(core(inputs, state, starts), Core.run_one(core, inputs, state, starts, None, False), 1e-12)


@pytest.mark.parametrize("link_slots", [None, 5])
def test_gradients_stay_finite_over_a_long_sequence_with_saturated_gates(link_slots: int | None) -> None:
    core = small(link_slots=link_slots)
    for scale, steps in ((1.0, 199), (100.0, 41)):
        core.interface.weight.data *= scale
        inputs = torch.randn(steps, 2, INPUT, requires_grad=True)
        output = core(inputs, core.initial_state(2), torch.zeros(steps, 2, dtype=torch.bool))
        loss = output.features.square().mean() + sum(leaf.square().mean() for leaf in leaves(output.state))
        by_all = torch.autograd.grad(loss, [inputs, *core.parameters()])
        assert all(gradient.isfinite().all() for gradient in by_all)
        assert by_all[0][0].any(), "the first input has no part in the last state"


def test_learns_to_copy_a_sequence_through_its_memory() -> None:
    core = DNC((3,), slots=7, width=5, read_heads=1, controller=partial(LSTM, hidden_size=13))
    head = nn.Linear(5, 2)
    optimizer = torch.optim.Adam([*core.parameters(), *head.parameters()], lr=0.03)
    symbols = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    # Two symbols, then twice the sign to give them back. The head sees only what was read; with a constant it would lose 1.
    inputs = torch.cat([nn.functional.pad(symbols, (0, 1)), torch.tensor([[0.0, 0.0, 1.0]] * 2)])[:, None]
    starts = torch.zeros(4, 1, dtype=torch.bool)
    for _ in range(300):
        reads = core(inputs, core.initial_state(1), starts).features[2:, 0, -5:]
        loss = (head(reads) - symbols).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < 0.05:
            break
    assert loss < 0.05


# --- The node of the graph ---------------------------------------------------------------------------------------------------


def call(core: DNC) -> CoreOutput:
    return core(torch.randn(T, B, INPUT), core.initial_state(B), mid_sequence_starts(T, B))


def test_a_second_derivative_is_refused() -> None:
    core = small()
    loss = call(core).features.square().sum()
    with pytest.raises(RuntimeError, match="step the core instead"):
        torch.autograd.grad(loss, list(core.parameters()), create_graph=True)


@pytest.mark.parametrize("make", [small, partial(small, controller=partial(GRU, hidden_size=HIDDEN), link_slots=3)])
def test_the_way_back_can_be_gone_twice(make: Callable[[], DNC]) -> None:
    core = make()
    loss = call(core).features.square().sum()
    first, second = (torch.autograd.grad(loss, list(core.parameters()), retain_graph=True) for _ in range(2))
    assert_equal(first, second)


@pytest.mark.parametrize("controller", [lstm, partial(GRU, hidden_size=HIDDEN)])
def test_frozen_weights_get_no_gradient_and_change_no_other(controller: Callable[..., Core]) -> None:
    core = small(controller=controller)
    torch.manual_seed(1)
    call(core).features.square().sum().backward()
    wanted = {name: parameter.grad for name, parameter in core.named_parameters()}
    core.zero_grad()
    core.controller.requires_grad_(False)
    torch.manual_seed(1)
    call(core).features.square().sum().backward()
    for name, parameter in core.named_parameters():
        assert (parameter.grad is None) == name.startswith("controller.")
        if parameter.grad is not None:
            assert_equal(parameter.grad, wanted[name], 1e-5)


def test_weights_changed_before_the_way_back_are_noticed() -> None:
    core = small()
    loss = call(core).features.square().sum()
    with torch.no_grad():
        core.interface.weight.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("grad", [True, False])
def test_what_a_sequence_returns_can_be_trained_from_and_written_to(grad: bool) -> None:
    core = small()
    with torch.set_grad_enabled(grad):
        output = call(core)
    assert not any(leaf.is_inference() for leaf in leaves((output.features, output.state)))
    state = map_state(lambda leaf: leaf.detach().add_(0.0), output.state)
    core(torch.randn(T, B, INPUT), state, mid_sequence_starts(T, B)).features.sum().backward()
    if grad:
        output.features.sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in core.parameters())
