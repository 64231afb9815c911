"""The T-maze of Ni et al. 2023, "When Do Transformers Shine in RL?" (arXiv:2307.03864; github.com/twni2016/Memory-RL)."""

import numpy as np
from gymnasium import spaces
from jaxtyping import Bool, Float32, Integer

from saccade.envs.task import BatchedTask, TaskStep, require_at_least

RIGHT, UP, LEFT, DOWN = 0, 1, 2, 3
MOVE_X = np.array([1, 0, -1, 0])
MOVE_Y = np.array([0, 1, 0, -1])


class TMaze(BatchedTask):
    """T-maze: a sign seen at the start says which way to turn at the end of a long corridor.

    The corridor runs from the oracle at ``x = 0`` to the junction at ``x = oracle_length + length``; above and below
    the junction are the two goals, one of which, at random, is right. Every episode takes
    ``length + 2 oracle_length + 1`` steps, just enough, and ends within the task. The last step brings 1 if the agent is
    then at the right goal, and 0 otherwise. Every other step costs ``1 / length`` if the agent is behind the one that
    goes to the oracle and then straight on (``x < t - oracle_length``), so that memory, and not exploration, is hard.

    An observation is two numbers. At the oracle: 0, and the side of the right goal (1 up, -1 down) when the agent is
    there for the first time, afterwards 0. In the corridor: 0, 0. At the junction and the goals: 1, and the agent's own
    ``y``. Distractors, if there are any, are further numbers: 1 or -1 by a coin each in every step, and of no meaning. The
    actions are 0 right, 1 up, 2 left, 3 down; walls stop a move.

    In the corridor all places look alike, so an agent that has once fallen behind cannot tell: what an action is then worth
    depends on what it does elsewhere, and Q-learning can settle on never setting out. A policy in the paper
    reads past observations and actions; with ``previous_action`` the last action is in the observation.

    The best return is exactly 1 (:attr:`optimal_return`); without memory it is 1/2 in the mean.

    Args:
        num_envs: the number of lanes.
        length: steps from the start to the junction.
        oracle_length: steps from the start back to the oracle. 0 is the passive T-maze of the paper, whose sign is
            in the first observation; 1 is its active T-maze, where the sign has to be fetched.
        distractors: how many; none in the paper.
        previous_action: append the action that led here, one-hot; zeros at the start of an episode.
        seed: the seed of all lanes together.

    Raises:
        ValueError: ``length`` is below 1, or another number below 0.
    """

    lane_arrays = ("time", "x", "y", "goal", "oracle_visited", "sign_shown", "noise", "came_by")

    def __init__(
        self,
        num_envs: int = 1,
        length: int = 50,
        oracle_length: int = 0,
        distractors: int = 0,
        previous_action: bool = False,
        seed: int | None = None,
    ) -> None:
        require_at_least("length", length, 1)
        require_at_least("oracle_length", oracle_length, 0)
        require_at_least("distractors", distractors, 0)
        shown = 4 if previous_action else 0
        super().__init__(num_envs, spaces.Box(-1.0, 1.0, (2 + distractors + shown,), np.float32), spaces.Discrete(4), seed)
        self.length, self.oracle_length = length, oracle_length
        self.junction = oracle_length + length
        self.horizon = length + 2 * oracle_length + 1

        self.time = np.zeros(num_envs, np.int64)
        self.x = np.zeros(num_envs, np.int64)
        self.y = np.zeros(num_envs, np.int64)
        self.goal = np.zeros(num_envs, np.int64)
        self.oracle_visited = np.zeros(num_envs, np.bool_)
        self.sign_shown = np.zeros(num_envs, np.bool_)
        self.noise = np.zeros((num_envs, distractors), np.float32)
        self.came_by = np.zeros((num_envs, shown), np.float32)
        self.reset(np.ones(num_envs, np.bool_))

    @property
    def optimal_return(self) -> float:
        """The best return, undiscounted, of every episode: to the oracle, to the junction, and to the right goal."""
        return 1.0

    def reset(self, lanes: Bool[np.ndarray, " N"]) -> None:
        """Go to the start and draw the right goal."""
        self.time[lanes] = 0
        self.x[lanes] = self.oracle_length
        self.y[lanes] = 0
        self.goal[lanes] = 2 * self.rng.integers(2, size=int(lanes.sum())) - 1
        self.oracle_visited[lanes] = self.sign_shown[lanes] = self.oracle_length == 0
        self.came_by[lanes] = 0
        self.distract(lanes)

    def distract(self, lanes: Bool[np.ndarray, " N"]) -> None:
        """Draw the distractors of these lanes."""
        if self.noise.size:
            self.noise[lanes] = 2 * self.rng.integers(2, size=(int(lanes.sum()), self.noise.shape[1])) - 1

    def step(self, actions: Integer[np.ndarray, " N"]) -> TaskStep:
        """Move every agent that no wall stops."""
        x, y = self.x + MOVE_X[actions], self.y + MOVE_Y[actions]
        in_corridor = (y == 0) & (x >= 0) & (x <= self.junction)
        at_goal = (np.abs(y) == 1) & (x == self.junction)
        way_is_free = in_corridor | at_goal
        self.x[way_is_free] = x[way_is_free]
        self.y[way_is_free] = y[way_is_free]
        self.time += 1
        self.sign_shown = (self.x == 0) & ~self.oracle_visited
        self.oracle_visited |= self.sign_shown
        if self.came_by.size:
            self.came_by[:] = np.eye(4, dtype=np.float32)[actions]
        self.distract(np.ones(self.num_envs, np.bool_))

        last = self.time >= self.horizon
        success = self.y == self.goal
        behind = self.x < self.time - self.oracle_length
        rewards = np.where(last, success, np.where(behind, -1 / self.length, 0)).astype(np.float32)
        return TaskStep(rewards, last, np.zeros(self.num_envs, np.bool_), success)

    def observe(self) -> Float32[np.ndarray, "N seen"]:
        """Whether the corridor has ended; the sign, or the agent's own side of it; the distractors; the last action."""
        ended = self.x == self.junction
        second = np.where(ended, self.y, np.where(self.sign_shown, self.goal, 0))
        return np.concatenate([np.stack([ended, second], axis=1).astype(np.float32), self.noise, self.came_by], axis=1)
