"""PPO: proximal policy optimisation (Schulman et al. 2017) on whole sequences, over any core."""

import warnings
from collections.abc import Callable
from math import gcd
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Float
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import FloatSchedule
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from saccade.agents.algorithm import Outcome, Shown
from saccade.agents.arguments import check_least, check_positive, check_share
from saccade.agents.losses import explained_variance, lambda_returns
from saccade.agents.masks import ActionMasks
from saccade.agents.policy_batch import Judgement, PolicyBatch
from saccade.agents.ppo_loss import Objective, PPOLoss, Recorded
from saccade.agents.reinforce import Reinforce, core_terms
from saccade.agents.sequence import SequenceAlgorithm
from saccade.agents.update import LossTerms
from saccade.policies import ACTOR_CRITIC_POLICIES, ActorCriticPolicy

SEQUENCE = 32
"""The most steps in a sequence where no ``sequence_length`` is named."""

FEW = 4
"""Steps: with fewer in a sequence, there is a warning."""

METRICS = ("value_loss", "policy_gradient_loss", "entropy", "approx_kl", "clip_fraction")
"""The means that :class:`PPOLoss` gives."""

MEASURE_EVERY = 8
"""Minibatches from one whose terms are measured to the next."""


class PPO(SequenceAlgorithm):
    """SB3's PPO with memory, attention and action masks; on a core without memory it is SB3's PPO.

    Args:
        policy: a policy class or an alias: ``MlpPolicy``, ``CnnPolicy``, ``LstmPolicy``, ``GruPolicy``, ``GlimpsePolicy`` ...
        env: a Gymnasium environment, its id, or a ``VecEnv``. Where it says which actions are allowed (by a method
            ``action_masks``, or by ``action_mask`` in its infos), no other is tried.
        learning_rate: a number, or a function of the remaining progress (1 to 0).
        n_steps: ``T``, steps in every environment between updates.
        batch_size: transitions in a minibatch, a multiple of ``sequence_length``.
        n_epochs: passes over every rollout.
        gamma: discount factor.
        gae_lambda: ``λ`` of generalised advantage estimation; 1 for Monte-Carlo advantages.
        clip_range: ``ε`` of the clipped ratio, a number or a function of the remaining progress.
        clip_range_vf: how far a value may move in one rollout's updates; ``None`` for no limit.
        normalize_advantage: to mean 0 and spread 1 in every minibatch.
        ent_coef: weight of the entropy bonus.
        vf_coef: weight of the value's loss.
        max_grad_norm: gradients are scaled down to this norm.
        target_kl: updates on a rollout end when the policy has moved further than 1.5 times this; ``None`` for no limit.
        sequence_length: ``L``, steps that gradients flow back through a memory, which starts from the state stored there; it
            divides ``n_steps`` and ``batch_size``. ``None``: the largest divisor of ``n_steps`` up to 32; 1 without a memory.
        reinforce: how the core's latent decisions (a gaze) are trained, for cores that take any.
        sb3_kwargs: further arguments of SB3's ``BaseAlgorithm`` (``policy_kwargs``, ``tensorboard_log``, ``seed`` ...).

    Raises:
        ValueError: a number is out of its range, or ``sequence_length`` does not fit.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = ACTOR_CRITIC_POLICIES
    supported_action_spaces = (gym.spaces.Discrete, gym.spaces.Box, gym.spaces.MultiDiscrete, gym.spaces.MultiBinary)
    policy: ActorCriticPolicy
    judgement: Judgement
    action_masks: ActionMasks
    measuring = True  # whether the loss says what it consists of

    def __init__(
        self,
        policy: str | Callable[..., BasePolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 3e-4,
        n_steps: int = 2048,
        batch_size: int = 64,
        n_epochs: int = 10,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        clip_range: float | Schedule = 0.2,
        clip_range_vf: float | Schedule | None = None,
        normalize_advantage: bool = True,
        ent_coef: float = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float = 0.5,
        target_kl: float | None = None,
        sequence_length: int | None = None,
        reinforce: Reinforce | None = None,
        _init_setup_model: bool = True,
        **sb3_kwargs: Any,
    ) -> None:
        super().__init__(policy, env, learning_rate, n_steps, gamma, max_grad_norm, **sb3_kwargs)
        check_share("gae_lambda", gae_lambda)
        check_least(1, batch_size=batch_size, n_epochs=n_epochs)
        numbers = {"clip_range": clip_range, "clip_range_vf": clip_range_vf, "target_kl": target_kl}
        check_positive(**{name: number for name, number in numbers.items() if not callable(number)})
        self.batch_size = batch_size
        self.n_epochs = n_epochs
        self.gae_lambda = gae_lambda
        self.clip_range = clip_range
        self.clip_range_vf = clip_range_vf
        self.normalize_advantage = normalize_advantage
        self.ent_coef = ent_coef
        self.vf_coef = vf_coef
        self.target_kl = target_kl
        self.sequence_length = sequence_length
        self.reinforce = reinforce or Reinforce()
        self.clip_schedule = FloatSchedule(clip_range)
        self.value_clip_schedule = None if clip_range_vf is None else FloatSchedule(clip_range_vf)
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        super()._setup_model()
        remembers = self.policy.initial_state(1) != ()
        self.state_every = steps_in_sequence(self.sequence_length, self.n_steps, self.batch_size, remembers)

    def prepare(self) -> None:
        """A rollout's buffers, and where action masks come from."""
        super().prepare()
        assert self.env is not None and self._last_episode_starts is not None
        self.action_masks = ActionMasks.of(self.policy, self.env)
        self.action_masks.note(self._last_infos, self._last_episode_starts)  # training may go on in mid-episode
        self.judgement = Judgement.empty(self.rollout, self.action_masks.size if self.action_masks.known else 0)

    def explore(self, features: Tensor, t: int) -> Tensor:
        """Actions drawn from the policy, among the allowed ones."""
        output = self.policy.read(features)
        masks = None
        if self.action_masks.known:
            masks = self.judgement.masks[t] = torch.as_tensor(self.action_masks.now(), device=self.device)
        draw = self.policy.distribution.sample(self.policy.masked(output.parameters, masks))
        self.judgement.values[t] = output.value
        self.judgement.log_probs[t] = draw.log_prob
        return draw.actions

    def value(self, features: Tensor) -> Tensor:
        """The critic's."""
        return self.policy.value(features)

    def for_environment(self, actions: Tensor) -> np.ndarray:
        """Actions inside their bounds."""
        return self.policy.bounded(actions).cpu().numpy()

    def act(self, env: VecEnv, actions: np.ndarray, callback: BaseCallback) -> Outcome | None:
        """As every agent, and note which actions are allowed next."""
        outcome = super().act(env, actions, callback)
        if outcome is not None:
            self.action_masks.note(outcome.infos, outcome.dones)
        return outcome

    def collect_rollouts(self, env: VecEnv, callback: BaseCallback) -> bool:
        """Fill ``self.rollout``, and the value of what followed it."""
        if not super().collect_rollouts(env, callback):
            return False
        with torch.inference_mode():
            state = self._last_state
            core = self.look(self.to_tensors(self._last_obs), self.rollout.episode_starts[self.n_steps])
            self._last_state = state  # that observation is acted on, and remembered, in the next rollout
            self.judgement.values[self.n_steps] = self.policy.value(core.features[0])
        return True

    def batch(self) -> PolicyBatch:
        """The rollout as sequences to learn from, with ``λ``-returns: advantages are GAE's, return less value."""
        values = self.judgement.values
        returns = lambda_returns(self.rollout.rewards, self.gamma * self.rollout.continues(), values[1:], self.gae_lambda)
        return PolicyBatch.cut(self.rollout, self.judgement, returns, self.state_every)

    def loss(self, batch: PolicyBatch) -> LossTerms:
        """The loss of one minibatch of sequences, with its terms (Schulman et al. 2017, eq. 9)."""
        output, core = self.policy(batch.observations, batch.state, batch.episode_starts, batch.replay())
        scores = self.policy.score(output.parameters, batch.actions, batch.masks if self.action_masks.known else None)
        progress = self._current_progress_remaining
        value_clip = None if self.value_clip_schedule is None else self.value_clip_schedule(progress)
        objective = Objective(self.clip_schedule(progress), value_clip, self.ent_coef, self.vf_coef, self.measuring)
        recorded = Recorded(batch.log_probs, batch.values, self.advantages(batch.advantages), batch.returns)
        entropy = scores.entropy if self.ent_coef else scores.entropy.detach()
        loss, means = PPOLoss.apply(scores.log_prob, entropy, output.value, recorded, objective)  # type: ignore[no-untyped-call]
        metrics = {} if means is None else dict(zip(METRICS, means.unbind(), strict=True))
        if core.cost is None and core.decision is None:
            return LossTerms(loss, metrics)  # nothing to add, which takes as long as a small layer
        extra = core_terms(
            self.policy, core, batch.decision_log_probs, batch.continues, batch.returns, batch.rewards, self.reinforce
        )
        return LossTerms(loss + extra.loss, {**metrics, **extra.metrics})

    def advantages(self, advantages: Float[Tensor, "L N"]) -> Float[Tensor, "L N"]:
        """Normalised, if so asked, over a minibatch of more than one."""
        if not self.normalize_advantage or advantages.numel() < 2:
            return advantages
        spread, mean = torch.std_mean(advantages)
        return (advantages - mean).div_(spread.add_(1e-8))

    def first_batch(self, env: VecEnv, callback: BaseCallback) -> PolicyBatch:
        """A whole rollout, as sequences."""
        self.collect_rollouts(env, callback)
        return self.batch()

    def show(self, batch: PolicyBatch) -> Shown:
        """The sequences, as they are."""
        return Shown(batch.observations, batch.state, batch.episode_starts, batch.replay(), batch.rewards)

    def frozen_loss(self, batch: PolicyBatch) -> Callable[[], LossTerms]:
        """The loss, whose targets are all fixed."""
        return lambda: self.loss(batch)

    def train(self) -> None:
        """``n_epochs`` passes over the rollout, or fewer where the policy has moved too far."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        batch = self.batch()
        self._explained = (batch.values, batch.returns)
        for _ in range(self.n_epochs):
            self._n_updates += 1
            if not self.one_epoch(batch):
                break
        self.policy.note(self.rollout.observations)

    def record_training(self) -> None:
        """What every agent records, how well values predict returns, and the clip range."""
        super().record_training()
        self.logger.record("train/explained_variance", explained_variance(*self._explained))
        self.logger.record("train/clip_range", self.clip_schedule(self._current_progress_remaining))

    def one_epoch(self, batch: PolicyBatch) -> bool:
        """One pass; false where ``target_kl`` ended it.

        Without ``target_kl``, which needs it, the divergence and the other terms are measured in every eighth minibatch only.
        """
        for index, minibatch in enumerate(batch.minibatches(max(1, self.batch_size // self.state_every))):
            self.measuring = self.target_kl is not None or index % MEASURE_EVERY == 0
            terms = self.loss(minibatch)
            self.measuring = True
            if self.target_kl is not None and float(terms.metrics["approx_kl"]) > 1.5 * self.target_kl:
                return False
            self.updater.step(terms)
        return True

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: Any = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, Any]:
        """SB3's ``predict``, and sb3-contrib's ``action_masks``."""
        return self.policy.predict(observation, state, episode_start, deterministic, action_masks)


def steps_in_sequence(sequence_length: int | None, n_steps: int, batch_size: int, remembers: bool) -> int:
    """``L``.

    Raises:
        ValueError: ``sequence_length`` does not divide both; names the nearest that do.
    """
    if sequence_length is None:
        # A minibatch is then as many whole sequences as fit into it.
        most = min(SEQUENCE, batch_size)
        longest = max(length for length in range(1, most + 1) if n_steps % length == 0)
        if remembers and longest < FEW <= min(most, n_steps):
            warnings.warn(
                f"n_steps={n_steps} divides into sequences of {longest} at most, too short to learn to remember by; "
                f"n_steps={-(-n_steps // most) * most} into sequences of {most}",
                stacklevel=2,
            )
        return longest if remembers else 1
    common = gcd(n_steps, batch_size)
    valid = [length for length in range(1, common + 1) if common % length == 0]
    if sequence_length not in valid:
        nearest = sorted(sorted(valid, key=lambda length: abs(length - sequence_length))[:3])
        raise ValueError(
            f"sequence_length={sequence_length} does not divide both n_steps={n_steps} and batch_size={batch_size}; "
            f"nearest valid: {', '.join(map(str, nearest))}"
        )
    return sequence_length
