"""Digits: what is on the canvas, which digits are kept for testing, and what an answer is worth."""

import sys
from typing import Any

import numpy as np
import pytest

from saccade.envs import Digits
from saccade.envs.digits import enlarge, load
from saccade.envs.make import CannotMakeEnvironment, make_vec_env

pytest.importorskip("sklearn")


def test_a_digit_lies_whole_on_an_empty_canvas() -> None:
    task = Digits(num_envs=50, canvas=40, digit_size=16, seed=0)
    canvases, relevant = task.observe()[:, 0], task.relevant()
    assert not canvases[~relevant].any()
    known = {digit.tobytes(): label for digit, label in zip(task.digits, task.classes, strict=True)}
    for lane in range(50):
        digit = canvases[lane][relevant[lane]].reshape(16, 16)
        assert known[np.ascontiguousarray(digit).tobytes()] == task.labels[lane]
    assert len(np.unique(task.corners, axis=0)) > 40


def test_a_digit_that_is_not_translated_is_in_the_middle() -> None:
    task = Digits(num_envs=3, canvas=40, digit_size=16, translated=False, seed=0)
    assert (task.corners == 12).all()


@pytest.mark.parametrize("clutter", [1, 4])
def test_clutter_is_pieces_of_digits_and_hides_nothing(clutter: int) -> None:
    task = Digits(num_envs=40, clutter=clutter, seed=0)
    canvases, relevant = task.observe()[:, 0], task.relevant()
    for lane in range(40):
        shown = canvases[lane][relevant[lane]].reshape(24, 24)
        assert any((shown >= digit).all() for digit in task.digits[task.classes == task.labels[lane]])
    pixels = (canvases * ~relevant > 0).sum((1, 2))
    assert 0 < pixels.mean() <= clutter * 8**2
    assert pixels.max() > (clutter - 1) * 8**2 / 2


def test_the_picture_stands_still_and_the_last_answer_counts() -> None:
    task = Digits(num_envs=100, steps=3, split="all", seed=0)
    first, total = task.observe(), np.zeros(100)
    for t in range(3):
        step = task.step(task.labels if t == 2 else (task.labels + 1) % 10)
        assert (step.terminated == (t == 2)).all()
        total += step.rewards
        assert (task.observe() == first).all()
    assert (total == task.optimal_return).all()
    assert step.success is not None
    assert step.success.all()
    task.reset(np.ones(100, np.bool_))
    for _ in range(3):
        step = task.step(np.full(100, 3))
    assert (step.rewards == (task.labels == 3)).all()
    assert 0.02 < step.rewards.mean() < 0.25


def test_places_are_spread_evenly_up_to_the_edges_and_a_guess_is_right_in_one_of_ten() -> None:
    task = Digits(num_envs=20_000, canvas=10, digit_size=8, steps=1, split="all", seed=0)
    for corners in task.corners.T:
        np.testing.assert_allclose(np.bincount(corners) / 20_000, np.full(3, 1 / 3), rtol=0.1)
    assert task.step(np.full(20_000, 3)).rewards.mean() == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("clutter", [0, 1, 4])
def test_so_many_pieces_and_no_more_lie_on_a_large_canvas(clutter: int) -> None:
    task = Digits(num_envs=7, canvas=1000, clutter=clutter, seed=0)
    task.digits = np.full_like(task.digits, 255)  # a copy: the digits are shared
    task.reset(np.ones(7, np.bool_))
    lit = (task.observe() > 0).sum((1, 2, 3))
    assert np.median(lit) == 24**2 + clutter * 8**2  # pieces hardly ever touch


def test_right_answers_before_the_last_step_bring_nothing() -> None:
    task = Digits(num_envs=11, steps=3, seed=0)
    for _ in range(2):
        step = task.step(task.labels)
        assert not step.rewards.any()
        assert not step.terminated.any()
    step = task.step((task.labels + 1) % 10)
    assert not step.rewards.any()
    assert step.terminated.all()


def test_every_observation_is_a_new_array_in_its_space() -> None:
    task = Digits(num_envs=3, seed=0)
    seen = task.observe()
    assert all(task.observation_space.contains(lane) for lane in seen)
    before = seen.copy()
    seen[:] = 7
    assert (task.observe() == before).all()


def test_reset_wipes_a_canvas_and_leaves_the_other_lanes_alone() -> None:
    task = Digits(num_envs=5, seed=0)
    task.step(np.zeros(5, np.int64))
    before = task.get_state()["arrays"]
    task.reset(np.array([False, True, False, True, False]))
    after = task.get_state()["arrays"]
    assert all((after[name][[0, 2, 4]] == before[name][[0, 2, 4]]).all() for name in Digits.lane_arrays)
    assert after["time"].tolist() == [1, 0, 1, 0, 1]
    assert (after["corners"][[1, 3]] != before["corners"][[1, 3]]).any(axis=1).all()
    assert not task.observe()[:, 0][~task.relevant()].any()


def test_digits_for_testing_are_never_practised() -> None:
    practised, tested, everything = (load(split, 8) for split in ("train", "test", "all"))
    assert len(tested[0]) == 359
    assert len(practised[0]) + len(tested[0]) == len(everything[0]) == 1797
    of_train = {digit.tobytes() for digit in practised[0]}
    assert not of_train & {digit.tobytes() for digit in tested[0]}
    assert set(tested[1]) == set(range(10))


def test_enlarging_is_linear_between_pixels() -> None:
    ramp = np.tile(np.arange(4, dtype=np.float32), (4, 1))[None]
    larger = enlarge(ramp, 8)
    assert larger[0, 0].tolist() == pytest.approx([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])
    assert (larger == larger[:, :1]).all()
    np.testing.assert_allclose(enlarge(ramp, 4), ramp)


def test_a_seed_decides_everything_and_a_state_goes_on() -> None:
    task, same, other = (Digits(num_envs=4, clutter=2, seed=seed) for seed in (1, 1, 2))
    assert (task.observe() == same.observe()).all()
    assert not (task.observe() == other.observe()).all()
    other.set_state(task.get_state())
    for one in (task, other):
        one.reset(np.array([True, False, True, False]))
    assert (task.observe() == other.observe()).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"canvas": 20}, "canvas is 20; it must be a whole number, 24 or more"),
        ({"digit_size": 7}, "digit_size is 7"),
        ({"clutter": -1}, "clutter is -1"),
        ({"clutter_size": 25}, "clutter_size is 25; it must be at most digit_size, 24"),
        ({"steps": 0}, "steps is 0"),
        ({"split": "tests"}, "split is 'tests'; it must be one of train, test, all"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Digits(**arguments)


def test_without_scikit_learn_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    load.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(CannotMakeEnvironment, match=r"pip install -e '.\[digits\]'"):
        make_vec_env("saccade/Digits-v0", 2)
