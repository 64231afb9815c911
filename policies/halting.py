"""Adaptive computation time: how many computations a step takes before it halts, learned (Graves 2016, arXiv:1603.08983).

Shapes: ``*batch`` is ``B`` lanes, or ``T B`` steps of lanes; ``D`` features.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from saccade.policies.controller import check_sizes

EPSILON = 0.01
"""``ε``: a step halts where its halting probabilities sum to ``1 - ε``, so that one computation can be enough."""


class Progress(NamedTuple):
    """How far each step has come.

    Attributes:
        total: sum of the halting probabilities so far.
        taken: computations so far, in the end ``N``.
        remainder: ``R`` of those that have halted, else 0.
        running: whether it has not halted yet.
    """

    total: Float[Tensor, "*batch"]
    taken: Float[Tensor, "*batch"]
    remainder: Float[Tensor, "*batch"]
    running: Bool[Tensor, "*batch"]


class Halting(nn.Module):
    """The halting unit ``h = σ(W s + b)``, and the rule by which a step halts (eq. 5 to 8).

    Computation ``n`` counts with ``p_n = h_n``, and the last one, ``N``, with the remainder ``R = 1 - sum of h before it``. A
    step costs ``ρ = N + R`` (eq. 9 to 11), of which ``R`` is differentiable.

    Args:
        size: ``D``, of what the unit reads.
        max_steps: ``M``, the most computations of a step.
        cost: ``τ``, the weight of ``ρ`` beside an agent's loss.
        bias: ``b`` at first: well below 0, computation starts deep, and does not collapse to one step before it is of use.

    Raises:
        ValueError: ``max_steps`` is below 1, or ``cost`` below 0.
    """

    def __init__(self, size: int, max_steps: int, cost: float, bias: float) -> None:
        check_sizes("adaptive computation time", max_steps=max_steps)
        if cost < 0:
            raise ValueError(f"the cost of a computation must be at least 0; got {cost}")
        super().__init__()
        self.max_steps, self.cost = max_steps, cost
        self.unit = nn.Linear(size, 1)
        with torch.no_grad():
            self.unit.bias.fill_(bias)

    @staticmethod
    def begin(like: Float[Tensor, "*batch D"]) -> Progress:
        """Before the first computation."""
        zero = like.new_zeros(like.shape[:-1])
        return Progress(zero, zero, zero, torch.ones_like(zero, dtype=torch.bool))

    def forward(self, features: Float[Tensor, "*batch D"], before: Progress, is_last: bool) -> tuple[Tensor, Progress]:
        """Go on after one computation.

        Args:
            features: what it gave.
            before: how far each step had come.
            is_last: whether there is no further computation.

        Returns:
            ``p_n`` ``[*batch]``, 0 where a step had halted before, and how far each has come now.
        """
        probability = self.unit(features).squeeze(-1).sigmoid()
        halts = torch.ones_like(before.running) if is_last else before.total + probability >= 1 - EPSILON
        halts = halts & before.running
        weight = torch.where(halts, 1 - before.total, torch.where(before.running, probability, 0.0))
        after = Progress(
            before.total + weight,
            before.taken + before.running.to(weight.dtype),
            torch.where(halts, weight, before.remainder),
            before.running & ~halts,
        )
        return weight, after

    def charge(self, progress: Progress) -> Float[Tensor, "*batch"]:
        """``τ ρ`` of steps that have halted."""
        return self.cost * (progress.taken + progress.remainder)
