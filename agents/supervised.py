"""Supervised learning: a policy learns whole episodes from their right answers, instead of from rewards."""

import time
from collections.abc import Callable
from math import log
from typing import Any, ClassVar, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Float
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from saccade.agents.algorithm import CoreAlgorithm, Shown
from saccade.agents.arguments import check_least, check_positive
from saccade.agents.guard import InvalidExperienceError, check_finite, check_shape
from saccade.agents.lessons import Batch, Lesson, Teacher, find_teacher
from saccade.agents.losses import masked_mean, squared_error
from saccade.agents.reinforce import core_cost
from saccade.agents.update import LossTerms
from saccade.policies import ACTOR_CRITIC_POLICIES, ActorCriticPolicy

PATIENCE = 20
"""Updates in a row without a finite gradient, after which training stops."""


class DivergedError(InvalidExperienceError):
    """No gradient has been finite for :data:`PATIENCE` updates: there is nothing to go on from."""


class Marks(NamedTuple):
    """How the most likely actions did in each episode: the ``returns`` they would have got, and how many bits were wrong."""

    returns: Float[Tensor, " B"]
    errors: Float[Tensor, " B"]


class Supervised(CoreAlgorithm):
    """Maximum likelihood of the right answers of whole episodes, in the environments that know them (sequence tasks).

    An update draws a lesson of ``batch_size`` new episodes from the task, runs the policy over them from the initial state,
    and descends on ``-sum log π(right answer)``, the sum over an episode's answers, the mean over episodes. Per sequence:
    ``train/bits`` is this in bits (the loss of Graves et al. 2014), ``train/errors`` how many bits of the most likely
    answers are wrong, ``train/right`` the share of episodes without any. ``train/loss``, what is minimised, is the first in
    nats, plus what the core asks for its steps and the critic's squared error; ``rollout/`` is what the most likely actions
    would have got as an agent. A task with a curriculum is told ``train/right`` after each update.

    The critic learns the return that is still to come from the most likely actions, without a part in what the memory
    learns; so the weights can be trained on by :class:`PPO`, and looked at.

    Timesteps are steps of episodes, without padding. Callbacks are called once a lesson. The environment's lanes are not
    stepped: it is only where the task is found.

    Args:
        policy: a policy class or an alias: ``LstmPolicy``, ``GruPolicy``, ``MlpPolicy`` ...
        env: a ``VecEnv`` of a sequence task, ``saccade/Copy-v0`` say; a Gymnasium environment, or its id.
        learning_rate: a number, or a function of the remaining progress (1 to 0).
        batch_size: episodes in a lesson, of which each is used once.
        max_grad_norm: gradients are scaled down to this norm.
        gradient_clip_value: before that, each of their numbers is brought between its negative and itself, as Graves et al.
            2014 did with 10; ``None`` leaves them as they are.
        sb3_kwargs: further arguments of SB3's ``BaseAlgorithm`` (``policy_kwargs``, ``tensorboard_log``, ``seed`` ...).

    Raises:
        ValueError: a number is out of its range, the environment gives no lessons or is wrapped so that it shows something
            else, or the core takes latent decisions.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = ACTOR_CRITIC_POLICIES
    # No task has a Box for answers: such an environment is to hear about lessons, though, and not about actions.
    supported_action_spaces = (gym.spaces.Discrete, gym.spaces.MultiDiscrete, gym.spaces.MultiBinary, gym.spaces.Box)
    policy: ActorCriticPolicy
    task: Teacher
    lesson: Batch

    def __init__(
        self,
        policy: str | Callable[..., BasePolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 1e-3,
        batch_size: int = 16,
        max_grad_norm: float = 50.0,
        gradient_clip_value: float | None = None,
        _init_setup_model: bool = True,
        **sb3_kwargs: Any,
    ) -> None:
        super().__init__(policy, env, learning_rate, 1.0, max_grad_norm, **sb3_kwargs)
        check_least(1, batch_size=batch_size)
        check_positive(gradient_clip_value=gradient_clip_value)
        self.batch_size = batch_size
        self.gradient_clip_value = gradient_clip_value
        self._skipped_in_a_row = 0
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        if self.env is not None:
            self.task = find_teacher(self.env)  # first: it names the environments that will do
        super()._setup_model()
        core = self.policy.core
        if core.decision_size:
            raise ValueError(
                f"{type(core).__name__} takes latent decisions, which right answers alone do not train; use agent PPO for it"
            )
        if self.gradient_clip_value is not None:
            for parameter in self.policy.parameters():
                parameter.register_hook(self.clipped)  # of the whole gradient, for it is a leaf's

    def clipped(self, gradient: Tensor) -> Tensor:
        """A gradient with every number in bounds; what is not finite stays so, for the update to be left out."""
        assert self.gradient_clip_value is not None
        bounded = gradient.clamp(-self.gradient_clip_value, self.gradient_clip_value)
        return torch.where(gradient.isfinite(), bounded, gradient)

    def prepare(self) -> None:
        """Find the task: an agent may be loaded, or set to another environment."""
        assert self.env is not None
        self.task = find_teacher(self.env)

    def collect_rollouts(self, env: VecEnv, callback: BaseCallback) -> bool:
        """Draw a lesson; false if a callback asked to stop.

        Raises:
            InvalidExperienceError: an input is not finite, or has the wrong shape.
        """
        callback.on_rollout_start()
        lesson = self.task.generate(self.batch_size)
        self.lesson = self.batch(lesson)
        self.num_timesteps += int(lesson.lengths.sum())
        ended: dict[str, Any] = {"dones": np.ones(self.batch_size, np.bool_), "infos": [{} for _ in range(self.batch_size)]}
        callback.update_locals({**locals(), **ended})
        if not callback.on_step():
            return False
        callback.on_rollout_end()
        return True

    def batch(self, lesson: Lesson) -> Batch:
        """A lesson on the agent's device, checked as other agents check what they see."""
        inputs, answers = lesson.inputs, torch.as_tensor(lesson.answers)
        by_episode, shape = inputs.swapaxes(0, 1), self.observation_space.shape or ()
        check_shape("inputs", by_episode, (self.batch_size, len(inputs), *shape), self.num_timesteps)
        check_finite({"inputs": by_episode}, self.num_timesteps)
        step = torch.arange(len(inputs))[:, None]
        parts = (
            torch.as_tensor(inputs),
            (step == 0).expand(answers.shape),
            step < torch.as_tensor(lesson.lengths),
            answers,
            torch.as_tensor(lesson.targets)[answers],
        )
        return Batch(*(part.to(self.device) for part in parts))

    def judge(self, batch: Batch) -> tuple[LossTerms, Marks]:
        """The loss of a lesson with its terms, and how the most likely actions did."""
        episodes = batch.answers.shape[1]
        core = self.policy.encode(batch.inputs, self.policy.initial_state(episodes), batch.episode_starts)
        parameters = self.policy.read(core.features[batch.answers]).parameters
        nats = -self.policy.score(parameters, batch.targets).log_prob.sum() / episodes

        wrong = (self.policy.distribution.mode(parameters) != batch.targets).reshape(len(batch.targets), -1)
        errors = batch.per_step(wrong.sum(dim=1).to(nats.dtype)).sum(dim=0)
        rewards = batch.per_step((~wrong.any(dim=1)).to(nats.dtype)) / batch.answers.sum(dim=0)
        to_come = rewards.flip(0).cumsum(0).flip(0)

        real = batch.real.to(nats.dtype)
        # With a memory of its own the critic trains that; a shared one is the answers' alone.
        value = self.policy.value(core.features if self.policy.separate else core.features.detach())
        value_loss = masked_mean(squared_error(value, to_come), real)
        cost = core_cost(core, real)
        metrics = {
            "bits": nats.detach() / log(2),
            "errors": errors.mean(),
            "right": (errors == 0).to(nats.dtype).mean(),
            "value_loss": value_loss.detach(),
            **cost.metrics,
        }
        # Costs are means over steps, and the loss is per episode.
        return LossTerms(nats + cost.loss * real.sum() / episodes + value_loss, metrics), Marks(to_come[0], errors)

    def loss(self, batch: Batch) -> LossTerms:
        """The loss of a lesson, with its terms."""
        return self.judge(batch)[0]

    def first_batch(self, env: VecEnv, callback: BaseCallback) -> Batch:
        """A lesson."""
        self.collect_rollouts(env, callback)
        return self.lesson

    def show(self, batch: Batch) -> Shown:
        """The lesson, with the rewards of right answers."""
        rewards = batch.answers / batch.answers.sum(dim=0)
        state = self.policy.initial_state(batch.answers.shape[1])
        return Shown(batch.inputs, state, batch.episode_starts, None, rewards)

    def frozen_loss(self, batch: Batch) -> Callable[[], LossTerms]:
        """The loss per answer, whose size does not tell of how much is asked."""
        answers = batch.answers.sum() / batch.answers.shape[1]

        def per_answer() -> LossTerms:
            terms = self.loss(batch)
            return LossTerms(terms.loss / answers, terms.metrics)

        return per_answer

    def train(self) -> None:
        """One step on the lesson, and a grade for the task.

        Raises:
            DivergedError: too many steps in a row had to be left out.
        """
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        terms, marks = self.judge(self.lesson)
        skipped = self.updater.skipped
        self.updater.step(terms)
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if self.updater.skipped > skipped else 0
        if self._skipped_in_a_row >= PATIENCE:
            raise DivergedError(
                f"the gradients of the last {PATIENCE} updates were not finite; learn slower (learning_rate is "
                f"{self.policy.optimizer.param_groups[0]['lr']:.3g}), or clip harder (max_grad_norm is {self.max_grad_norm:g})"
            )
        self._n_updates += 1
        self.policy.note(self.lesson.inputs[self.lesson.real])
        returns, errors = torch.stack(marks).tolist()
        self._note_episodes(returns, errors)
        self.task.grade(sum(wrong == 0 for wrong in errors) / len(errors))

    def _note_episodes(self, returns: list[float], errors: list[float]) -> None:
        """For ``rollout/``: episodes, as if they had been acted in."""
        now = round((time.time_ns() - self.start_time) / 1e9, 6)
        lengths = self.lesson.real.sum(dim=0).tolist()
        infos: list[dict[str, Any]] = [
            {"episode": {"r": total, "l": length, "t": now}, "is_success": wrong == 0}
            for total, length, wrong in zip(returns, lengths, errors, strict=True)
        ]
        self._update_info_buffer(infos, np.ones(len(infos), np.bool_))
