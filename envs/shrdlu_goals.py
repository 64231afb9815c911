"""All boards of Mini-SHRDLU, how far they are from each other, and goals drawn by that (Graves et al. 2016, Methods).

Shapes: ``M`` boards, ``C H`` columns of a board and their height, ``K`` blocks, ``S`` all boards there are, ``F`` their
outlines (how high each column is), ``A`` actions, ``G`` constraints of a goal.

A board is ``[C, H]``, each column from the bottom: 0 where it is empty, else the number of a block, from 1. A constraint is
three numbers: block, relation, block; the first is right next to the second.
"""

from functools import lru_cache
from itertools import permutations, product
from math import factorial

import numpy as np
from jaxtyping import Bool, Int8, Int16, Integer

from saccade.envs.task import require_at_least

ABOVE, BELOW, LEFT, RIGHT = 0, 1, 2, 3
"""Relations; of two that say the same about two blocks in either order, one is odd: ``relation ^ 1`` is the other."""
OFFSETS = np.array([[0, 1], [0, -1], [-1, 0], [1, 0]])
"""Column and height of the first block of a relation, seen from the second."""
APART = -1
"""The relation of blocks that are not next to each other."""
MOST_DISTANCES = 400_000
"""Refuse boards of which more distances than this would be listed; they take seconds."""


def column_moves(columns: int) -> Integer[np.ndarray, "A 2"]:
    """From which column to which every action moves a block; action 0 does nothing, and is written as 0, 0."""
    return np.array([(0, 0), *((a, b) for a, b in product(range(columns), repeat=2) if a != b)])


def move(
    boards: Integer[np.ndarray, "M C H"], moves: Integer[np.ndarray, "M 2"]
) -> tuple[Integer[np.ndarray, "M C H"], Bool[np.ndarray, " M"]]:
    """Put the top block of a column on top of another, in new arrays; and whether a move is impossible, and changes nothing.

    From a column to itself is no move, and possible.
    """
    rows, heights = np.arange(len(boards)), (boards > 0).sum(axis=2)
    source, target = moves.T
    impossible = (source != target) & ((heights[rows, source] == 0) | (heights[rows, target] == boards.shape[2]))
    going = rows[(source != target) & ~impossible]
    after = boards.copy()
    source, target = source[going], target[going]
    top, free = heights[going, source] - 1, heights[going, target]
    after[going, target, free] = boards[going, source, top]
    after[going, source, top] = 0
    return after, impossible


def satisfied(boards: Integer[np.ndarray, "M C H"], goals: Integer[np.ndarray, "M G 3"]) -> Bool[np.ndarray, "M G"]:
    """Whether each constraint of each board's goal holds; its blocks are on the board."""
    height = boards.shape[2]
    cells = boards.reshape(len(boards), -1)
    first, second = ((cells[:, None] == goals[..., part, None]).argmax(axis=2) for part in (0, 2))
    offsets = np.stack([first // height - second // height, first % height - second % height], axis=-1)
    holds: np.ndarray = (offsets == OFFSETS[goals[..., 1]]).all(axis=-1)
    return holds


class Boards:
    """All boards of ``K`` blocks, which are 1 to ``K``, and how many moves lead from one to another.

    Distances do not depend on which number a block has. So they are kept from ``F`` boards only, one of each outline, whose
    blocks are numbered column by column from the bottom; other boards are renumbered.

    Args:
        columns: ``C``.
        height: ``H``.
        blocks: ``K``.

    Raises:
        ValueError: the board has no room for the blocks, or too little to move any of them next to another, or there are
            too many arrangements.
    """

    def __init__(self, columns: int, height: int, blocks: int) -> None:
        require_at_least("columns", columns, 2)
        require_at_least("rows", height, 1)
        require_at_least("blocks", blocks, 2)
        outlines = [tall for tall in product(range(height + 1), repeat=columns) if sum(tall) == blocks]
        self.where = f"{blocks} blocks on a board of {columns} columns and {height} rows"
        distances = len(outlines) ** 2 * factorial(blocks)
        if not 0 < distances <= MOST_DISTANCES:
            raise ValueError(f"{self.where} have {distances} distances to list; it must be 1 to {MOST_DISTANCES}")
        self.columns, self.height, self.blocks = columns, height, blocks
        self._outline_weights = (height + 1) ** np.arange(columns)
        self._outline_numbers = np.full((height + 1) ** columns, -1)
        self._outline_numbers[np.array(outlines) @ self._outline_weights] = np.arange(len(outlines))
        # The cells of each outline that have a block, column by column from the bottom: a board is read in this order.
        cells = [[(c, h) for c, tall in enumerate(outline) for h in range(tall)] for outline in outlines]
        self._cells = np.array(cells).reshape(len(outlines), blocks, 2)

        orders = np.array(list(permutations(range(1, blocks + 1))))
        by_outline = np.zeros((len(outlines), len(orders), columns, height), np.int64)
        for boards, places in zip(by_outline, self._cells, strict=True):
            boards[:, places[:, 0], places[:, 1]] = orders
        boards = by_outline.reshape(-1, columns, height)
        self._distance = self._distances(boards)
        self._relation = self._relations(boards)
        self._arrange_by_distance()

    def draw(self, rng: np.random.Generator, count: int) -> Integer[np.ndarray, "M C H"]:
        """Boards on which the blocks, in random order, were each put on a random column that is not full."""
        boards = np.zeros((count, self.columns, self.height), np.int64)
        rows, order = np.arange(count), rng.permuted(np.tile(np.arange(1, self.blocks + 1), (count, 1)), axis=1)
        for block in order.T:
            heights = (boards > 0).sum(axis=2)
            column = np.where(heights < self.height, rng.random(heights.shape), -1).argmax(axis=1)
            boards[rows, column, heights[rows, column]] = block
        return boards

    def draw_goals(
        self,
        rng: np.random.Generator,
        boards: Integer[np.ndarray, "M C H"],
        depth: Integer[np.ndarray, " M"],
        count: Integer[np.ndarray, " M"],
    ) -> tuple[Integer[np.ndarray, "M G 3"], Integer[np.ndarray, " M"]]:
        """A goal for each board, and how many constraints it has: ``G`` is the most, and what is beyond means nothing.

        A board at exactly this distance is chosen at random, among those that have so many pairs of blocks next to each
        other that are not so on the board as it is, and so many of these pairs are the goal. Either block of a pair may come
        first. Where no such board is that far, the goal is the next less deep; where none has so many new pairs, the goal
        has the most there are.

        Args:
            rng: where the numbers come from.
            boards: the boards.
            depth: how many moves away.
            count: how many constraints, 1 or more.
        """
        outline, label = self._read(boards)
        depth = self._depth[outline, np.minimum(depth, self._depth.shape[1] - 1)]
        count = self._count[outline, depth, np.minimum(count, self._count.shape[2] - 1)]
        candidates = self._candidates[outline, depth, count]
        chosen = self._start[outline, depth] + (rng.random(len(boards)) * candidates).astype(np.int64)
        target = self._by_distance[outline, chosen]

        first, second = np.triu_indices(self.blocks, 1)
        pairs = first * self.blocks + second
        relation = self._relation[pairs][:, target].T
        old = self._relation[pairs][:, self._base[outline]].T
        stale = (relation == APART) | (relation == old)
        picked = (rng.random(stale.shape) + stale).argsort(axis=1)[:, : int(count.max())]
        relation = np.take_along_axis(relation, picked, axis=1)
        rows = np.arange(len(boards))[:, None]
        a, b = label[rows, first[picked]], label[rows, second[picked]]
        swap = rng.random(picked.shape) < 0.5
        return np.stack([np.where(swap, b, a), relation ^ swap, np.where(swap, a, b)], axis=-1), count

    def moves_needed(
        self,
        boards: Integer[np.ndarray, "M C H"],
        goals: Integer[np.ndarray, "M G 3"],
        count: Integer[np.ndarray, " M"],
    ) -> Integer[np.ndarray, " M"]:
        """The fewest moves that satisfy the first ``count`` constraints of each board's goal, which some board does."""
        outline, label = self._read(boards)
        rows = np.arange(len(boards))[:, None]
        place = np.zeros((len(boards), self.blocks + 1), np.int64)
        place[rows, label] = np.arange(self.blocks)
        reached = np.ones((len(boards), self._relation.shape[1]), np.bool_)
        for number in range(int(count.max())):
            told = np.flatnonzero(number < count)
            a, relation, b = goals[told, number].T
            pair = place[told, a] * self.blocks + place[told, b]
            reached[told] &= self._relation[pair] == relation[:, None]
        needed: np.ndarray = np.where(reached, self._distance[outline], np.iinfo(np.int16).max).min(axis=1)
        return needed.astype(np.int64)

    def _read(self, boards: Integer[np.ndarray, "M C H"]) -> tuple[Integer[np.ndarray, " M"], Integer[np.ndarray, "M K"]]:
        """Which outline each board has, and its blocks column by column from the bottom."""
        outline = self._outline_numbers[(boards > 0).sum(axis=2) @ self._outline_weights]
        cells = self._cells[outline]
        return outline, boards[np.arange(len(boards))[:, None], cells[..., 0], cells[..., 1]]

    def _number(self, boards: Integer[np.ndarray, "M C H"]) -> Integer[np.ndarray, " M"]:
        """Which of all boards each is: by outline, then by the order of its blocks, as ``permutations`` lists them."""
        outline, label = self._read(boards)
        smaller_later = np.triu(label[:, :, None] > label[:, None], 1)
        weights = np.array([factorial(self.blocks - 1 - place) for place in range(self.blocks)])
        numbers: np.ndarray = outline * factorial(self.blocks) + smaller_later.sum(axis=2) @ weights
        return numbers

    def _distances(self, boards: Integer[np.ndarray, "S C H"]) -> Int16[np.ndarray, "F S"]:
        """Moves from the first board of each outline to every board, breadth first."""
        moves = column_moves(self.columns)[1:]
        after = np.stack([self._number(move(boards, np.tile(one, (len(boards), 1)))[0]) for one in moves], axis=1)
        self._base = np.arange(0, len(boards), factorial(self.blocks))
        distance = np.full((len(self._base), len(boards)), np.iinfo(np.int16).max, np.int16)
        for row, start in zip(distance, self._base, strict=True):
            frontier, steps = np.array([start]), 0
            while frontier.size:
                row[frontier] = steps
                reached = np.unique(after[frontier])
                frontier, steps = reached[row[reached] > steps + 1], steps + 1
        return distance

    def _relations(self, boards: Integer[np.ndarray, "S C H"]) -> Int8[np.ndarray, "KK S"]:
        """The relation of every block to every other, pair by pair, on every board."""
        cells, K = boards.reshape(len(boards), -1), self.blocks
        column, height = np.divmod([(cells == block).argmax(axis=1) for block in range(1, K + 1)], self.height)
        relation = np.full((K, K, len(boards)), APART, np.int8)
        for number, (across, up) in enumerate(OFFSETS):
            relation[(column[:, None] - column == across) & (height[:, None] - height == up)] = number
        return relation.reshape(K * K, -1)

    def _arrange_by_distance(self) -> None:
        """Sort the boards for :meth:`draw_goals`: by distance, and those with most new pairs first."""
        first, second = np.triu_indices(self.blocks, 1)
        relation = self._relation[first * self.blocks + second]
        fresh = np.stack([((relation != APART) & (relation != relation[:, [base]])).sum(axis=0) for base in self._base])
        deepest = int(self._distance[self._distance < np.iinfo(np.int16).max].max())
        deep, many = np.arange(deepest + 1), np.arange(int(fresh.max()) + 1)
        self._by_distance = np.lexsort((-fresh, self._distance))
        distance = np.take_along_axis(self._distance, self._by_distance, axis=1)
        self._start = np.stack([row.searchsorted(deep) for row in distance])
        self._candidates = np.stack(
            [
                np.stack([((self._distance == depth) & (fresh >= count)).sum(axis=1) for count in many], axis=1)
                for depth in deep
            ],
            axis=1,
        )
        # The nearest depth and number of new pairs that there are, from above.
        there = self._candidates > 0
        self._depth = np.maximum.accumulate(np.where(there[..., 1], deep, 0), axis=1)
        self._count = np.maximum.accumulate(np.where(there, many, 0), axis=2)
        if deepest < 1 or not self._depth[:, 1].all():
            raise ValueError(
                f"{self.where}: from some board, no move brings two blocks next to each other that were not before"
            )


@lru_cache
def all_boards(columns: int, height: int, blocks: int) -> Boards:
    """The boards of this kind, listed once for all tasks."""
    return Boards(columns, height, blocks)
