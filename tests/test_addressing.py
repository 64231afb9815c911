"""Addressing a memory: what the papers say of every function; their equations are in test_addressing_equations.py."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from saccade.policies import addressing

B, H, W, N = 2, 3, 7, 11


def one_hot(*slots: int, size: int = N) -> Tensor:
    """Weights ``[1, heads, size]``, each head at one slot."""
    return torch.eye(size)[list(slots)].unsqueeze(0)


def simplex(*shape: int) -> Tensor:
    return torch.rand(*shape).mul(3).softmax(-1)


def row(value: float) -> Tensor:
    return torch.full((1, 1), value)


# Content.


def test_a_large_strength_picks_the_best_match_whatever_the_length_of_key_and_slot() -> None:
    memory = torch.randn(B, N, W) * torch.rand(B, N, 1).add(0.1)
    slots = torch.tensor([[3, 0, 10], [7, 7, 1]])
    keys = memory.gather(1, slots.unsqueeze(-1).expand(-1, -1, W)) * torch.tensor([0.5, 1.0, 30.0]).view(1, -1, 1)
    weights = addressing.content_weights(memory, keys, torch.full((B, H), 1e4))
    torch.testing.assert_close(weights, torch.eye(N)[slots], rtol=0, atol=1e-3)


def test_resemblance_is_the_angles_cosine() -> None:
    memory, key = torch.tensor([[[2.0, 0.0], [0.0, 5.0], [-1.0, 0.0]]]), torch.tensor([[[3.0, 0.0]]])
    expected = torch.softmax(torch.tensor([1.7, 0.0, -1.7]), -1).view(1, 1, 3)
    for length in (1.0, 100.0):
        weights = addressing.content_weights(memory, length * key, row(1.7))
        torch.testing.assert_close(weights, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("empty", [0.0, 1e-6])
def test_an_empty_memory_or_no_strength_or_no_key_looks_everywhere_alike(empty: float) -> None:
    uniform, strong = torch.full((B, H, N), 1 / N), torch.full((B, H), 50.0)
    keys, memory = torch.randn(B, H, W), torch.randn(B, N, W)
    for arguments in (
        (torch.full((B, N, W), empty), keys, strong),
        (memory, keys, torch.zeros(B, H)),
        (memory, torch.zeros(B, H, W), strong),
    ):
        torch.testing.assert_close(addressing.content_weights(*arguments), uniform, rtol=0.02, atol=0)


# Reading and writing.


def test_what_is_written_can_be_read() -> None:
    w, added = one_hot(4), torch.randn(1, 1, W)
    memory = addressing.write(torch.zeros(1, N, W), w, torch.zeros(1, 1, W), added)
    torch.testing.assert_close(addressing.read(memory, w), added)
    assert not addressing.read(memory, one_hot(3, 5)).any()


def test_erasing_all_of_a_slot_replaces_it_and_leaves_the_others_alone() -> None:
    before, added = torch.randn(1, N, W), torch.randn(1, 1, W)
    after = addressing.write(before, one_hot(4), torch.ones(1, 1, W), added)
    torch.testing.assert_close(after[:, 4], added[:, 0])
    others = [slot for slot in range(N) if slot != 4]
    assert torch.equal(after[:, others], before[:, others])


def test_erasing_by_part_and_without_erasing() -> None:
    before, added, half = torch.ones(1, N, W), torch.full((1, 1, W), 2.0), torch.full((1, 1, W), 0.5)
    for weight, erase, expected in ((1.0, half, 2.5), (0.5, half, 1.75), (1.0, 0 * half, 3.0)):
        after = addressing.write(before, weight * one_hot(4), erase, added)
        torch.testing.assert_close(after[0, 4], torch.full((W,), expected))


def test_all_heads_erase_before_any_adds_so_their_order_does_not_matter() -> None:
    before = torch.randn(1, N, W)
    weights, erase, add = one_hot(4, 4, 6), torch.rand(1, H, W), torch.randn(1, H, W)
    after = addressing.write(before, weights, erase, add)
    expected = before[0, 4] * (1 - erase[0, 0]) * (1 - erase[0, 1]) + add[0, 0] + add[0, 1]
    torch.testing.assert_close(after[0, 4], expected)
    order = [1, 2, 0]
    torch.testing.assert_close(addressing.write(before, weights[:, order], erase[:, order], add[:, order]), after)


# NTM.


def test_an_open_gate_takes_the_content_a_closed_one_what_was_before() -> None:
    content, before = simplex(B, 2, N), simplex(B, 2, N)
    mixed = addressing.interpolate(content, before, torch.tensor([[0.0, 1.0]]).expand(B, 2))
    torch.testing.assert_close(mixed[:, 0], before[:, 0])
    torch.testing.assert_close(mixed[:, 1], content[:, 1])


@pytest.mark.parametrize("shifts", [1, 3, 5, N])
def test_a_kernel_with_one_shift_moves_by_exactly_that_round_the_ends(shifts: int) -> None:
    reach, slots = shifts // 2, range(N)
    for by in range(-reach, reach + 1):
        kernels = one_hot(*[by + reach] * N, size=shifts)
        moved = addressing.shift(one_hot(*slots), kernels)
        assert torch.equal(moved, one_hot(*((slot + by) % N for slot in slots))), by


def test_every_head_moves_by_its_own_kernel() -> None:
    moved = addressing.shift(one_hot(0, N - 1, 5), one_hot(0, 2, 1, size=3))
    assert torch.equal(moved, one_hot(N - 1, 0, 5))


@pytest.mark.parametrize("size", [2, 127, 1021])
@pytest.mark.parametrize("power", [1.0, 20.0, 50.0, 100.0])
def test_sharpening_stays_finite_and_so_do_its_gradients(power: float, size: int) -> None:
    uneven = torch.rand(size).pow(20)
    weights = torch.stack([torch.eye(size)[1], torch.full((size,), 1 / size), uneven / uneven.sum()]).unsqueeze(0)
    weights, powers = weights.requires_grad_(), torch.full((1, 3), power, requires_grad=True)
    sharp = addressing.sharpen(weights, powers)
    torch.testing.assert_close(sharp.sum(-1), torch.ones(1, 3))
    (sharp * torch.linspace(-1, 1, size)).sum().backward()
    for gradient in (weights.grad, powers.grad):
        assert gradient is not None and gradient.isfinite().all()


def test_sharpening_by_one_changes_nothing_and_by_much_leaves_the_largest() -> None:
    weights = torch.tensor([[[0.1, 0.45, 0.25, 0.2]] * 2])
    sharp = addressing.sharpen(weights, torch.tensor([[1.0, 100.0]]))
    torch.testing.assert_close(sharp[:, 0], weights[:, 0], rtol=0, atol=1e-5)
    torch.testing.assert_close(sharp[:, 1], one_hot(1, size=4)[:, 0], rtol=0, atol=1e-5)


# DNC.


def test_room_is_found_at_the_least_used_slot_and_none_where_all_are_full() -> None:
    used, ties = torch.full((2, N), 1.0), addressing.tie_breakers(N)
    used[0, 6] = 0
    expected = torch.stack([torch.eye(N)[6], torch.zeros(N)])
    torch.testing.assert_close(addressing.allocation(used, ties), expected, rtol=0, atol=1e-5)
    # The second least used gets what the least used leaves.
    used[0, 6], used[0, 2] = 0.25, 0.5
    torch.testing.assert_close(
        addressing.allocation(used, ties)[0, [6, 2]],
        torch.tensor([0.75, 0.125]),
        rtol=0,
        atol=1e-4,
    )


def test_allocations_are_not_negative_and_sum_to_one_at_most() -> None:
    allocated = addressing.allocation(torch.rand(101, N).pow(0.1), addressing.tie_breakers(N))
    assert (allocated >= 0).all()
    assert (allocated.sum(-1) <= 1 + 1e-6).all()
    assert (allocated.sum(-1) < 0.5).any()


def test_usage_rises_where_it_is_written_and_falls_where_it_is_freed() -> None:
    before, nowhere = torch.full((1, N), 0.5), torch.zeros(1, N)
    kept = addressing.retention(torch.zeros(1, 2), one_hot(3, 8))
    written = addressing.usage(before, 0.6 * one_hot(1)[:, 0], kept)
    torch.testing.assert_close(written[0, [0, 1]], torch.tensor([0.5, 0.8]))
    freed = addressing.usage(before, nowhere, addressing.retention(torch.tensor([[1.0, 0.5]]), one_hot(3, 8)))
    torch.testing.assert_close(freed[0, [3, 8, 0]], torch.tensor([0.0, 0.25, 0.5]))


def test_a_closed_write_gate_writes_nowhere_and_the_allocation_gate_chooses() -> None:
    content, allocated = simplex(B, N), 0.7 * simplex(B, N)
    opened, closed = torch.ones(B, 1), torch.zeros(B, 1)
    assert not addressing.write_weights(content, allocated, opened, closed).any()
    torch.testing.assert_close(addressing.write_weights(content, allocated, opened, opened), allocated)
    torch.testing.assert_close(addressing.write_weights(content, allocated, closed, 0.5 * opened), 0.5 * content)


def written_in(order: list[int]) -> tuple[Tensor, Tensor]:
    """Links and precedence after one full write to each of these slots."""
    links, last = torch.zeros(1, N, N), torch.zeros(1, N)
    for slot in order:
        w = one_hot(slot)[:, 0]
        links, last = addressing.link(links, last, w), addressing.precedence(last, w)
    return links, last


def test_links_replay_what_was_written_forwards_and_backwards() -> None:
    order = [5, 2, 9, 0, 7]
    links, last = written_in(order)
    for earlier, later in pairwise(order):
        backward, forward = addressing.follow(links, one_hot(earlier, later))
        assert torch.equal(forward[:, :1], one_hot(later))
        assert torch.equal(backward[:, 1:], one_hot(earlier))
    assert torch.equal(last, one_hot(7)[:, 0])
    assert torch.equal(addressing.precedence(last, torch.zeros(1, N)), last)


def test_a_slot_written_again_is_linked_anew() -> None:
    links, _ = written_in([5, 2, 9, 2])
    assert torch.equal(links.nonzero(), torch.tensor([[0, 2, 9]]))


def test_links_have_an_empty_diagonal_and_rows_and_columns_of_one_at_most() -> None:
    links, last = torch.zeros(B, N, N), torch.zeros(B, N)
    for _ in range(50):
        w = torch.rand(B, 1) * simplex(B, N)
        links, last = addressing.link(links, last, w), addressing.precedence(last, w)
        assert (links >= 0).all() and (last >= 0).all()
        assert not links.diagonal(dim1=1, dim2=2).any()
        for sums in (links.sum(1), links.sum(2), last.sum(-1)):
            assert (sums <= 1 + 1e-5).all()


def test_modes_choose_between_before_content_and_after() -> None:
    ways = [simplex(1, 3, N) for _ in range(3)]
    read = addressing.read_weights(*ways, torch.eye(3).unsqueeze(0))
    for mode, way in enumerate(ways):
        torch.testing.assert_close(read[:, mode], way[:, mode])
