"""Relational attention: the places of a feature grid attend to each other (Zambaldi et al. 2018, arXiv:1806.01830).

A features extractor of stable-baselines3's kind, for its agents as well as ours. Shapes: ``B`` batch, ``N`` places, ``H W``
height and width of the grid, ``D`` numbers at a place.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import torch
from jaxtyping import Float
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from saccade.policies.controller import check_sizes
from saccade.policies.relative_attention import check_heads
from saccade.policies.tap import TapKind, is_recording, tap

MOST_PLACES = 1024
"""Every place attends to every other: of more places there would be millions of weights a head."""


class Relational(BaseFeaturesExtractor):
    """Convolutions, then attention between all places of their grid, then the largest of each feature over all places.

    Every place is what the convolutions found there and where it is, two numbers from -1 to 1. Blocks of multi-head attention,
    all with the same weights, are applied one after another, each with its own network for every place (section 2.2 of the
    paper). Where each block's heads attend is the tap ``relational_attention``: the mean over all places that attend.

    Args:
        observation_space: an image or grid ``[C, H, W]``.
        features_dim: number of output features, of a hidden layer over what was pooled.
        channels: output channels of each convolution.
        kernel_size: of the convolutions.
        strides: of each convolution; larger ones give fewer places.
        size: ``D``.
        n_heads: heads of attention; they divide ``size``.
        n_blocks: how often the block is applied.

    Raises:
        ValueError: the observations are no image, a size is below 1 or does not fit, or there are more than 1,024 places.
    """

    places: Tensor

    def __init__(
        self,
        observation_space: gym.Space[Any],
        features_dim: int = 128,
        channels: Sequence[int] = (12, 24),
        kernel_size: int = 2,
        strides: Sequence[int] = (1, 1),
        size: int = 64,
        n_heads: int = 4,
        n_blocks: int = 2,
    ) -> None:
        shape = observation_space.shape
        if not isinstance(observation_space, gym.spaces.Box) or shape is None or len(shape) != 3:
            raise ValueError(f"Relational reads an image, Box [channels, height, width]; got {observation_space}")
        sizes = {"features_dim": features_dim, "kernel_size": kernel_size, "size": size, "n_heads": n_heads}
        check_sizes("Relational", **sizes, n_blocks=n_blocks)
        check_heads(size, n_heads, "size")
        if len(strides) != len(channels):
            raise ValueError(
                f"channels={tuple(channels)} are {len(channels)} convolutions, and strides={tuple(strides)} for others"
            )
        super().__init__(observation_space, features_dim)
        layers: list[nn.Module] = []
        for inputs, outputs, stride in zip([shape[0], *channels], channels, strides, strict=False):
            layers += [nn.Conv2d(inputs, outputs, kernel_size, stride), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)
        height, width = grid_size(shape, kernel_size, strides)
        across = torch.linspace(-1, 1, width).expand(height, width)
        down = torch.linspace(-1, 1, height)[:, None].expand(height, width)
        self.register_buffer("places", torch.stack([across, down]), persistent=False)
        self.entities = nn.Linear(channels[-1] + 2, size)
        self.block = RelationalBlock(size, n_heads)
        self.n_blocks = n_blocks
        self.linear = nn.Sequential(nn.Linear(size, features_dim), nn.ReLU())

    def forward(self, observations: Float[Tensor, "B C _ _"]) -> Float[Tensor, "B features"]:
        """``[B, C, H, W]`` to ``[B, features_dim]``."""
        grid = self.convolutions(observations)
        grid = torch.cat([grid, self.places.expand(len(grid), -1, -1, -1)], dim=1)
        entities, weights = self.entities(grid.flatten(2).mT), []
        for _ in range(self.n_blocks):
            entities, by_heads = self.block(entities)
            weights.append(by_heads)
        if is_recording():
            shown = torch.stack(weights, dim=1).unflatten(-1, self.places.shape[1:])
            blocks, heads = (
                [f"{word} {i + 1}" for i in range(size)] for word, size in zip(("block", "head"), shown.shape[1:3], strict=True)
            )
            tap("relational_attention", shown, TapKind.SPACE, {"names": (blocks, heads)})
        pooled: Tensor = self.linear(entities.amax(dim=1))
        return pooled


class RelationalBlock(nn.Module):
    """Multi-head attention of all places to all, added to them, normalised (section 2.2 and the paper's appendix).

    Args:
        size: ``D``.
        n_heads: heads; queries, keys and values are normalised, each over its numbers in a head.
    """

    def __init__(self, size: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.project = nn.Linear(size, 3 * size)
        self.norms = nn.ModuleList(nn.LayerNorm(size // n_heads) for _ in range(3))
        self.network = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, size), nn.ReLU())
        self.norm = nn.LayerNorm(size)

    def forward(self, entities: Float[Tensor, "B N D"]) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B heads N"] | None]:
        """The places after one block; and, while recording, how much each was attended to."""
        apart = self.project(entities).unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = (norm(part) for norm, part in zip(self.norms, apart, strict=True))
        attended = None
        if is_recording():
            weights = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)
            read, attended = weights @ value, weights.mean(dim=2)
        else:
            read = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.norm(entities + self.network(read.transpose(1, 2).flatten(2))), attended


def grid_size(shape: Sequence[int], kernel_size: int, strides: Sequence[int]) -> tuple[int, int]:
    """Height and width of the grid that convolutions leave of an image ``[C, H, W]``.

    Raises:
        ValueError: nothing, or too much.
    """
    height, width = shape[1:]
    for stride in strides:
        height, width = ((length - kernel_size) // stride + 1 for length in (height, width))
    if min(height, width) < 1:
        raise ValueError(
            f"an image of {shape[1]}x{shape[2]} is too small for {len(strides)} convolutions of {kernel_size}x{kernel_size}"
        )
    if height * width > MOST_PLACES:
        raise ValueError(
            f"of an image of {shape[1]}x{shape[2]} Relational would have {height}x{width} places, each attending to all; "
            f"{MOST_PLACES} are the most: use larger strides than {tuple(strides)}"
        )
    return height, width
