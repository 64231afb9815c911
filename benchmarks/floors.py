"""What arithmetic alone would allow: the multiplications of a network, and how many a thread does a second."""

import statistics
from math import prod

import torch
from harness import Settings
from torch import Tensor, nn

SIDE, PRODUCTS = 512, 20


def peak(dtype: torch.dtype, settings: Settings, rounds: int = 15) -> float:
    """Floating-point operations a second in products of square matrices, the median of ``rounds`` timings."""
    left, right = (torch.rand(SIDE, SIDE, dtype=dtype, device=settings.device) for _ in range(2))
    rates = []
    for _ in range(rounds + 1):
        start = settings.clock()
        for _ in range(PRODUCTS):
            left @ right
        rates.append(2 * SIDE**3 * PRODUCTS / (settings.clock() - start))
    return statistics.median(rates[1:])


def multiplications(network: nn.Module, image: tuple[int, ...] | None) -> tuple[int, int]:
    """Of one step through every layer, and those of them in the first convolution, which passes no gradient on.

    Each weight is used once, or once for each position that a convolution looks at.

    Args:
        network: torso, core and heads.
        image: the shape of what its ``features_extractor`` sees, if that is an image ``(C, H, W)``.
    """
    positions: dict[Tensor, int] = {}

    def note(layer: nn.Module, _: object, output: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d)
        positions[layer.weight] = prod(output.shape[-2:])

    if image is not None:
        torso = network.get_submodule("features_extractor")
        hooks = [layer.register_forward_hook(note) for layer in torso.modules() if isinstance(layer, nn.Conv2d)]
        torso(torch.zeros(1, *image, device=next(torso.parameters()).device))
        for hook in hooks:
            hook.remove()
    products = [weight.numel() * positions.get(weight, 1) for weight in network.parameters() if weight.ndim > 1]
    first = next((weight.numel() * count for weight, count in positions.items()), 0)
    return sum(products), first


def operations(network: nn.Module, image: tuple[int, ...] | None, *, forward: float, learned: float) -> float:
    """Floating-point operations for each environment step.

    Args:
        network: as in :func:`multiplications`, and ``image``.
        forward: how often a step is looked at without learning from it.
        learned: how often it is learned from: a forward pass, and a gradient by inputs and one by weights.
    """
    all_layers, first = multiplications(network, image)
    return 2 * (all_layers * (forward + 3 * learned) - first * learned)
