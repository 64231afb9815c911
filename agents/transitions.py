"""DQN's replay: single steps with n-step returns (Sutton 1988), drawn uniformly or by priority (Schaul et al. 2016)."""

from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor

from saccade.agents.frames import Arrays
from saccade.agents.memory_limit import check_fits
from saccade.agents.step_ring import FINAL, GOES_ON, TERMINATED, StepRing, lane_slots, to_tensors
from saccade.agents.sum_tree import Priorities, predicted_tree_bytes
from saccade.policies.policy import Observations


class Transitions(NamedTuple):
    """A batch of ``N`` transitions over up to ``n`` steps each.

    Attributes:
        observations: ``[N, ...]``, what was acted on.
        actions: ``[N, ...]``.
        rewards: ``[N]``, ``Σ γ^j r_{t+j}`` over the ``k`` steps up to ``n`` or to the episode's end.
        discounts: ``[N]``, ``γ^k``, or 0 where the episode terminated.
        next_observations: ``[N, ...]``, what was seen after those steps; the final observation where the episode was truncated,
            and some observation of no consequence where it terminated.
        weights: ``[N]``, importance weights, the largest being 1.
        indices: ``[N]``, to set priorities with; on the host, where they stay.
    """

    observations: Observations
    actions: Tensor
    rewards: Float[Tensor, " N"]
    discounts: Float[Tensor, " N"]
    next_observations: Observations
    weights: Float[Tensor, " N"]
    indices: Int[np.ndarray, " N"]


class TransitionReplay:
    """The last steps of ``B`` lanes.

    A step can be drawn as soon as its return is complete: ``n`` more observations are known, or its episode has ended.

    Args:
        buffer_size: steps in all lanes together; each has ``buffer_size // n_envs`` slots, of which a truncated episode takes
            one more than its steps.
        observation_space: what is seen.
        action_space: what can be done.
        n_envs: ``B``.
        rng: draws the batches.
        n_steps: ``n``.
        gamma: ``γ``.
        alpha: how much priorities matter; 0 draws uniformly and keeps none.
        epsilon: added to errors, so that no priority is 0.
        frames: frames in a stacked observation, 1 to store observations whole; ``None`` to tell by the space.
        device: where batches go.

    Raises:
        ValueError: the replay would not fit into memory, is too short for one return, or an argument is out of range.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        n_envs: int,
        rng: np.random.Generator,
        *,
        n_steps: int = 1,
        gamma: float = 0.99,
        alpha: float = 0.0,
        epsilon: float = 1e-6,
        frames: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if n_steps < 1:
            raise ValueError(f"n_steps must be at least 1; got {n_steps}")
        if not 0 <= gamma <= 1:
            raise ValueError(f"gamma must be in [0, 1]; got {gamma}")
        slots = lane_slots(buffer_size, n_envs, n_steps + 2)

        def needs(size: int) -> int:
            return self.predicted_bytes(size, observation_space, action_space, n_envs, alpha=alpha, frames=frames)

        check_fits("the replay", buffer_size, needs)
        self.ring = StepRing(observation_space, action_space, slots, n_envs, frames)
        self.priorities = Priorities(slots * n_envs, alpha, epsilon) if alpha != 0 else None
        self.rng = rng
        self.n_steps = n_steps
        self.gamma = gamma
        self.device = device
        # Positions below this have complete returns.
        self.ready = np.zeros(n_envs, dtype=np.int64)
        self._powers = gamma ** np.arange(n_steps + 1)

    @classmethod
    def predicted_bytes(
        cls,
        buffer_size: int,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        n_envs: int,
        *,
        alpha: float = 0.0,
        frames: int | None = None,
    ) -> int:
        """Bytes of such a replay, before it is made."""
        slots = buffer_size // n_envs
        tree = predicted_tree_bytes(slots * n_envs) if alpha != 0 else 0
        return StepRing.predicted_bytes(observation_space, action_space, slots, n_envs, frames) + tree

    def __len__(self) -> int:
        """How many steps can be drawn."""
        return int((self.ready - self.ring.store.tail).sum()) - self.ring.n_finals

    @property
    def n_envs(self) -> int:
        """``B``."""
        return self.ring.n_envs

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.ring.nbytes + (0 if self.priorities is None else self.priorities.tree.nbytes)

    def add(
        self,
        observations: Arrays,
        actions: Num[np.ndarray, "B ..."],
        rewards: Num[np.ndarray, " B"],
        dones: Bool[np.ndarray, " B"],
        truncated: Bool[np.ndarray, " B"],
        finals: dict[int, Any],
    ) -> None:
        """Store a step of every lane; arguments and errors as in :meth:`StepRing.append`.

        What the step led to is what the next call is given, or the lane's entry in ``finals`` where ``truncated``.
        """
        store = self.ring.store
        positions, gone = self.ring.append(observations, actions, rewards, dones, truncated, finals)
        # Frames that do not follow one another may kill steps before they are complete.
        before = np.maximum(self.ready, store.tail)
        self._admit(gone, before, np.where(dones, store.head, np.maximum(before, positions + 1 - self.n_steps)))

    def break_off(self) -> None:
        """Before the environments are reset in mid-episode: what comes next does not follow from the last steps, which go."""
        lanes = self.ring.break_off()
        ready = self.ready.copy()
        ready[lanes] = self.ring.store.head[lanes]
        self._admit(np.array([], dtype=np.int64), self.ready, ready)

    def _admit(self, gone: np.ndarray, before: np.ndarray, ready: np.ndarray) -> None:
        """Move on to where returns are complete now."""
        self.ready = ready
        if self.priorities is not None:
            new = self.ring.indices(before, ready, self.ring.lanes)
            self.priorities.replace(gone, new[self.ring.ends[new] != FINAL])

    def sample(self, batch_size: int, beta: float = 1.0) -> Transitions:
        """A batch, drawn with replacement.

        Args:
            batch_size: ``N``.
            beta: how much the weights make up for drawing by priority, 0 to 1.

        Raises:
            ValueError: there is nothing to draw.
        """
        if len(self) == 0:
            raise ValueError("the replay holds no complete transition yet")
        if self.priorities is None:
            indices, weights = self._uniform(batch_size), np.ones(batch_size)
        else:
            indices, weights = self.priorities.sample(batch_size, beta, self.rng)
        positions, lanes = self.ring.locate(indices)
        window = self.ring.store.flat(positions[:, None] + np.arange(self.n_steps), lanes[:, None])
        ends = self.ring.ends[window]
        counted = np.ones(window.shape, dtype=np.bool_)
        np.logical_and.accumulate(ends[:, :-1] == GOES_ON, axis=1, out=counted[:, 1:])
        steps = counted.sum(axis=1)
        terminated = (counted & (ends == TERMINATED)).any(axis=1)
        rewards = np.where(counted, self.ring.rewards[window], 0) @ self._powers[:-1]
        read = self.ring.store.read
        return Transitions(
            observations=to_tensors(read(positions, lanes), self.device),
            actions=self._tensor(self.ring.actions[indices]),
            rewards=self._floats(rewards),
            discounts=self._floats(np.where(terminated, 0, self._powers[steps])),
            # After a terminal step there may be nothing to read yet.
            next_observations=to_tensors(read(np.where(terminated, positions, positions + steps), lanes), self.device),
            weights=self._floats(weights),
            indices=indices,
        )

    def update_priorities(self, indices: Int[np.ndarray, " N"], td_errors: Float[Tensor, " N"]) -> None:
        """Set priorities to ``(|δ| + ε)^α``; without effect where ``alpha`` is 0.

        Raises:
            ValueError: an error is not finite.
        """
        if self.priorities is not None:
            self.priorities.update(indices, td_errors.detach().cpu().numpy())

    def _uniform(self, size: int) -> Int[np.ndarray, " N"]:
        """Steps with equal chances: complete ones of any lane, thrown again where the slot holds no step."""
        tail = self.ring.store.tail
        ends = (self.ready - tail).cumsum()
        indices = np.empty(size, dtype=np.int64)
        todo = np.arange(size)
        while len(todo):
            draws = self.rng.integers(ends[-1], size=len(todo))
            lanes = np.searchsorted(ends, draws, side="right")
            indices[todo] = self.ring.store.flat(self.ready[lanes] - ends[lanes] + draws, lanes)
            todo = todo[self.ring.ends[indices[todo]] == FINAL]
        return indices

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def _floats(self, array: np.ndarray) -> Float[Tensor, " N"]:
        return self._tensor(array.astype(np.float32))
