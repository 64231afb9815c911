"""Torsos: from observations to what a core reads. Each is an SB3 features extractor, and any SB3 one will do in its place."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import gymnasium as gym
import torch
from stable_baselines3.common.preprocessing import get_flattened_obs_dim, is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, NatureCNN
from torch import Tensor, nn

from saccade.policies.core import Core, Reads
from saccade.policies.grid import ConvGrid, Elements

NATURE_PIXELS = 36
"""The least height and width that ``NatureCNN``'s three strided convolutions can read."""


class Pixels(BaseFeaturesExtractor):
    """The image itself, for cores that look at it: neither converted nor copied, whatever its size.

    Attributes:
        output_shape: ``(C, H, W)``.

    Raises:
        ValueError: the observation space is not an image ``[C, H, W]``.
    """

    def __init__(self, observation_space: gym.Space[Any]) -> None:
        shape = observation_space.shape
        if not isinstance(observation_space, gym.spaces.Box) or shape is None or len(shape) != 3:
            raise ValueError(f"Pixels needs an image observation, Box [channels, height, width]; got {observation_space}")
        super().__init__(observation_space, features_dim=int(torch.Size(shape).numel()))
        self.output_shape = shape

    def forward(self, observations: Tensor) -> Tensor:
        """``[B, C, H, W]`` as it comes."""
        return observations


class MLPTorso(BaseFeaturesExtractor):
    """Flattened observations through hidden layers, normalised or not.

    Args:
        observation_space: any space that SB3 can flatten.
        net_arch: width of every hidden layer; the last is the number of features.
        layer_norm: normalise the hidden layers.
    """

    def __init__(self, observation_space: gym.Space[Any], net_arch: Sequence[int] = (128,), layer_norm: bool = True) -> None:
        super().__init__(observation_space, features_dim=int(net_arch[-1]))
        widths = [get_flattened_obs_dim(observation_space), *net_arch]
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in pairwise(widths):
            norm = [nn.LayerNorm(outputs)] if layer_norm else []
            layers += [nn.Linear(inputs, outputs), *norm, nn.ReLU()]
        self.network = nn.Sequential(*layers)

    def forward(self, observations: Tensor) -> Tensor:
        """``[B, ...]`` to ``[B, D]``."""
        return self.network(observations)


class ConvTorso(BaseFeaturesExtractor):
    """Two small convolutions and a layer-normalised linear layer: for grids below ``NatureCNN``'s 36 pixels.

    Args:
        observation_space: an image ``[C, H, W]``.
        channels: output channels of each convolution (3x3; the second has stride 2).
        features_dim: ``D``.
    """

    def __init__(self, observation_space: gym.Space[Any], channels: Sequence[int] = (16, 32), features_dim: int = 128) -> None:
        super().__init__(observation_space, features_dim)
        assert observation_space.shape is not None
        first, second = channels
        self.convolutions = nn.Sequential(
            nn.Conv2d(observation_space.shape[0], first, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(first, second, kernel_size=3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        with torch.no_grad():
            flat = self.convolutions(torch.zeros(1, *observation_space.shape)).shape[1]
        self.linear = nn.Sequential(nn.Linear(flat, features_dim), nn.LayerNorm(features_dim), nn.ReLU())

    def forward(self, observations: Tensor) -> Tensor:
        """``[B, C, H, W]`` to ``[B, D]``."""
        return self.linear(self.convolutions(observations))


def check_space(
    observation_space: gym.Space[Any], torso_class: type[BaseFeaturesExtractor], torso_kwargs: Mapping[str, Any]
) -> None:
    """Refuse observations that a torso cannot read, where its own message would not say why.

    Raises:
        ValueError: a ``Box`` has no dimension, or ``CombinedExtractor`` would read an image below ``NatureCNN``'s 36 pixels.
    """
    parts = dict(observation_space.spaces) if isinstance(observation_space, gym.spaces.Dict) else {None: observation_space}
    normalized = bool(torso_kwargs.get("normalized_image", False))
    for key, space in parts.items():
        where = "the observation space" if key is None else f"the observation {key!r}"
        if isinstance(space, gym.spaces.Box) and space.shape == ():
            raise ValueError(f"{where} is {space}, a Box of shape (), which no torso reads; make it a vector: shape (1,)")
        if key is None or torso_class is not CombinedExtractor or not is_image_space(space, normalized_image=normalized):
            continue
        height, width = (space.shape or ())[1:]
        if min(height, width) < NATURE_PIXELS:
            raise ValueError(
                f"{where} is an image of {height}x{width} pixels; CombinedExtractor reads images with NatureCNN, which needs "
                f"{NATURE_PIXELS}x{NATURE_PIXELS}. Enlarge it, or name a torso of your own as features_extractor_class"
            )


def put_channels_last(torso: nn.Module) -> None:
    """Two-dimensional convolutions are faster with the channels last in memory; other layers do not care, or have no such."""
    for tensor in (*torso.parameters(), *torso.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)


def default_torso(observation_space: gym.Space[Any], core: type[Core]) -> type[BaseFeaturesExtractor]:
    """The torso where none is named: what the core is made for, of an image; convolutions for images, layers for vectors."""
    is_sequence = isinstance(observation_space, gym.spaces.Box) and len(observation_space.shape) == Reads.SEQUENCE.axes
    reads = Reads.SEQUENCE if is_sequence and Reads.SEQUENCE in core.reads else core.reads[0]
    if reads is not Reads.VECTOR:
        return {Reads.IMAGE: Pixels, Reads.GRID: ConvGrid, Reads.SEQUENCE: Elements}[reads]
    if is_image_space(observation_space, check_channels=False) and len(observation_space.shape or ()) == 3:
        large = min((observation_space.shape or ())[1:]) >= NATURE_PIXELS
        return NatureCNN if large else ConvTorso
    return CombinedExtractor if isinstance(observation_space, gym.spaces.Dict) else MLPTorso


def knows_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16; others imitate it, 7 times slower than float32 (measured)."""
    if device.type == "cpu":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
