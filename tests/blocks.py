"""A slow Mini-SHRDLU, to compare the fast one with: a board is a tuple of stacks."""

from collections import deque

import numpy as np

from saccade.envs.shrdlu_goals import column_moves

NAMES = ("above", "below", "left of", "right of")
Columns = tuple[tuple[int, ...], ...]
Constraint = tuple[int, int, int]


def read(board: np.ndarray) -> Columns:
    """A board as stacks; a block in the air is an error."""
    stacks = []
    for column in board.tolist():
        stack = tuple(block for block in column if block)
        assert column[: len(stack)] == list(stack), "blocks rest on each other"
        stacks.append(stack)
    return tuple(stacks)


def play(board: Columns, source: int, target: int, height: int) -> Columns | None:
    """The board after a move, or none where it is impossible."""
    if not board[source] or len(board[target]) == height:
        return None
    stacks = [list(stack) for stack in board]
    stacks[target].append(stacks[source].pop())
    return tuple(tuple(stack) for stack in stacks)


def holds(board: Columns, constraint: Constraint) -> bool:
    first, relation, second = constraint
    where = {block: (c, h) for c, stack in enumerate(board) for h, block in enumerate(stack)}
    across, up = where[first][0] - where[second][0], where[first][1] - where[second][1]
    return {"above": (0, 1), "below": (0, -1), "left of": (-1, 0), "right of": (1, 0)}[NAMES[relation]] == (across, up)


def search(board: Columns, height: int) -> dict[Columns, int]:
    """How many moves every board is away."""
    distance, queue = {board: 0}, deque([board])
    pairs = column_moves(len(board))[1:].tolist()
    while queue:
        here = queue.popleft()
        for source, target in pairs:
            there = play(here, source, target, height)
            if there is not None and there not in distance:
                distance[there] = distance[here] + 1
                queue.append(there)
    return distance


def nearest(board: Columns, height: int, goal: list[Constraint]) -> int:
    return min(moves for there, moves in search(board, height).items() if all(holds(there, part) for part in goal))
