"""Torsos for cores that attend: a grid of features where things are, or a sequence of elements.

Shapes: ``B`` batch, ``C H W`` an image, ``D`` features at a place, ``L`` elements.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import torch
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

SMALL = ((16, 3, 1), (32, 3, 2))
NATURE = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
"""Channels, kernel size and stride of convolutions: of images below 36 pixels, and of Mnih et al. 2015."""


class ConvGrid(BaseFeaturesExtractor):
    """Convolutions that keep places apart: the grid that spatial attention looks at.

    Attributes:
        output_shape: ``(D, H', W')``.

    Args:
        observation_space: an image ``[C, H, W]``.
        layers: channels, kernel size and stride of each convolution, each followed by a ReLU; ``None`` for two small ones
            where the image has less than 36 pixels a side, else for those of ``NatureCNN``.
        linear: leave out the last ReLU. What a place holds is then a sum of what it shows: nothing but attention can bind
            two of its properties to each other.
        padding: put zeros around, half a kernel wide, so that a place is as large as the strides and none lies outside.

    Raises:
        ValueError: the observations are no image, a layer is not three numbers from 1 up, or the image is too small.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        layers: Sequence[Sequence[int]] | None = None,
        linear: bool = False,
        padding: bool = True,
    ) -> None:
        shape = observation_space.shape
        if not isinstance(observation_space, gym.spaces.Box) or shape is None or len(shape) != 3:
            raise ValueError(f"ConvGrid needs an image observation, Box [channels, height, width]; got {observation_space}")
        if layers is None:
            layers = SMALL if min(shape[1:]) < 36 else NATURE
        modules: list[nn.Module] = []
        channels, height, width = shape
        for layer in layers:
            if len(layer) != 3 or min(layer) < 1:
                raise ValueError(f"a layer of ConvGrid is [channels, kernel size, stride], each at least 1; got {list(layer)}")
            outputs, kernel, stride = layer
            around = (kernel - stride + 1) // 2 if padding and kernel > stride else 0
            modules += [nn.Conv2d(channels, outputs, kernel, stride, around), nn.ReLU()]
            channels = outputs
            height, width = ((length + 2 * around - kernel) // stride + 1 for length in (height, width))
            if min(height, width) < 1:
                raise ValueError(
                    f"an image of {shape[1]}x{shape[2]} is too small for the layers {[list(one) for one in layers]}"
                )
        super().__init__(observation_space, features_dim=channels * height * width)
        self.convolutions = nn.Sequential(*(modules[:-1] if linear else modules))
        self.output_shape = (channels, height, width)

    def forward(self, observations: Tensor) -> Tensor:
        """``[B, C, H, W]`` to ``[B, D, H', W']``."""
        grid: Tensor = self.convolutions(observations)
        return grid


class Elements(BaseFeaturesExtractor):
    """The elements of an observed sequence as they are; of an image, its columns from left to right.

    Attributes:
        output_shape: ``(L, D)``.

    Args:
        observation_space: a sequence ``[L, D]``, or an image ``[C, H, W]``, of which ``L = W`` and ``D = C H``.

    Raises:
        ValueError: the observations are neither.
    """

    def __init__(self, observation_space: gym.Space[Any]) -> None:
        shape = observation_space.shape
        if not isinstance(observation_space, gym.spaces.Box) or shape is None or len(shape) not in (2, 3):
            raise ValueError(f"Elements needs a sequence, Box [elements, features], or an image; got {observation_space}")
        self.output_shape = shape if len(shape) == 2 else (shape[2], shape[0] * shape[1])
        super().__init__(observation_space, features_dim=int(torch.Size(shape).numel()))

    def forward(self, observations: Tensor) -> Tensor:
        """``[B, L, D]`` as it comes, ``[B, C, H, W]`` as ``[B, W, C H]``."""
        return observations if observations.dim() == 3 else observations.flatten(1, 2).mT
