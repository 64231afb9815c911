"""The block puzzle of Graves et al. 2016, "Hybrid computing using a neural network with dynamic external memory", Nature 538.

Shapes: ``N`` lanes, ``C H`` columns of the board and their height, ``A`` actions, ``D`` numbers seen; ``M`` some of the lanes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from jaxtyping import Bool, Float32, Integer, UInt8

from saccade.envs.curriculum import draw_between, make_curriculum
from saccade.envs.shrdlu_goals import OFFSETS, Boards, all_boards, column_moves, move, satisfied
from saccade.envs.task import PICTURE_SIDE, BatchedTask, TaskStep, require_at_least

LESSONS = {
    "lessons": [
        {"goals": (2, 2), "blocks": (3, 3), "constraints": (1, 1), "depth": (1, 1)},
        {"goals": (2, 3), "blocks": (3, 4), "constraints": (1, 2), "depth": (1, 1)},
        {"goals": (3, 3), "blocks": (4, 4), "constraints": (1, 2), "depth": (1, 2)},
        {"goals": (3, 4), "blocks": (4, 5), "constraints": (2, 2), "depth": (1, 2)},
        {"goals": (4, 4), "blocks": (5, 5), "constraints": (2, 2), "depth": (2, 2)},
    ],
    "threshold": 0.85,
    "window": 5,
}
"""The first five of the paper's 26 lessons (Extended Data Table 6); five grades of 32 episodes are its 160 episodes."""

GRADED = 32
"""Episodes: grades are given whenever at least so many of the present lesson have ended since the last."""

COLOURS = np.array(
    [
        [40, 40, 40],
        [230, 60, 60],
        [60, 120, 230],
        [70, 190, 90],
        [240, 200, 60],
        [170, 90, 200],
        [240, 140, 50],
        [80, 200, 210],
        [240, 150, 190],
        [160, 110, 60],
    ],
    np.uint8,
)
"""What is drawn in each cell: nothing, then the blocks by number; they repeat after nine."""


class MiniShrdlu(BatchedTask):
    """Mini-SHRDLU: several goals for a board of stacked blocks are told and named; then one is to be reached.

    Numbered blocks stand in the columns of a board, one on another. An action moves the top block of a column to the top of
    another. A goal is a set of constraints on blocks that are next to each other, as in: 1 above 4, 2 left of 5; above is
    directly on top, left is in the next column at the same height.

    An episode tells goals first, one constraint a step, each with the letter of its goal; what is done then has no effect. Then
    comes the go cue, and with it, for one step, the letter of one of these goals. From that step on, actions move blocks,
    ``needed + extra_moves`` of them: the fewest that reach the goal, and some more. The episode ends after these, whatever
    happened.

    An observation is, each one-hot and in this order: the letter, the first block, the relation (above, below, left of, right
    of), the second block, the go cue, and for every cell of the board, row by row from the bottom, its block. What is not
    told is zeros. Actions: 0 does nothing; 1 and on go from a column to another, in the order of
    :func:`~saccade.envs.shrdlu_goals.column_moves`: 0 to 1, 0 to 2, 1 to 0 and so on.

    The reward of every action after the go cue is the number of constraints of the chosen goal that hold after it, less
    ``invalid_cost`` if it was a move from an empty or to a full column (which changes nothing), less ``undo_cost`` if the
    goal was reached before the action and is not after it. Before the go cue it is 0. An episode succeeds if the goal holds
    at its end. Its measures: ``constraints_satisfied``, the share of the goal's constraints that hold at the end;
    ``perfect``, 1 if besides the goal was first reached in the fewest moves; ``lesson``, the one that new episodes are of.

    Goals are drawn as in the paper: a board exactly ``depth`` moves away, and constraints that hold there and not at the start.
    A goal may be reached in fewer moves by another board. Not as in the paper, which does not state them: both costs; the
    order in which blocks are put on the starting board, which is random here; and where fewer constraints or moves are
    possible than drawn, the most there are. The lesson is mastered, as there, when ``threshold`` of the constraints hold at the
    end of episodes of this lesson, but as they are played, and not in an evaluation.

    Args:
        num_envs: the number of lanes.
        columns: of the board.
        rows: of the board: how high a column may be.
        letters: names of goals, at least as many as a lesson has goals; the paper has 26.
        extra_moves: beyond those that are needed; the paper has 6.
        invalid_cost: of a move that is impossible.
        undo_cost: of leaving the goal.
        curriculum: settings of :class:`~saccade.envs.curriculum.Curriculum` in place of this task's: ``lessons`` (the ranges
            ``goals``, ``blocks``, ``constraints`` of a goal, and ``depth``, the moves to it), ``threshold``, ``review``,
            ``window``, ``first``.
        seed: the seed of all lanes together.

    Raises:
        ValueError: a parameter is out of its range, or a lesson has more goals than there are letters, or blocks that the
            board has no room for, or too many arrangements of them.
    """

    lane_arrays = (
        "board",
        "blocks",
        "script",
        "told",
        "goal",
        "constraints",
        "letter",
        "time",
        "needed",
        "reached",
        "solved",
        "lesson",
    )

    def __init__(
        self,
        num_envs: int = 1,
        columns: int = 3,
        rows: int = 3,
        letters: int = 4,
        extra_moves: int = 6,
        invalid_cost: float = 0.1,
        undo_cost: float = 1.0,
        curriculum: Mapping[str, Any] | None = None,
        seed: int | None = None,
    ) -> None:
        self.curriculum = make_curriculum(LESSONS, curriculum)
        goals, constraints = (self.curriculum.span(name)[1] for name in ("goals", "constraints"))
        require_at_least("letters", letters, goals)
        require_at_least("extra_moves", extra_moves, 0)
        for name, cost in (("invalid_cost", invalid_cost), ("undo_cost", undo_cost)):
            if not 0 <= cost < np.inf:
                raise ValueError(f"{name} is {cost!r}; it must be 0 or more")
        fewest, most = self.curriculum.span("blocks")
        self.columns, self.rows, self.letters, self.most_blocks = columns, rows, letters, most
        for blocks in range(fewest, most + 1):
            all_boards(columns, rows, blocks)
        self.moves = column_moves(columns)
        size = letters + 2 * most + len(OFFSETS) + 1 + columns * rows * most
        super().__init__(num_envs, spaces.Box(0.0, 1.0, (size,), np.float32), spaces.Discrete(len(self.moves)), seed)
        self.extra_moves, self.invalid_cost, self.undo_cost = extra_moves, invalid_cost, undo_cost
        self.board = np.zeros((num_envs, columns, rows), np.int64)
        self.script = np.zeros((num_envs, goals * constraints, 4), np.int64)
        self.goal = np.zeros((num_envs, constraints, 3), np.int64)
        self.blocks, self.told, self.constraints, self.letter = np.zeros((4, num_envs), np.int64)
        self.time, self.needed, self.reached, self.lesson = np.zeros((4, num_envs), np.int64)
        self.solved = np.zeros(num_envs, np.bool_)
        self._ended, self._satisfied = 0, 0.0  # episodes of the present lesson since the last grade
        self.reset(np.ones(num_envs, np.bool_))

    @property
    def at_query(self) -> Bool[np.ndarray, " N"]:
        """Whether a lane shows the letter of its goal now: all is told, and the first move is next."""
        return self.time == self.told

    def reset(self, lanes: Bool[np.ndarray, " N"]) -> None:
        """Draw boards and goals."""
        indices = np.flatnonzero(lanes)
        self.lesson[indices] = self.curriculum.draw(self.rng, len(indices))
        self.blocks[indices] = draw_between(self.rng, self.curriculum.ranges("blocks", self.lesson[indices]))
        for blocks in np.unique(self.blocks[indices]):
            self._draw(indices[self.blocks[indices] == blocks], all_boards(self.columns, self.rows, int(blocks)))
        self.time[indices] = self.reached[indices] = 0
        self.solved[indices] = False

    def _draw(self, lanes: Integer[np.ndarray, " M"], boards: Boards) -> None:
        """A board for each of these lanes, all goals that are told, and the one to be reached."""
        M, most = len(lanes), self.curriculum.span("goals")[1]
        ranges = {name: self.curriculum.ranges(name, self.lesson[lanes]) for name in self.curriculum.parameters}
        start = boards.draw(self.rng, M)
        depth, wanted = (draw_between(self.rng, ranges[name], (M, most)).ravel() for name in ("depth", "constraints"))
        drawn, counts = boards.draw_goals(self.rng, np.repeat(start, most, axis=0), depth, wanted)
        drawn, counts = drawn.reshape(M, most, -1, 3), counts.reshape(M, most)
        letters = self.rng.permuted(np.tile(np.arange(self.letters), (M, 1)), axis=1)[:, :most]
        goals = draw_between(self.rng, ranges["goals"])
        shown = (np.arange(drawn.shape[2]) < counts[..., None]) & (np.arange(most) < goals[:, None])[..., None]
        named = np.concatenate([np.broadcast_to(letters[..., None, None], (*shown.shape, 1)), drawn], axis=-1)
        order = (~shown).reshape(M, -1).argsort(axis=1, kind="stable")  # goal by goal, without the gaps
        self.script[lanes, : order.shape[1]] = np.take_along_axis(named.reshape(M, -1, 4), order[..., None], axis=1)
        self.told[lanes] = shown.sum(axis=(1, 2))

        rows, chosen = np.arange(M), self.rng.integers(goals)
        goal, count = drawn[rows, chosen], counts[rows, chosen]
        self.board[lanes], self.letter[lanes], self.constraints[lanes] = start, letters[rows, chosen], count
        self.goal[lanes, : goal.shape[1]] = goal
        self.needed[lanes] = boards.moves_needed(start, goal, count)

    def step(self, actions: Integer[np.ndarray, " N"]) -> TaskStep:
        """Move a block in every lane whose go cue has come."""
        cued = self.time >= self.told
        self.board, invalid = move(self.board, self.moves[actions * cued])
        self.time += 1
        holds = satisfied(self.board, self.goal) & (np.arange(self.goal.shape[1]) < self.constraints[:, None])
        count = holds.sum(axis=1)
        solved = cued & (count == self.constraints)
        costs = self.invalid_cost * invalid + self.undo_cost * (self.solved & ~solved)
        rewards = np.where(cued, count - costs, 0).astype(np.float32)
        moves = self.time - self.told
        self.reached = np.where(solved & (self.reached == 0), moves, self.reached)
        self.solved = solved

        ended = moves >= self.needed + self.extra_moves
        share = (count / self.constraints).astype(np.float32)
        measures = {
            "constraints_satisfied": share,
            "perfect": (solved & (self.reached == self.needed)).astype(np.float32),
            "lesson": np.full(self.num_envs, self.curriculum.level, np.float32),
        }
        self._grade(share[ended & (self.lesson == self.curriculum.level)])
        return TaskStep(rewards, ended, np.zeros(self.num_envs, np.bool_), solved, measures)

    def observe(self) -> Float32[np.ndarray, "N D"]:
        """Letter, block, relation, block, go cue, board."""
        telling = self.time < self.told
        now = self.script[np.arange(self.num_envs), np.minimum(self.time, self.script.shape[1] - 1)]
        letter = np.where(telling, now[:, 0], self.letter)
        blocks = np.eye(self.most_blocks, dtype=np.float32)
        cells = np.concatenate([np.zeros_like(blocks[:1]), blocks])[self.board.transpose(0, 2, 1)]
        parts = [
            np.eye(self.letters, dtype=np.float32)[letter] * (telling | self.at_query)[:, None],
            blocks[now[:, 1] - 1] * telling[:, None],
            np.eye(len(OFFSETS), dtype=np.float32)[now[:, 2]] * telling[:, None],
            blocks[now[:, 3] - 1] * telling[:, None],
            ~telling[:, None],
            cells.reshape(self.num_envs, -1),
        ]
        return np.concatenate(parts, axis=1, dtype=np.float32)

    def moves_needed(self) -> Integer[np.ndarray, " N"]:
        """The fewest moves that reach each lane's goal from its board as it is now."""
        return self._needed(self.board)

    def optimal_first_actions(self) -> Bool[np.ndarray, "N A"]:
        """Which actions can be the next of a shortest way to the goal; where it holds, to do nothing.

        Meant for the paper's analysis (figure 4d): the first action decoded from memory, read where :attr:`at_query` is
        true. It can be called at any time, and changes nothing.
        """
        now = self.moves_needed()
        boards = [move(self.board, np.tile(one, (self.num_envs, 1)))[0] for one in self.moves]
        optimal = np.stack([self._needed(after) < now for after in boards], axis=1)
        optimal[:, 0] = now == 0
        return optimal

    def _needed(self, board: Integer[np.ndarray, "N C H"]) -> Integer[np.ndarray, " N"]:
        needed = np.zeros(self.num_envs, np.int64)
        for blocks in np.unique(self.blocks):
            lanes = self.blocks == blocks
            boards = all_boards(self.columns, self.rows, int(blocks))
            needed[lanes] = boards.moves_needed(board[lanes], self.goal[lanes], self.constraints[lanes])
        return needed

    def render(self) -> UInt8[np.ndarray, "N H W 3"]:
        """The board in colours; above it a bar that turns white at the go cue, and before, the two blocks just told."""
        lanes, telling = np.arange(self.num_envs), self.time < self.told
        now = self.script[lanes, np.minimum(self.time, self.script.shape[1] - 1)]
        numbers = np.where(self.board > 0, 1 + (self.board - 1) % (len(COLOURS) - 1), 0)
        told = np.zeros((self.num_envs, self.columns, 2), np.int64)
        # Where the second block is drawn, so that the first, next to it, is in the picture too.
        second = np.maximum(-OFFSETS[now[:, 2]], 0)
        for cells, block in ((second + OFFSETS[now[:, 2]], now[:, 1]), (second, now[:, 3])):
            told[lanes, cells[:, 0], cells[:, 1]] = (1 + (block - 1) % (len(COLOURS) - 1)) * telling
        picture = COLOURS[np.concatenate([numbers, np.zeros_like(told[..., :1]), told], axis=2)]
        picture[:, :, self.rows] = np.where(telling, 0, 255)[:, None, None]
        picture = picture.transpose(0, 2, 1, 3)[:, ::-1]
        factor = -(-PICTURE_SIDE // max(picture.shape[1:3]))
        return picture.repeat(factor, axis=1).repeat(factor, axis=2)

    def get_state(self) -> dict[str, Any]:
        """As every task, where the curriculum stands, and the episodes that are yet to be graded."""
        state = {"curriculum": self.curriculum.get_state(), "ungraded": (self._ended, self._satisfied)}
        return {**super().get_state(), **state}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a state that :meth:`get_state` returned.

        Raises:
            ValueError: the state is of another task, or of another number of lanes or size, or curriculum.
        """
        super().set_state(state)
        self.curriculum.set_state(state["curriculum"])
        self._ended, self._satisfied = state["ungraded"]

    def _grade(self, shares: Float32[np.ndarray, " M"]) -> None:
        """Note what episodes of the present lesson have come to, and grade once there are enough of them."""
        self._ended += len(shares)
        self._satisfied += float(shares.sum())
        if self._ended >= GRADED:
            share = self._satisfied / self._ended
            self._ended, self._satisfied = 0, 0.0
            self.curriculum.grade(share)
