"""PoC-Memory against its published rules, and the best there is by dynamic programming."""

from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest

from saccade.envs import PocMemory
from saccade.envs.poc_memory import LEFT, RIGHT

SETTINGS: list[dict[str, Any]] = [
    {},
    {"freeze": False},
    {"glob": True},
    {"step_size": 0.1, "num_show_steps": 5},
    {"step_size": 0.5},
    {"step_size": 0.25, "glob": True, "freeze": False, "num_show_steps": 0},
]
EverySetting = pytest.mark.parametrize("setting", SETTINGS, ids=str)


def start_ticks(task: PocMemory) -> list[int]:
    """The starts, as whole steps from the middle, as often as they are drawn."""
    return [max(1 - task.half, min(task.half - 1, tick)) for tick in range(-task.reach, task.reach + 1)]


def every_start(copies: int = 1, **setting: Any) -> PocMemory:
    """One lane for each way that an episode can begin, ``copies`` times over."""
    starts = list(product(start_ticks(PocMemory(1, **setting)), (-1, 1))) * copies
    task = PocMemory(len(starts), **setting)
    task.ticks[:], task.good_side[:] = np.array(starts).T
    return task


def play(task: PocMemory, choose: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns and successes of one episode in every lane; ``choose(observations)`` gives the actions."""
    returns, success = np.zeros(task.num_envs), np.zeros(task.num_envs, np.bool_)
    running = np.ones(task.num_envs, np.bool_)
    while running.any():
        step = task.step(choose(task.observe()))
        returns += np.where(running, step.rewards, 0)
        assert step.success is not None
        success |= running & step.terminated & step.success
        running &= ~(step.terminated | step.truncated)
        task.ticks[~running] = 0  # ended lanes idle in the middle
    return returns, success


class Remember:
    """Goes where the first observation showed the good end."""

    def __init__(self) -> None:
        self.actions: np.ndarray | None = None

    def __call__(self, seen: np.ndarray) -> np.ndarray:
        if self.actions is None:
            self.actions = np.where(seen[:, 2] == 1, RIGHT, LEFT)
        return self.actions


def best_return(task: PocMemory, tick: int, good_side: int) -> float:
    """The best return of an episode, by dynamic programming over what a lane does with each action."""

    @cache
    def value(tick: int, time: int) -> float:
        lanes = PocMemory(2, task.step_size, task.num_show_steps, task.frozen_steps > 0)
        lanes.ticks[:], lanes.time[:], lanes.good_side[:] = tick, time, good_side
        step = lanes.step(np.array([LEFT, RIGHT]))
        if time + 1 == task.max_episode_steps:
            return float(step.rewards.max())
        left, right = (
            float(reward) + (0 if ended else value(int(after), time + 1))
            for reward, ended, after in zip(step.rewards, step.terminated, lanes.ticks, strict=True)
        )
        return max(left, right)

    return value(tick, 0)


@EverySetting
def test_the_optimal_return_is_the_best_there_is_and_memory_reaches_it(setting: dict[str, Any]) -> None:
    task = every_start(**setting)
    assert task.optimal_return == pytest.approx(1.2)
    best = [best_return(task, int(tick), int(side)) for tick, side in zip(task.ticks, task.good_side, strict=True)]
    assert np.mean(best) == pytest.approx(task.optimal_return)
    returns, success = play(task, Remember())
    np.testing.assert_allclose(returns, best, atol=1e-6)
    assert success.all()


def best_without_memory(freeze: bool) -> float:
    """The best mean return over all functions from position to action, used once the ends are hidden."""
    tables = np.array(list(product((LEFT, RIGHT), repeat=9)))
    task = every_start(copies=len(tables), freeze=freeze)
    table = tables.repeat(10, axis=0)
    lanes = np.arange(task.num_envs)

    def choose(seen: np.ndarray) -> np.ndarray:
        position = (seen[:, 1] * 5).round().astype(int).clip(-4, 4) + 4
        return np.where(seen[:, 2] == 0, table[lanes, position], seen[:, 2] == 1)

    return float(play(task, choose)[0].reshape(len(tables), 10).mean(axis=1).max())


def test_memory_is_needed_while_the_agent_is_frozen_only() -> None:
    assert best_without_memory(freeze=False) == pytest.approx(1.2)
    assert best_without_memory(freeze=True) == pytest.approx(0.28)


@EverySetting
def test_the_wrong_end_costs_what_the_right_one_brings(setting: dict[str, Any]) -> None:
    task = every_start(**setting)
    good = play(task, Remember())[0]
    task = every_start(**setting)
    ways = np.abs(task.good_side * task.half + task.ticks)
    good_ways = np.abs(task.good_side * task.half - task.ticks)
    wrong = Remember()
    returns, success = play(task, lambda seen: 1 - wrong(seen))
    assert not success.any()
    np.testing.assert_allclose(good + 0.1 * (good_ways - 1), -returns - 0.1 * (ways - 1), atol=1e-5)


@pytest.mark.parametrize("freeze", [True, False])
@pytest.mark.parametrize("shown", [0, 2, 3])
def test_the_ends_are_shown_for_as_long_as_said(freeze: bool, shown: int) -> None:
    task = PocMemory(7, step_size=0.1, num_show_steps=shown, freeze=freeze, seed=0)
    for time in range(9):
        seen = task.observe()
        assert seen.shape == (7, 3)
        assert seen.dtype == np.float32
        assert all(task.observation_space.contains(lane) for lane in seen)
        assert (seen[:, 0] == -seen[:, 2]).all()
        assert (seen[:, 2] == (task.good_side if time <= shown else 0)).all()
        before = seen[:, 1].copy()
        seen[:] = 9
        rewards = task.step(np.full(7, time % 2)).rewards
        moved = task.observe()[:, 1] - before
        stands = freeze and time < shown
        np.testing.assert_allclose(moved, 0 if stands else (-0.1, 0.1)[time % 2], atol=1e-6)
        np.testing.assert_allclose(rewards, 0 if stands else -0.1)


def test_the_time_limit_cuts_off_and_does_not_end() -> None:
    task = PocMemory(5, max_episode_steps=11, seed=0)
    task.ticks[:] = [0, 0, 4, -4, 0]
    for time in range(1, 12):
        step = task.step(np.full(5, time % 2 if time > 2 else 0))
        assert (step.truncated == ((time == 11) & ~step.terminated)).all()
        assert (step.terminated == (np.abs(task.ticks) == 5)).all()


def test_starts_and_sides_are_spread_evenly_and_a_seed_decides_them() -> None:
    task, again, other = (PocMemory(10_000, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_allclose(np.bincount(task.ticks + 2) / 10_000, [0.2] * 5, rtol=0.1)
    assert abs(task.good_side.mean()) < 0.05
    assert (task.observe() == again.observe()).all()
    assert (task.observe() != other.observe()).any()


def test_reset_leaves_the_other_lanes_alone() -> None:
    task = PocMemory(5, seed=0)
    for _ in range(3):
        task.step(np.full(5, RIGHT))
    before = task.observe()
    task.reset(np.array([False, True, False, True, False]))
    assert task.time.tolist() == [3, 0, 3, 0, 3]
    assert (task.observe()[[0, 2, 4]] == before[[0, 2, 4]]).all()
    assert (np.abs(task.observe()[[1, 3], 0]) == 1).all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"step_size": 0.0}, "step_size is 0.0; it must be above 0 and at most 1"),
        ({"step_size": 0.3}, "step_size is 0.3; .* the nearest is 0.333333"),
        ({"num_show_steps": -1}, "num_show_steps is -1"),
        ({"max_episode_steps": 8}, "max_episode_steps is 8; it must be a whole number, 9 or more"),
        ({"num_envs": 0}, "num_envs is 0"),
    ],
)
def test_bad_parameters_are_named(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PocMemory(**parameters)


def test_an_action_that_is_neither_left_nor_right_is_refused() -> None:
    with pytest.raises(ValueError, match="lane 1: action 2 is not one of 0 to 1"):
        PocMemory(3).check_actions([0, 2, 1])
