"""The soft glimpse: a grid of Gaussian filters, read with gradients.

Gregor et al. 2015, "DRAW: A Recurrent Neural Network For Image Generation" (arXiv:1502.04623), section 3.2.
Shapes: ``B`` batch, ``C H W`` an image, ``P`` filters each way.
"""

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saccade.policies.attending import Attending, Reading
from saccade.policies.controller import check_sizes
from saccade.policies.core import Core, Reads, State
from saccade.policies.glimpse import GlimpseNetwork
from saccade.policies.recurrent import LSTM
from saccade.policies.tap import TapKind, is_recording, tap

FARTHEST = 10.0
"""Exponents of width, distance and intensity are at most this: beyond it lies nothing to read, and infinity."""
SHARPEST = 1e-4
"""The least variance of a filter, in pixels squared: far below a pixel's, a filter reads the nearest one alone."""


class Filters(NamedTuple):
    """Where and how a grid of filters reads.

    Attributes:
        centre: ``(x, y)`` in ``[-1, 1]``, which are the middles of the first and the last pixel.
        variance: ``σ²`` of every filter, in pixels squared.
        stride: ``δ``, pixels between two filters.
        intensity: ``γ``, what is read is multiplied by this.
    """

    centre: Float[Tensor, "B 2"]
    variance: Float[Tensor, " B"]
    stride: Float[Tensor, " B"]
    intensity: Float[Tensor, " B"]


class WindowAttention(Attending):
    """A grid of Gaussian filters whose centre, stride and width the recurrent core sets: deterministic, and differentiable.

    The core's features of the step before give ``(g_X, g_Y, log σ², log δ, log γ)`` (eq. 21 to 24); at first the grid covers
    the image. What it reads (eq. 27) and where it was read go through the two pathways of a glimpse network (Mnih et al. 2014).
    How much of each pixel is read is the tap ``attention``.

    Args:
        input_shape: ``(C, H, W)``.
        hidden_size: features of the recurrent core.
        filters: ``P``, 2 or more.
        glimpse_size: features of what is read.
        pathway_size: width of the *what* and of the *where* pathway.
        memory: makes the recurrent core: a core class, or a partial of one.

    Raises:
        ValueError: the input is not an image, there are less than 2 filters, or the memory takes latent decisions.
    """

    reads: ClassVar[tuple[Reads, ...]] = (Reads.IMAGE,)

    def __init__(
        self,
        input_shape: Sequence[int],
        hidden_size: int = 128,
        filters: int = 5,
        glimpse_size: int = 128,
        pathway_size: int = 64,
        memory: Callable[..., Core] = LSTM,
    ) -> None:
        check_sizes(type(self).__name__, glimpse_size=glimpse_size, pathway_size=pathway_size)
        if filters < 2:
            raise ValueError(f"filters of {type(self).__name__} must be at least 2, each way; got {filters}")
        super().__init__(input_shape, glimpse_size, hidden_size, memory)
        self.filters = filters
        self.set = nn.Linear(self.features_dim, 5)
        nn.init.normal_(self.set.weight, std=0.1 / math.sqrt(self.features_dim))
        nn.init.zeros_(self.set.bias)
        self.glimpse = GlimpseNetwork((1, self.input_shape[0], filters, filters), pathway_size, glimpse_size)

    def prepare(self, inputs: Tensor) -> tuple[Tensor]:
        """The images as they are, bytes too."""
        return (inputs,)

    def place(self, features: Float[Tensor, "B D"]) -> Filters:
        """Where the features of the step before put the filters; an image's size is the unit (eq. 22 to 24)."""
        numbers = self.set(features)
        spread, distance, intensity = numbers[:, 2:].clamp(max=FARTHEST).exp().unbind(1)
        height, width = self.input_shape[1:]
        whole = (max(height, width) - 1) / (self.filters - 1)
        # Numbers of zero give a grid over the whole image, whose filters are as wide as half their distance.
        variance = (whole / 2) ** 2 * spread + SHARPEST
        return Filters(numbers[:, :2], variance, whole * distance, intensity)

    def bank(self, centre: Float[Tensor, " B"], size: int, filters: Filters) -> Float[Tensor, "B P size"]:
        """Filters along one axis, each of which sums to one (eq. 19, 20, 25, 26)."""
        middle = (size - 1) * (centre + 1) / 2
        steps = torch.arange(self.filters, dtype=centre.dtype, device=centre.device) - (self.filters - 1) / 2
        mean = middle[:, None] + filters.stride[:, None] * steps
        pixels = torch.arange(size, dtype=centre.dtype, device=centre.device)
        # The softmax divides by the sum, and does so for filters that lie wholly outside as well: they read the edge.
        return (-(pixels - mean[..., None]).square() / (2 * filters.variance[:, None, None])).softmax(-1)

    def attend(
        self,
        scene: tuple[Tensor, ...],
        features: Float[Tensor, "B D"],
        focus: State,
        replay: Tensor | None,
        deterministic: bool,
    ) -> Reading:
        """``γ F_Y x F_X^T`` (eq. 27), and where that was."""
        (images,) = scene
        filters, (height, width) = self.place(features), self.input_shape[1:]
        down, across = self.bank(filters.centre[:, 1], height, filters), self.bank(filters.centre[:, 0], width, filters)
        pixels = images if images.is_floating_point() else images.to(features.dtype) / 255
        patch = filters.intensity[:, None, None, None] * (down[:, None] @ pixels @ across[:, None].mT)
        if is_recording():
            tap("attention", down.mean(1)[:, :, None] * across.mean(1)[:, None, :], TapKind.SPACE)
        return Reading(self.glimpse(patch[:, None], filters.centre))
