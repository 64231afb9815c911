"""Heads that read Q values off a core's features."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn


class DuelingOutput(NamedTuple):
    """``value`` V(s) ``[..., 1]``, ``advantage`` A(s, a) less its mean ``[..., A]``, and their sum ``q``."""

    value: Float[Tensor, "*batch 1"]
    advantage: Float[Tensor, "*batch A"]
    q: Float[Tensor, "*batch A"]


def hidden_widths(net_arch: Any) -> tuple[int, ...]:
    """Widths of hidden layers, as ``net_arch`` lists them; an empty list for none.

    Raises:
        ValueError: it is no list of whole numbers from 1.
    """
    listed = isinstance(net_arch, Sequence) and not isinstance(net_arch, str)
    if not listed or not all(isinstance(width, int | np.integer) and width > 0 for width in net_arch):
        raise ValueError(
            f"hidden layers (net_arch) must be a list of widths, such as [64, 64], or [] for none; got {net_arch!r}"
        )
    return tuple(int(width) for width in net_arch)


def stream(
    features_dim: int,
    net_arch: Sequence[int],
    outputs: int,
    layer_norm: bool = True,
    activation_fn: type[nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """Hidden layers of these widths, normalised or not, and a linear output."""
    layers: list[nn.Module] = []
    widths = [features_dim, *net_arch]
    for inputs, width in pairwise(widths):
        norm = [nn.LayerNorm(width)] if layer_norm else []
        layers += [nn.Linear(inputs, width), *norm, activation_fn()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], outputs))


class DuelingHead(nn.Module):
    """Value and advantage streams over shared features (Wang et al. 2016, eq. 9).

    The advantage that comes out is the one that acts, ``A(s, a) - mean_a A(s, a)``, so that value and advantage can be looked
    at on their own and add up to Q exactly.

    Args:
        features_dim: ``D``.
        n_actions: ``A``.
        net_arch: widths of each stream's hidden layers.
        layer_norm: normalise the hidden layers.
        activation_fn: after every hidden layer.
    """

    def __init__(
        self,
        features_dim: int,
        n_actions: int,
        net_arch: Sequence[int] = (128,),
        layer_norm: bool = True,
        activation_fn: type[nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        self.value = stream(features_dim, net_arch, 1, layer_norm, activation_fn)
        self.advantage = stream(features_dim, net_arch, n_actions, layer_norm, activation_fn)

    def forward(self, features: Float[Tensor, "*batch D"]) -> DuelingOutput:
        """Value, centred advantage and Q from features ``[..., D]``."""
        value = self.value(features)
        advantage = self.advantage(features)
        advantage = advantage - advantage.mean(dim=-1, keepdim=True)
        return DuelingOutput(value, advantage, value + advantage)


class QHead(nn.Module):
    """One stream of Q values: what a dueling head is compared with. The arguments are :class:`DuelingHead`'s.

    Value and advantage are those that the Q values imply: their mean over the actions, and what is left.
    """

    def __init__(
        self,
        features_dim: int,
        n_actions: int,
        net_arch: Sequence[int] = (128,),
        layer_norm: bool = True,
        activation_fn: type[nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        self.q = stream(features_dim, net_arch, n_actions, layer_norm, activation_fn)

    def forward(self, features: Float[Tensor, "*batch D"]) -> DuelingOutput:
        """Mean, remainder and Q from features ``[..., D]``."""
        q = self.q(features)
        value = q.mean(dim=-1, keepdim=True)
        return DuelingOutput(value, q - value, q)
