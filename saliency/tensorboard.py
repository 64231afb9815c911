"""Pictures and films as TensorBoard image summaries, checked before they are written.

A film is an animated GIF, which TensorBoard's image tab plays. (``SummaryWriter.add_video``, which SB3's ``Video``
uses, writes an empty summary with moviepy 2.)
"""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
from torch.utils.tensorboard import SummaryWriter

from saccade.saliency.film import FilmError

FRAME_MS = 200
"""How long a picture of a film is shown, in milliseconds; a multiple of ten."""


@dataclass(frozen=True)
class Encoded:
    """A PNG or GIF file's bytes, and the size of its pictures in pixels."""

    data: bytes
    height: int
    width: int


def encode_film(film: UInt8[np.ndarray, "T H W 3"]) -> Encoded:
    """An animated GIF that repeats for ever, checked by :func:`check_film`.

    Raises:
        FilmError: the film has no pictures, or fails the check.
    """
    if film.size == 0:
        raise FilmError(f"a film of shape {list(film.shape)} has no pictures")
    # A palette for each picture; without dithering, whose noise would look like saliency.
    pictures = [Image.fromarray(picture).quantize(dither=Image.Dither.NONE) for picture in film]
    buffer = io.BytesIO()
    pictures[0].save(buffer, "gif", save_all=True, append_images=pictures[1:], duration=FRAME_MS, loop=0)
    check_film(buffer.getvalue(), len(film))
    return Encoded(buffer.getvalue(), *film.shape[1:3])


def encode_picture(picture: UInt8[np.ndarray, "H W 3"]) -> Encoded:
    """A PNG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "png")
    return Encoded(buffer.getvalue(), *picture.shape[:2])


def check_film(data: bytes, pictures: int) -> None:
    """Decode a GIF and count its pictures.

    Equal pictures in a row are stored as one that is shown longer, and count in full.

    Raises:
        FilmError: not a GIF, cut short, or of another number of pictures; says which.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["gif"]) as gif:
            milliseconds = 0
            for index in range(getattr(gif, "n_frames", 1)):
                gif.seek(index)
                gif.load()
                milliseconds += int(gif.info.get("duration", 0))
    except (UnidentifiedImageError, EOFError, OSError, SyntaxError) as error:
        raise FilmError(f"the film cannot be decoded ({len(data)} bytes): {error}") from error
    if milliseconds != pictures * FRAME_MS:
        raise FilmError(f"the film shows {milliseconds / FRAME_MS:g} pictures; it was made of {pictures}")


def tensorboard_writer(logger: Logger) -> SummaryWriter | None:
    """The TensorBoard writer of an SB3 logger, if it has one."""
    return next((out.writer for out in logger.output_formats if isinstance(out, TensorBoardOutputFormat)), None)


def write_image(writer: SummaryWriter, tag: str, image: Encoded, step: int) -> None:
    """Write a picture or film as the image summary ``tag``, and flush."""
    encoded = Summary.Image(height=image.height, width=image.width, colorspace=3, encoded_image_string=image.data)
    file_writer: Any = writer.file_writer
    file_writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=encoded)]), step)
    writer.flush()
