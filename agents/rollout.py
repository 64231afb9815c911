"""What a sequence agent collects: ``T`` steps in ``B`` lanes, with the core's state only where a sequence starts."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saccade.policies.core import State, map_state
from saccade.policies.policy import Observations, lanes_of, leaves, map_observations


@dataclass
class Rollout:
    """A batch of sequences, time-major.

    Attributes:
        observations: ``[T + 1, B, ...]``; the last one is what followed the last action.
        episode_starts: ``[T + 1, B]``, true where the observation is an episode's first.
        actions: ``[T, B, ...]``.
        rewards: ``[T, B]``; where an episode was cut short, the discounted value of its final observation is already added.
        decisions: ``[T, B, K]``, the core's latent decisions (``K`` is 0 for cores that take none).
        decision_log_probs: ``[T, B]``, of those decisions when they were taken.
        states: the core's state where a sequence to learn from starts, the first one before the first step.
    """

    observations: Observations
    episode_starts: Bool[Tensor, "T1 B"]
    actions: Tensor
    rewards: Float[Tensor, "T B"]
    decisions: Float[Tensor, "T B K"]
    decision_log_probs: Float[Tensor, "T B"]
    states: list[State] = field(default_factory=list)

    @classmethod
    def empty(cls, n_steps: int, seen: Observations, action_space: gym.Space[Any], decision_size: int) -> "Rollout":
        """Buffers for ``T = n_steps`` steps.

        Args:
            n_steps: ``T``.
            seen: observations ``[B, ...]``, for their types and device: ``VecNormalize`` makes floats of whole numbers.
            action_space: a ``Box`` has floats for actions, whatever its own type.
            decision_size: ``K``.
        """
        lanes, one = lanes_of(seen), leaves(seen)[0]
        assert action_space.shape is not None

        def floats(*sizes: int) -> Tensor:
            return torch.zeros(n_steps, lanes, *sizes, device=one.device)

        whole = torch.zeros(n_steps, lanes, *action_space.shape, dtype=torch.int64, device=one.device)
        return cls(
            observations=map_observations(lambda part: part.new_zeros(n_steps + 1, *part.shape), seen),
            episode_starts=torch.zeros(n_steps + 1, lanes, dtype=torch.bool, device=one.device),
            actions=floats(*action_space.shape) if isinstance(action_space, gym.spaces.Box) else whole,
            rewards=floats(),
            decisions=floats(decision_size),
            decision_log_probs=floats(),
        )

    @property
    def state(self) -> State:
        """The core's state before the first step."""
        return self.states[0]

    @property
    def n_envs(self) -> int:
        """``B``."""
        return self.rewards.shape[1]

    def continues(self) -> Float[Tensor, "T B"]:
        """1 where the episode goes on after the step, 0 where it ends."""
        return (~self.episode_starts[1:]).float()

    def lanes(self, index: Tensor) -> "Rollout":
        """The sequences of some lanes."""
        return Rollout(
            observations=map_observations(lambda part: part[:, index], self.observations),
            episode_starts=self.episode_starts[:, index],
            actions=self.actions[:, index],
            rewards=self.rewards[:, index],
            decisions=self.decisions[:, index],
            decision_log_probs=self.decision_log_probs[:, index],
            states=[map_state(lambda leaf: leaf[index], state) for state in self.states],
        )

    def minibatches(self, lanes_each: int) -> Iterator["Rollout"]:
        """All lanes once, in random order, ``lanes_each`` at a time."""
        order = torch.randperm(self.n_envs, device=self.rewards.device)
        for index in order.split(lanes_each):
            yield self.lanes(index)

    def replay(self) -> Float[Tensor, "T1 B K"] | None:
        """The recorded decisions, one row more so as to go with ``observations``; ``None`` if the core takes none.

        The last row is NaN: nobody acted on the last observation, or decided anything.
        """
        if self.decisions.shape[-1] == 0:
            return None
        return torch.cat([self.decisions, torch.full_like(self.decisions[:1], torch.nan)])
