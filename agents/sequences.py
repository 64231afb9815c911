"""R2D2's replay: sequences with the core's state where they start (Kapturowski et al. 2019, sections 2.3 and 3)."""

from typing import Any, NamedTuple, TypeAlias

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor

from saccade.agents.frames import Arrays
from saccade.agents.memory_limit import check_fits
from saccade.agents.state_ring import StateRing, state_rows
from saccade.agents.step_ring import TERMINATED, StepRing, lane_slots, to_tensors
from saccade.agents.sum_tree import Priorities, predicted_tree_bytes
from saccade.policies.core import State
from saccade.policies.policy import Observations

Part: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Sequences: the positions where they start, their lengths, their lanes."""


class Sequences(NamedTuple):
    """A batch of ``N`` sequences of up to ``L`` steps, time-major.

    Attributes:
        observations: ``[L + 1, N, ...]``; the one after the last step is what followed it, the final observation where the
            episode was truncated. Where it terminated, and in padding, the last observation is repeated.
        actions: ``[L, N, ...]``; in padding the last one.
        rewards: ``[L, N]``; 0 in padding.
        discounts: ``[L, N]``, ``γ``; 0 where the episode terminated and in padding.
        mask: ``[L, N]``, 1 for steps and 0 for padding, of which there is some where the episode ended early.
        episode_starts: ``[L + 1, N]``, true at step 0 where that is its episode's first, and nowhere else.
        decisions: ``[L, N, K]``, the core's latent decisions; 0 in padding.
        state: the core's state before step 0, leaves ``[N, ...]``; the example's where an episode starts, as none is needed.
        weights: ``[N]``, importance weights, the largest being 1.
        indices: ``[N]``, to set priorities with; on the host, where they stay.
    """

    observations: Observations
    actions: Tensor
    rewards: Float[Tensor, "L N"]
    discounts: Float[Tensor, "L N"]
    mask: Float[Tensor, "L N"]
    episode_starts: Bool[Tensor, "L1 N"]
    decisions: Float[Tensor, "L N K"]
    state: State
    weights: Float[Tensor, " N"]
    indices: Int[np.ndarray, " N"]


class SequenceReplay:
    """The sequences among the last steps of ``B`` lanes.

    In each episode a sequence starts every ``L - overlap`` steps, the first at its first step. It is complete when ``L`` steps
    and what followed them are known, or when the episode ends: it never goes beyond. So an episode's last sequences are
    shorter; one that adds no step to the sequence before it is left out. Steps are stored once, whatever the overlap.

    Args:
        buffer_size: steps in all lanes together; each has ``buffer_size // n_envs`` slots, of which a truncated episode takes
            one more than its steps.
        sequence_length: ``L``, burn-in included.
        overlap: steps that a sequence shares with the next one; the paper's is half of ``L``.
        observation_space: what is seen.
        action_space: what can be done.
        n_envs: ``B``.
        state: a core's state for one lane, leaves ``[1, ...]``, as an example of what to store.
        decision_size: ``K``, numbers in a latent decision.
        rng: draws the batches.
        gamma: ``γ``.
        alpha: how much priorities matter; 0 draws uniformly.
        epsilon: added to priorities, so that none is 0.
        frames: frames in a stacked observation, 1 to store observations whole; ``None`` to tell by the space.
        device: where batches go.

    Raises:
        ValueError: the replay would not fit into memory, is too short for one sequence, or an argument is out of range.
    """

    def __init__(
        self,
        buffer_size: int,
        sequence_length: int,
        overlap: int,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        n_envs: int,
        state: State,
        decision_size: int,
        rng: np.random.Generator,
        *,
        gamma: float = 0.997,
        alpha: float = 0.9,
        epsilon: float = 1e-6,
        frames: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if not 0 <= overlap < sequence_length:
            raise ValueError(f"overlap must be at least 0 and less than sequence_length={sequence_length}; got {overlap}")
        if not 0 <= gamma <= 1:
            raise ValueError(f"gamma must be in [0, 1]; got {gamma}")
        slots = lane_slots(buffer_size, n_envs, sequence_length + 2)

        def needs(size: int) -> int:
            return self.predicted_bytes(
                size, sequence_length, overlap, observation_space, action_space, n_envs, state, decision_size, frames=frames
            )

        check_fits("the replay", buffer_size, needs)
        self.sequence_length = sequence_length
        self.overlap = overlap
        self.stride = sequence_length - overlap
        self.rng = rng
        self.gamma = gamma
        self.device = device
        self.ring = StepRing(observation_space, action_space, slots, n_envs, frames)
        self.states = StateRing(state, state_rows(slots, self.stride), n_envs)
        self.priorities = Priorities(slots * n_envs, alpha, epsilon)
        self.decisions = np.zeros((slots * n_envs, decision_size), dtype=np.float32)
        # Of the sequence that starts at a step: its length, and the row of its state, -1 at an episode's first step.
        self.lengths = np.zeros(slots * n_envs, dtype=np.int32)
        self.state_row = np.zeros(slots * n_envs, dtype=np.int32)
        self._time = np.zeros(n_envs, dtype=np.int64)
        self._size = 0

    @classmethod
    def predicted_bytes(
        cls,
        buffer_size: int,
        sequence_length: int,
        overlap: int,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        n_envs: int,
        state: State,
        decision_size: int,
        *,
        frames: int | None = None,
    ) -> int:
        """Bytes of such a replay, before it is made."""
        slots = buffer_size // n_envs
        steps = StepRing.predicted_bytes(observation_space, action_space, slots, n_envs, frames)
        states = StateRing.predicted_bytes(state, state_rows(slots, sequence_length - overlap), n_envs)
        return steps + states + predicted_tree_bytes(slots * n_envs) + slots * n_envs * (4 * decision_size + 4 + 4)

    def __len__(self) -> int:
        """How many sequences can be drawn."""
        return self._size

    @property
    def n_envs(self) -> int:
        """``B``."""
        return self.ring.n_envs

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        per_step = self.decisions.nbytes + self.lengths.nbytes + self.state_row.nbytes
        return self.ring.nbytes + self.states.nbytes + self.priorities.tree.nbytes + per_step

    def add(
        self,
        observations: Arrays,
        state: State,
        actions: Num[np.ndarray, "B ..."],
        rewards: Num[np.ndarray, " B"],
        dones: Bool[np.ndarray, " B"],
        truncated: Bool[np.ndarray, " B"],
        finals: dict[int, Any],
        decisions: Float[Tensor, "B K"],
    ) -> None:
        """Store a step of every lane.

        Args:
            observations: as all other arguments and errors in :meth:`StepRing.append`.
            state: the core's state before the step, leaves ``[B, ...]``; read only where a sequence starts within an episode.
            decisions: the core's latent decisions in that step.
        """
        ring = self.ring
        positions, gone = ring.append(observations, actions, rewards, dones, truncated, finals)
        self._size -= int(np.count_nonzero(self.priorities.tree[gone]))
        index = ring.store.flat(positions, ring.lanes)
        self.decisions[index] = decisions.detach().cpu().numpy()
        self.state_row[index] = -1
        later = np.flatnonzero((self._time % self.stride == 0) & (self._time > 0))
        if len(later):
            self.state_row[index[later]] = self.states.append(later, state)
        # Full ones: what followed their last step is what was just acted on.
        since = self._time - self.sequence_length
        full = np.flatnonzero((since >= 0) & (since % self.stride == 0))
        parts = [(positions[full] - self.sequence_length, np.full(len(full), self.sequence_length), full)]
        self._time += 1
        parts += [
            self._last_ones(lane, int(positions[lane]) + 1, self.sequence_length) for lane in np.flatnonzero(dones).tolist()
        ]
        self._time[dones] = 0
        self._admit(gone, parts)

    def break_off(self) -> None:
        """Before the environments are reset in mid-episode: what comes next does not follow from the last steps, which go."""
        lanes = self.ring.break_off()
        self._time[lanes] -= 1
        # A full one was complete as soon as the observation was known that now is the final one.
        ends = self.ring.store.head - 1
        parts = [self._last_ones(lane, int(ends[lane]), self.sequence_length - 1) for lane in lanes.tolist()]
        self._time[lanes] = 0
        if parts:
            self._admit(np.array([], dtype=np.int64), parts)

    def _last_ones(self, lane: int, end: int, longest: int) -> Part:
        """The sequences not complete before, of an episode whose last step is before the position ``end``."""
        total = int(self._time[lane])
        first = max(0, total - longest)
        begins = np.arange(-(-first // self.stride) * self.stride, total, self.stride)
        begins = begins[(begins == 0) | (total - begins > self.overlap)]
        return end - total + begins, total - begins, np.full(len(begins), lane)

    def _admit(self, gone: np.ndarray, parts: list[Part]) -> None:
        """Take in complete sequences, but those that have lost frames already."""
        starts, lengths, lanes = (np.concatenate(part) for part in zip(*parts, strict=True))
        alive = starts >= self.ring.store.tail[lanes]
        new = self.ring.store.flat(starts[alive], lanes[alive])
        self.lengths[new] = lengths[alive]
        self.priorities.replace(gone, new)
        self._size += len(new)

    def sample(self, batch_size: int, beta: float = 1.0) -> Sequences:
        """A batch, drawn with replacement.

        Args:
            batch_size: ``N``.
            beta: how much the weights make up for drawing by priority, 0 to 1.

        Raises:
            ValueError: there is nothing to draw.
        """
        if len(self) == 0:
            raise ValueError("the replay holds no complete sequence yet")
        ring, L = self.ring, self.sequence_length
        indices, weights = self.priorities.sample(batch_size, beta, self.rng)
        positions, lanes = ring.locate(indices)
        lengths = self.lengths[indices]
        steps = np.arange(L)[:, None]
        mask = steps < lengths
        rows = ring.store.flat(positions + np.minimum(steps, lengths - 1), lanes[None])
        terminated = ring.ends[rows] == TERMINATED
        # After a terminal step there may be nothing to read yet.
        seen = positions + np.minimum(np.arange(L + 1)[:, None], lengths - terminated[-1])
        starts = np.zeros(seen.shape, dtype=np.bool_)
        starts[0] = self.state_row[indices] < 0
        return Sequences(
            observations=to_tensors(ring.store.read(seen, np.broadcast_to(lanes, seen.shape)), self.device),
            actions=self._tensor(ring.actions[rows]),
            rewards=self._tensor(np.where(mask, ring.rewards[rows], np.float32(0))),
            discounts=self._tensor((self.gamma * (mask & ~terminated)).astype(np.float32)),
            mask=self._tensor(mask.astype(np.float32)),
            episode_starts=self._tensor(starts),
            decisions=self._tensor(self.decisions[rows] * mask[:, :, None]),
            state=self.states.read(self.state_row[indices], lanes, self.device),
            weights=self._tensor(weights.astype(np.float32)),
            indices=indices,
        )

    def update_priorities(self, indices: Int[np.ndarray, " N"], priorities: Float[Tensor, " N"]) -> None:
        """Set priorities to ``(p + ε)^α``.

        Raises:
            ValueError: a priority is not finite.
        """
        self.priorities.update(indices, priorities.detach().cpu().numpy())

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)
