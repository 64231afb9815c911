"""The corridor of Wang et al. 2016, "Dueling Network Architectures", section 4.1 and figure 3 (arXiv:1511.06581).

Shapes: ``N`` lanes, ``S`` states, ``A`` actions.
"""

from typing import NamedTuple

import numpy as np
from gymnasium import spaces
from jaxtyping import Bool, Float, Float32, Integer, UInt8

from saccade.envs.task import PICTURE_SIDE, BatchedTask, TaskStep, require_at_least

UP, DOWN, LEFT, RIGHT, STAY = 0, 1, 2, 3, 4
MOVES = ((1, 0), (-1, 0), (0, -1), (0, 1))
"""Rows and columns that up, down, left and right move by; rows count from the bottom."""


class Dynamics(NamedTuple):
    """A Markov decision process in which every action has one outcome.

    Attributes:
        next_state: where an action leads; a terminal state leads to itself.
        rewards: what it brings; 0 in a terminal state.
        terminal: the states in which an episode ends.
    """

    next_state: Integer[np.ndarray, "S A"]
    rewards: Float[np.ndarray, "S A"]
    terminal: Bool[np.ndarray, " S"]


class Corridor(BatchedTask):
    """Corridor: a small Markov decision process with exact values, and with as many useless actions as wanted.

    Two vertical corridors stand at the ends of a horizontal one, in the shape of a U. The agent starts in the bottom
    left corner. The top right end brings ``large_reward`` on arrival, the top left end, which is nearer,
    ``small_reward``; both terminate. Every other step brings 0. The actions are 0 up, 1 down, 2 left, 3 right, and
    from 4 on no-ops; walls stop a move. An observation is the state, one-hot float32 ``[S]``: states are numbered along
    the way from the top left (0) to the top right (``S - 1``).

    From the paper: three corridors, 10, 50 and 10 states, the start, the actions, and that the game ends in either
    reward state. Its figure draws where the smaller reward is and shades how large the two are, and it states no
    discount: the U, 0.1 and 1 are this implementation's reading. With them the best way from the start is right for
    every discount above 0.1 ** (1 / 51), about 0.956. The paper has no time limit; ``max_steps`` truncates only, and
    the exact values know nothing of it.

    Args:
        num_envs: the number of lanes.
        n_actions: ``A``, at least 5; the paper compares 5, 10 and 20.
        vertical: states of each vertical corridor, its corner included, at least 2.
        horizontal: states of the horizontal corridor, between the corners.
        small_reward: the reward at the top left.
        large_reward: the reward at the top right.
        max_steps: steps after which an episode is cut off.
        seed: the seed of all lanes together; nothing is random here.

    Raises:
        ValueError: a parameter is out of its range.
    """

    lane_arrays = ("time", "state")

    def __init__(
        self,
        num_envs: int = 1,
        n_actions: int = 5,
        vertical: int = 10,
        horizontal: int = 50,
        small_reward: float = 0.1,
        large_reward: float = 1.0,
        max_steps: int = 1000,
        seed: int | None = None,
    ) -> None:
        for name, value, least in (
            ("n_actions", n_actions, 5),
            ("vertical", vertical, 2),
            ("horizontal", horizontal, 1),
            ("max_steps", max_steps, 1),
        ):
            require_at_least(name, value, least)
        if not 0 < small_reward < large_reward:
            raise ValueError(
                f"small_reward is {small_reward!r} and large_reward {large_reward!r}; "
                "the small one must be above 0 and below the large one"
            )
        self.cells = _cells(vertical, horizontal)
        self.n_states = len(self.cells)
        space = spaces.Box(0.0, 1.0, (self.n_states,), np.float32)
        super().__init__(num_envs, space, spaces.Discrete(n_actions), seed)
        self.start, self.max_steps = vertical - 1, max_steps
        self._transitions = _transitions(self.cells, n_actions, small_reward, large_reward)
        self.time = np.zeros(num_envs, np.int64)
        self.state = np.full(num_envs, self.start)

    def reset(self, lanes: Bool[np.ndarray, " N"]) -> None:
        """Go back to the start."""
        self.time[lanes] = 0
        self.state[lanes] = self.start

    def step(self, actions: Integer[np.ndarray, " N"]) -> TaskStep:
        """Move every agent that no wall stops; success is the larger reward."""
        next_state, rewards, terminal = self._transitions
        gained = rewards[self.state, actions].astype(np.float32)
        self.state = next_state[self.state, actions]
        self.time += 1
        ended = terminal[self.state]
        return TaskStep(gained, ended, ~ended & (self.time >= self.max_steps), self.state == self.n_states - 1)

    def observe(self) -> Float32[np.ndarray, "N S"]:
        """The state, one-hot."""
        return np.eye(self.n_states, dtype=np.float32)[self.state]

    def render(self) -> UInt8[np.ndarray, "N H W 3"]:
        """A map of every lane: the corridors grey, the rewards the redder the larger, the agent white."""
        rows, columns = self.cells[:, 0].max() - self.cells[:, 0], self.cells[:, 1]
        maps = np.zeros((self.num_envs, int(rows.max()) + 1, int(columns.max()) + 1, 3), np.uint8)
        maps[:, rows, columns] = 96
        maps[:, rows[[0, -1]], columns[[0, -1]]] = [[255, 128, 128], [255, 0, 0]]
        maps[np.arange(self.num_envs), rows[self.state], columns[self.state]] = 255
        factor = -(-PICTURE_SIDE // (2 * min(maps.shape[1:3])))
        return maps.repeat(factor, axis=1).repeat(factor, axis=2)

    def transitions(self) -> Dynamics:
        """The whole process, as new arrays."""
        return Dynamics(*(array.copy() for array in self._transitions))

    def exact_q(self, policy: Float[np.ndarray, "S A"], gamma: float) -> Float[np.ndarray, "S A"]:
        """The exact value of every action under a policy: the Bellman equation, solved; 0 in terminal states.

        Args:
            policy: the probability of every action in every state.
            gamma: the discount, at least 0 and below 1.

        Raises:
            ValueError: the policy is not one for these states and actions, or ``gamma`` is out of its range.
        """
        _check_discount(gamma)
        next_state, rewards, terminal = self._transitions
        if policy.shape != rewards.shape:
            raise ValueError(f"policy has the shape {policy.shape}; it must be [states, actions], {rewards.shape}")
        if (policy < 0).any() or not np.allclose(policy.sum(axis=1), 1):
            state = int(np.argmax((policy < 0).any(axis=1) | ~np.isclose(policy.sum(axis=1), 1)))
            raise ValueError(f"policy[{state}] is no distribution: it must be non-negative and sum to 1")
        states = np.arange(self.n_states)[:, None]
        flow = np.zeros((self.n_states, self.n_states))
        np.add.at(flow, (states, next_state), policy)
        flow[terminal] = 0
        values = np.linalg.solve(np.eye(self.n_states) - gamma * flow, (policy * rewards).sum(axis=1))
        q: np.ndarray = np.where(terminal[:, None], 0.0, rewards + gamma * values[next_state])
        return q

    def optimal_q(self, gamma: float) -> Float[np.ndarray, "S A"]:
        """The exact values of the best policy; 0 in terminal states.

        Raises:
            ValueError: ``gamma`` is out of its range.
        """
        _check_discount(gamma)
        next_state, rewards, terminal = self._transitions
        q = np.zeros_like(rewards)
        # Value iteration is exact after S sweeps: no best way is longer than that, and going nowhere is worth 0.
        for _ in range(self.n_states):
            q = np.where(terminal[:, None], 0.0, rewards + gamma * q.max(axis=1)[next_state])
        return q

    def behaviour_policy(self, gamma: float, epsilon: float = 0.001) -> Float[np.ndarray, "S A"]:
        """The policy that the paper evaluates: the best action, or with probability ``epsilon`` any one of them all.

        Raises:
            ValueError: ``gamma`` or ``epsilon`` is out of its range.
        """
        if not 0 <= epsilon <= 1:
            raise ValueError(f"epsilon is {epsilon!r}; it must be from 0 to 1")
        best = self.optimal_q(gamma).argmax(axis=1)
        actions = int(self.action_space.n)
        return epsilon / actions + (1 - epsilon) * np.eye(actions)[best]


def _cells(vertical: int, horizontal: int) -> Integer[np.ndarray, "S 2"]:
    """Row, from the bottom, and column of every state."""
    left = [(row, 0) for row in reversed(range(vertical))]
    bottom = [(0, column) for column in range(1, horizontal + 1)]
    right = [(row, horizontal + 1) for row in range(vertical)]
    return np.array(left + bottom + right)


def _transitions(cells: Integer[np.ndarray, "S 2"], n_actions: int, small_reward: float, large_reward: float) -> Dynamics:
    state_at = {(row, column): state for state, (row, column) in enumerate(cells.tolist())}
    last = len(cells) - 1
    next_state = np.repeat(np.arange(len(cells))[:, None], n_actions, axis=1)
    for (row, column), state in state_at.items():
        if state not in (0, last):
            for action, (up, across) in enumerate(MOVES):
                next_state[state, action] = state_at.get((row + up, column + across), state)
    terminal = np.zeros(len(cells), np.bool_)
    terminal[[0, last]] = True
    arrival = np.zeros(len(cells))
    arrival[[0, last]] = small_reward, large_reward
    return Dynamics(next_state, np.where(terminal[:, None], 0.0, arrival[next_state]), terminal)


def _check_discount(gamma: float) -> None:
    if not 0 <= gamma < 1:
        raise ValueError(f"gamma is {gamma!r}; it must be at least 0 and below 1")
