"""The boards and goals of Mini-SHRDLU: gravity, constraints, distances; against slow code and breadth-first search."""

from itertools import combinations

import numpy as np
import pytest

from blocks import Constraint, holds, read, search
from saccade.envs.shrdlu_goals import ABOVE, BELOW, LEFT, RIGHT, Boards, column_moves, move, satisfied

BOARD = np.array([[[1, 4, 0], [2, 0, 0], [5, 6, 3]]])


@pytest.mark.parametrize(
    ("first", "relation", "second"),
    [
        (4, ABOVE, 1),
        (1, BELOW, 4),
        (3, ABOVE, 6),
        (1, LEFT, 2),
        (2, RIGHT, 1),
        (2, LEFT, 5),
        (6, ABOVE, 5),
    ],
)
def test_a_constraint_is_about_neighbours(first: int, relation: int, second: int) -> None:
    for number in range(4):
        goal = np.array([[[first, number, second]]])
        assert satisfied(BOARD, goal).item() == (number == relation)
    backwards = np.array([[[second, relation ^ 1, first], [second, relation, first]]])
    assert satisfied(BOARD, backwards).tolist() == [[True, False]]


@pytest.mark.parametrize(
    "apart",
    [(3, ABOVE, 5), (4, LEFT, 6), (1, LEFT, 5), (4, ABOVE, 2), (4, LEFT, 2), (2, ABOVE, 1), (6, RIGHT, 2), (1, ABOVE, 1)],
)
def test_blocks_further_away_are_no_neighbours(apart: Constraint) -> None:
    assert not satisfied(BOARD, np.array([[apart]])).any()


def test_a_move_takes_the_top_block_and_drops_it_on_the_other_column() -> None:
    moves = np.array([[0, 1], [1, 0], [2, 0], [0, 2], [1, 2], [1, 1]])
    after, impossible = move(np.repeat(BOARD, 6, axis=0), moves)
    assert [read(board) for board in after] == [
        ((1,), (2, 4), (5, 6, 3)),
        ((1, 4, 2), (), (5, 6, 3)),
        ((1, 4, 3), (2,), (5, 6)),
        ((1, 4), (2,), (5, 6, 3)),
        ((1, 4), (2,), (5, 6, 3)),
        ((1, 4), (2,), (5, 6, 3)),
    ]
    assert impossible.tolist() == [False, False, False, True, True, False]
    empty, impossible = move(after[1:2], np.array([[1, 0]]))
    assert impossible.all()
    assert (empty == after[1]).all()


def test_moves_are_all_pairs_of_columns() -> None:
    assert column_moves(3).tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 2], [2, 0], [2, 1]]
    assert len(column_moves(2)) == 3


@pytest.mark.parametrize(("columns", "height", "blocks"), [(3, 3, 4), (2, 3, 3), (4, 2, 3), (3, 2, 5)])
def test_starting_boards_are_stacked_and_any_block_may_be_at_the_bottom(columns: int, height: int, blocks: int) -> None:
    drawn = Boards(columns, height, blocks).draw(np.random.default_rng(0), 2000)
    seen = [read(board) for board in drawn]
    assert all(sorted(sum(board, ())) == list(range(1, blocks + 1)) for board in seen)
    assert all(len(stack) <= height for board in seen for stack in board)
    lowest = np.bincount([board[0][0] for board in seen if board[0]], minlength=blocks + 1)[1:]
    np.testing.assert_allclose(lowest / lowest.sum(), 1 / blocks, atol=0.06)
    tall = np.array([[len(stack) for stack in board] for board in seen])
    np.testing.assert_allclose(tall.mean(axis=0), blocks / columns, atol=0.1)


@pytest.mark.parametrize(("columns", "height", "blocks"), [(3, 3, 4), (2, 3, 3), (4, 2, 3), (3, 2, 5)])
def test_goals_hold_on_a_board_as_far_as_asked_and_not_yet(columns: int, height: int, blocks: int) -> None:
    rng, boards = np.random.default_rng(0), Boards(columns, height, blocks)
    start = boards.draw(rng, 40)
    depth, wanted = rng.integers(1, 4, size=40), rng.integers(1, 4, size=40)
    goals, counts = boards.draw_goals(rng, start, depth, wanted)
    needed = boards.moves_needed(start, goals, counts)
    assert (counts >= 1).all()
    assert (counts <= wanted).all()
    relations = set()
    for lane in range(40):
        board = read(start[lane])
        goal = [tuple(part) for part in goals[lane, : counts[lane]].tolist()]
        distance = search(board, height)
        assert not any(holds(board, part) for part in goal)
        assert len({frozenset((a, b)) for a, _, b in goal}) == len(goal), "no two say the same"
        reached = [moves for there, moves in distance.items() if all(holds(there, part) for part in goal)]
        assert needed[lane] == min(reached) >= 1
        new = [0] * (max(distance.values()) + 1)
        for there, moves in distance.items():
            parts = ((a, relation, b) for a, b in combinations(range(1, blocks + 1), 2) for relation in range(4))
            new[moves] = max(new[moves], sum(holds(there, part) and not holds(board, part) for part in parts))
        # Where no board that far has new neighbours, less far.
        deep = max(moves for moves in range(min(depth[lane] + 1, len(new))) if new[moves])
        assert deep in reached
        assert counts[lane] == min(wanted[lane], new[deep])
        relations |= {relation for _, relation, _ in goal}
    assert {ABOVE, BELOW} < relations


def test_the_board_of_a_goal_is_any_of_those_equally_often() -> None:
    boards = Boards(3, 2, 3)
    start = np.repeat(np.array([[[1, 0], [2, 0], [3, 0]]]), 4000, axis=0)
    ones = np.ones(4000, np.int64)
    goals, _ = boards.draw_goals(np.random.default_rng(0), start, ones, ones)
    # One move puts 1 on 2, 1 on 3, 2 on 1, 2 on 3, 3 on 1 or 3 on 2, and makes no other neighbours.
    first, relation, second = goals[:, 0].T
    assert set(relation.tolist()) == {ABOVE, BELOW}
    top, bottom = (np.where(relation == said, first, second) for said in (ABOVE, BELOW))
    said, counts = np.unique(10 * top + bottom, return_counts=True)
    assert said.tolist() == [12, 13, 21, 23, 31, 32]
    np.testing.assert_allclose(counts / 4000, 1 / 6, atol=0.03)
    assert (relation == ABOVE).mean() == pytest.approx(0.5, abs=0.04)


def test_a_goal_that_is_too_deep_is_as_deep_as_can_be() -> None:
    boards = Boards(2, 2, 2)
    start = np.array([[[1, 2], [0, 0]]])
    deepest = max(search(read(start[0]), 2).values())
    goals, counts = boards.draw_goals(np.random.default_rng(0), start, np.array([40]), np.array([9]))
    assert counts.tolist() == [1]
    goal = [tuple(part) for part in goals[0].tolist()]
    assert any(holds(there, goal[0]) for there, moves in search(read(start[0]), 2).items() if moves == deepest)


def test_the_paper_has_seven_thousand_boards_of_six_blocks_and_all_are_in_reach() -> None:
    boards = Boards(3, 3, 6)
    start = boards.draw(np.random.default_rng(0), 1)
    assert len(search(read(start[0]), 3)) == 7200
    deep = np.full(200, 7)
    goals, counts = boards.draw_goals(np.random.default_rng(1), np.repeat(start, 200, axis=0), deep, np.full(200, 6))
    assert (counts == 6).all()
    needed = boards.moves_needed(np.repeat(start, 200, axis=0), goals, counts)
    assert needed.max() == 7
