"""Agents that learn from a replay of what happened before: act a little, learn a little, follow with a target network."""

from abc import abstractmethod
from collections.abc import Callable
from copy import deepcopy
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import polyak_update
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from saccade.agents.algorithm import Outcome
from saccade.agents.arguments import check_least, check_share
from saccade.agents.exploration import EpsilonGreedy
from saccade.agents.update import LossTerms
from saccade.policies import REPLAY_POLICIES, CoreOutput, QPolicy, State
from saccade.policies.policy import Observations, map_observations

ROW_STEPS = 1000
"""The least environment steps from one row of metrics to the next, however short the episodes."""


class Lesson(NamedTuple):
    """The loss of a batch, and the new ``priorities`` ``[N]`` of what it was made of, at ``indices`` ``[N]`` of the replay."""

    terms: LossTerms
    priorities: Float[Tensor, " N"]
    indices: Int[np.ndarray, " N"]


class Experience(NamedTuple):
    """A step of all lanes, as a replay stores it: what was seen, done and got, before any normalisation.

    Attributes:
        state: the core's, before the step.
        core: its output.
        truncated: lanes whose episode was cut short; ``finals`` has what those saw last.
    """

    observations: Any
    state: State
    core: CoreOutput
    actions: np.ndarray
    rewards: Float[np.ndarray, " B"]
    dones: Bool[np.ndarray, " B"]
    truncated: Bool[np.ndarray, " B"]
    finals: dict[int, Any]


class ReplayAlgorithm(EpsilonGreedy):
    """SB3's off-policy loop, with memory; a subclass says what is stored and how a batch of it is learned from.

    Args:
        policy: a policy class, or the alias of one.
        env: a Gymnasium environment, its id, or a ``VecEnv``.
        learning_rate: a number, or a function of the remaining progress (1 to 0).
        gamma: discount factor.
        max_grad_norm: gradients are scaled down to this norm.
        buffer_size: transitions in the replay.
        learning_starts: environment steps before the first update, and with an empty replay before the next; until the first
            every action is random.
        batch_size: what is drawn for an update: transitions (DQN) or sequences (R2D2).
        tau: how far the target network follows, 1 for a copy.
        train_freq: steps in every environment between two rounds of updates.
        gradient_steps: updates in a round; -1 for as many as transitions came in.
        target_update_interval: environment steps between two updates of the target network.
        sb3_kwargs: further arguments of SB3's ``BaseAlgorithm``.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = REPLAY_POLICIES
    target: QPolicy
    replay: Any

    def __init__(
        self,
        policy: str | Callable[..., BasePolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule,
        gamma: float,
        max_grad_norm: float,
        *,
        buffer_size: int,
        learning_starts: int,
        batch_size: int,
        tau: float,
        train_freq: int | tuple[int, str],
        gradient_steps: int,
        target_update_interval: int,
        **sb3_kwargs: Any,
    ) -> None:
        super().__init__(policy, env, learning_rate, gamma, max_grad_norm, **sb3_kwargs)
        if isinstance(train_freq, tuple):  # SB3's other form
            if train_freq[1] != "step":
                raise ValueError(f"train_freq counts steps, as a number or (number, 'step'); got {train_freq}")
            train_freq = train_freq[0]
        check_least(1, buffer_size=buffer_size, batch_size=batch_size, train_freq=train_freq)
        check_least(1, target_update_interval=target_update_interval)
        check_least(0, learning_starts=learning_starts)
        check_share("tau", tau)
        if gradient_steps < 1 and gradient_steps != -1:
            raise ValueError(f"gradient_steps must be at least 1, or -1 for one a transition; got {gradient_steps}")
        self.buffer_size = buffer_size
        self.learning_starts = learning_starts
        self.batch_size = batch_size
        self.tau = tau
        self.train_freq = train_freq
        self.gradient_steps = gradient_steps
        self.target_update_interval = target_update_interval
        self._replay_lanes = 0
        self._replay_since = 0
        self._row = (0, 0)

    def _setup_model(self) -> None:
        super()._setup_model()
        self.target = deepcopy(self.policy).requires_grad_(False)
        self.target.set_training_mode(False)
        self.target.norm = self.policy.norm  # one set of statistics: both see the same

    def networks(self) -> dict[str, nn.Module]:
        """The policy, and the target network."""
        return {**super().networks(), "target": self.target}

    def prepare(self) -> None:
        """The replay stays from one call of ``learn`` to the next; it fits one number of environments.

        An agent that was loaded gets one here, when it is to learn.
        """
        super().prepare()
        assert self._last_episode_starts is not None
        if self._replay_lanes != self.n_envs:
            self.renew_replay()
        elif self._last_episode_starts.all():  # reset, perhaps in the middle of an episode
            self.replay.break_off()
        if self._row[1] > self.num_timesteps:  # counting has started over
            self._row = (0, 0)
        self._replay_since = min(self._replay_since, self.num_timesteps)

    def set_up(self) -> None:
        """Networks and replay, for an agent that is made and not loaded; a replay too large is refused here."""
        self._setup_model()
        self.renew_replay()

    def renew_replay(self) -> None:
        """An empty replay for the present number of environments."""
        self.replay = self.make_replay()
        self._replay_lanes = self.n_envs
        self._replay_since = self.num_timesteps

    def set_random_seed(self, seed: int | None = None) -> None:
        """SB3's, and the generator that draws from the replay."""
        super().set_random_seed(seed)
        self.rng = np.random.default_rng(np.random.randint(2**31) if seed is None else seed)  # noqa: NPY002 - SB3 seeds this one
        if self._replay_lanes:
            self.replay.rng = self.rng

    @abstractmethod
    def make_replay(self) -> Any:
        """An empty replay.

        Raises:
            ValueError: it would not fit into the machine's memory.
        """

    @abstractmethod
    def store(self, step: Experience) -> None:
        """Put a step of all lanes into the replay."""

    @abstractmethod
    def lesson(self) -> Lesson:
        """Draw a batch, and compute its loss."""

    @property
    def exploration_rate(self) -> float:
        """ε at this point of the training; 1 until learning starts."""
        return 1.0 if self.num_timesteps < self.learning_starts else super().exploration_rate

    def collect_rollouts(self, env: VecEnv, callback: BaseCallback) -> bool:
        """``train_freq`` steps into the replay; false if a callback asked to stop.

        Raises:
            InvalidExperienceError: an observation or reward is not finite or has the wrong shape.
        """
        self.begin_acting(env)
        callback.on_rollout_start()
        for t in range(self.train_freq):
            try:
                stopped = not self.take_step(env, callback, t)
            except BaseException:  # what was seen may have moved on, and what led there is not stored
                self.break_off()
                raise
            if stopped:
                self.break_off()
                return False
            self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
            if self.num_timesteps // self.n_envs % max(int(self.target_update_interval) // self.n_envs, 1) == 0:
                self.update_target()
        callback.on_rollout_end()
        return True

    def take_step(self, env: VecEnv, callback: BaseCallback, t: int) -> bool:
        """Act once in all lanes and store it; false if a callback asked to stop."""
        state, originals = self._last_state, self.original_observations()
        starts = torch.as_tensor(self._last_episode_starts, device=self.device)
        with torch.inference_mode():
            seen = self.to_tensors(self._last_obs)
            self.policy.note(seen)
            core = self.look(seen, starts)
            actions = self.explore(core.features[0], t).cpu().numpy()
        outcome = self.act(env, actions, callback)
        if outcome is None:
            return False
        self._episode_num += int(outcome.dones.sum())
        rewards, finals = self.originals_of(outcome)
        truncated = np.zeros_like(outcome.dones)
        truncated[list(finals)] = True
        self.store(Experience(originals, state, core, actions, rewards, outcome.dones, truncated, finals))
        return True

    def original_observations(self) -> Any:
        """What is seen now, as it was before ``VecNormalize``."""
        return self._last_obs if self._vec_normalize_env is None else self._vec_normalize_env.get_original_obs()

    def originals_of(self, outcome: Outcome) -> tuple[np.ndarray, dict[int, Any]]:
        """Rewards and final observations, as they were before ``VecNormalize``."""
        normalizer = self._vec_normalize_env
        if normalizer is None:
            return outcome.rewards, outcome.finals
        finals = {lane: normalizer.unnormalize_obs(final) for lane, final in outcome.finals.items()}
        return normalizer.get_original_reward(), finals

    def normalized(self, batch: Any) -> Any:
        """A batch of originals, normalised by the statistics of now (SB3)."""
        normalizer = self._vec_normalize_env
        if normalizer is None:
            return batch

        def now(observations: Observations) -> Observations:
            return self.to_tensors(normalizer.normalize_obs(map_observations(lambda part: part.cpu().numpy(), observations)))

        changed = {name: now(getattr(batch, name)) for name in ("observations", "next_observations") if name in batch._fields}
        rewards = normalizer.normalize_reward(batch.rewards.cpu().numpy())
        return batch._replace(**changed, rewards=torch.as_tensor(rewards, dtype=torch.float32, device=self.device))

    def break_off(self) -> None:
        """The last step is not stored: what comes next, here and in the replay, starts from the initial state."""
        assert self._last_episode_starts is not None
        self.replay.break_off()
        self._last_episode_starts = np.ones_like(self._last_episode_starts)

    def first_batch(self, env: VecEnv, callback: BaseCallback) -> Any:
        """One drawn from a replay that could fill it."""
        while len(self.replay) < self.batch_size and self.collect_rollouts(env, callback):
            pass
        return self.normalized(self.replay.sample(self.batch_size, 1.0))

    def train(self) -> None:
        """A round of updates, once there is enough to learn from."""
        if self.num_timesteps - self._replay_since <= self.learning_starts or len(self.replay) == 0:
            return
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        updates = self.gradient_steps if self.gradient_steps > 0 else self.train_freq * self.n_envs
        for _ in range(updates):
            lesson = self.lesson()
            self.updater.step(lesson.terms)
            known = lesson.priorities.isfinite()  # as the updater, leave out what is not
            self.replay.update_priorities(lesson.indices[known.cpu().numpy()], lesson.priorities[known])
        self._n_updates += updates

    def update_target(self) -> None:
        """Move the target network towards the policy."""
        polyak_update(self.policy.parameters(), self.target.parameters(), self.tau)
        for theirs, ours in zip(self.target.buffers(), self.policy.buffers(), strict=True):
            theirs.copy_(ours)  # whatever their type; and a mask of infinities does not survive an average

    def row_is_due(self, iteration: int, log_interval: int | None) -> bool:
        """After every ``log_interval`` episodes (SB3), but not more often than every ``ROW_STEPS`` steps."""
        episodes, steps = self._row
        if log_interval is None or self._episode_num - episodes < log_interval or self.num_timesteps - steps < ROW_STEPS:
            return False
        self._row = (self._episode_num, self.num_timesteps)
        return True
