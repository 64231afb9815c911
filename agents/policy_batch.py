"""What an actor-critic agent learns from: a rollout cut into sequences, with what the policy thought when it acted."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saccade.agents.rollout import Rollout
from saccade.policies.core import State, map_state
from saccade.policies.policy import Observations, map_observations

AT_ONCE = 16
"""Minibatches of single steps that are picked together: looking each column up for each takes as long as a small layer."""


@dataclass
class Judgement:
    """What the policy thought of every step of a rollout, when it took it.

    Attributes:
        log_probs: of the actions taken.
        values: of the observations, the one after the last step included.
        masks: choices that were allowed, ``M`` is 0 where all are.
    """

    log_probs: Float[Tensor, "T B"]
    values: Float[Tensor, "T1 B"]
    masks: Bool[Tensor, "T B M"]

    @classmethod
    def empty(cls, rollout: Rollout, mask_size: int) -> "Judgement":
        """Buffers beside those of a rollout."""
        steps, lanes = rollout.rewards.shape
        log_probs = torch.zeros_like(rollout.rewards)
        masks = torch.ones(steps, lanes, mask_size, dtype=torch.bool, device=log_probs.device)
        return cls(log_probs, log_probs.new_zeros(steps + 1, lanes), masks)


@dataclass
class PolicyBatch:
    """``N`` sequences of ``L`` steps, time-major, with what :class:`Rollout` and :class:`Judgement` hold of them, and more.

    Attributes:
        continues: 1 where the episode goes on after the step, else 0.
        advantages: of the actions taken.
        returns: what the value is to predict.
        state: the core's state before every sequence, ``[N, ...]``.
    """

    observations: Observations
    episode_starts: Bool[Tensor, "L N"]
    actions: Tensor
    rewards: Float[Tensor, "L N"]
    continues: Float[Tensor, "L N"]
    decisions: Float[Tensor, "L N K"]
    decision_log_probs: Float[Tensor, "L N"]
    log_probs: Float[Tensor, "L N"]
    values: Float[Tensor, "L N"]
    advantages: Float[Tensor, "L N"]
    returns: Float[Tensor, "L N"]
    masks: Bool[Tensor, "L N M"]
    state: State

    @classmethod
    def cut(cls, rollout: Rollout, judgement: Judgement, returns: Float[Tensor, "T B"], length: int) -> "PolicyBatch":
        """All sequences of ``length`` steps of a rollout, which kept a state at the start of each."""
        steps = len(returns)
        count = steps // length

        def sequences(tensor: Tensor) -> Tensor:
            return tensor[:steps].unflatten(0, (count, length)).transpose(0, 1).flatten(1, 2)

        return cls(
            observations=map_observations(sequences, rollout.observations),
            episode_starts=sequences(rollout.episode_starts),
            actions=sequences(rollout.actions),
            rewards=sequences(rollout.rewards),
            continues=sequences(rollout.continues()),
            decisions=sequences(rollout.decisions),
            decision_log_probs=sequences(rollout.decision_log_probs),
            log_probs=sequences(judgement.log_probs),
            values=sequences(judgement.values),
            advantages=sequences(returns - judgement.values[:steps]),
            returns=sequences(returns),
            masks=sequences(judgement.masks),
            state=map_state(lambda *leaves: torch.cat(leaves), *rollout.states),
        )

    @property
    def n_sequences(self) -> int:
        """``N``."""
        return self.returns.shape[1]

    def pick(self, index: Tensor) -> "PolicyBatch":
        """Some of the sequences."""

        def of(tensor: Tensor) -> Tensor:
            return tensor.index_select(1, index)

        arguments: dict[str, Any] = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return PolicyBatch(
            **{name: of(value) for name, value in arguments.items() if name != "observations"},
            observations=map_observations(of, self.observations),
            state=map_state(lambda leaf: leaf.index_select(0, index), self.state),
        )

    def minibatches(self, sequences_each: int) -> Iterator["PolicyBatch"]:
        """All sequences once, in random order; the last minibatch has what is left."""
        order = torch.randperm(self.n_sequences, device=self.returns.device)
        # Single steps are picked for several minibatches at once, whose parts then lie one after another in memory.
        at_once = AT_ONCE if len(self.returns) == 1 else 1
        for index in order.split(at_once * sequences_each):
            yield from self.pick(index).split(sequences_each)

    def split(self, sequences_each: int) -> Iterator["PolicyBatch"]:
        """Parts of ``sequences_each``, the last one of what is left; they share memory with the whole."""

        def parts(tensor: Tensor) -> Any:
            return iter(tensor.split(sequences_each, dim=1))

        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor) and name != "observations"}
        rows = {name: parts(value) for name, value in tensors.items()}
        observations = map_observations(parts, self.observations)
        state = map_state(lambda leaf: iter(leaf.split(sequences_each)), self.state)
        for _ in range(0, self.n_sequences, sequences_each):
            yield PolicyBatch(
                **{name: next(row) for name, row in rows.items()},
                observations=map_observations(next, observations),
                state=map_state(next, state),
            )

    def replay(self) -> Float[Tensor, "L N K"] | None:
        """The recorded decisions; ``None`` if the core takes none."""
        return self.decisions if self.decisions.shape[-1] else None
