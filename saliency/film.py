"""Films of an episode, a picture a step: where the agent looked; what each of its heads depends on.

Shapes: ``T`` steps of the episode, ``H W`` height and width of a picture.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int, Shaped, UInt8
from PIL import Image, ImageDraw

from saccade.policies.tap import TapKind
from saccade.saliency.draw import BACKGROUND, captioned, draw_fields, draw_path, field_boxes, line_width, matted, overlay
from saccade.saliency.episode import Episode, TapRecord
from saccade.saliency.frames import enlarge, zoom
from saccade.saliency.jacobian import HeadMaps

Film = UInt8[np.ndarray, "T H W 3"]
LEAST_WIDTH = 200
MARGIN = 24
PANEL_MARGIN = 2
MOST_LETTERS = 48
"""Of an action's numbers in a caption."""
STRIP_WIDTH = 1280
"""About how wide a film strip is, in pixels."""


class FilmError(ValueError):
    """An episode cannot be drawn, or a film is not what was meant to be written."""


def gaze_film(episode: Episode) -> Film:
    """The frames of an episode, with the gaze's fields and its path where the policy has a gaze.

    Raises:
        FilmError: the episode has no frames.
    """
    frames = enlarged(episode)
    gazes = gaze_records(episode)
    margin = MARGIN if gazes else 0
    pictures = []
    for t, frame in enumerate(frames):
        picture = matted(frame, margin)
        outline_fields(picture, episode, t, margin)
        for record in gazes:
            draw_path(ImageDraw.Draw(picture), record.values[: t + 1], (frame.shape[1], frame.shape[0]), margin)
        pictures.append(picture)
    return below_words(pictures, [describe(episode, t) for t in range(len(frames))])


def heads_film(episode: Episode, maps: HeadMaps) -> Film:
    """Each head's map in red over the grey frames of an episode, one beside the other (Wang et al. 2016, figure 2).

    Of several channels the largest derivative is shown. Each head has one scale for the whole film, stated above it
    (:func:`full_red`). Where the policy has a gaze, its fields are outlined.

    Raises:
        FilmError: the episode has no frames, or they are not its observations, so that maps do not lie over them; or a
            derivative is not finite.
    """
    if not episode.frames_are_observations:
        raise FilmError("the heads' maps can be drawn over image observations only")
    frames = enlarged(episode)
    beside = ["outside the boxes exactly 0" if boxes_are_all(episode) else "", ""]
    panels: list[Film] = []
    for name, signed in maps.items():
        strength = magnitude(signed)
        if not np.isfinite(strength).all():
            raise FilmError(f"|d {name}/dx| is not finite at step {int(np.argwhere(~np.isfinite(strength))[0, 0])}")
        full = full_red(strength)
        red = enlarge((strength / full).clip(0, 1))
        title = f"|d {name}/dx|   full red from {full:.3g}"
        pictures = []
        for t, frame in enumerate(frames):
            pictures.append(matted(overlay(frame, red[t]), PANEL_MARGIN))
            outline_fields(pictures[-1], episode, t, PANEL_MARGIN)
        words = [[*(beside if panels else describe(episode, t)), title] for t in range(len(frames))]
        panels.append(below_words(pictures, words))
    return np.concatenate(panels, axis=2)


def below_words(pictures: Sequence[Image.Image], words: Sequence[Sequence[str]]) -> Film:
    """Every picture below its own lines, all as wide as the longest of them needs."""
    width = max(LEAST_WIDTH, *(line_width(line) for lines in words for line in lines))
    return np.stack([captioned(picture, lines, width) for picture, lines in zip(pictures, words, strict=True)])


def gaze_records(episode: Episode) -> list[TapRecord]:
    """What the episode holds of gazes; none where the frames are not what was looked at."""
    shown = episode.frames_are_observations
    return [record for record in episode.taps.values() if shown and record.kind is TapKind.GAZE]


def boxes_are_all(episode: Episode) -> bool:
    """Whether nothing outside the boxes influences what a step says: so with a glimpse, not with a place of a grid."""
    gazes = gaze_records(episode)
    return bool(gazes) and all(bool(record.notes.get("exact")) for record in gazes)


def outline_fields(picture: Image.Image, episode: Episode, t: int, margin: int) -> None:
    """The fields of every gaze of a step, over a frame with a margin."""
    assert episode.frames is not None
    height, width = episode.frames.shape[1:3]
    for record in gaze_records(episode):
        fields: Any = record.notes.get("fields")
        if fields:
            boxes = field_boxes(record.values[t], fields, height, width)
            draw_fields(ImageDraw.Draw(picture), boxes, zoom(height, width), margin)


def enlarged(episode: Episode) -> Film:
    """The episode's frames at the size they are drawn.

    Raises:
        FilmError: it has none.
    """
    if episode.frames is None:
        raise FilmError("the episode has no frames: observations are no images, and the environment renders none")
    return enlarge(episode.frames)


def describe(episode: Episode, t: int) -> list[str]:
    """Two lines about a step: what was done and what it brought; what was expected."""
    reward, total = episode.rewards[t], episode.rewards[: t + 1].sum()
    done = f"step {t}   reward {f'{reward:+.3g}' if reward else 0}   return {total:.3g}"
    expected = f"   V {episode.outputs['value'][t, 0]:.3f}" if "value" in episode.outputs else ""
    return [done, f"action {in_words(episode.actions[t])}{expected}"]


def in_words(action: Shaped[np.ndarray, " *parts"] | np.generic) -> str:
    """The numbers of an action, whole ones as they are, in at most :data:`MOST_LETTERS` letters."""
    numbers = np.asarray(action).ravel()
    words = " ".join(f"{number:.2g}" if numbers.dtype.kind == "f" else str(number) for number in numbers)
    return words if len(words) <= MOST_LETTERS else words[: MOST_LETTERS - 1].rpartition(" ")[0] + " …"


def magnitude(maps: Any) -> Float32[np.ndarray, "T H W"]:
    """Absolute derivatives, the largest over the channels of ``[T, C, H, W]``."""
    assert isinstance(maps, torch.Tensor)
    return maps.detach().abs().amax(dim=1).float().cpu().numpy()


def full_red(strength: Float32[np.ndarray, "T H W"]) -> float:
    """The derivative from which a film is fully red: 0.5 % of those that are not zero exceed it, lest one outlier dims all."""
    shown = strength[strength > 0]
    return float(np.quantile(shown, 0.995, method="higher")) if shown.size else 1.0


def strip_steps(count: int, most: int = 12) -> Int[np.ndarray, " n"]:
    """At most ``most`` steps of ``count``, evenly spaced, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def film_strip(film: Film) -> UInt8[np.ndarray, "H2 W2 3"]:
    """At most twelve pictures of a film side by side, row by row."""
    chosen = film[strip_steps(len(film))]
    count, height, width = chosen.shape[:3]
    gap = 4
    columns = min(count, max(STRIP_WIDTH // (width + gap), 1))
    rows = math.ceil(count / columns)
    columns = math.ceil(count / rows)
    size = (columns * (width + gap) - gap, rows * (height + gap) - gap)
    sheet = Image.new("RGB", size, tuple(part // 2 for part in BACKGROUND))
    for i, picture in enumerate(chosen):
        sheet.paste(Image.fromarray(picture), (i % columns * (width + gap), i // columns * (height + gap)))
    return np.asarray(sheet)
