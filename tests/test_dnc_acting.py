"""A Differentiable Neural Computer's step in numpy against its step in torch, and what becomes of the tensors it is given."""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dnc_reference import HIDDEN, INPUT, SLOTS, lived, lstm, small
from examples import assert_equal, leaves
from saccade.policies import GRU, LSTM, Core, CoreOutput, State, addressing, dnc_acting
from saccade.policies.controller import Dense
from saccade.policies.core import map_state
from saccade.policies.dnc import DNC
from saccade.policies.dnc_kernels import Memory

STEPS = 30
SIZES = [(1, 13, 3, 1), (1, 37, 16, 4), (5, 13, 3, 2), (5, 6, 7, 1), (4, 1, 2, 3)]
every_size = pytest.mark.parametrize(("lanes", "slots", "width", "heads"), SIZES)


class RefusedError(Exception):
    """What the other way was taken for."""


def refuse(*args: Any) -> None:
    raise RefusedError


@pytest.fixture
def only_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory's step in torch is refused, but for the reference's."""
    monkeypatch.setattr(Memory, "forward", refuse)


def decided(core: DNC) -> DNC:
    """A core that asks for something else in every step; at first it hardly would."""
    core.interface.weight.data *= 4
    return core


def steps(lanes: int, count: int = STEPS) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs, and where episodes start: in some lanes, and once in all of them."""
    for t in range(count):
        yield torch.randn(1, lanes, INPUT), (torch.arange(lanes)[None] + t) % 7 == 3 if t != 11 else torch.ones(1, lanes) > 0


def reference(core: DNC, inputs: Tensor, state: State, starts: Tensor) -> CoreOutput:
    """The same by :meth:`DNC.step`."""
    return Core.run_one(core, inputs, state, starts, None, False)


def check_steps(core: DNC, lanes: int, count: int = STEPS) -> None:
    """Every step from one and the same state, from an empty memory on."""
    state = core.initial_state(lanes)
    for inputs, starts in steps(lanes, count):
        expected = reference(core, inputs, state, starts)
        assert_equal(core(inputs, state, starts), expected, 1e-6)
        state = expected.state


# --- Values ------------------------------------------------------------------------------------------------------------------


@every_size
@pytest.mark.usefixtures("only_numpy")
@torch.no_grad()
def test_is_a_step(lanes: int, slots: int, width: int, heads: int) -> None:
    check_steps(decided(small(slots=slots, width=width, read_heads=heads)), lanes)


class Costly(LSTM):
    """An LSTM whose steps cost something."""

    def step(self, inputs: Tensor, state: State, replay: Tensor | None = None, deterministic: bool = False) -> CoreOutput:
        output = super().step(inputs, state)
        return output._replace(cost=output.features.square().sum(1) + inputs.sum(1))


@pytest.mark.parametrize("lanes", [1, 5])
@pytest.mark.parametrize(
    "controller",
    [
        partial(LSTM, hidden_size=HIDDEN, n_layers=2),
        partial(LSTM, hidden_size=HIDDEN, memory_span=30),
        partial(LSTM, hidden_size=1),
        partial(GRU, hidden_size=HIDDEN),
        partial(Dense, hidden_size=HIDDEN),
        partial(Costly, hidden_size=HIDDEN),
    ],
    ids=["two layers", "memory span", "one unit", "gru", "dense", "cost"],
)
@pytest.mark.usefixtures("only_numpy")
@torch.no_grad()
def test_any_controller(controller: Callable[..., Core], lanes: int) -> None:
    check_steps(decided(small(controller=controller)), lanes, 8)


@pytest.mark.parametrize("largest", [0, 4 * HIDDEN * HIDDEN])
@pytest.mark.usefixtures("only_numpy")
@torch.no_grad()
def test_large_products_are_left_to_torch(monkeypatch: pytest.MonkeyPatch, largest: int) -> None:
    monkeypatch.setattr(dnc_acting, "LARGEST_PRODUCT", largest)
    for lanes in (1, 5):
        check_steps(decided(small()), lanes, 8)


@pytest.mark.parametrize("usage", [0.0, 0.37, 0.9, 1.0])
@pytest.mark.parametrize("lanes", [1, 5])
def test_slots_used_equally_are_allocated_in_the_same_order(usage: float, lanes: int) -> None:
    used = torch.full((lanes, SLOTS), usage)
    used[:, 2] *= 0.5
    ties = addressing.tie_breakers(SLOTS)
    ours = torch.from_numpy(dnc_acting.allocation(used.numpy(), ties.numpy()))
    torch.testing.assert_close(ours, addressing.allocation(used, ties), rtol=0, atol=1e-6)
    others = ours[:, torch.arange(SLOTS) != 2]
    assert (others.diff(dim=1) <= 0).all(), "the first of them comes first"


@pytest.mark.usefixtures("only_numpy")
@torch.inference_mode()
def test_no_interface_is_too_large() -> None:
    core = small()
    for parameter in core.parameters():
        parameter.data *= 1e4
    state = core.initial_state(5)
    for inputs, starts in steps(5):
        output = core(inputs, state, starts)
        state = output.state
        assert all(leaf.isfinite().all() for leaf in leaves((output.features, state)))
    assert (state.read_weights.sum(-1) <= 1 + 1e-5).all()


@pytest.mark.parametrize("junk", [torch.nan, torch.inf, 1e30])
@pytest.mark.usefixtures("only_numpy")
@torch.no_grad()
def test_what_is_not_finite_stays_in_its_lane(junk: float) -> None:
    core, starts = decided(small()), torch.zeros(1, 5, dtype=torch.bool)
    inputs, state = torch.randn(1, 5, INPUT), lived(core)
    expected = core(inputs, state, starts)
    for leaf in (inputs[0], *leaves(state)):
        leaf[3] = junk
    spoilt = core(inputs, state, starts)
    for ours, theirs in zip(leaves(spoilt.state), leaves(expected.state), strict=True):
        assert_equal(ours[[0, 1, 2, 4]], theirs[[0, 1, 2, 4]])


# --- Tensors -----------------------------------------------------------------------------------------------------------------


def strided(leaf: Tensor) -> Tensor:
    return torch.stack([leaf, torch.full_like(leaf, torch.nan)], -1)[..., 0]


def backwards(leaf: Tensor) -> Tensor:
    """Its first number lies beside that of the next lane."""
    axes = list(reversed(range(leaf.ndim)))
    return leaf.permute(axes).contiguous().permute(axes)


@pytest.mark.parametrize("lay", [strided, backwards], ids=lambda lay: lay.__name__)
@pytest.mark.parametrize("lanes", [1, 5])
@pytest.mark.usefixtures("only_numpy")
@torch.no_grad()
def test_tensors_may_lie_in_memory_anyhow(lay: Callable[[Tensor], Tensor], lanes: int) -> None:
    core = decided(small())
    inputs, state, starts = torch.randn(1, lanes, INPUT), lived(core, lanes), torch.zeros(1, lanes, dtype=torch.bool)
    laid = map_state(lay, state)
    assert lanes == 1 or not any(leaf.is_contiguous() for leaf in leaves(laid))
    expected = reference(core, inputs, state, starts)
    assert_equal(core(lay(inputs), laid, lay(starts.float()) > 0), expected, 1e-6)
    same = map_state(lambda leaf: leaf[:1].expand_as(leaf), state)
    assert_equal(core(inputs, same, starts), reference(core, inputs, same, starts), 1e-6)


@every_size
@pytest.mark.usefixtures("only_numpy")
@torch.no_grad()
def test_states_can_be_kept(lanes: int, slots: int, width: int, heads: int) -> None:
    core = small(slots=slots, width=width, read_heads=heads)
    given, kept = [core.initial_state(lanes)], []
    for inputs, starts in steps(lanes):
        call = (inputs, given[-1], starts)
        kept.append(copy.deepcopy(call))
        output = core(*call)
        assert_equal(call, kept[-1])
        given.append(output.state)
        arrays = [leaf.numpy() for leaf in leaves((inputs, output.features, *given[-2:]))]
        assert not any(np.may_share_memory(*pair) for pair in combinations(arrays, 2))
    assert_equal(tuple(given[:-1]), tuple(state for _, state, _ in kept))


@pytest.mark.usefixtures("only_numpy")
def test_what_a_step_returns_can_be_written_to() -> None:
    core = small()
    inputs, state, starts = torch.randn(1, 1, INPUT), core.initial_state(1), torch.zeros(1, 1, dtype=torch.bool)
    with torch.no_grad():
        expected = copy.deepcopy(core(inputs, state, starts))
        for leaf in leaves(tuple(core(inputs, state, starts)[:2])):
            leaf.fill_(torch.nan)
        assert_equal(core(inputs, state, starts), expected)


@pytest.mark.usefixtures("only_numpy")
def test_with_and_without_inference_mode() -> None:
    core = decided(small())
    state = core.initial_state(5)
    for t, (inputs, starts) in enumerate(steps(5)):
        with torch.inference_mode() if t % 3 else torch.no_grad():
            output = core(inputs, state, starts)
            assert_equal(output, reference(core, inputs, state, starts), 1e-6)
            state = output.state


def test_learning_goes_on_from_acting() -> None:
    core = small()
    inputs, starts = torch.randn(1, 5, INPUT), torch.zeros(1, 5, dtype=torch.bool)
    with torch.no_grad():
        state = core(inputs, core.initial_state(5), starts).state
    core(inputs.expand(3, -1, -1), state, starts.expand(3, -1)).features.sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in core.parameters())


@pytest.mark.usefixtures("only_numpy")
def test_a_state_with_gradients() -> None:
    core = decided(small())
    inputs = torch.randn(2, 5, INPUT, requires_grad=True)
    state = reference(core, inputs[:1], core.initial_state(5), torch.zeros(1, 5, dtype=torch.bool)).state
    assert all(leaf.requires_grad for leaf in leaves(state))
    call = (inputs[1:], state, torch.zeros(1, 5, dtype=torch.bool))
    with torch.no_grad():
        output = core(*call)
        assert_equal(output, reference(core, *call), 1e-6)
    assert not any(leaf.requires_grad for leaf in leaves((output.features, output.state)))


@pytest.mark.usefixtures("only_numpy")
@torch.no_grad()
def test_weights_are_those_of_now() -> None:
    core, other = small(), small()
    call = (torch.randn(1, 1, INPUT), lived(core, 1), torch.zeros(1, 1, dtype=torch.bool))
    before = core(*call)
    core.load_state_dict(other.state_dict())
    assert_equal(core(*call), other(*call))
    assert not torch.equal(core(*call).features, before.features)
    for parameter in core.parameters():
        parameter.data = parameter.data + 0.1
    assert_equal(core(*call), reference(core, *call), 1e-6)
    core.double().float()
    assert_equal(core(*call), reference(core, *call), 1e-6)


# --- When --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "lanes", "dtype"),
    [
        (small, 1, torch.float64),
        (partial(small, link_slots=5), 1, torch.float32),
        (partial(small, slots=64), 17, torch.float32),
        (partial(small, width=5000), 2, torch.float32),
        (partial(small, controller=lstm), 1, torch.float32),
    ],
    ids=["double", "sparse", "many lanes", "wide", "small"],
)
def test_when_it_is_used(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], DNC], lanes: int, dtype: torch.dtype, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr("saccade.policies.dnc.act", refuse)
    core = make().to(dtype)
    call = (torch.randn(1, lanes, INPUT, dtype=dtype), core.initial_state(lanes), torch.zeros(1, lanes, dtype=torch.bool))
    core(*call)
    with torch.no_grad():
        if request.node.callspec.id == "small":
            with pytest.raises(RefusedError):
                core(*call)
        else:
            assert_equal(core(*call), reference(core, *call), 1e-5)
