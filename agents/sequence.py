"""The SB3 algorithm that sequence agents share: collect ``T`` steps in every lane, learn from whole sequences."""

import sys
import time
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

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

from saccade.agents.checkpoint import Checkpointed
from saccade.agents.guard import by_key, check_experience, check_finite, check_observations, check_shape
from saccade.agents.progress import ProgressCallback
from saccade.agents.rollout import Rollout
from saccade.agents.update import LossTerms
from saccade.policies.core import State, map_state
from saccade.policies.policy import CorePolicy, Observations, map_observations

T = TypeVar("T", bound="SequenceAlgorithm")


class SequenceAlgorithm(Checkpointed, BaseAlgorithm):
    """Collects rollouts with a recurrent policy; a subclass says how to explore, to value, and to learn.

    Args:
        policy: a policy class, or the alias of one.
        env: a Gymnasium environment, its id, or a ``VecEnv``.
        learning_rate: a number, or a function of the remaining progress (1 to 0).
        n_steps: ``T``, steps in every environment between updates.
        gamma: discount factor.
        sb3_kwargs: further arguments of SB3's ``BaseAlgorithm``.
    """

    policy: CorePolicy
    rollout: Rollout
    supported_action_spaces: ClassVar[tuple[type[gym.Space[Any]], ...]]

    def __init__(
        self,
        policy: str | Callable[..., BasePolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule,
        n_steps: int,
        gamma: float,
        **sb3_kwargs: Any,
    ) -> None:
        super().__init__(
            policy,  # type: ignore[arg-type]
            env,
            learning_rate,
            support_multi_env=True,
            supported_action_spaces=self.supported_action_spaces,
            **sb3_kwargs,
        )
        if n_steps < 1:
            raise ValueError(f"n_steps must be at least 1; got {n_steps}")
        if not 0 <= gamma <= 1:
            raise ValueError(f"gamma must be in [0, 1]; got {gamma}")
        self.n_steps = n_steps
        self.gamma = gamma
        self._last_state: State | None = None

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self.policy = self.policy_class(  # type: ignore[assignment]
            self.observation_space, self.action_space, self.lr_schedule, **self.policy_kwargs
        )
        self.policy = self.policy.to(self.device)

    def make_rollout(self) -> Rollout:
        """Empty buffers for one rollout."""
        return Rollout.empty(
            self.n_steps,
            self.n_envs,
            self.observation_space,
            self.action_space,
            self.policy.core.decision_size,
            self.policy.initial_state(self.n_envs),
            self.device,
        )

    @abstractmethod
    def explore(self, features: Tensor) -> Tensor:
        """Actions to try, ``[B, ...]``, from core features ``[B, D]``."""

    @abstractmethod
    def value(self, features: Tensor) -> Tensor:
        """State values ``[B]`` from core features ``[B, D]``, to bootstrap from where an episode is cut short."""

    @abstractmethod
    def frozen_loss(self, batch: Rollout) -> Callable[[], LossTerms]:
        """The loss of ``batch`` as a function of the weights alone, all its targets fixed now: what can be overfitted."""

    @abstractmethod
    def train(self) -> None:
        """Update the policy from ``self.rollout``, and log."""

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        if progress_bar:
            chosen = callback if isinstance(callback, list) else [] if callback is None else [callback]
            asked = [one if isinstance(one, BaseCallback) else ConvertCallback(one) for one in chosen]
            callback = [*asked, ProgressCallback()]
        return super()._init_callback(callback, progress_bar=False)

    def _to_tensor(self, observations: Any) -> Observations:
        return obs_as_tensor(observations, self.device)

    def collect_rollouts(self, env: VecEnv, callback: BaseCallback) -> bool:
        """Fill ``self.rollout``; false if a callback asked to stop.

        Raises:
            InvalidExperienceError: an observation or reward is not finite or has the wrong shape.
        """
        assert self._last_obs is not None and self._last_episode_starts is not None
        self.policy.set_training_mode(False)
        rollout, rewards_shape = self.rollout, (env.num_envs,)
        check_observations(self._last_obs, self.observation_space, env.num_envs, self.num_timesteps)
        check_finite(by_key(self._last_obs), self.num_timesteps)
        if self._last_state is None or bool(self._last_episode_starts.all()):
            self._last_state = self.policy.initial_state(env.num_envs)
        rollout.state = map_state(lambda leaf: leaf.detach().clone(), self._last_state)
        callback.on_rollout_start()
        for t in range(self.n_steps):
            observations = self._to_tensor(self._last_obs)
            self._store(t, observations)
            with torch.inference_mode():
                core = self.policy.encode(
                    map_observations(lambda part: part[None], observations),
                    self._last_state,
                    rollout.episode_starts[t][None],
                )
                actions = self.explore(core.features[0])
                if core.decision is not None:
                    rollout.decisions[t] = core.decision.value[0]
                    rollout.decision_log_probs[t] = core.decision.log_prob[0]
            self._last_state = core.state
            rollout.actions[t] = actions
            new_obs, rewards, dones, infos = env.step(actions.cpu().numpy())
            check_shape("reward", rewards, rewards_shape, self.num_timesteps)
            check_observations(new_obs, self.observation_space, env.num_envs, self.num_timesteps)
            check_experience(new_obs, rewards, self.num_timesteps)
            # Before a callback may stop here: training goes on from what the environment shows now.
            self._last_obs = new_obs  # type: ignore[assignment]
            self._last_episode_starts = dones
            self.num_timesteps += env.num_envs
            callback.update_locals(locals())
            if not callback.on_step():
                return False
            if dones.any():
                self._update_info_buffer(infos, dones)
                rewards = rewards + self._truncation_bonus(infos, dones)
            rollout.rewards[t] = torch.as_tensor(rewards)
        self._store(self.n_steps, self._to_tensor(self._last_obs))
        callback.on_rollout_end()
        return True

    def _store(self, t: int, observations: Observations) -> None:
        self.rollout.episode_starts[t] = torch.as_tensor(self._last_episode_starts)
        stored = self.rollout.observations
        for buffer, part in zip(parts(stored), parts(observations), strict=True):
            buffer[t] = part

    def _truncation_bonus(self, infos: list[dict[str, Any]], dones: np.ndarray) -> np.ndarray:
        """``γ V(final observation)`` where an episode was cut short by a limit, else 0; ``[B]``."""
        bonus = np.zeros(len(dones), dtype=np.float32)
        cut = [int(i) for i in np.flatnonzero(dones) if infos[i].get("TimeLimit.truncated", False)]
        if cut:
            finals = [infos[i]["terminal_observation"] for i in cut]
            if isinstance(finals[0], dict):
                batch: Any = {key: np.stack([final[key] for final in finals]) for key in finals[0]}
            else:
                batch = np.stack(finals)
            check_observations(batch, self.observation_space, len(cut), self.num_timesteps)
            check_finite(by_key(batch), self.num_timesteps, cut)
            with torch.inference_mode():
                core = self.policy.encode(
                    map_observations(lambda part: part[None], self._to_tensor(batch)),
                    map_state(lambda leaf: leaf[cut], self._last_state),
                    torch.zeros(1, len(cut), dtype=torch.bool, device=self.device),
                    deterministic=True,
                )
                bonus[cut] = self.gamma * self.value(core.features[0]).cpu().numpy()
        return bonus

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
        """Train for at least ``total_timesteps`` environment steps; SB3's arguments, ``log_interval`` in updates."""
        total_timesteps, callback = self._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        assert self.env is not None
        self.rollout = self.make_rollout()
        if self.num_timesteps < total_timesteps:
            self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
        iteration = 0
        callback.on_training_start(locals(), globals())
        try:
            while self.num_timesteps < total_timesteps and self.collect_rollouts(self.env, callback):
                iteration += 1
                self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
                self.train()
                if log_interval is not None and iteration % log_interval == 0:
                    self.dump_logs(iteration)
            callback.on_training_end()
        finally:
            # However the training ended, nothing that was recorded is lost.
            if self.logger.name_to_value:
                self.dump_logs(iteration)
        return self

    def dump_logs(self, iteration: int = 0) -> None:
        """Write one row of SB3's usual ``rollout/`` and ``time/`` scalars, with what ``train`` recorded."""
        assert self.ep_info_buffer is not None and self.ep_success_buffer is not None
        elapsed = max((time.time_ns() - self.start_time) / 1e9, sys.float_info.epsilon)
        if self.ep_info_buffer:
            self.logger.record("rollout/ep_rew_mean", safe_mean([info["r"] for info in self.ep_info_buffer]))
            self.logger.record("rollout/ep_len_mean", safe_mean([info["l"] for info in self.ep_info_buffer]))
        if self.ep_success_buffer:
            self.logger.record("rollout/success_rate", safe_mean(list(self.ep_success_buffer)))
        self.logger.record("time/fps", int((self.num_timesteps - self._num_timesteps_at_start) / elapsed))
        self.logger.record("time/iterations", iteration, exclude="tensorboard")
        self.logger.record("time/time_elapsed", int(elapsed), exclude="tensorboard")
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.dump(step=self.num_timesteps)


def parts(observations: Observations) -> list[Tensor]:
    """The tensors of an observation, in the order of its keys if it is a dictionary."""
    return [observations[key] for key in sorted(observations)] if isinstance(observations, dict) else [observations]
