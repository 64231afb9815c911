"""Layers of a Transformer that looks back over a window: as published, and gated.

Dai et al. 2019, "Transformer-XL" (arXiv:1901.02860); Parisotto et al. 2019, "Stabilizing Transformers for Reinforcement
Learning" (arXiv:1910.06764), whose equations are numbered here. Shapes: ``T`` steps, ``B`` lanes, ``W`` steps of the window,
``S = W + T``, ``D`` features.
"""

from abc import ABC, abstractmethod
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saccade.policies.relative_attention import Attended, RelativeAttention

OPEN_BIAS = 2.0
"""``b_g``: a gate that starts so passes its stream on almost as it is (Parisotto et al. 2019, appendix C)."""


class Block(nn.Module, ABC):
    """Attention, then a network of each step's own.

    Args:
        attention: over the window.
        feedforward_size: of the hidden layer of the network.
    """

    def __init__(self, attention: RelativeAttention, feedforward_size: int) -> None:
        super().__init__()
        size = attention.size
        self.attention = attention
        self.feedforward = nn.Sequential(nn.Linear(size, feedforward_size), nn.ReLU(), nn.Linear(feedforward_size, size))

    @abstractmethod
    def shown(self, stream: Float[Tensor, "*steps D"]) -> Float[Tensor, "*steps D"]:
        """What attention sees of the layer's input."""

    @abstractmethod
    def finish(self, stream: Float[Tensor, "*steps D"], read: Float[Tensor, "*steps D"]) -> Float[Tensor, "*steps D"]:
        """The layer's output, from its input and what attention read."""

    def forward(self, line: Float[Tensor, "S B D"], window: int, hidden: Tensor | None) -> Attended:
        """Outputs of all but the first ``window`` of the inputs; see :meth:`RelativeAttention.forward`."""
        shown = self.shown(line)
        read = self.attention(shown[window:], shown, hidden)
        return Attended(self.finish(line[window:], read.features), read.weights)

    def __call__(self, line: Tensor, window: int, hidden: Tensor | None) -> Attended:
        """Typed entry to :meth:`forward`, through torch's module hooks."""
        return cast("Attended", super().__call__(line, window, hidden))


class PostNormBlock(Block):
    """Transformer-XL's: add, then normalise (Dai et al. 2019, appendix B)."""

    def __init__(self, attention: RelativeAttention, feedforward_size: int) -> None:
        super().__init__(attention, feedforward_size)
        self.norm_read, self.norm_output = nn.LayerNorm(attention.size), nn.LayerNorm(attention.size)

    def shown(self, stream: Tensor) -> Tensor:
        """The input as it is."""
        return stream

    def finish(self, stream: Tensor, read: Tensor) -> Tensor:
        """Add and normalise, twice."""
        stream = self.norm_read(stream + read)
        return cast("Tensor", self.norm_output(stream + self.feedforward(stream)))


class GatedBlock(Block):
    """GTrXL's: normalise what goes into attention and network, and gate what comes out (Parisotto et al. 2019, section 3.2)."""

    def __init__(self, attention: RelativeAttention, feedforward_size: int) -> None:
        super().__init__(attention, feedforward_size)
        self.norm_shown, self.norm_read = nn.LayerNorm(attention.size), nn.LayerNorm(attention.size)
        self.gate_read, self.gate_output = GRUGate(attention.size), GRUGate(attention.size)

    def shown(self, stream: Tensor) -> Tensor:
        """The input, normalised: what passes by attention stays as it is (identity-map reordering)."""
        return cast("Tensor", self.norm_shown(stream))

    def finish(self, stream: Tensor, read: Tensor) -> Tensor:
        """Gate what was read into the stream, then what the network makes of it."""
        stream = self.gate_read(stream, read.relu())
        return cast("Tensor", self.gate_output(stream, self.feedforward(self.norm_read(stream)).relu()))


class GRUGate(nn.Module):
    """``g(x, y) = (1 - z) x + z h``: a GRU whose memory is the stream ``x``, and whose input is ``y`` (eq. 6 to 8).

    ``r = σ(W_r y + U_r x)``, ``z = σ(W_z y + U_z x - b_g)``, ``h = tanh(W_g y + U_g (r x))``. A bias ``b_g`` above 0 makes a
    new layer almost the identity.

    Args:
        size: ``D``.
        bias: ``b_g`` at first.
    """

    def __init__(self, size: int, bias: float = OPEN_BIAS) -> None:
        super().__init__()
        self.w = nn.Linear(size, 3 * size, bias=False)  # W_r, W_z, W_g
        self.u = nn.Linear(size, 2 * size, bias=False)  # U_r, U_z
        self.u_candidate = nn.Linear(size, size, bias=False)
        self.bias = nn.Parameter(torch.full((size,), bias))

    def forward(self, stream: Float[Tensor, "*steps D"], update: Float[Tensor, "*steps D"]) -> Float[Tensor, "*steps D"]:
        """``g(stream, update)``."""
        w_r, w_z, w_candidate = self.w(update).chunk(3, -1)
        u_r, u_z = self.u(stream).chunk(2, -1)
        z = (w_z + u_z - self.bias).sigmoid()
        candidate = (w_candidate + self.u_candidate((w_r + u_r).sigmoid() * stream)).tanh()
        return torch.lerp(stream, candidate, z)
