"""Observations brought to mean 0 and spread 1 by running statistics, which are part of the policy."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

EPSILON = 1e-8
LIMIT = 10.0


class RunningNorm(nn.Module):
    """``(x - mean) / √variance`` within ±10, the values of SB3's ``VecNormalize``, as part of a network.

    Statistics are buffers: they are saved with the weights, and whoever evaluates needs no wrapper. They change only in
    :meth:`note`, so that acting and learning between two calls see the same numbers.

    Args:
        shape: of one observation.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(*shape))
        self.register_buffer("variance", torch.ones(*shape))
        self.register_buffer("count", torch.zeros(()))

    def forward(self, observations: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        """Normalised; as they are until something was noted."""
        return ((observations - self.mean) * (self.variance + EPSILON).rsqrt()).clamp(-LIMIT, LIMIT)

    @torch.no_grad()
    def note(self, observations: Tensor) -> None:
        """Take observations ``[B, ...]`` into the statistics (Chan et al. 1979: mean and variance of two samples joined)."""
        observations = observations.to(self.mean.dtype)
        size = len(observations)
        total = self.count + size
        variance, mean = torch.var_mean(observations, dim=0, correction=0)
        delta = mean - self.mean
        self.variance.copy_(
            (self.variance * self.count + variance * size) / total + delta.square() * self.count * size / total.square()
        )
        self.mean.add_(delta * size / total)
        self.count.copy_(total)
