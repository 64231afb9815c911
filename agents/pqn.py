"""PQN: parallel Q-learning without replay and target network (Gallici et al. 2024), over any core."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from saccade.agents.algorithm import Shown
from saccade.agents.arguments import check_least, check_share
from saccade.agents.exploration import EpsilonGreedy
from saccade.agents.losses import chosen, q_lambda_targets, squared_error
from saccade.agents.reinforce import Reinforce, core_terms
from saccade.agents.rollout import Rollout
from saccade.agents.sequence import SequenceAlgorithm
from saccade.agents.update import LossTerms
from saccade.policies import Q_POLICIES

MINIBATCH = 512
"""The most transitions in a minibatch where no ``batch_size`` is named: an equal share of the lanes, at least one."""


class PQN(EpsilonGreedy, SequenceAlgorithm):
    """Q(λ) on whole sequences from parallel environments; layer normalisation in the networks keeps it stable.

    Args:
        policy: a policy class or an alias: ``MlpPolicy``, ``LstmPolicy``, ``GruPolicy``, ``GlimpsePolicy``.
        env: a Gymnasium environment, its id, or a ``VecEnv``.
        learning_rate: a number, or a function of the remaining progress (1 to 0).
        n_steps: ``T``, steps in every environment between updates.
        batch_size: transitions in a minibatch, a multiple of ``n_steps``. ``None``: equal shares of at most 512.
        n_epochs: passes over every rollout.
        gamma: discount factor.
        q_lambda: ``λ`` of the targets.
        exploration_fraction: share of the training over which ε falls from its initial to its final value.
        exploration_initial_eps: ε at the start.
        exploration_final_eps: ε at the end.
        max_grad_norm: gradients are scaled down to this norm.
        reinforce: how the core's latent decisions (a gaze) are trained, for cores that take any.
        sb3_kwargs: further arguments of SB3's ``BaseAlgorithm`` (``policy_kwargs``, ``tensorboard_log``, ``seed`` ...).

    Raises:
        ValueError: a number is out of its range, or ``batch_size`` does not cut a rollout into equal shares of whole sequences.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = Q_POLICIES

    def __init__(
        self,
        policy: str | Callable[..., BasePolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 1e-3,
        n_steps: int = 32,
        batch_size: int | None = None,
        n_epochs: int = 2,
        gamma: float = 0.99,
        q_lambda: float = 0.95,
        exploration_fraction: float = 0.2,
        exploration_initial_eps: float = 1.0,
        exploration_final_eps: float = 0.02,
        max_grad_norm: float = 10.0,
        reinforce: Reinforce | None = None,
        _init_setup_model: bool = True,
        **sb3_kwargs: Any,
    ) -> None:
        super().__init__(policy, env, learning_rate, n_steps, gamma, max_grad_norm, **sb3_kwargs)
        self.state_every = n_steps
        self.set_exploration(exploration_fraction, exploration_initial_eps, exploration_final_eps)
        check_share("q_lambda", q_lambda)
        check_least(1, n_epochs=n_epochs)
        self.batch_size = batch_size
        self.n_epochs = n_epochs
        self.q_lambda = q_lambda
        self.reinforce = reinforce or Reinforce()
        if _init_setup_model:
            self._setup_model()
            self.lanes_each = lanes_in_minibatch(self.batch_size, self.n_steps, self.n_envs)

    def prepare(self) -> None:
        """A rollout's buffers, and how many lanes make a minibatch of them: an agent may be loaded for other environments."""
        super().prepare()
        self.lanes_each = lanes_in_minibatch(self.batch_size, self.n_steps, self.n_envs)

    def value(self, features: Tensor) -> Tensor:
        """``max_a Q``."""
        return self.policy.head(features).q.amax(dim=-1)

    def targets(self, batch: Rollout, q: Float[Tensor, "T1 B A"]) -> Float[Tensor, "T B"]:
        """Q(λ) targets of a minibatch from the values ``q`` of all its observations."""
        discount_t = self.gamma * batch.continues()
        return q_lambda_targets(batch.rewards, discount_t, q[1:], self.q_lambda)

    def loss(self, batch: Rollout, targets: Float[Tensor, "T B"] | None = None) -> LossTerms:
        """The loss of one minibatch of sequences, with its terms; ``targets`` are computed unless given."""
        output = self.policy(batch.observations, batch.state, batch.episode_starts, batch.replay())
        q = output.head.q
        if targets is None:
            targets = self.targets(batch, q)
        q_tm1 = chosen(q[:-1], batch.actions)
        td_loss = squared_error(q_tm1, targets).mean()
        log_probs, continues = batch.decision_log_probs, batch.continues()
        extra = core_terms(self.policy, output.core, log_probs, continues, targets, batch.rewards, self.reinforce)
        metrics = {"td_loss": td_loss.detach(), "q_mean": q_tm1.detach().mean(), **extra.metrics}
        return LossTerms(td_loss + extra.loss, metrics)

    def first_batch(self, env: VecEnv, callback: BaseCallback) -> Rollout:
        """A whole rollout."""
        self.collect_rollouts(env, callback)
        return self.rollout

    def show(self, batch: Rollout) -> Shown:
        """The rollout, as it is."""
        return Shown(batch.observations, batch.state, batch.episode_starts, batch.replay(), batch.rewards)

    def frozen_loss(self, batch: Rollout) -> Callable[[], LossTerms]:
        """The loss with targets fixed at their present values."""
        with torch.no_grad():
            output = self.policy(batch.observations, batch.state, batch.episode_starts, batch.replay())
            targets = self.targets(batch, output.head.q)
        return lambda: self.loss(batch, targets)

    def train(self) -> None:
        """``n_epochs`` passes over the rollout."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        for _ in range(self.n_epochs):
            for batch in self.rollout.minibatches(self.lanes_each):
                self.updater.step(self.loss(batch))
        self._n_updates += self.n_epochs
        self.policy.note(self.rollout.observations)


def lanes_in_minibatch(batch_size: int | None, n_steps: int, n_envs: int) -> int:
    """How many whole sequences make a minibatch.

    Raises:
        ValueError: ``batch_size`` does not divide the rollout into whole sequences; names the nearest sizes that do.
    """
    if batch_size is None:
        return max(lanes for lanes in range(1, n_envs + 1) if n_envs % lanes == 0 and lanes <= max(1, MINIBATCH // n_steps))
    lanes, rest = divmod(batch_size, n_steps)
    if rest or lanes < 1 or n_envs % lanes:
        valid = [n_steps * lanes for lanes in range(1, n_envs + 1) if n_envs % lanes == 0]
        nearest = sorted(valid, key=lambda size: abs(size - batch_size))[:3]
        raise ValueError(
            f"batch_size={batch_size} does not cut {n_envs} environments x {n_steps} steps into whole sequences; "
            f"nearest valid: {', '.join(map(str, sorted(nearest)))}"
        )
    return lanes
