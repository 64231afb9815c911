"""What all our agents share: an SB3 algorithm around a policy with a core, that acts with memory and checks what comes back."""

import sys
import time
import warnings
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, ConvertCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import obs_as_tensor, safe_mean
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from saccade.agents.arguments import check_positive, check_share
from saccade.agents.checkpoint import Checkpointed
from saccade.agents.frames import stack_observations
from saccade.agents.guard import by_key, check_experience, check_finite, check_observations, check_shape
from saccade.agents.progress import ProgressCallback
from saccade.agents.update import LossTerms, Updater
from saccade.policies.arguments import check_arguments
from saccade.policies.core import CoreOutput, State, map_state
from saccade.policies.policy import CorePolicy, Observations, map_observations
from saccade.policies.torso import knows_bfloat16

T = TypeVar("T", bound="CoreAlgorithm")


class Outcome(NamedTuple):
    """What one step of all environments brought; arrays ``[B]``.

    Attributes:
        rewards: as the environment gave them.
        dones: where an episode ended.
        finals: the last observation of every episode that was cut short by a limit, by lane: what to bootstrap from.
        infos: a dictionary for every environment.
    """

    rewards: np.ndarray
    dones: np.ndarray
    finals: dict[int, Any]
    infos: Sequence[dict[str, Any]]


class Shown(NamedTuple):
    """What a batch shows a policy, whatever else it holds: sequences of ``T`` steps in ``B`` lanes.

    Attributes:
        observations: ``[T, B, ...]``.
        state: the core's state before them.
        episode_starts: ``[T, B]``.
        replay: the core's latent decisions then, ``[T, B, K]``, or ``None``.
        rewards: that were learned from.
    """

    observations: Observations
    state: State
    episode_starts: Tensor
    replay: Tensor | None
    rewards: Tensor


class CoreAlgorithm(Checkpointed, BaseAlgorithm):
    """Acts with a recurrent policy; a subclass says how to explore, what to keep, and how to learn from it.

    Args:
        policy: a policy class, or the alias of one.
        env: a Gymnasium environment, its id, or a ``VecEnv``.
        learning_rate: a number, or a function of the remaining progress (1 to 0).
        gamma: discount factor.
        max_grad_norm: gradients are scaled down to this norm.
        sb3_kwargs: further arguments of SB3's ``BaseAlgorithm``.
    """

    policy: CorePolicy
    updater: Updater
    supported_action_spaces: ClassVar[tuple[type[gym.Space[Any]], ...]]

    def __init__(
        self,
        policy: str | Callable[..., BasePolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule,
        gamma: float,
        max_grad_norm: float,
        **sb3_kwargs: Any,
    ) -> None:
        check_arguments(type(self), sb3_kwargs)
        super().__init__(
            policy,  # type: ignore[arg-type]
            env,
            learning_rate,
            support_multi_env=True,
            supported_action_spaces=self.supported_action_spaces,
            **sb3_kwargs,
        )
        if self.use_sde:
            raise ValueError("use_sde: there is no state-dependent exploration here; leave it out")
        check_share("gamma", gamma)
        check_positive(max_grad_norm=max_grad_norm)
        self.gamma = gamma
        self.max_grad_norm = max_grad_norm
        self._last_state: State | None = None
        self._last_infos: Sequence[dict[str, Any]] = ()

    def _setup_model(self) -> None:
        if "observation_space" not in vars(self):
            raise ValueError(f"{type(self).__name__} needs an environment; {type(self).__name__}.load makes one from a file")
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self.policy = self.policy_class(  # type: ignore[assignment]
            self.observation_space, self.action_space, self.lr_schedule, **self.policy_kwargs
        )
        self.policy = self.policy.to(self.device)
        if self.policy.mixed_precision and not knows_bfloat16(self.device):
            warnings.warn(
                "mixed_precision=True computes in bfloat16, which this processor only imitates: that is several times slower "
                "than mixed_precision=False",
                stacklevel=2,
            )
        self.updater = Updater(self.policy, self.max_grad_norm)

    @abstractmethod
    def prepare(self) -> None:
        """Make the buffers, once the environment is known and training starts."""

    @abstractmethod
    def collect_rollouts(self, env: VecEnv, callback: BaseCallback) -> bool:
        """Act until there is something to learn from; false if a callback asked to stop."""

    @abstractmethod
    def train(self) -> None:
        """Update the policy from what was collected."""

    @abstractmethod
    def first_batch(self, env: VecEnv, callback: BaseCallback) -> Any:
        """Act, without learning, until there is a batch to learn from."""

    @abstractmethod
    def show(self, batch: Any) -> Shown:
        """What a batch shows the policy."""

    @abstractmethod
    def frozen_loss(self, batch: Any) -> Callable[[], LossTerms]:
        """The loss of a batch as a function of the weights alone, all its targets fixed now: what can be overfitted."""

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        if progress_bar:
            chosen = callback if isinstance(callback, list) else [] if callback is None else [callback]
            asked = [one if isinstance(one, BaseCallback) else ConvertCallback(one) for one in chosen]
            callback = [*asked, ProgressCallback()]
        return super()._init_callback(callback, progress_bar=False)

    def to_tensors(self, observations: Any) -> Observations:
        """Observations ``[B, ...]`` on the agent's device."""
        return obs_as_tensor(observations, self.device)

    def begin_acting(self, env: VecEnv) -> None:
        """Check what the environment shows before the first step, and start from the initial state where none is known.

        Raises:
            InvalidExperienceError: an observation is not finite or has the wrong shape.
        """
        assert self._last_obs is not None and self._last_episode_starts is not None
        self.policy.set_training_mode(False)
        check_observations(self._last_obs, self.observation_space, env.num_envs, self.num_timesteps)
        check_finite(by_key(self._last_obs), self.num_timesteps)
        if self._last_state is None or bool(self._last_episode_starts.all()):
            self._last_state = map_state(torch.detach, self.policy.initial_state(env.num_envs))

    def look(self, observations: Observations, episode_starts: Tensor) -> CoreOutput:
        """The core's output for what is seen now, ``[1, B, ...]``; its state becomes the last state. In inference mode."""
        one_step = map_observations(lambda part: part[None], observations)
        core = self.policy.encode(one_step, self._last_state, episode_starts[None])
        self._last_state = core.state
        return core

    def act(self, env: VecEnv, actions: np.ndarray, callback: BaseCallback) -> Outcome | None:
        """Step all environments, check what they return and tell the callback; ``None`` if it asks to stop.

        Raises:
            InvalidExperienceError: an observation or reward is not finite or has the wrong shape.
        """
        new_obs, rewards, dones, infos = env.step(actions)
        check_shape("reward", rewards, (env.num_envs,), self.num_timesteps)
        check_observations(new_obs, self.observation_space, env.num_envs, self.num_timesteps)
        check_experience(new_obs, rewards, self.num_timesteps)
        # Before a callback may stop here: training goes on from what the environment shows now.
        self._last_obs = new_obs  # type: ignore[assignment]
        self._last_episode_starts = dones
        self._last_infos = infos
        self.num_timesteps += env.num_envs
        callback.update_locals(locals())
        if not callback.on_step():
            return None
        finals: dict[int, Any] = {}
        if dones.any():
            self._update_info_buffer(infos, dones)
            cut = [int(i) for i in np.flatnonzero(dones) if infos[i].get("TimeLimit.truncated", False)]
            finals = {i: infos[i]["terminal_observation"] for i in cut}
            if finals:
                self.check_finals(finals)
        return Outcome(rewards, dones, finals, infos)

    def check_finals(self, finals: dict[int, Any]) -> None:
        """Check the last observations of episodes that were cut short as all others are."""
        batch = stack_observations(list(finals.values()))
        check_observations(batch, self.observation_space, len(finals), self.num_timesteps)
        check_finite(by_key(batch), self.num_timesteps, list(finals))

    def features_of_finals(self, finals: dict[int, Any]) -> Tensor:
        """Core features ``[n, D]`` of final observations, each seen with the present state of its lane."""
        lanes = list(finals)
        with torch.inference_mode():
            core = self.policy.encode(
                map_observations(lambda part: part[None], self.to_tensors(stack_observations(list(finals.values())))),
                map_state(lambda leaf: leaf[lanes], self.policy.core.release(self._last_state)),
                torch.zeros(1, len(lanes), dtype=torch.bool, device=self.device),
                deterministic=True,
            )
        return core.features[0]

    def _update_info_buffer(self, infos: list[dict[str, Any]], dones: np.ndarray | None = None) -> None:
        if dones is not None:
            super()._update_info_buffer([infos[i] for i in np.flatnonzero(dones)], np.ones(int(dones.sum()), dtype=bool))

    def learn(
        self: T,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | None = 1,
        tb_log_name: str = "run",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> T:
        """Train for at least ``total_timesteps`` environment steps; SB3's arguments, ``log_interval`` in rounds of learning."""
        total_timesteps, callback = self._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        assert self.env is not None
        self.prepare()
        if self.num_timesteps < total_timesteps:
            self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
        iteration, pending = 0, False
        callback.on_training_start(locals(), globals())
        try:
            while self.num_timesteps < total_timesteps and self.collect_rollouts(self.env, callback):
                iteration += 1
                self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
                self.train()
                pending = not self.row_is_due(iteration, log_interval)
                if not pending:
                    self.dump_logs(iteration)
            callback.on_training_end()
        finally:
            # However the training ended, nothing that was recorded is lost.
            if pending or self.logger.name_to_value:
                self.dump_logs(iteration)
        return self

    def row_is_due(self, iteration: int, log_interval: int | None) -> bool:
        """Whether metrics are written after this round of learning."""
        return log_interval is not None and iteration % log_interval == 0

    def record_training(self) -> None:
        """Record what the updates since the last row saw."""
        self.updater.log(self.logger)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def dump_logs(self, iteration: int = 0) -> None:
        """Write one row: SB3's usual ``rollout/`` and ``time/`` scalars, and what was learned since the last row."""
        assert self.ep_info_buffer is not None and self.ep_success_buffer is not None
        elapsed = max((time.time_ns() - self.start_time) / 1e9, sys.float_info.epsilon)
        if self.ep_info_buffer:
            self.logger.record("rollout/ep_rew_mean", safe_mean([info["r"] for info in self.ep_info_buffer]))
            self.logger.record("rollout/ep_len_mean", safe_mean([info["l"] for info in self.ep_info_buffer]))
        if self.ep_success_buffer:
            self.logger.record("rollout/success_rate", safe_mean(list(self.ep_success_buffer)))
        if self.updater.has_stepped:
            self.record_training()
        self.logger.record("time/fps", int((self.num_timesteps - self._num_timesteps_at_start) / elapsed))
        self.logger.record("time/iterations", iteration, exclude="tensorboard")
        self.logger.record("time/time_elapsed", int(elapsed), exclude="tensorboard")
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.dump(step=self.num_timesteps)
