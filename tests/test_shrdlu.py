"""Mini-SHRDLU, played by a slow game beside it: what is shown, what is earned, what is best."""

from typing import Any

import numpy as np
import pytest
import yaml

from blocks import Constraint, holds, nearest, play, read
from repository import ROOT
from saccade.envs.curriculum import SETTINGS
from saccade.envs.shrdlu import COLOURS, GRADED, MiniShrdlu
from saccade.envs.shrdlu_goals import column_moves, satisfied
from saccade.envs.vec_env import TaskVecEnv

MIXED = [{"goals": (1, 3), "blocks": (2, 5), "constraints": (1, 3), "depth": (1, 3)}]


def goal_of(task: MiniShrdlu, lane: int) -> list[Constraint]:
    a, relation, b = task.goal[lane, : task.constraints[lane]].T.tolist()
    return list(zip(a, relation, b, strict=True))


def told_goals(task: MiniShrdlu, lane: int) -> dict[int, list[Constraint]]:
    goals: dict[int, list[Constraint]] = {}
    for letter, a, relation, b in task.script[lane, : task.told[lane]].tolist():
        goals.setdefault(letter, []).append((a, relation, b))
    return goals


def test_an_episode_tells_goals_then_the_letter_and_is_played_to_its_end() -> None:
    task = MiniShrdlu(30, letters=5, extra_moves=2, curriculum={"lessons": MIXED}, seed=0)
    told, needed = task.told.copy(), task.needed.copy()
    goals = [told_goals(task, lane) for lane in range(30)]
    board = task.board.copy()
    assert set(map(len, goals)) == {1, 2, 3}
    for lane in range(30):
        assert goal_of(task, lane) == goals[lane][int(task.letter[lane])], "the goal to reach is one of those told"
        assert needed[lane] == nearest(read(board[lane]), 3, goal_of(task, lane))
    ended = np.zeros(30, np.bool_)
    for time in range(int((told + needed).max()) + 2):
        seen = task.observe()
        assert (task.at_query == (time == told)).all()
        for lane in range(30):
            parts = np.split(seen[lane], np.cumsum([5, 5, 4, 5, 1]))
            letter, first, relation, second, cue, cells = (part.tolist() for part in parts)
            telling = time < told[lane]
            assert cue == [float(not telling)]
            shown = task.letter[lane] if time == told[lane] else task.script[lane, time, 0] if telling else None
            assert letter == [float(number == shown) for number in range(5)]
            if telling:
                constraint = (first.index(1) + 1, relation.index(1), second.index(1) + 1)
                assert constraint == tuple(task.script[lane, time, 1:])
                assert sum(first) == sum(relation) == sum(second) == 1
                assert (task.board[lane] == board[lane]).all(), "nothing moves while goals are told"
            else:
                assert sum(first) == sum(relation) == sum(second) == 0
            by_row = [block for row in task.board[lane].T.tolist() for block in row]
            assert cells == [float(block == number) for block in by_row for number in range(1, 6)]
        step = task.step(np.random.default_rng(time).integers(7, size=30))
        assert (step.terminated == (time + 1 >= told + needed + 2)).all()
        assert not step.truncated.any()
        ended |= step.terminated
    assert ended.all()


def test_rewards_are_as_stated() -> None:
    task = MiniShrdlu(60, invalid_cost=0.25, undo_cost=2.0, curriculum={"lessons": MIXED}, letters=3, seed=1)
    boards = [read(board) for board in task.board]
    reached = np.zeros(60, np.int64)
    ended = np.zeros(60, np.bool_)
    rng, pairs_of_columns = np.random.default_rng(0), column_moves(3).tolist()
    invalid = undone = perfect = 0
    while not ended.all():
        # Half of the lanes know what to do, and so reach their goal, and leave it.
        actions = rng.integers(7, size=60)
        best = task.optimal_first_actions().argmax(axis=1)
        actions = np.where((np.arange(60) % 2 == 0) & (rng.random(60) < 0.8), best, actions)
        time = task.time.copy()
        step = task.step(actions)
        assert step.success is not None and step.measures is not None
        for lane in np.flatnonzero(~ended):
            goal, before = goal_of(task, lane), boards[lane]
            wanted = 0.0
            if time[lane] >= task.told[lane]:
                source, target = pairs_of_columns[actions[lane]]
                after = before if source == target else play(before, source, target, 3)
                if after is None:
                    wanted, invalid, after = -0.25, invalid + 1, before
                boards[lane] = after
                count = sum(holds(after, part) for part in goal)
                was = time[lane] > task.told[lane] and all(holds(before, part) for part in goal)
                wanted += count
                if was and count < len(goal):
                    wanted, undone = wanted - 2, undone + 1
                if count == len(goal) and not reached[lane]:
                    reached[lane] = time[lane] - task.told[lane] + 1
            assert read(task.board[lane]) == boards[lane]
            assert step.rewards[lane] == pytest.approx(wanted)
            if step.terminated[lane]:
                share = sum(holds(boards[lane], part) for part in goal) / len(goal)
                assert step.measures["constraints_satisfied"][lane] == pytest.approx(share)
                assert step.success[lane] == (share == 1)
                assert step.measures["perfect"][lane] == (share == 1 and reached[lane] == task.needed[lane])
                perfect += int(step.measures["perfect"][lane])
        ended |= step.terminated
    assert min(invalid, undone, perfect) > 5


def test_optimal_actions_are_those_of_a_search_and_solve_every_episode_in_the_fewest_moves() -> None:
    task = MiniShrdlu(40, extra_moves=3, curriculum={"lessons": MIXED}, letters=3, seed=2)
    pairs_of_columns = column_moves(3).tolist()
    returns, ended = np.zeros(40), np.zeros(40, np.bool_)
    several = 0
    while not ended.all():
        optimal = task.optimal_first_actions()
        for lane in np.flatnonzero(task.at_query):
            board, goal = read(task.board[lane]), goal_of(task, lane)
            moves = [play(board, source, target, 3) for source, target in pairs_of_columns[1:]]
            after = [None if there is None else nearest(there, 3, goal) for there in moves]
            assert optimal[lane].tolist() == [False, *(left == task.needed[lane] - 1 for left in after)]
            several += optimal[lane].sum() > 1
        step = task.step(np.where(task.time >= task.told, optimal.argmax(axis=1), 3))
        returns += step.rewards * ~ended
        assert step.success is not None and step.measures is not None
        new = step.terminated & ~ended
        assert step.success[new].all()
        assert step.measures["perfect"][new].all()
        assert (step.measures["constraints_satisfied"][new] == 1).all()
        ended |= step.terminated
    assert several
    # Reached after the last needed move, and kept for three more.
    assert (returns >= 4 * task.constraints).all()
    assert (task.optimal_first_actions() == [True, *[False] * 6]).all(), "now there is nothing to do"
    assert (task.moves_needed() == 0).all()


def test_lanes_do_not_depend_on_each_other() -> None:
    task = MiniShrdlu(6, curriculum={"lessons": MIXED}, letters=3, seed=3)
    alone = [MiniShrdlu(1, curriculum={"lessons": MIXED}, letters=3, seed=9) for _ in range(6)]
    for lane, single in enumerate(alone):
        for name in MiniShrdlu.lane_arrays:
            getattr(single, name)[...] = getattr(task, name)[lane : lane + 1]
    rng = np.random.default_rng(0)
    for _ in range(10):
        actions = rng.integers(7, size=6)
        optimal, together = task.optimal_first_actions(), task.step(actions)
        for lane, single in enumerate(alone):
            assert (single.optimal_first_actions()[0] == optimal[lane]).all()
            apart = single.step(actions[lane : lane + 1])
            assert apart.rewards[0] == together.rewards[lane]
            assert apart.terminated[0] == together.terminated[lane]
            assert (single.observe()[0] == task.observe()[lane]).all()


def test_reset_leaves_the_other_lanes_alone() -> None:
    task = MiniShrdlu(5, curriculum={"lessons": MIXED}, letters=3, seed=0)
    for _ in range(6):
        task.step(np.full(5, 2))
    before = task.get_state()["arrays"]
    lanes = np.array([False, True, False, True, False])
    task.reset(lanes)
    after = task.get_state()["arrays"]
    assert all((after[name][~lanes] == before[name][~lanes]).all() for name in MiniShrdlu.lane_arrays)
    assert after["time"].tolist() == [6, 0, 6, 0, 6]
    task.reset(np.zeros(5, np.bool_))


def test_a_seed_decides_the_episodes_and_a_state_goes_on_exactly() -> None:
    task, again, other = (MiniShrdlu(20, seed=seed) for seed in (3, 3, 4))
    assert (task.observe() == again.observe()).all()
    assert (task.observe() != other.observe()).any()
    venv, copy = TaskVecEnv(task), TaskVecEnv(other)
    for _ in range(25):
        venv.step(np.full(20, 1))
    task.curriculum.grade(0.5)
    assert (copy.set_state(venv.get_state()) == task.observe()).all()
    for number in range(60):
        actions = np.where(task.time >= task.told, task.optimal_first_actions().argmax(axis=1), number % 7)
        for ours, theirs in zip(venv.step(actions)[:3], copy.step(actions)[:3], strict=True):
            assert (ours == theirs).all()
    assert task.curriculum.level == other.curriculum.level
    assert task.get_state()["curriculum"] == other.get_state()["curriculum"]
    assert task.get_state()["ungraded"] == other.get_state()["ungraded"]


def test_the_curriculum_moves_on_by_the_constraints_of_its_own_lesson() -> None:
    lessons = [dict(MIXED[0], depth=(1, 1)), dict(MIXED[0], depth=(2, 2))]
    task = MiniShrdlu(16, letters=3, curriculum={"lessons": lessons, "window": 2, "review": 0.2}, seed=0)
    ended = 0
    grades: list[float] = []
    task.curriculum.grade = grades.append  # type: ignore[method-assign]
    while len(grades) < 2:
        step = task.step(np.where(task.time >= task.told, task.optimal_first_actions().argmax(axis=1), 0))
        ended += int(step.terminated.sum())
        assert len(grades) == 0 or ended >= GRADED
        task.reset(step.terminated)
    assert grades == [1.0, 1.0]
    assert 2 * GRADED <= ended < 2 * GRADED + 2 * 16
    del task.curriculum.grade
    for _ in range(2):
        task.curriculum.grade(0.85)
    assert task.curriculum.level == 1
    assert (task.lesson == 0).all()
    # Lanes still in the old lesson, and later those that repeat it, are not counted.
    counted = 0
    seen = set()
    while task.get_state()["ungraded"][0] == counted and counted < 20:
        step = task.step(np.zeros(16, np.int64))
        assert step.measures is not None and step.measures["lesson"].tolist() == [1] * 16
        counted += int((step.terminated & (task.lesson == 1)).sum())
        task.reset(step.terminated)
        seen |= set(task.lesson.tolist())
    assert counted >= 20
    assert seen == {0, 1}


def test_the_picture_shows_the_board_and_what_is_told() -> None:
    task = MiniShrdlu(4, letters=3, curriculum={"lessons": MIXED}, seed=5)
    for _ in range(12):
        picture = task.render()
        assert picture.shape == (4, 96, 48, 3)
        cells = picture[:, 8::16, 8::16]
        for lane in range(4):
            assert (cells[lane, 3:] == COLOURS[task.board[lane].T[::-1]]).all()
            telling = bool(task.time[lane] < task.told[lane])
            assert (cells[lane, 2] == (0 if telling else 255)).all()
            shown = {tuple(colour) for colour in cells[lane, :2].reshape(-1, 3).tolist()} - {tuple(COLOURS[0].tolist())}
            now = task.script[lane, task.time[lane]] if telling else None
            assert shown == (set() if now is None else {tuple(COLOURS[block].tolist()) for block in (now[1], now[3])})
            if now is not None:
                places = np.zeros((3, 2), np.int64)
                for block in (now[1], now[3]):
                    row, column = np.argwhere((cells[lane, :2] == COLOURS[block]).all(axis=-1))[0]
                    places[column, 1 - row] = block
                drawn = np.array([[now[1:]]])
                assert satisfied(places[None], drawn).all()
        task.step(np.zeros(4, np.int64))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"letters": 3}, "letters is 3; it must be a whole number, 4 or more"),
        ({"extra_moves": -1}, "extra_moves is -1"),
        ({"invalid_cost": -0.5}, "invalid_cost is -0.5; it must be 0 or more"),
        ({"undo_cost": float("nan")}, "undo_cost is nan"),
        ({"columns": 1}, "columns is 1; it must be a whole number, 2 or more"),
        ({"rows": 0}, "rows is 0"),
        ({"rows": 1}, "3 blocks on a board of 3 columns and 1 rows: from some board, no move brings"),
        (
            {"columns": 2, "rows": 2, "curriculum": {"lessons": [dict(MIXED[0], blocks=(5, 5))]}},
            "2 rows have 0 distances to list",
        ),
        ({"columns": 6}, "blocks on a board of 6 columns and 3 rows have [0-9]+ distances to list; it must be 1 to 400000"),
        ({"columns": 2, "rows": 2}, "4 blocks on a board of 2 columns and 2 rows: from some board, no move brings"),
        ({"num_envs": 0}, "num_envs is 0"),
        ({"curriculum": {"lessons": [dict(MIXED[0], blocks=(1, 2))]}}, "blocks is 1; it must be a whole number, 2 or more"),
        (
            {"curriculum": {"lessons": [{"goals": (1, 1)}]}},
            "a lesson has goals; it must have blocks, constraints, depth, goals",
        ),
    ],
)
def test_bad_parameters_are_named(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MiniShrdlu(**parameters)


def test_the_config_shows_every_parameter_at_its_default() -> None:
    config = yaml.safe_load((ROOT / "conf/env/shrdlu.yaml").read_text())
    shown, task = MiniShrdlu(3, **config["kwargs"], seed=0), MiniShrdlu(3, seed=0)
    assert set(config["kwargs"]["curriculum"]) == set(SETTINGS)
    for attribute in ("threshold", "review", "window", "level", "parameters", "_ranges"):
        assert np.array_equal(getattr(shown.curriculum, attribute), getattr(task.curriculum, attribute)), attribute
    settings = ("columns", "rows", "letters", "extra_moves", "invalid_cost", "undo_cost")
    assert all(getattr(shown, name) == getattr(task, name) for name in settings)
    assert set(config["kwargs"]) == {*settings, "curriculum"}
