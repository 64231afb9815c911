"""Whole sequences at once for recurrent cores: episodes packed end to end, and a GRU layer faster than torch's on a CPU.

Shapes: ``S`` steps and ``N`` lanes of the packed sequence.
"""

from collections.abc import Sequence
from heapq import heapify, heappush, heapreplace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Packing(NamedTuple):
    """How the episodes of a sequence ``[T, B]`` lie in a shorter or wider one without resets, ``[S, N]``.

    Packed lane ``n < B`` begins with what goes on from lane ``n``'s state, every other one from zeros. Two steps are not the
    sequence's own: a *wipe* between two episodes, and a *hold* after the last one.

    Attributes:
        source: for each packed step, its index in the flat sequence; ``T * B`` where it is a wipe, ``T * B + 1`` a hold.
        target: for each step of the sequence, its index in the flat packed one.
        final: for each lane ``b``, the packed lane at whose end its last episode is held.
    """

    source: Int[np.ndarray, "S N"]
    target: Int[np.ndarray, "T B"]
    final: Int[np.ndarray, " B"]


class Episode(NamedTuple):
    """The part of an episode that lies in a sequence: steps ``start`` to ``stop`` of ``lane``."""

    lane: int
    start: int
    stop: int

    @property
    def steps(self) -> int:
        """How long it is."""
        return self.stop - self.start


class PackedLane(NamedTuple):
    """Episodes in the order in which they run; only the one that leaves a final state is in ``end``."""

    front: list[Episode]
    end: list[Episode]

    def steps(self) -> int:
        """How long it is, with a wipe between any two episodes."""
        return sum(episode.steps + 1 for episode in self.front + self.end) - 1


def pack_episodes(starts: Bool[np.ndarray, "T B"]) -> Packing:
    """Lay episodes end to end, a wipe between two, in lanes little longer than the longest of them."""
    steps, lanes = starts.shape
    firsts, lasts, others = [], [], []
    for lane in range(lanes):
        cuts = [0, *(np.flatnonzero(starts[1:, lane]) + 1).tolist(), steps]
        episodes = [Episode(lane, start, stop) for start, stop in pairwise(cuts)]
        firsts.append(episodes[0])
        lasts += episodes[1:][-1:]
        others += episodes[1:-1]
    longest = max(episode.steps for episode in firsts + lasts + others)
    # Where the longest is a whole lane, wipes need room beyond it, or else a lane more.
    tries = [place(firsts, lasts, others, longest + spare, steps) for spare in (1, 2, 3)]
    return index_packing(min(tries, key=expense), (steps, lanes))


def expense(packed: Sequence[PackedLane]) -> int:
    """What a packed sequence costs, roughly: a step takes as long as two more lanes would (measured)."""
    return max(lane.steps() for lane in packed) * (len(packed) + 2)


def place(
    firsts: Sequence[Episode], lasts: Sequence[Episode], others: Sequence[Episode], room: int, steps: int
) -> list[PackedLane]:
    """Fill packed lanes of ``room`` steps with the episodes of a sequence of ``steps``.

    What goes on from a given state must come first in its lane, what leaves a final state last; the rest goes where most room
    is, the longest first.
    """
    packed = place_lasts(firsts, lasts, room)
    place_others(packed, others, room, steps)
    return packed


def place_lasts(firsts: Sequence[Episode], lasts: Sequence[Episode], room: int) -> list[PackedLane]:
    """Put the longest last episode behind the shortest first one, and so on; where they do not fit, in a lane of its own."""
    packed = [PackedLane([first], []) for first in firsts]
    # Nothing follows where there is no last one: there the first is it.
    fronts = sorted((packed[last.lane] for last in lasts), key=PackedLane.steps)
    for front, last in zip(fronts, sorted(lasts, key=lambda episode: -episode.steps), strict=True):
        if front.steps() + 1 + last.steps <= room:
            front.end.append(last)
        else:
            packed.append(PackedLane([], [last]))
    return packed


def place_others(packed: list[PackedLane], others: Sequence[Episode], room: int, steps: int) -> None:
    """Put every other episode before the end of the emptiest packed lane, or in a new one."""
    # An episode as long as the sequence comes both first and last: nothing may follow it.
    taken = [(lane.steps(), n) for n, lane in enumerate(packed) if lane.steps() < steps]
    heapify(taken)
    for episode in sorted(others, key=lambda episode: -episode.steps):
        if taken and taken[0][0] + 1 + episode.steps <= room:
            length, n = taken[0]
            packed[n].front.append(episode)
            heapreplace(taken, (length + 1 + episode.steps, n))
        else:
            heappush(taken, (episode.steps, len(packed)))
            packed.append(PackedLane([episode], []))


def index_packing(packed: Sequence[PackedLane], shape: tuple[int, int]) -> Packing:
    """Where each step is, from the episodes of each packed lane."""
    length = max(lane.steps() for lane in packed)
    own = np.arange(shape[0] * shape[1]).reshape(shape)
    slots = np.arange(length * len(packed)).reshape(length, len(packed))
    source = np.full(slots.shape, own.size + 1)
    target, final = np.empty_like(own), np.empty_like(own[0])
    for n, (front, end) in enumerate(packed):
        position = 0
        for lane, start, stop in front + end:
            if position:
                source[position, n] = own.size
                position += 1
            after = position + stop - start
            source[position:after, n] = own[start:stop, lane]
            target[start:stop, lane] = slots[position:after, n]
            position = after
            if stop == shape[0]:
                final[lane] = n
    return Packing(source, target, final)


class GRULayer(torch.autograd.Function):
    """One layer of ``torch.nn.GRU`` over a sequence, once differentiable.

    Torch's own runs many small operations a step in each direction. Here the derivative of the state by every gate before it is
    computed for all steps at once, which leaves one product and two operations a step on the way back.
    """

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Float[Tensor, "S N input"],
        initial: Float[Tensor, "N H"],
        w_input: Float[Tensor, "gates input"],
        w_hidden: Float[Tensor, "gates H"],
        b_input: Float[Tensor, " gates"],
        b_hidden: Float[Tensor, " gates"],
    ) -> Float[Tensor, "S N H"]:
        """Features of every step, gates in torch's order: reset ``r``, update ``z``, new ``n``."""
        size, hidden = initial.shape[-1], initial
        by_input = torch.nn.functional.linear(inputs, w_input, b_input)
        by_hidden = torch.empty_like(by_input)
        features = by_input.new_empty(*inputs.shape[:2], size)
        gates, new = by_hidden[..., : 2 * size], by_input[..., 2 * size :]
        parts = (by_hidden, by_input[..., : 2 * size], gates, *by_hidden.split(size, -1), new, features)
        transposed = w_hidden.t()
        for product, gates_by_input, gates_t, r, z, u, n, following in zip(*(part.unbind() for part in parts), strict=True):
            torch.addmm(b_hidden, hidden, transposed, out=product)
            # r, z = sigmoid(W_x x + W_h h);  n = tanh(W_xn x + r u), u = W_hn h;  h' = n + z (h - n)
            gates_t.add_(gates_by_input).sigmoid_()
            n.addcmul_(r, u).tanh_()
            hidden = torch.lerp(n, hidden, z, out=following)
        ctx.save_for_backward(inputs, initial, w_input, w_hidden, by_hidden, new, features)
        return features

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Backpropagation through time.

        Raises:
            RuntimeError: a gradient that can itself be differentiated is asked for (``create_graph=True``).
        """
        # torch's once_differentiable lets this pass, and drops the second derivative, where the loss is linear in the features.
        if torch.is_grad_enabled():
            raise RuntimeError("the gradient of GRULayer has no derivative (create_graph=True); step the core instead")
        inputs, initial, w_input, w_hidden, by_hidden, n, features = ctx.saved_tensors
        r, z, u = by_hidden.split(initial.shape[-1], -1)
        before = torch.cat([initial[None], features[:-1]])
        # The derivative of h' by the sum inside r, inside z, and by u; slope_n is that by the sum inside n.
        slope_n = (1 - z) * (1 - n * n)
        slopes = torch.stack([slope_n * u * r * (1 - r), (before - n) * z * (1 - z), slope_n * r], dim=2)
        # dL/dh of the initial state and of every step, each complete when the steps after it are done.
        d_hidden = torch.cat([torch.zeros_like(initial)[None], gradients[0]])
        d_gates = torch.empty_like(slopes)
        rows = d_gates.flatten(2)
        parts = (d_hidden[:-1], d_hidden[1:], d_hidden[1:].unsqueeze(2), z, slopes, d_gates, rows)
        for d_before, d_after, d_wide, keep, slope, d_gate, row in reversed([*zip(*(p.unbind() for p in parts), strict=True)]):
            torch.mul(slope, d_wide, out=d_gate)
            # dL/dh = z dL/dh' + W_h^T dL/da
            d_before.addcmul_(d_after, keep).addmm_(row, w_hidden)
        rows = rows.flatten(0, 1)
        d_w_hidden, d_b_hidden = rows.t() @ before.flatten(0, 1), rows.sum(0)
        # By inputs it is the same, except in n, where they do not pass through r.
        torch.mul(d_hidden[1:], slope_n, out=d_gates[:, :, 2])
        d_inputs = (rows @ w_input).view_as(inputs) if ctx.needs_input_grad[0] else None
        return d_inputs, d_hidden[0], rows.t() @ inputs.flatten(0, 1), d_w_hidden, rows.sum(0), d_b_hidden
