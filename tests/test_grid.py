"""Torsos that keep places, or elements, apart; and which core gets which."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from saccade.policies import AssociativeAttention, ConvGrid, Core, Elements, LocatedAttention, SoftAttention
from saccade.policies.torso import default_torso


@pytest.mark.parametrize(("size", "grid"), [(16, (32, 8, 8)), (84, (64, 10, 10))])
def test_a_grid_of_features_keeps_places_apart(size: int, grid: tuple[int, ...]) -> None:
    torso = ConvGrid(spaces.Box(0, 255, (3, size, size), np.uint8))
    assert torso.output_shape == grid
    assert torso(torch.rand(2, 3, size, size)).shape == (2, *grid)


def test_a_layer_as_large_as_its_stride_sees_every_place_by_itself() -> None:
    torso = ConvGrid(spaces.Box(0, 255, (1, 8, 12), np.uint8), layers=[(5, 4, 4)])
    image = torch.rand(1, 1, 8, 12, requires_grad=True)
    (gradient,) = torch.autograd.grad(torso(image)[0, :, 1, 2].sum(), image)
    assert gradient[0, 0, 4:, 8:].any()
    gradient[0, 0, 4:, 8:] = 0
    assert not gradient.any()


def test_the_columns_of_an_image_are_a_sequence() -> None:
    torso = Elements(spaces.Box(0, 1, (2, 3, 5), np.float32))
    image = torch.rand(4, 2, 3, 5)
    assert torso.output_shape == (5, 6)
    torch.testing.assert_close(torso(image)[:, 1], image[..., 1].flatten(1))
    elements = torch.rand(4, 7, 2)
    assert Elements(spaces.Box(0, 1, (7, 2), np.float32))(elements) is elements


@pytest.mark.parametrize(
    ("core", "shape", "torso"),
    [
        (SoftAttention, (1, 8, 8), ConvGrid),
        (AssociativeAttention, (1, 8, 8), ConvGrid),
        (AssociativeAttention, (8, 3), Elements),
        (LocatedAttention, (8, 3), Elements),
        (LocatedAttention, (1, 8, 8), Elements),
    ],
)
def test_every_core_gets_the_torso_it_is_made_for(core: type[Core], shape: tuple[int, ...], torso: type) -> None:
    assert default_torso(spaces.Box(0, 255, shape, np.uint8), core) is torso
