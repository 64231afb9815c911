"""Heads that read Q values off a core's features."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn


class DuelingOutput(NamedTuple):
    """``value`` V(s) ``[..., 1]``, ``advantage`` A(s, a) less its mean ``[..., A]``, and their sum ``q``."""

    value: Float[Tensor, "*batch 1"]
    advantage: Float[Tensor, "*batch A"]
    q: Float[Tensor, "*batch A"]


def stream(features_dim: int, hidden_size: int, outputs: int, layer_norm: bool = True) -> nn.Sequential:
    """One hidden layer, normalised or not, and a linear output; without the hidden layer where its size is 0."""
    if hidden_size == 0:
        return nn.Sequential(nn.Linear(features_dim, outputs))
    norm = [nn.LayerNorm(hidden_size)] if layer_norm else []
    return nn.Sequential(nn.Linear(features_dim, hidden_size), *norm, nn.ReLU(), nn.Linear(hidden_size, outputs))


class DuelingHead(nn.Module):
    """Value and advantage streams over shared features (Wang et al. 2016, eq. 9).

    The advantage that comes out is the one that acts, ``A(s, a) - mean_a A(s, a)``, so that value and advantage can be looked
    at on their own and add up to Q exactly.

    Args:
        features_dim: ``D``.
        n_actions: ``A``.
        hidden_size: width of each stream's hidden layer; 0 for none.
        layer_norm: normalise the hidden layers.
    """

    def __init__(self, features_dim: int, n_actions: int, hidden_size: int = 128, layer_norm: bool = True) -> None:
        super().__init__()
        self.value = stream(features_dim, hidden_size, 1, layer_norm)
        self.advantage = stream(features_dim, hidden_size, n_actions, layer_norm)

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

    def __init__(self, features_dim: int, n_actions: int, hidden_size: int = 128, layer_norm: bool = True) -> None:
        super().__init__()
        self.q = stream(features_dim, hidden_size, n_actions, layer_norm)

    def forward(self, features: Float[Tensor, "*batch D"]) -> DuelingOutput:
        """Mean, remainder and Q from features ``[..., D]``."""
        q = self.q(features)
        value = q.mean(dim=-1, keepdim=True)
        return DuelingOutput(value, q - value, q)
