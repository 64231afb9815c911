"""Catch against its rules, a slow reference, and the best play there is."""

from typing import Any

import numpy as np
import pytest

from saccade.envs import Catch
from saccade.envs.catch import LEFT, RIGHT, STAY


def every_start(**parameters: Any) -> Catch:
    """One lane for each way that an episode can begin."""
    size = Catch(1, **parameters)
    columns, drifts, paddles = np.meshgrid(
        np.arange(size.width),
        np.arange(-size.ball_drift, size.ball_drift + 1),
        np.arange(size.width - size.paddle_width + 1),
        indexing="ij",
    )
    task = Catch(columns.size, **parameters)
    task.ball_phase[:] = columns.ravel()
    task.ball_velocity[:] = drifts.ravel()
    task.paddle_left[:] = paddles.ravel()
    return task


def bounce(column: int, velocity: int, width: int) -> tuple[int, int]:
    """One sideways move between walls, pixel by pixel."""
    for _ in range(abs(velocity)):
        direction = 1 if velocity > 0 else -1
        if not 0 <= column + direction < width:
            velocity, direction = -velocity, -direction
        column += direction
    return column, velocity


def play_from_the_screen(task: Catch) -> np.ndarray:
    """Stay once, read the drift off two screens, go where the ball will land. Returns who caught it."""
    first = task.observe()[:, 0, 0].argmax(1)
    task.step(np.full(task.num_envs, STAY))
    screens = task.observe()[:, 0]
    now = screens[:, 1].argmax(1)
    landing = np.array(
        [
            _follow(int(column), int(column - before), task.width, task.height - 2)
            for before, column in zip(first, now, strict=True)
        ]
    )
    left = screens[:, -1].argmax(1)
    caught = np.zeros(task.num_envs, np.bool_)
    for _ in range(task.height - 2):
        actions = np.select([landing < left, landing > left + task.paddle_width - 1], [LEFT, RIGHT], STAY)
        caught = task.step(actions).rewards == 1
        left = task.paddle_left
    return caught


def _follow(column: int, velocity: int, width: int, steps: int) -> int:
    if velocity == 0 and column in (0, width - 1):
        return column
    for _ in range(steps):
        column, velocity = bounce(column, velocity, width)
    return column


def test_the_screen_shows_ball_and_paddle_only() -> None:
    task = Catch(5, height=11, width=7, paddle_width=3, seed=0)
    screens = task.observe()
    assert screens.shape == (5, 1, 11, 7)
    assert screens.dtype == np.uint8
    assert set(np.unique(screens)) == {0, 255}
    assert (screens[:, 0, 0] > 0).sum(1).tolist() == [1] * 5
    assert (screens[:, 0, -1] > 0).sum(1).tolist() == [3] * 5
    assert (screens[:, 0, 1:-1] == 0).all()
    assert task.observation_space.contains(screens[0])


def test_every_observation_is_a_new_array() -> None:
    task = Catch(3, seed=0)
    first = task.observe()
    kept = first.copy()
    task.step(np.array([RIGHT, RIGHT, RIGHT]))
    assert (first == kept).all()
    first[:] = 7
    assert set(np.unique(task.observe())) == {0, 255}


@pytest.mark.parametrize(("drift", "speed"), [(0, 1), (1, 1), (3, 1), (5, 2), (13, 3)])
def test_the_ball_bounces_as_it_does_pixel_by_pixel(drift: int, speed: int) -> None:
    height, width = 17, 7
    task = every_start(height=height, width=width, ball_drift=drift, ball_speed=speed, paddle_width=5)
    expected = [(int(c), int(v)) for c, v in zip(task.ball_column, task.ball_velocity, strict=True)]
    row = 0
    while row < height - 1:
        step = task.step(np.full(task.num_envs, STAY))
        expected = [bounce(column, velocity, width) for column, velocity in expected]
        row = min(row + speed, height - 1)
        assert task.ball_column.tolist() == [column for column, _ in expected]
        assert (task.ball_row == row).all()
        assert (step.terminated == (row == height - 1)).all()
        assert not step.truncated.any()


def test_the_paddle_moves_as_told_and_stops_at_the_walls() -> None:
    task = Catch(3, height=5, width=7, paddle_width=2, paddle_speed=3, seed=0)
    task.paddle_left[:] = 3
    actions = np.array([LEFT, STAY, RIGHT])
    task.step(actions)
    assert task.paddle_left.tolist() == [0, 3, 5]
    task.step(actions)
    assert task.paddle_left.tolist() == [0, 3, 5]


def test_reward_means_the_paddle_is_under_the_ball() -> None:
    task = every_start(height=3, width=5, paddle_width=2)
    assert not task.step(np.full(task.num_envs, STAY)).rewards.any()
    step = task.step(np.full(task.num_envs, STAY))
    bottom = task.observe()[:, 0, -1] > 0
    under = bottom.sum(1) == 2  # a missed ball is a third pixel
    assert (step.rewards == under).all()
    assert step.success is not None
    assert (step.success == under).all()
    assert 0 < under.sum() < task.num_envs


def test_best_play_from_the_screen_alone_catches_every_ball() -> None:
    assert play_from_the_screen(every_start()).all()


def test_a_paddle_that_never_moves_catches_one_ball_in_twelve() -> None:
    task = every_start()
    for _ in range(task.height - 1):
        step = task.step(np.full(task.num_envs, STAY))
    assert step.rewards.mean() == pytest.approx(1 / 12)


def test_starts_are_spread_evenly() -> None:
    task = Catch(24 * 3 * 23 * 40, seed=0)
    for values, kinds in ((task.ball_column, 24), (task.ball_velocity + 1, 3), (task.paddle_left, 23)):
        share = np.bincount(values, minlength=kinds) / task.num_envs
        assert len(share) == kinds
        np.testing.assert_allclose(share, 1 / kinds, rtol=0.1)


def test_reset_leaves_the_other_lanes_alone() -> None:
    task = Catch(5, seed=0)
    task.step(np.full(5, RIGHT))
    before = task.observe()
    task.reset(np.array([False, True, False, True, False]))
    assert task.ball_row.tolist() == [1, 0, 1, 0, 1]
    assert (task.observe()[[0, 2, 4]] == before[[0, 2, 4]]).all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"height": 1}, "height is 1; it must be a whole number, 2 or more"),
        ({"width": 0}, "width is 0"),
        ({"paddle_width": 0}, "paddle_width is 0"),
        ({"paddle_width": 8, "width": 7}, "paddle_width is 8; it must be at most the screen's width, 7"),
        ({"paddle_speed": -1}, "paddle_speed is -1"),
        ({"ball_speed": 0}, "ball_speed is 0"),
        ({"ball_drift": -1}, "ball_drift is -1; it must be a whole number, 0 or more"),
        ({"num_envs": 0}, "num_envs is 0"),
        ({"height": True}, "height is True"),
    ],
)
def test_bad_parameters_are_named(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Catch(**parameters)
