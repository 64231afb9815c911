"""Spotlight: what is shown, what is asked, and what it is worth."""

from typing import Any

import numpy as np
import pytest

from saccade.envs import Spotlight
from saccade.envs.spotlight import SIGNS


def sign_at(screen: np.ndarray, place: int, columns: int, cell: int) -> int:
    """Which sign a place shows, read off the screen."""
    row, column = divmod(place, columns)
    glyph = screen[0, row * cell : row * cell + 3, column * cell : column * cell + 3] > 0
    (found,) = [number for number, sign in enumerate(SIGNS) if (glyph == sign).all()]
    return found


def play(task: Spotlight, answers: bool) -> tuple[list[np.ndarray], np.ndarray]:
    """All screens of an episode, and the rewards of who sees everything (or answers 0 in every lane)."""
    screens, seen = [], np.zeros(task.num_envs, np.int64)
    total, lit = np.zeros(task.num_envs), task.observe()[:, 1, ::4, ::4].reshape(task.num_envs, -1).argmax(axis=1)
    for _ in range(task.steps):
        screens.append(task.observe())
        for lane, screen in enumerate(screens[-1]):
            if screen[2].all():
                seen[lane] = sign_at(screen, lit[lane], task.columns, task.cell)
        step = task.step(seen if answers else np.zeros_like(seen))
        total += step.rewards
    assert step.terminated.all()
    assert (step.success == (step.rewards == 1)).all()
    return screens, total


def test_who_sees_everything_is_always_right() -> None:
    _, total = play(Spotlight(num_envs=50, seed=0), answers=True)
    assert (total == Spotlight().optimal_return).all()


def test_a_guess_is_right_as_often_as_there_are_signs() -> None:
    _, total = play(Spotlight(num_envs=4000, rows=1, columns=2, signs=5, seed=0), answers=False)
    assert total.mean() == pytest.approx(1 / 5, abs=0.03)


@pytest.mark.parametrize("lit", [1, 3, None])
def test_one_place_is_lit_at_first_and_the_signal_is_given_once_in_time(lit: int | None) -> None:
    task = Spotlight(num_envs=200, rows=3, columns=5, steps=7, lit=lit, first_moment=2, seed=0)
    place, moments = task.place.copy(), set()
    screens, _ = play(task, answers=False)
    for lane in range(200):
        where = [np.flatnonzero(screen[lane, 1, ::4, ::4].ravel()).tolist() for screen in screens]
        on = lit or task.steps
        assert where == [[place[lane]]] * on + [[]] * (task.steps - on)
        (moment,) = [t for t, screen in enumerate(screens) if screen[lane, 2].any()]
        assert screens[moment][lane, 2].all()
        moments.add(moment)
    assert moments == {2, 3, 4, 5}
    assert set(place) == set(range(15))


def test_signs_are_as_bright_as_each_other_and_drawn_anew() -> None:
    assert len({int(sign.sum()) for sign in SIGNS}) == 1
    assert len({sign.tobytes() for sign in SIGNS}) == len(SIGNS)
    task = Spotlight(num_envs=300, signs=6, seed=0)
    before = task.shown.copy()
    task.step(np.zeros(300, np.int64))
    assert (before == task.shown).mean() == pytest.approx(1 / 6, abs=0.02)
    assert np.bincount(task.shown.ravel(), minlength=6).min() > 0.9 * task.shown.size / 6


def test_what_matters_are_the_pixels_of_the_lit_place() -> None:
    task = Spotlight(num_envs=9, rows=2, columns=3, cell=5, seed=0)
    assert (task.relevant() == (task.observe()[:, 1] > 0)).all()
    assert (task.relevant().sum((1, 2)) == 25).all()


def test_a_small_screen_pixel_by_pixel() -> None:
    task = Spotlight(num_envs=1, rows=1, columns=2, cell=5, steps=3, first_moment=1, seed=0)
    task.shown[:], task.place[:] = [[2, 1]], 1
    drawing = [
        "..........",
        ".##....#..",
        ".##...#.#.",
        ".......#..",
        "..........",
    ]
    screen = task.observe()[0]
    assert screen.dtype == np.uint8
    assert screen[0].tolist() == [[255 * (pixel == "#") for pixel in row] for row in drawing]
    assert screen[1].tolist() == [[0] * 5 + [255] * 5] * 5
    assert (screen[2] == 0).all()
    task.step(np.zeros(1, np.int64))
    assert (task.observe()[0, 2] == 255).all()


def test_moments_and_places_are_spread_evenly() -> None:
    task = Spotlight(num_envs=20_000, seed=0)
    for values, kinds in ((task.moment - 2, 3), (task.place, 9)):
        share = np.bincount(values, minlength=kinds) / task.num_envs
        assert len(share) == kinds
        np.testing.assert_allclose(share, 1 / kinds, rtol=0.15)


def test_every_observation_is_a_new_array_in_its_space() -> None:
    task = Spotlight(num_envs=3, seed=0)
    seen = task.observe()
    assert all(task.observation_space.contains(lane) for lane in seen)
    before = seen.copy()
    seen[:] = 7
    assert (task.observe() == before).all()


def test_reset_leaves_the_other_lanes_alone() -> None:
    task = Spotlight(num_envs=5, seed=0)
    task.step(np.zeros(5, np.int64))
    before = task.get_state()["arrays"]
    task.reset(np.array([False, True, False, True, False]))
    after = task.get_state()["arrays"]
    assert all((after[name][[0, 2, 4]] == before[name][[0, 2, 4]]).all() for name in Spotlight.lane_arrays)
    assert after["time"].tolist() == [1, 0, 1, 0, 1]


def test_a_seed_decides_everything_and_a_state_goes_on() -> None:
    def screens(task: Spotlight) -> np.ndarray:
        seen = []
        for _ in range(10):
            seen.append(task.observe())
            ended = task.step(np.zeros(4, np.int64)).terminated
            task.reset(ended)
        return np.array(seen)

    task, same, other = (Spotlight(num_envs=4, seed=seed) for seed in (1, 1, 2))
    assert (screens(task) == screens(same)).all()
    assert not (task.observe() == other.observe()).all()
    other.set_state(task.get_state())
    assert (screens(task) == screens(other)).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": 0}, "rows is 0"),
        ({"cell": 2}, "cell is 2; it must be a whole number, 3 or more"),
        ({"signs": 1}, "signs is 1"),
        ({"signs": 7}, "signs is 7; there are 6"),
        ({"steps": 1}, "steps is 1"),
        ({"steps": 5, "first_moment": 4}, "first_moment is 4; it must be at most steps - 2, 3"),
        ({"first_moment": -1}, "first_moment is -1"),
        ({"lit": 0}, "lit is 0"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Spotlight(**arguments)
