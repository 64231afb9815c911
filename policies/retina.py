"""The retina: patches of growing field and equal size around a gaze (Mnih et al. 2014, section 3.1)."""

from collections.abc import Callable
from enum import StrEnum

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Pooling(StrEnum):
    """How a wide field is brought down to the patch size.

    The largest value keeps a one-pixel object visible at every scale; the mean, the paper's averaging, dims it.
    """

    MAX = "max"
    MEAN = "mean"


class Retina(nn.Module):
    """Reads ``scales`` square fields centred on a gaze, each ``growth`` times as wide as the last, all at one resolution.

    One gather for the whole batch: its cost depends on the patches, not on the image. Beyond the image's edge there is zero.
    Gaze coordinates are ``(x, y)`` in ``[-1, 1]``: ``(-1, -1)`` is the top left corner of the image, ``(1, 1)`` the bottom
    right one, and the field is placed on whole pixels, so no gradient reaches the gaze. It does reach float images.

    Args:
        patch_size: ``p``, width and height of every patch, in pixels of the finest scale.
        scales: ``S``, how many patches.
        growth: the factor between one field's width and the next one's.
        pooling: how wide fields are brought down to ``p`` by ``p``.

    Raises:
        ValueError: a number below 1.
    """

    first: Tensor
    offsets: Tensor

    def __init__(self, patch_size: int = 6, scales: int = 3, growth: int = 2, pooling: str = "max") -> None:
        super().__init__()
        for name, number in {"patch_size": patch_size, "scales": scales, "growth": growth}.items():
            if number < 1:
                raise ValueError(f"retina {name} must be at least 1; got {number}")
        self.patch_size = patch_size
        self.scales = scales
        self.pooling = Pooling(pooling)
        self.fields = [patch_size * growth**scale for scale in range(scales)]
        # Where every field begins, less its centre (half up, not half to even), and the whole pixels from there on.
        first = torch.cat([torch.full((field,), 0.5 - field / 2) for field in self.fields])
        self.register_buffer("first", first, persistent=False)
        self.register_buffer("offsets", torch.cat([torch.arange(field) for field in self.fields]), persistent=False)

    def lines(self, centre: Float[Tensor, " B"], size: int) -> tuple[Tensor, Tensor]:
        """Rows, or columns, of every field side by side, ``[B, sum of fields]``, and which of them lie inside the image."""
        # Rounded once a field: rounding every pixel by itself tears neighbours apart where the centre is nearly a half.
        places = (((centre + 1) / 2 * size)[:, None] + self.first).floor().long() + self.offsets
        inside = (places >= 0) & (places < size)
        return places.where(inside, 0), inside

    def forward(self, images: Tensor, gaze: Float[Tensor, "B 2"]) -> Float[Tensor, "B S C p p"]:
        """Look at ``gaze`` in each image.

        Args:
            images: ``[B, C, H, W]``; uint8 is read as 0 to 255 and scaled to 0 to 1, float is taken as it is.
            gaze: ``[B, 2]``, ``(x, y)``; clamped into ``[-1, 1]``.
        """
        channels, height, width = images.shape[1:]
        x, y = gaze.detach().clamp(-1, 1).unbind(-1)
        rows, rows_inside = self.lines(y, height)
        columns, columns_inside = self.lines(x, width)
        index = self.outer(rows * width, columns, torch.add)
        inside = self.outer(rows_inside, columns_inside, torch.logical_and)
        pixels = images.flatten(2).gather(2, index[:, None].expand(-1, channels, -1))
        pixels = pixels * inside[:, None]
        areas = [field * field for field in self.fields]
        patches = [self.pool(part, field) for part, field in zip(pixels.split(areas, dim=2), self.fields, strict=True)]
        return torch.stack(patches, dim=1)

    def outer(self, rows: Tensor, columns: Tensor, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Every row with every column of the same field, ``[B, sum of areas]``."""
        fields = zip(rows.split(self.fields, dim=1), columns.split(self.fields, dim=1), strict=True)
        return torch.cat([combine(row[:, :, None], column[:, None, :]).flatten(1) for row, column in fields], dim=1)

    def pool(self, pixels: Tensor, field: int) -> Tensor:
        """One field ``[B, C, field * field]`` down to its patch ``[B, C, p, p]``, uint8 scaled to floats."""
        pool = field // self.patch_size
        cells = pixels.view(*pixels.shape[:2], self.patch_size, pool, self.patch_size, pool)
        if pool > 1 and self.pooling is Pooling.MAX:
            cells = cells.amax(dim=(-3, -1))
        floats = cells if cells.is_floating_point() else cells.float() / 255
        if pool > 1 and self.pooling is Pooling.MEAN:
            floats = floats.mean(dim=(-3, -1))
        return floats.reshape(*pixels.shape[:2], self.patch_size, self.patch_size)
