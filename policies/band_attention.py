"""Attention of every step to the window before it, in one node of autograd's graph, a few steps at a time.

A step looks at ``W + 1`` of the ``W + T`` steps that a sequence can see: its scores are a band of a matrix. Computed at once,
most of that matrix would be for nothing; so it is computed in pieces of :data:`PIECE` steps, whose scores stay in the
processor's cache. Shapes as in :mod:`saccade.policies.relative_attention`, heads first: ``G`` heads of values, ``H`` or 1.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

PIECE = 32
"""Steps in a piece."""


class BandAttention(torch.autograd.Function):
    """From queries, keys and values to what is read, and the weights; only the former has a gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        by_content: Float[Tensor, "H B T d"],
        by_position: Float[Tensor, "H B T d"],
        keys: Float[Tensor, "H B S d"],
        values: Float[Tensor, "G B S d"],
        positions: Float[Tensor, "H W1 d"],
        hidden: Float[Tensor, "B T S"] | None,
        with_weights: bool,
    ) -> tuple[Float[Tensor, "G B T d"], Float[Tensor, "H B T W1"] | None]:
        """The sums over values; and, if so asked, the weights they are made with, of the step ``W`` before first.

        Args:
            ctx: autograd's.
            by_content: ``q + u``, by ``√d``.
            by_position: ``q + v``, by ``√d``.
            keys: of all steps that can be seen, oldest first.
            values: of these.
            positions: ``r`` of the distances from ``W`` down to 0.
            hidden: what is added to scores, ``None`` for nothing.
            with_weights: whether the weights are wanted, which takes a copy.
        """
        heads, lanes, steps, _ = by_content.shape
        read, weights = values.new_empty(*values.shape[:2], steps, values.shape[-1]), []
        for start in range(0, steps, PIECE):
            piece, seen = spans(start, steps, positions)
            scores = keys.new_full((heads, lanes, piece.stop - start, seen.stop - start), float("-inf"))
            band(scores).copy_(by_distance(by_position[:, :, piece], positions))
            if hidden is not None:
                scores.add_(hidden[:, piece, seen])
            flat = scores.flatten(0, 1)
            flat.baddbmm_(by_content[:, :, piece].flatten(0, 1), keys[:, :, seen].flatten(0, 1).mT)
            weights.append(scores.softmax(-1))
            read[:, :, piece] = torch.matmul(of_values(weights[-1], len(values)), values[:, :, seen])
        ctx.save_for_backward(by_content, by_position, keys, values, positions, *weights)
        if not with_weights:
            return read, None
        shown = torch.cat([band(one) for one in weights], dim=2)
        ctx.mark_non_differentiable(shown)
        return read, shown

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_read: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients by all but what is hidden."""
        by_content, by_position, keys, values, positions, *weights = ctx.saved_tensors
        heads, lanes, steps, _ = by_content.shape
        groups = len(values)
        d_content, d_position = torch.empty_like(by_content), torch.empty_like(by_position)
        d_keys, d_values, d_positions = torch.zeros_like(keys), torch.zeros_like(values), torch.zeros_like(positions)
        for start, one in zip(range(0, steps, PIECE), weights, strict=True):
            piece, seen = spans(start, steps, positions)
            d_read = by_read[:, :, piece]
            d_values[:, :, seen] += torch.matmul(of_values(one, groups).mT, d_read)
            d_weights = torch.matmul(d_read, values[:, :, seen].mT)
            if groups < heads:
                d_weights = (d_weights / heads).expand_as(one)
            d_scores = torch._softmax_backward_data(d_weights, one, -1, one.dtype)
            d_content[:, :, piece] = torch.matmul(d_scores, keys[:, :, seen])
            d_keys[:, :, seen] += torch.matmul(d_scores.mT, by_content[:, :, piece])
            d_distances = band(d_scores).reshape(heads, -1, positions.shape[1])
            d_position[:, :, piece] = torch.bmm(d_distances, positions).unflatten(1, (lanes, -1))
            d_positions += torch.bmm(d_distances.mT, by_position[:, :, piece].reshape(heads, -1, positions.shape[-1]))
        return d_content, d_position, d_keys, d_values, d_positions, None, None


def spans(start: int, steps: int, positions: Float[Tensor, "H W1 d"]) -> tuple[slice, slice]:
    """The steps of a piece, and those that they can see, the window before the sequence first."""
    stop = min(start + PIECE, steps)
    return slice(start, stop), slice(start, stop + positions.shape[1] - 1)


def band(scores: Float[Tensor, "H B T S"]) -> Float[Tensor, "H B T W1"]:
    """The part of a piece's scores that is looked at: of each row one place further to the right. A view."""
    steps, seen = scores.shape[2:]
    by_head, by_lane, by_step, _ = scores.stride()
    shape = (*scores.shape[:3], seen - steps + 1)
    return scores.as_strided(shape, (by_head, by_lane, by_step + 1, 1), scores.storage_offset())


def by_distance(by_position: Float[Tensor, "H B T d"], positions: Float[Tensor, "H W1 d"]) -> Float[Tensor, "H B T W1"]:
    """Scores by distance alone."""
    heads, lanes, steps, size = by_position.shape
    return torch.bmm(by_position.reshape(heads, -1, size), positions.mT).unflatten(1, (lanes, steps))


def of_values(weights: Float[Tensor, "H B T S"], groups: int) -> Float[Tensor, "G B T S"]:
    """The weights that values are read with: each head's, or the mean of all (Lim et al. 2019, eq. 15)."""
    return weights if len(weights) == groups else weights.mean(0, keepdim=True)
