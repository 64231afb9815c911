"""What goes over a frame: the fields of a gaze, its path, a saliency map, words.

Blue, yellow and red are told apart by the colour-blind too.

Shapes: ``T`` time, ``H W`` height and width in pixels of the observation, ``S`` fields of a retina.
"""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw, ImageFont

BACKGROUND = (58, 58, 64)  # beyond the frame: told from a black screen
INK = (235, 235, 235)
FIELD = (100, 205, 255)  # the finest field; wider ones are darker
PATH = (255, 210, 60)
HALO = (0, 0, 0)
PATH_LENGTH = 8
"""How many gazes before the present one the path goes back."""
LINE = 15
"""Pixels from one line of a caption to the next."""


@cache
def font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that comes with Pillow."""
    return ImageFont.load_default(12)


def line_width(words: str) -> int:
    """How wide a caption with this line is, in pixels."""
    return math.ceil(font().getlength(words)) + 8


def field_boxes(
    gaze: Float[np.ndarray, " 2"], fields: Sequence[tuple[float, float]], height: int, width: int
) -> Int[np.ndarray, "S 4"]:
    """Which pixels each field covers, by the retina's own rounding.

    Args:
        gaze: ``(x, y)`` in ``[-1, 1]``.
        fields: width and height of each, in halves of the image.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Returns:
        left, top, right, bottom; the last two are the first column and row that are no longer covered. May lie beyond
        the image.
    """
    size = np.array([width, height], dtype=np.float32)
    pixels = np.round(np.array(fields, dtype=np.float32) * size / 2)
    start = np.floor((gaze.astype(np.float32) + 1) / 2 * size - pixels / 2 + np.float32(0.5))
    return np.concatenate([start, start + pixels], axis=1).astype(np.int64)


def draw_fields(draw: ImageDraw.ImageDraw, boxes: Int[np.ndarray, "S 4"], factor: float, margin: int) -> None:
    """The outline of every field, the finest last and brightest.

    Args:
        draw: where to.
        boxes: in pixels of the observation.
        factor: how many pixels of the drawing one of those is.
        margin: how far right and down the observation's top left corner is in the drawing.
    """
    for scale in reversed(range(len(boxes))):
        left, top, right, bottom = (float(edge) * factor + margin for edge in boxes[scale])
        colour = tuple(round(part * 0.72**scale) for part in FIELD)
        # The outermost of the pixels that are covered, and a dark line around them for bright screens.
        draw.rectangle((left - 1, top - 1, right, bottom), outline=HALO)
        draw.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=2)


def draw_path(draw: ImageDraw.ImageDraw, gazes: Float[np.ndarray, "T 2"], size: tuple[int, int], margin: int) -> None:
    """Where the last gazes were, from dim to the bright dot of the present one.

    Args:
        draw: where to.
        gazes: ``(x, y)`` in ``[-1, 1]``, up to and including the present one.
        size: width and height of the drawn frame.
        margin: how far right and down its top left corner is in the drawing.
    """
    recent = (gazes[-PATH_LENGTH - 1 :] + 1) / 2 * np.array(size) + margin
    points = [(float(x), float(y)) for x, y in recent]
    count = len(points) - 1
    for i in range(count):
        strength = 0.35 + 0.65 * (i + 1) / count
        draw.line((points[i], points[i + 1]), fill=tuple(round(part * strength) for part in PATH), width=2)
    x, y = points[-1]
    draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=PATH, outline=HALO)


def overlay(frame: UInt8[np.ndarray, "H W 3"], saliency: Float[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """Saliency from 0 to 1 in the red channel, the grey frame in the other two (Wang et al. 2016, figure 2)."""
    grey = frame @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    red = saliency.clip(0, 1) * 255
    # Dimmed, so that a white pixel of the frame does not outshine red.
    return np.stack([red, grey * 0.6, grey * 0.6], axis=-1).round().astype(np.uint8)


def matted(frame: UInt8[np.ndarray, "H W 3"], margin: int) -> Image.Image:
    """A frame with a margin around it, in which fields that reach beyond the frame can be seen to do so."""
    height, width = frame.shape[:2]
    picture = Image.new("RGB", (width + 2 * margin, height + 2 * margin), BACKGROUND)
    picture.paste(Image.fromarray(frame), (margin, margin))
    return picture


def captioned(picture: Image.Image, lines: Sequence[str], least_width: int = 0) -> UInt8[np.ndarray, "H W 3"]:
    """A picture below lines of words, in the middle of at least that width."""
    top = LINE * len(lines) + 6
    width = max(picture.width, least_width)
    whole = Image.new("RGB", (width, top + picture.height), BACKGROUND)
    draw = ImageDraw.Draw(whole)
    for row, words in enumerate(lines):
        draw.text((4, 2 + LINE * row), words, fill=INK, font=font())
    whole.paste(picture, ((width - picture.width) // 2, top))
    return np.asarray(whole)
