"""What a Differentiable Neural Computer keeps and what its controller asks of it; allocation; and the two forms of its links.

Graves et al. 2016, Nature 538, "Methods", whose symbols are used here.

Shapes: ``B`` lanes, ``N`` slots, ``W`` numbers in a slot, ``R`` read heads, ``K`` links kept of each slot.
"""

from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from saccade.policies.addressing import EPSILON, follow, link
from saccade.policies.core import State


class SparseLink(NamedTuple):
    """The strongest links of every row of the link matrix: ``weights``, and ``slots``, the columns they stand in (whole)."""

    weights: Float[Tensor, "B N K"]
    slots: Float[Tensor, "B N K"]


Link: TypeAlias = Tensor | SparseLink
"""The link matrix ``L``, ``[B, N, N]``, or its strongest entries."""


class DNCState(NamedTuple):
    """The memory ``M``, what addresses it, the vectors just read, and the controller's state.

    Usage is ``u``, write and read weights are ``w_w`` and ``w_r``, precedence is ``p``, the link ``L``.
    """

    memory: Float[Tensor, "B N W"]
    usage: Float[Tensor, "B N"]
    write_weights: Float[Tensor, "B N"]
    read_weights: Float[Tensor, "B R N"]
    precedence: Float[Tensor, "B N"]
    link: Link
    reads: Float[Tensor, "B R W"]
    controller: State


class Interface(NamedTuple):
    """What the controller asks of the memory: the paper's interface vector, each part in its range. The last key writes."""

    keys: Float[Tensor, "B heads W"]
    strengths: Float[Tensor, "B heads 1"]
    vector: Float[Tensor, "B 1 W"]
    erase: Float[Tensor, "B 1 W"]
    free_gates: Float[Tensor, "B R 1"]
    allocation_gate: Float[Tensor, "B 1 1"]
    write_gate: Float[Tensor, "B 1 1"]
    modes: Float[Tensor, "B 3 R 1"]


def interface_sizes(heads: int, width: int) -> list[int]:
    """Numbers of the interface vector by the function they go through: keys, strengths, vector, all gates, modes."""
    return [(heads + 1) * width, heads + 1, width, width + heads + 2, 3 * heads]


def parse_interface(raw: Float[Tensor, "B numbers"], heads: int, width: int) -> Interface:
    """The interface vector's parts; the paper's order but for what lies together because it is computed together.

    Strengths are ``oneplus(x) = 1 + log(1 + e^x)``, gates and erase vector sigmoids, modes a softmax over the three.
    """
    lanes = len(raw)
    keys, strengths, vector, gates, modes = raw.view(lanes, 1, -1).split(interface_sizes(heads, width), 2)
    erase, free_gates, allocation_gate, write_gate = gates.sigmoid().split([width, heads, 1, 1], 2)
    return Interface(
        keys.view(lanes, heads + 1, width),
        nn.functional.softplus(strengths).add(1).view(lanes, heads + 1, 1),
        vector,
        erase,
        free_gates.view(lanes, heads, 1),
        allocation_gate,
        write_gate,
        modes.view(lanes, 3, heads, 1).softmax(1),
    )


# --- Links -------------------------------------------------------------------------------------------------------------------


def columns(links: SparseLink) -> Int[Tensor, "B N K"]:
    """The columns that links stand in, as an index."""
    return links.slots.round().long().clamp(0, links.slots.shape[1] - 1)


def sparse_link(previous: SparseLink, precedence_tm1: Float[Tensor, "B N"], weights: Float[Tensor, "B N"]) -> SparseLink:
    """The link matrix's update where every row keeps its ``K`` strongest entries: ``O(NK)`` numbers and operations.

    Only the ``K`` slots written most get new links. The paper also divides the ``K`` largest write weights by their sum; that
    would make a full write of one that the write gate all but closed, so here they stay as they are. Links then never exceed
    those of the dense matrix, and are the same where ``K`` is ``N``.
    """
    kept_columns, size = columns(previous), previous.weights.shape[2]
    lanes = len(weights)
    weights_j = weights.gather(1, kept_columns.flatten(1)).view_as(kept_columns)
    kept = (1 - weights.unsqueeze(2) - weights_j) * previous.weights
    rows = strongest(weights, size)
    everywhere = rows.unsqueeze(2).expand(lanes, size, size)
    fresh = weights.gather(1, rows).unsqueeze(2) * precedence_tm1.unsqueeze(1)
    fresh = fresh.scatter_add(2, kept_columns.gather(1, everywhere), kept.gather(1, everywhere))
    # A slot is not linked to itself.
    fresh = fresh.scatter(2, rows.unsqueeze(2), 0.0)
    best = strongest(fresh, size)
    slot_numbers = kept_columns.scatter(1, everywhere, best).to(weights.dtype)
    return SparseLink(kept.scatter(1, everywhere, fresh.gather(2, best)), slot_numbers)


def strongest(values: Float[Tensor, "*rest N"], size: int) -> Int[Tensor, "*rest K"]:
    """Where the largest are; of those that are equal, but for rounding, the first."""
    places = torch.arange(values.shape[-1], dtype=values.dtype, device=values.device)
    return (values * (1 - 10 * EPSILON * places)).topk(size).indices


def follow_sparse(
    links: SparseLink, read_weights_tm1: Float[Tensor, "B R N"]
) -> tuple[Float[Tensor, "B R N"], Float[Tensor, "B R N"]]:
    """As :func:`~saccade.policies.addressing.follow`: ``b = L^T w_r`` and ``f = L w_r``."""
    lanes, heads, slots = read_weights_tm1.shape
    index = columns(links).view(lanes, 1, -1).expand(-1, heads, -1)
    strengths = links.weights.unsqueeze(1)
    leaving = (strengths * read_weights_tm1.unsqueeze(3)).flatten(2)
    backward = torch.zeros_like(read_weights_tm1).scatter_add(2, index, leaving)
    arriving = read_weights_tm1.gather(2, index).view(lanes, heads, slots, -1)
    return backward, (strengths * arriving).sum(-1)


def dense_link(links: Link) -> Float[Tensor, "B N N"]:
    """The link matrix in full."""
    if not isinstance(links, SparseLink):
        return links
    lanes, slots, _ = links.weights.shape
    return links.weights.new_zeros(lanes, slots, slots).scatter_add(2, columns(links), links.weights)


class Linked(NamedTuple):
    """Links after a write, and what was written before and after what was read last: ``b`` and ``f``."""

    link: Link
    backward: Float[Tensor, "B R N"]
    forward: Float[Tensor, "B R N"]


def relink(
    previous: Link,
    precedence_tm1: Float[Tensor, "B N"],
    weights: Float[Tensor, "B N"],
    read_weights_tm1: Float[Tensor, "B R N"],
) -> Linked:
    """Links after a write, followed from what was read last."""
    if isinstance(previous, SparseLink):
        links = sparse_link(previous, precedence_tm1, weights)
        return Linked(links, *follow_sparse(links, read_weights_tm1))
    dense = link(previous, precedence_tm1, weights)
    return Linked(dense, *follow(dense, read_weights_tm1))
