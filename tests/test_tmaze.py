"""The T-maze against a slow reference, and the best there is by dynamic programming."""

from functools import cache
from typing import Any

import numpy as np
import pytest

from saccade.envs import TMaze
from saccade.envs.tmaze import DOWN, LEFT, RIGHT, UP

EveryMaze = pytest.mark.parametrize("maze", [{"length": 1}, {"length": 7}, {"length": 5, "oracle_length": 2}], ids=str)
STEPS = {RIGHT: (1, 0), UP: (0, 1), LEFT: (-1, 0), DOWN: (0, -1)}


def walk(length: int, oracle: int, goal: int, actions: list[int]) -> list[tuple[list[float], float]]:
    """Observation and reward after every action, from a drawing of the maze."""
    end = oracle + length
    drawing = {(x, 0) for x in range(end + 1)} | {(end, 1), (end, -1)}
    place, been_there, outcomes = (oracle, 0), oracle == 0, []
    for time, action in enumerate(actions, start=1):
        to = (place[0] + STEPS[action][0], place[1] + STEPS[action][1])
        place = to if to in drawing else place
        seen = [0.0, 0.0]
        if place[0] == 0 and not been_there:
            been_there, seen = True, [0.0, float(goal)]
        if place[0] == end:
            seen = [1.0, float(place[1])]
        if time == length + 2 * oracle + 1:
            reward = float(place[1] == goal)
        else:
            reward = -1 / length if place[0] < time - oracle else 0.0
        outcomes.append((seen, reward))
    return outcomes


@EveryMaze
def test_every_step_is_as_in_the_drawing(maze: dict[str, int]) -> None:
    task = TMaze(211, **maze, seed=0)
    # Mostly to the right, so that many lanes reach the end.
    actions = np.random.default_rng(1).choice(4, size=(task.horizon, 211), p=[0.7, 0.1, 0.1, 0.1])
    actions[: task.oracle_length, ::3] = LEFT
    walks = [walk(task.length, task.oracle_length, int(task.goal[lane]), actions[:, lane].tolist()) for lane in range(211)]
    for time in range(task.horizon):
        step = task.step(actions[time])
        assert task.observe().tolist() == [outcomes[time][0] for outcomes in walks]
        np.testing.assert_allclose(step.rewards, [outcomes[time][1] for outcomes in walks], rtol=1e-6)
        assert (step.terminated == (time == task.horizon - 1)).all()
        assert not step.truncated.any()
    assert step.success is not None
    assert (step.success == (step.rewards == 1)).all()
    assert step.success.any()


@EveryMaze
def test_the_sign_shows_once(maze: dict[str, int]) -> None:
    task = TMaze(7, **maze, seed=0)
    for _ in range(task.oracle_length):
        assert (task.observe() == 0).all()
        task.step(np.full(7, LEFT))
    seen = task.observe()
    assert (seen[:, 0] == 0).all()
    assert (seen[:, 1] == task.goal).all()
    assert (task.observe() == seen).all(), "looking twice is not going there twice"
    for action in (LEFT, RIGHT, LEFT):
        task.step(np.full(7, action))
        assert (task.x == (action == RIGHT)).all()
        if task.length > 1 or action == LEFT:
            assert (task.observe() == 0).all()


def best_return(task: TMaze) -> float:
    """The best return for who knows the goal, by dynamic programming over what a lane does with each action."""

    @cache
    def value(x: int, y: int, time: int) -> float:
        lanes = TMaze(4, task.length, task.oracle_length)
        lanes.x[:], lanes.y[:], lanes.time[:], lanes.goal[:] = x, y, time, 1
        step = lanes.step(np.arange(4))
        if step.terminated.all():
            return float(step.rewards.max())
        after = zip(step.rewards, lanes.x, lanes.y, strict=True)
        return max(float(reward) + value(int(x), int(y), time + 1) for reward, x, y in after)

    return value(task.oracle_length, 0, 0)


@pytest.mark.parametrize("maze", [{"length": 50}, {"length": 1}, {"length": 7, "oracle_length": 1}], ids=str)
def test_the_optimal_return_is_the_best_there_is_and_memory_reaches_it(maze: dict[str, int]) -> None:
    task = TMaze(13, **maze, seed=0)
    assert task.optimal_return == best_return(task)
    returns = np.zeros(13)
    sign = task.observe()[:, 1]
    for time in range(task.horizon):
        turn = np.where(sign > 0, UP, DOWN)
        straight = LEFT if time < task.oracle_length else RIGHT
        step = task.step(turn if time == task.horizon - 1 else np.full(13, straight))
        returns += step.rewards
        if time + 1 == task.oracle_length:
            sign = task.observe()[:, 1]
    assert (returns == task.optimal_return).all()
    assert step.success is not None
    assert step.success.all()


def test_who_never_moves_pays_one_and_who_guesses_gets_a_half() -> None:
    task = TMaze(5, length=7, seed=0)
    paid = sum(task.step(np.full(5, LEFT)).rewards for _ in range(8))
    np.testing.assert_allclose(paid, -1, rtol=1e-6)
    task = TMaze(10_000, length=7, seed=0)
    for _ in range(7):
        assert (task.step(np.full(10_000, RIGHT)).rewards == 0).all()
    assert task.step(np.full(10_000, UP)).rewards.mean() == pytest.approx(0.5, abs=0.02)


def test_observations_stay_in_their_space_and_belong_to_nobody() -> None:
    task = TMaze(11, length=3, oracle_length=1, seed=0)
    rng = np.random.default_rng(0)
    for _ in range(task.horizon):
        seen = task.observe()
        assert all(task.observation_space.contains(lane) for lane in seen)
        before = seen.copy()
        seen[:] = 9
        assert (task.observe() == before).all()
        task.step(rng.choice(4, size=11))


def test_a_seed_decides_the_goals() -> None:
    task, again, other = (TMaze(50, seed=seed) for seed in (3, 3, 4))
    assert (task.observe() == again.observe()).all()
    assert (task.observe() != other.observe()).any()


@pytest.mark.parametrize("oracle_length", [0, 1])
def test_reset_leaves_the_other_lanes_alone(oracle_length: int) -> None:
    task = TMaze(5, length=3, oracle_length=oracle_length, seed=0)
    for action in (LEFT, RIGHT, RIGHT):
        task.step(np.full(5, action))
    before = task.get_state()["arrays"]
    task.reset(np.array([False, True, False, True, False]))
    after = task.get_state()["arrays"]
    assert all((after[name][[0, 2, 4]] == before[name][[0, 2, 4]]).all() for name in TMaze.lane_arrays)
    assert after["time"].tolist() == [3, 0, 3, 0, 3]
    assert (task.x[[1, 3]] == oracle_length).all()
    assert (np.abs(task.observe()[[1, 3], 1]) == (oracle_length == 0)).all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"length": 0}, "length is 0; it must be a whole number, 1 or more"),
        ({"oracle_length": -1}, "oracle_length is -1"),
        ({"num_envs": 0}, "num_envs is 0"),
    ],
)
def test_bad_parameters_are_named(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TMaze(**parameters)


def test_a_fifth_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="lane 2: action 4 is not one of 0 to 3"):
        TMaze(3).check_actions([0, 3, 4])


def test_distractors_are_coins_in_every_step_and_change_nothing_else() -> None:
    plain, distracted = TMaze(400, length=5, seed=0), TMaze(400, length=5, distractors=3, seed=0)
    distracted.goal[:] = plain.goal
    seen = []
    for time in range(plain.horizon):
        noise = distracted.observe()
        assert np.array_equal(noise[:, :2], plain.observe())
        seen.append(noise[:, 2:])
        actions = np.full(400, RIGHT if time < 5 else UP)
        ours, theirs = distracted.step(actions), plain.step(actions)
        assert np.array_equal(ours.rewards, theirs.rewards)
    coins = np.stack(seen)
    assert set(np.unique(coins)) == {-1, 1}
    assert abs(coins.mean()) < 0.05
    assert abs(np.mean(coins[1:] * coins[:-1])) < 0.05  # from step to step
    assert abs(np.mean(coins[..., 0] * coins[..., 1])) < 0.05
    assert abs(np.mean(coins[0, :, 0] * plain.goal)) < 0.15
    with pytest.raises(ValueError, match="distractors is -1"):
        TMaze(1, distractors=-1)


def test_the_previous_action_is_appended_and_forgotten_at_the_start() -> None:
    plain, told = TMaze(4, length=3, seed=0), TMaze(4, length=3, distractors=1, previous_action=True, seed=0)
    told.goal[:] = plain.goal
    assert told.observation_space.shape == (7,)
    assert not told.observe()[:, 3:].any()
    actions = np.array([RIGHT, UP, LEFT, DOWN])
    plain.step(actions)
    told.step(actions)
    assert np.array_equal(told.observe()[:, :2], plain.observe())
    assert np.array_equal(told.observe()[:, 3:].argmax(axis=1), actions)
    assert (told.observe()[:, 3:].sum(axis=1) == 1).all()
    told.reset(np.array([True, False, False, True]))
    assert np.array_equal(told.observe()[:, 3:].any(axis=1), [False, True, True, False])
    assert told.observation_space.contains(told.observe()[0])
