"""The retina against a loop over single pixels, at its edges, and as a function with a gradient."""

import math

import numpy as np
import pytest
import torch

from saccade.policies import Retina

GAZES = torch.tensor(
    [[0, 0], [-1, -1], [1, 1], [-1, 1], [1, -1], [3, 0.2], [-0.4, -7], [1e9, -1e9], [0.37, -0.61], [-0.999, 0.999]]
)


def slow_retina(image: np.ndarray, gaze: tuple[float, float], patch: int, field: int, pooling: str) -> np.ndarray:
    """One patch, pixel by pixel: ``[C, H, W]`` to ``[C, patch, patch]``."""
    channels, height, width = image.shape
    x, y = (min(max(float(place), -1.0), 1.0) for place in gaze)
    # The pixel that the field begins at, so that the field's middle is the gaze (to the nearest pixel, half up).
    top = math.floor((y + 1) / 2 * height - field / 2 + 0.5)
    left = math.floor((x + 1) / 2 * width - field / 2 + 0.5)
    side = field // patch
    out = np.zeros((channels, patch, patch))
    for channel in range(channels):
        for i in range(patch):
            for j in range(patch):
                cell = []
                for row in range(top + i * side, top + (i + 1) * side):
                    for column in range(left + j * side, left + (j + 1) * side):
                        inside = 0 <= row < height and 0 <= column < width
                        cell.append(float(image[channel, row, column]) if inside else 0.0)
                out[channel, i, j] = max(cell) if pooling == "max" else sum(cell) / len(cell)
    return out


@pytest.mark.parametrize("pooling", ["max", "mean"])
@pytest.mark.parametrize("growth", [1, 2, 3])
@pytest.mark.parametrize(
    ("patch", "scales", "shape"), [(4, 2, (1, 11, 17)), (5, 3, (3, 16, 13)), (1, 3, (4, 7, 8)), (6, 1, (2, 5, 3))]
)
def test_every_patch_is_what_a_slow_loop_sees(
    pooling: str, growth: int, patch: int, scales: int, shape: tuple[int, ...]
) -> None:
    gazes = torch.cat([GAZES, torch.rand(5, 2) * 2.4 - 1.2])
    images = torch.rand(len(gazes), *shape) - 0.3
    patches = Retina(patch, scales, growth, pooling)(images, gazes)
    assert patches.shape == (len(gazes), scales, shape[0], patch, patch)
    for lane, gaze in enumerate(gazes.tolist()):
        for scale in range(scales):
            field = patch * growth**scale
            slow = slow_retina(images[lane].numpy(), gaze, patch, field, pooling)
            np.testing.assert_allclose(patches[lane, scale].numpy(), slow, atol=1e-6)


def test_golden_values() -> None:
    image = torch.arange(1.0, 10.0).view(1, 1, 3, 3)
    retina = Retina(patch_size=1, scales=2, growth=3, pooling="max")
    middle, corner = torch.zeros(1, 2), torch.tensor([[-0.9, -0.9]])
    assert retina(image, middle).flatten().tolist() == [5, 9]
    assert retina(image, corner).flatten().tolist() == [1, 5]
    mean = Retina(patch_size=1, scales=2, growth=3, pooling="mean")
    assert mean(image, middle).flatten().tolist() == [5, 5]
    torch.testing.assert_close(mean(image, corner).flatten(), torch.tensor([1, (1 + 2 + 4 + 5) / 9]))


def test_x_is_across_and_y_is_down() -> None:
    image = torch.zeros(1, 1, 7, 11)
    image[0, 0, 1, 9] = 1
    look = Retina(patch_size=1, scales=1)
    assert look(image, torch.tensor([[2 * 9.5 / 11 - 1, 2 * 1.5 / 7 - 1]])).item() == 1
    assert look(image, torch.tensor([[2 * 1.5 / 7 - 1, 2 * 9.5 / 11 - 1]])).item() == 0


def test_outside_the_image_is_zero_even_where_everything_inside_is_bright() -> None:
    images = torch.full((len(GAZES), 2, 5, 7), 3.0)
    patches = Retina(patch_size=4, scales=3, growth=2, pooling="mean")(images, GAZES)
    # At the corner of the image three quarters of an even field lie outside.
    corner = Retina(patch_size=4, scales=1)(images[:1], torch.tensor([[-1.0, -1.0]]))[0, 0, 0]
    assert corner.tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 3, 3], [0, 0, 3, 3]]
    # A field much larger than the image keeps the image's share of it.
    assert patches[0, 2, 0].sum().item() == pytest.approx(3 * 5 * 7 / 16)
    negative = Retina(patch_size=1, scales=2, growth=3, pooling="max")(
        torch.full((1, 1, 3, 3), -1.0), torch.tensor([[-1.0, -1.0]])
    )
    assert negative[0, 1].item() == 0, "the zero outside is larger than what is inside"


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_bytes_and_floats_agree(pooling: str) -> None:
    images = torch.randint(0, 256, (len(GAZES), 3, 11, 13), dtype=torch.uint8)
    retina = Retina(patch_size=3, scales=3, growth=2, pooling=pooling)
    patches = retina(images, GAZES)
    assert patches.dtype == torch.float32
    torch.testing.assert_close(patches, retina(images.float() / 255, GAZES), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [5, 24, 84, 1000])
@pytest.mark.parametrize("patch", [5, 8])
def test_neighbouring_pixels_are_never_torn_apart(size: int, patch: int) -> None:
    """A field is a run of whole pixels wherever it lies: none twice, none left out, at half-pixel centres above all."""
    retina = Retina(patch_size=patch, scales=4, growth=2)
    halves = torch.arange(0, 2 * size + 1) / size - 1
    steps = [halves]
    for direction in (-2.0, 2.0):
        near = halves
        for _ in range(3):
            near = torch.nextafter(near, torch.full_like(near, direction))
            steps.append(near)
    centres = torch.cat([*steps, torch.rand(2000) * 2 - 1]).clamp(-1, 1)
    rows, inside = retina.lines(centres, size)
    for field, run, seen in zip(retina.fields, rows.split(retina.fields, 1), inside.split(retina.fields, 1), strict=True):
        # Inside the image, rows count up one by one; what lies inside is as long as it can be.
        both = seen[:, 1:] & seen[:, :-1]
        assert ((run[:, 1:] - run[:, :-1])[both] == 1).all()
        exact = ((centres.double() + 1) / 2 * size)[:, None]
        distance = (run + 0.5 - exact).abs()
        assert (distance[seen] <= field / 2 + 0.5 + 1e-3).all()
        edges = seen.int().diff(dim=1).abs().sum(1)
        assert (edges <= 2).all(), "what lies inside the image is in one piece"
        assert seen.sum(1).min() >= min(size, field // 2)


def test_neighbouring_gazes_move_by_whole_pixels_only_forwards() -> None:
    columns = torch.arange(24.0).expand(1, 1, 24, 24)
    gaze = torch.arange(-1000, 1001) / 1000
    seen = Retina(patch_size=1, scales=1)(columns.expand(2001, 1, 24, 24), torch.stack([gaze, 0 * gaze], 1)).flatten()
    assert seen[1000] == 12
    assert set((seen[1:-1] - seen[:-2]).tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_the_gradient_with_respect_to_the_image(pooling: str) -> None:
    gazes = torch.tensor([[0.1, -0.3], [1.0, 1.0], [-0.8, 0.5]], dtype=torch.float64)
    images = torch.rand(3, 2, 7, 9, dtype=torch.float64, requires_grad=True)
    retina = Retina(patch_size=2, scales=3, growth=2, pooling=pooling)
    assert torch.autograd.gradcheck(lambda images: retina(images, gazes), images)


def test_the_gradient_is_exactly_zero_outside_the_field_and_nowhere_zero_inside() -> None:
    images = torch.rand(1, 2, 23, 29, requires_grad=True)
    retina = Retina(patch_size=5, scales=2, growth=2, pooling="mean")
    (gradient,) = torch.autograd.grad(retina(images, torch.tensor([[0.2, -0.3]])).sum(), images)
    top, left = (math.floor((place + 1) / 2 * size - 5 + 0.5) for place, size in ((-0.3, 23), (0.2, 29)))
    inside = torch.zeros(23, 29, dtype=torch.bool)
    inside[top : top + 10, left : left + 10] = True
    assert (gradient[..., ~inside] == 0).all()
    assert (gradient[..., inside] > 0).all()


def test_no_gradient_reaches_the_gaze() -> None:
    gaze = torch.zeros(1, 2, requires_grad=True)
    assert not Retina()(torch.rand(1, 1, 11, 13), gaze).requires_grad


def test_lanes_look_for_themselves() -> None:
    images, gazes = torch.rand(len(GAZES), 2, 11, 13), GAZES
    retina = Retina(patch_size=3, scales=2)
    together = retina(images, gazes)
    for lane in range(len(gazes)):
        assert (retina(images[[lane]], gazes[[lane]])[0] == together[lane]).all()


def test_the_image_is_not_written_to() -> None:
    images = torch.rand(2, 1, 5, 7)
    before = images.clone()
    Retina()(images, torch.zeros(2, 2))
    assert (images == before).all()


@pytest.mark.parametrize("arguments", [{"patch_size": 0}, {"scales": 0}, {"growth": 0}, {"patch_size": -3}])
def test_numbers_below_one_are_refused(arguments: dict[str, int]) -> None:
    ((name, number),) = arguments.items()
    with pytest.raises(ValueError, match=f"{name} must be at least 1; got {number}"):
        Retina(**arguments)


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(ValueError, match="median"):
        Retina(pooling="median")
