"""Agents that learn from fresh sequences: collect ``T`` steps in every lane, learn from them, throw them away."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from saccade.agents.algorithm import CoreAlgorithm
from saccade.agents.arguments import check_least
from saccade.agents.rollout import Rollout
from saccade.policies.core import map_state
from saccade.policies.policy import Observations, leaves


class SequenceAlgorithm(CoreAlgorithm):
    """Collects rollouts; a subclass says how to explore, to value, and to learn.

    Args:
        n_steps: ``T``, steps in every environment between updates; the other arguments are :class:`CoreAlgorithm`'s.

    Attributes:
        state_every: steps from one stored state to the next: a sequence to learn from can start at each of them.
    """

    rollout: Rollout
    state_every: int

    def __init__(
        self,
        policy: str | Callable[..., BasePolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule,
        n_steps: int,
        gamma: float,
        max_grad_norm: float,
        **sb3_kwargs: Any,
    ) -> None:
        super().__init__(policy, env, learning_rate, gamma, max_grad_norm, **sb3_kwargs)
        check_least(1, n_steps=n_steps)
        self.n_steps = n_steps

    def prepare(self) -> None:
        """A rollout's buffers."""
        self.rollout = self.make_rollout()

    def make_rollout(self) -> Rollout:
        """Empty buffers for one rollout."""
        seen = self.to_tensors(self._last_obs)
        return Rollout.empty(self.n_steps, seen, self.action_space, self.policy.core.decision_size)

    @abstractmethod
    def explore(self, features: Tensor, t: int) -> Tensor:
        """Actions to try at step ``t`` of the rollout, ``[B, ...]``, from core features ``[B, D]``."""

    @abstractmethod
    def value(self, features: Tensor) -> Tensor:
        """State values ``[B]`` from core features ``[B, D]``, to bootstrap from where an episode is cut short."""

    def for_environment(self, actions: Tensor) -> np.ndarray:
        """Actions as the environment takes them."""
        return actions.cpu().numpy()

    def collect_rollouts(self, env: VecEnv, callback: BaseCallback) -> bool:
        """Fill ``self.rollout``; false if a callback asked to stop.

        Raises:
            InvalidExperienceError: an observation or reward is not finite or has the wrong shape.
        """
        self.begin_acting(env)
        self.rollout.states.clear()
        callback.on_rollout_start()
        core = self.policy.core
        self._last_state = core.hold(self._last_state)
        try:
            for t in range(self.n_steps):
                if not self.take_step(env, callback, t):
                    return False
        finally:
            self._last_state = core.release(self._last_state)
        self._store(self.n_steps, self.to_tensors(self._last_obs))
        callback.on_rollout_end()
        return True

    def take_step(self, env: VecEnv, callback: BaseCallback, t: int) -> bool:
        """Act once in all lanes, and note it as step ``t``; false if a callback asked to stop."""
        rollout = self.rollout
        if t % self.state_every == 0:
            rollout.states.append(map_state(torch.clone, self.policy.core.release(self._last_state)))
        observations = self.to_tensors(self._last_obs)
        self._store(t, observations)
        with torch.inference_mode():
            core = self.look(observations, rollout.episode_starts[t])
            actions = self.explore(core.features[0], t)
            if core.decision is not None:
                rollout.decisions[t] = core.decision.value[0]
                rollout.decision_log_probs[t] = core.decision.log_prob[0]
        rollout.actions[t] = actions
        outcome = self.act(env, self.for_environment(actions), callback)
        if outcome is None:
            return False
        rollout.rewards[t] = torch.as_tensor(outcome.rewards)
        if outcome.finals:
            with torch.inference_mode():
                bonus = self.gamma * self.value(self.features_of_finals(outcome.finals))
                rollout.rewards[t, list(outcome.finals)] += bonus
        return True

    def _store(self, t: int, observations: Observations) -> None:
        self.rollout.episode_starts[t] = torch.as_tensor(self._last_episode_starts)
        for buffer, part in zip(leaves(self.rollout.observations), leaves(observations), strict=True):
            buffer[t] = part
