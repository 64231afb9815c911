"""The Differentiable Neural Computer against the paper's equations, and what its gates, links and taps do."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor

import dnc_reference as reference
from dnc_reference import HEADS, INPUT, SLOTS, WIDTH, B, T, gradients, lstm, small
from examples import assert_equal, leaves, mid_sequence_starts
from saccade.policies import Core, recording
from saccade.policies.addressing import allocation, tie_breakers
from saccade.policies.dnc import DNC
from saccade.policies.dnc_memory import (
    DNCState,
    SparseLink,
    dense_link,
    relink,
    sparse_link,
    strongest,
)


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_agrees_with_the_paper_in_values_and_gradients(heads: int) -> None:
    core = DNC((INPUT,), slots=7, width=5, read_heads=heads, controller=lstm).double()
    theirs, by_theirs = gradients(core, partial(reference.unroll, core), 5, 3)
    for path in (Core.unroll, DNC.unroll):
        ours, by_ours = gradients(core, partial(path, core), 5, 3)
        assert_equal((ours.features, ours.state), theirs, 1e-10)
        assert_equal(tuple(by_ours), tuple(by_theirs), 1e-9)


def test_a_sparse_link_with_all_slots_is_the_dense_one() -> None:
    sparse, dense = small(link_slots=SLOTS).double(), small().double()
    sparse.load_state_dict(dense.state_dict())
    parameters = len(list(dense.parameters()))
    torch.manual_seed(3)
    inputs, starts = torch.randn(T, B, INPUT, dtype=torch.float64), mid_sequence_starts(T, B)
    found = []
    for core in (dense, sparse):
        output = core(inputs, core.initial_state(B), starts)
        state = output.state._replace(link=dense_link(output.state.link))
        loss = torch.stack([leaf.square().sum() for leaf in (output.features, *leaves(state))]).sum()
        found.append((output.features, state, torch.autograd.grad(loss, list(core.parameters()))))
    assert len(found[0][2]) == parameters
    assert_equal(found[1], found[0], 1e-10)


def test_a_sparse_link_of_sparse_writes_is_close_and_never_more() -> None:
    """Of links that writes to nearly one slot each have left, a few hold nearly everything; of exactly one slot, everything."""
    for spread, tolerance in ((0.0, 0.0), (0.02, 5e-3)):
        links = SparseLink(torch.zeros(B, SLOTS, 3), torch.zeros(B, SLOTS, 3))
        dense, precedence = torch.zeros(B, SLOTS, SLOTS), torch.zeros(B, SLOTS)
        for _ in range(29):
            slot = torch.randint(SLOTS, (B, 1))
            weights = torch.full((B, SLOTS), spread / SLOTS).scatter_add_(1, slot, torch.full((B, 1), 1 - spread))
            links, dense = sparse_link(links, precedence, weights), relink(dense, precedence, weights, weights[:, None]).link
            precedence = (1 - weights.sum(1, keepdim=True)) * precedence + weights
            full = dense_link(links)
            torch.testing.assert_close(full, dense, rtol=0, atol=tolerance + 1e-7)
            assert (full <= dense + 1e-7).all()
            assert not full.diagonal(dim1=1, dim2=2).any()
        assert dense.max() > 0.9


def test_a_sparse_state_has_no_matrix() -> None:
    state = small(link_slots=5).initial_state(3)
    assert [tuple(leaf.shape) for leaf in leaves(state.link)] == [(3, SLOTS, 5), (3, SLOTS, 5)]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"slots": 0}, "slots must be at least 1; got slots=0"),
        ({"width": 0}, "width must be at least 1; got width=0"),
        ({"read_heads": -2, "width": 0}, "got width=0, read_heads=-2"),
        ({"link_slots": 14}, "link_slots must be from 1 to its 13 slots, or None for all; got 14"),
        ({"link_slots": 0}, "link_slots must be from 1 to its 13 slots, or None for all; got 0"),
    ],
)
def test_impossible_sizes_are_refused(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**sizes)


@pytest.mark.parametrize("link_slots", [None, 5])
def test_taps(link_slots: int | None) -> None:
    core = small(link_slots=link_slots)
    with torch.no_grad(), recording() as taps:
        state = core(torch.randn(T, B, INPUT), core.initial_state(B), mid_sequence_starts(T, B)).state
    shapes = {name: tuple(taps.stacked(name).shape[2:]) for name in taps.kinds}
    assert shapes == {
        "read_weights": (HEADS, SLOTS),
        "write_weights": (SLOTS,),
        "usage": (SLOTS,),
        "link": (SLOTS, SLOTS),
        "memory": (SLOTS, WIDTH),
        "allocation_gate": (),
        "write_gate": (),
        "free_gates": (HEADS,),
        "read_modes": (HEADS, 3),
    }
    for name in ("read_weights", "write_weights", "usage", "memory"):
        assert_equal(taps.stacked(name)[-1], getattr(state, name))
    assert_equal(taps.stacked("link")[-1], dense_link(state.link))
    for name in set(shapes) - {"memory"}:
        values = taps.stacked(name)
        assert ((values >= 0) & (values <= 1)).all()
        if name.endswith("weights"):
            assert (values.sum(-1) <= 1 + 1e-6).all()
    torch.testing.assert_close(taps.stacked("read_modes").sum(-1), torch.ones(T, B, HEADS))


# --- What the gates do -------------------------------------------------------------------------------------------------------

OPEN = 40.0
BACKWARD, CONTENT, FORWARD = 0, 1, 2


def ordered(mode: int = CONTENT, allocate: float = OPEN, write: float = OPEN, free: float = -OPEN) -> DNC:
    """A core with one read head whose interface vector is the same at every step: to write ones, erasing everything."""
    core = small(slots=7, read_heads=1)
    core.interface.weight.data.zero_()
    bias = core.interface.bias.data.zero_()
    keys, strengths = 2 * WIDTH, 2
    bias[keys + strengths : keys + strengths + WIDTH] = 1.0
    gates = bias[keys + strengths + WIDTH : -3]
    gates[:WIDTH], gates[WIDTH], gates[WIDTH + 1], gates[WIDTH + 2] = OPEN, free, allocate, write
    bias[-3 + [BACKWARD, FORWARD, CONTENT].index(mode)] = OPEN
    return core


def one_hot(slot: int) -> Tensor:
    return torch.eye(7)[slot]


@torch.no_grad()
def after(core: DNC, steps: int = 1, **parts: Tensor) -> DNCState:
    """The state of one lane, some parts of it given, after some steps."""
    state = core.initial_state(1)._replace(**{name: part[None] for name, part in parts.items()})
    return core(torch.randn(steps, 1, INPUT), state, torch.zeros(steps, 1, dtype=torch.bool)).state


def test_allocation_takes_one_free_slot_after_another_and_links_them() -> None:
    states = [after(ordered(), steps) for steps in range(1, 6)]
    taken = [int(state.write_weights.argmax()) for state in states]
    assert len(set(taken)) == 5
    for state, slot in zip(states, taken, strict=True):
        torch.testing.assert_close(state.write_weights[0], one_hot(slot), rtol=0, atol=1e-4)
        torch.testing.assert_close(state.precedence[0], one_hot(slot), rtol=0, atol=1e-4)
    last, chain = states[-1], torch.zeros(7, 7)
    for slot, following in pairwise(taken):
        chain[following, slot] = 1
    torch.testing.assert_close(last.link[0], chain, rtol=0, atol=1e-3)
    used = sum(one_hot(slot) for slot in taken)
    torch.testing.assert_close(last.memory[0], used[:, None].expand(7, WIDTH), rtol=0, atol=1e-3)


def test_a_closed_write_gate_leaves_the_memory_and_its_links_alone() -> None:
    written = after(ordered(), 3)
    parts = {name: getattr(written, name)[0] for name in ("memory", "usage", "precedence", "link")}
    kept = after(ordered(write=-OPEN), 4, **parts)
    for name, part in parts.items():
        assert_equal(getattr(kept, name)[0], part, 1e-6)


def test_reading_forward_and_backward_follows_the_order_of_writing() -> None:
    taken = [int(after(ordered(), steps).write_weights.argmax()) for steps in range(1, 6)]
    written = after(ordered(), 5)
    parts = {name: getattr(written, name)[0] for name in ("memory", "usage", "precedence", "link")}
    for mode, slot in ((FORWARD, taken[3]), (BACKWARD, taken[1])):
        state = after(ordered(mode, write=-OPEN), read_weights=one_hot(taken[2])[None], **parts)
        torch.testing.assert_close(state.read_weights[0, 0], one_hot(slot), rtol=0, atol=1e-3)


@pytest.mark.parametrize("free", [OPEN, -OPEN])
def test_what_was_read_last_is_allocated_again_only_where_it_was_freed(free: float) -> None:
    state = after(ordered(free=free), usage=torch.ones(7), read_weights=one_hot(3)[None])
    expected = one_hot(3) if free > 0 else torch.zeros(7)
    torch.testing.assert_close(state.write_weights[0], expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(state.usage[0], 1 - expected, rtol=0, atol=1e-6)


def test_a_closed_allocation_gate_writes_where_the_key_points() -> None:
    core = ordered(allocate=-OPEN)
    core.interface.bias.data[WIDTH : 2 * WIDTH] = torch.tensor([1.0, -1.0, 1.0])
    core.interface.bias.data[2 * WIDTH + 1] = 30.0
    memory = torch.randn(7, WIDTH)
    memory[5] = torch.tensor([3.0, -3.0, 3.0])
    state = after(core, memory=memory, usage=torch.ones(7))
    assert state.write_weights[0].argmax() == 5
    torch.testing.assert_close(state.write_weights.sum(), torch.tensor(1.0))


def test_slots_used_equally_but_for_rounding_are_taken_in_order() -> None:
    usage = torch.full((B, SLOTS), 0.37) + 5e-8 * torch.rand(B, SLOTS)
    taken = allocation(usage, tie_breakers(SLOTS))
    assert (taken.diff(dim=1) < 0).all()


def test_of_links_that_are_equal_but_for_rounding_the_first_are_kept() -> None:
    links = torch.full((B, SLOTS), 0.37) + 5e-8 * torch.rand(B, SLOTS)
    assert_equal(strongest(links, 5), torch.arange(5).expand(B, 5))
