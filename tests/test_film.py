"""Films: the right pixels, the right pictures, and a file that holds them."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from PIL import Image

from saccade.policies import Retina, TapKind
from saccade.saliency.draw import BACKGROUND, FIELD, LINE, PATH, field_boxes, overlay
from saccade.saliency.episode import Episode, TapRecord
from saccade.saliency.film import MARGIN, FilmError, film_strip, full_red, gaze_film, heads_film, in_words, strip_steps
from saccade.saliency.frames import SIDE, enlarge, observation_frames, shows_image, zoom
from saccade.saliency.jacobian import HeadMaps
from saccade.saliency.tensorboard import FRAME_MS, check_film, encode_film, encode_picture

CAPTION = 2 * LINE + 6
HEADS_CAPTION = 3 * LINE + 6
STEPS, HEIGHT, WIDTH = 3, 12, 12
ZOOM = 16


def make_episode(gazes: list[tuple[float, float]] | None = None, fields: Any = ((4 / 6, 4 / 6),), **changes: Any) -> Episode:
    """Three black frames of 12 by 12 pixels, in which the agent looks at these places."""
    taps = {}
    if gazes is not None:
        taps["gaze"] = TapRecord(TapKind.GAZE, np.array(gazes, dtype=np.float32), {"fields": list(fields)})
    parts: dict[str, Any] = {
        "observations": np.zeros((STEPS, 1, HEIGHT, WIDTH), np.uint8),
        "actions": np.array([0, 2, 1]),
        "rewards": np.array([0, 0, 1], np.float32),
        "outputs": {"value": np.zeros((STEPS, 1)), "advantage": np.zeros((STEPS, 3))},
        "masks": None,
        "episode_starts": np.array([True, False, False]),
        "decisions": None,
        "taps": taps,
        "frames": np.zeros((STEPS, HEIGHT, WIDTH, 3), np.uint8),
        "frames_are_observations": True,
        "finished": True,
    }
    return Episode(**{**parts, **changes})


@pytest.mark.parametrize("patch", [3, 4])
@pytest.mark.parametrize("gaze", [(0.0, 0.0), (-1.0, 1.0), (0.13, -0.77), (1 / 3, 0.5), (0.999, -0.999)])
def test_boxes_are_what_the_retina_reads(patch: int, gaze: tuple[float, float]) -> None:
    height, width = 11, 13
    retina = Retina(patch, scales=2, growth=2, pooling="mean")
    images = torch.zeros(1, 1, height, width, requires_grad=True)
    patches = retina(images, torch.tensor([gaze]))
    fields = [(2 * field / width, 2 * field / height) for field in retina.fields]
    boxes = field_boxes(np.array(gaze, dtype=np.float32), fields, height, width)
    for scale, (left, top, right, bottom) in enumerate(boxes):
        assert (right - left, bottom - top) == (retina.fields[scale], retina.fields[scale])
        (read,) = torch.autograd.grad(patches[:, scale].sum(), images, retain_graph=True)
        expected = torch.zeros(height, width, dtype=torch.bool)
        expected[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = True
        assert torch.equal(read[0, 0] != 0, expected)


def test_the_box_is_drawn_around_the_pixels_that_are_seen() -> None:
    gazes = [(0.0, 0.0), (0.5, 0.0), (0.5, -0.5)]  # pixels 4 to 7, then 3 to the right, then 3 up
    film = gaze_film(make_episode(gazes))
    assert film.shape == (STEPS, CAPTION + HEIGHT * ZOOM + 2 * MARGIN, WIDTH * ZOOM + 2 * MARGIN, 3)
    for t, (column, row) in enumerate([(4, 4), (7, 4), (7, 1)]):
        screen = film[t, CAPTION + MARGIN :, MARGIN:][: HEIGHT * ZOOM, : WIDTH * ZOOM]
        blue = (screen == FIELD).all(axis=-1)
        rows, columns = np.nonzero(blue)
        assert (rows.min(), rows.max() + 1) == (row * ZOOM, (row + 4) * ZOOM)
        assert (columns.min(), columns.max() + 1) == (column * ZOOM, (column + 4) * ZOOM)
        assert blue[row * ZOOM].sum() == 4 * ZOOM
        assert not screen[: row * ZOOM - 1].any()


def test_the_present_gaze_is_a_dot_and_the_path_leads_to_it() -> None:
    film = gaze_film(make_episode([(-0.5, 0.0), (0.0, 0.0), (0.5, 0.0)]))
    screens = film[:, CAPTION + MARGIN :, MARGIN:][:, : HEIGHT * ZOOM, : WIDTH * ZOOM]
    middle, quarter = HEIGHT * ZOOM // 2, WIDTH * ZOOM // 4
    for t in range(STEPS):
        assert tuple(screens[t, middle, quarter * (t + 1)]) == PATH
    assert not screens[0, middle, 2 * quarter :].any()  # the future is not shown
    assert screens[2, middle, quarter + 8].any()  # the past is


def test_fields_beyond_the_image_show_in_the_margin_and_never_in_the_caption() -> None:
    episode = make_episode([(1.0, -1.0)] * STEPS)
    film, plain = gaze_film(episode), gaze_film(make_episode([(0.0, 0.0)] * STEPS))
    assert (film[:, :CAPTION] == plain[:, :CAPTION]).all()
    margin = film[0, CAPTION : CAPTION + MARGIN]
    assert (margin != BACKGROUND).any()


def test_finer_fields_are_brighter() -> None:
    film = gaze_film(make_episode([(0.0, 0.0)] * STEPS, [(4 / 6, 4 / 6), (8 / 6, 8 / 6)]))
    row = film[0, CAPTION + MARGIN + 2 * ZOOM + 20 + 2 * ZOOM, MARGIN : MARGIN + WIDTH * ZOOM]
    wide, fine = row[2 * ZOOM], row[4 * ZOOM]
    assert fine.sum() > wide.sum() > 0


def test_a_policy_without_gaze_gets_plain_frames() -> None:
    film = gaze_film(make_episode())
    assert film.shape[1] == CAPTION + HEIGHT * ZOOM
    assert not film[:, CAPTION:, 4:-4].any()


def test_gazes_are_not_drawn_over_frames_that_are_not_what_was_looked_at() -> None:
    episode = make_episode([(0.0, 0.0)] * STEPS, frames_are_observations=False)
    assert (gaze_film(episode) == gaze_film(make_episode())).all()


def make_maps(value: Any, advantage: Any) -> HeadMaps:
    return {"value": torch.as_tensor(value), "advantage": torch.as_tensor(advantage)}


def test_heads_film_has_one_scale_for_all_its_frames_and_one_for_each_head() -> None:
    value, advantage = np.zeros((2, STEPS, 2, HEIGHT, WIDTH), np.float32)
    value[0, 0, 3, 5] = -0.5  # its sign and its channel do not matter
    value[1, 1, 3, 5] = 0.25
    advantage[2, 0, 6, 7] = 0.01
    film = heads_film(make_episode(), make_maps(value, advantage))
    half = film.shape[2] // 2
    left = (half - WIDTH * ZOOM) // 2
    screens = film[:, HEADS_CAPTION + 2 :, left:]

    def red(t: int, row: int, column: int) -> list[int]:
        return list(screens[t, row * ZOOM + 3, column * ZOOM + 3])

    assert [red(t, 3, 5) for t in range(STEPS)] == [[255, 0, 0], [128, 0, 0], [0, 0, 0]]
    screens = screens[:, :, half:]
    assert [red(t, 6, 7) for t in range(STEPS)] == [[0, 0, 0], [0, 0, 0], [255, 0, 0]]


def test_one_outlier_does_not_dim_a_film() -> None:
    strength = np.zeros((10, 20, 20), np.float32)
    strength[:5] = 0.1
    strength[0, 0, 0] = 1000
    assert full_red(strength) == np.float32(0.1)
    assert full_red(np.zeros((1, 2, 3), np.float32)) == 1


def test_heads_film_of_zero_maps_is_no_division_by_zero() -> None:
    zeros = np.zeros((STEPS, 1, HEIGHT, WIDTH), np.float32)
    film = heads_film(make_episode(), make_maps(zeros, zeros))
    assert not film[:, HEADS_CAPTION + 2 : -2, 10:190].any()


def test_heads_film_has_a_panel_for_each_head() -> None:
    zeros = torch.zeros(STEPS, 1, HEIGHT, WIDTH)
    widths = [heads_film(make_episode(), dict.fromkeys(names, zeros)).shape[2] for names in ("a", "ab", "abc")]
    assert widths[1] == 2 * widths[0] and widths[2] == 3 * widths[0]


def test_captions_are_never_cut_off() -> None:
    many = np.random.default_rng(0).normal(size=(STEPS, 17)).astype(np.float32)
    film = gaze_film(make_episode(actions=many))
    assert film.shape[2] > WIDTH * ZOOM + 8
    assert (film[:, :CAPTION, -4:] == BACKGROUND).all()
    assert (film[:, :CAPTION] != BACKGROUND).any()


def test_actions_in_words() -> None:
    assert in_words(np.int64(3)) == "3"
    assert in_words(np.array([1, 0, 1], np.int8)) == "1 0 1"
    assert in_words(np.array([[-0.5], [0.127]], np.float32)) == "-0.5 0.13"
    long = in_words(np.arange(100))
    assert long.endswith(" …") and len(long) <= 50 and long.startswith("0 1 2 3")


def test_overlay_is_red_over_grey() -> None:
    frame = np.full((1, 2, 3), 100, np.uint8)
    assert overlay(frame, np.array([[0.0, 1.0]])).tolist() == [[[0, 60, 60], [255, 60, 60]]]


def test_what_cannot_be_drawn_says_why() -> None:
    zeros = np.zeros((STEPS, 1, HEIGHT, WIDTH), np.float32)
    with pytest.raises(FilmError, match="no frames"):
        gaze_film(make_episode(frames=None))
    wrong = zeros.copy()
    wrong[1, 0, 3, 5] = np.nan
    with pytest.raises(FilmError, match=r"\|d advantage/dx\| is not finite at step 1"):
        heads_film(make_episode(), make_maps(zeros, wrong))
    with pytest.raises(FilmError, match="image observations only"):
        heads_film(make_episode(frames_are_observations=False), make_maps(zeros, zeros))


@pytest.mark.parametrize(("count", "steps"), [(1, [0]), (3, [0, 1, 2]), (12, list(range(12))), (23, None), (500, None)])
def test_strip_steps_are_even_and_hold_both_ends(count: int, steps: list[int] | None) -> None:
    found = strip_steps(count)
    assert found[0] == 0 and found[-1] == count - 1 and len(found) == min(count, 12)
    assert steps is None or found.tolist() == steps
    assert np.ptp(np.diff(found)) <= 1 if count > 1 else True


def test_film_strip_holds_the_pictures_in_reading_order() -> None:
    film = np.arange(1, 13, dtype=np.uint8)[:, None, None, None] * np.ones((1, 100, 300, 3), np.uint8)
    strip = film_strip(film)
    assert strip.shape == (3 * 104 - 4, 4 * 304 - 4, 3)
    assert [int(strip[row * 104 + 50, column * 304 + 150, 0]) for row in range(3) for column in range(4)] == list(range(1, 13))


def test_an_encoded_film_holds_every_picture() -> None:
    film = gaze_film(make_episode([(0.0, 0.0), (0.5, 0.0), (0.5, -0.5)]))
    encoded = encode_film(film)
    with Image.open(io.BytesIO(encoded.data)) as gif:
        assert gif.format == "GIF" and gif.size == (encoded.width, encoded.height) == film.shape[2:0:-1]
        assert gif.n_frames == STEPS and gif.info["loop"] == 0
        for t in range(STEPS):
            gif.seek(t)
            decoded = np.asarray(gif.convert("RGB"), dtype=np.int64)
            assert np.abs(decoded - film[t]).max() <= 24  # a palette of 256 colours


def test_equal_pictures_in_a_row_count_in_full() -> None:
    film = np.zeros((5, 8, 9, 3), np.uint8)
    film[3:] = 200
    check_film(encode_film(film).data, 5)
    check_film(encode_film(film[:3]).data, 3)  # a single picture, shown three times as long
    with pytest.raises(FilmError, match="shows 5 pictures; it was made of 6"):
        check_film(encode_film(film).data, 6)


def test_a_broken_film_is_refused() -> None:
    film = np.random.default_rng(0).integers(0, 256, (4, 31, 37, 3)).astype(np.uint8)
    data = encode_film(film).data
    with pytest.raises(FilmError, match="no pictures"):
        encode_film(film[:0])
    for broken in (b"", b"GIF89a", data[: len(data) // 2], encode_picture(film[0]).data):
        with pytest.raises(FilmError):
            check_film(broken, 4)


def test_picture_durations_fit_the_format() -> None:
    assert FRAME_MS % 10 == 0


@pytest.mark.parametrize(
    ("size", "drawn"),
    [
        ((12, 12), (192, 192)),
        ((24, 24), (192, 192)),
        ((84, 84), (168, 168)),
        ((210, 160), (210, 160)),
        ((400, 600), (134, 200)),
    ],
)
def test_frames_are_enlarged_by_whole_pixels_to_about_one_side(size: tuple[int, int], drawn: tuple[int, int]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, *size, 3)).astype(np.uint8)
    large = enlarge(frames)
    assert large.shape == (2, *drawn, 3)
    assert 0.7 * SIDE < max(drawn) < 1.5 * SIDE
    factor = zoom(*size)
    if factor >= 1:
        assert (large[:, :: int(factor), :: int(factor)] == frames).all()


def box(low: float, high: float, *shape: int, dtype: Any = np.uint8) -> spaces.Box:
    return spaces.Box(low, high, shape, dtype)


@pytest.mark.parametrize(
    ("space", "image"),
    [
        (box(0, 255, 1, 12, 12), True),
        (box(0, 255, 4, 84, 84), True),
        (box(-1, 1, 3, 5, 7, dtype=np.float32), True),
        (box(-1, 1, 7, 7, 3, dtype=np.float32), False),
        (box(-1, 1, 5, dtype=np.float32), False),
        (spaces.Discrete(3), False),
    ],
)
def test_which_observations_are_images(space: Any, image: bool) -> None:
    assert shows_image(space) is image


def test_frames_of_stacks_colours_and_floats() -> None:
    stack = np.zeros((2, 4, 5, 7), np.uint8)
    stack[:, 3] = 255
    frames = observation_frames(stack, box(0, 255, 4, 5, 7))
    assert frames is not None and frames.shape == (2, 5, 7, 3) and (frames == 255).all()

    colours = np.zeros((1, 6, 7, 7), np.uint8)
    colours[:, 3], colours[:, 4], colours[:, 5] = 250, 128, 7
    frames = observation_frames(colours, box(0, 255, 6, 7, 7))
    assert frames is not None and frames[0, 0, 0].tolist() == [250, 128, 7]

    floats = np.linspace(-1, 1, 35, dtype=np.float32).reshape(1, 1, 5, 7)
    frames = observation_frames(floats, box(-1, 1, 1, 5, 7, dtype=np.float32))
    assert frames is not None and (frames.min(), frames.max()) == (0, 255)

    dark = np.arange(35, dtype=np.uint8).reshape(1, 1, 5, 7)  # ids of things, say
    frames = observation_frames(dark, box(0, 255, 1, 5, 7))
    assert frames is not None and frames.max() == 255

    assert observation_frames(np.zeros((3, 4), np.float32), box(-1, 1, 4, dtype=np.float32)) is None
