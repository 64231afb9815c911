"""ε-greedy exploration, for every agent that learns Q values."""

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.utils import LinearSchedule
from torch import Tensor

from saccade.agents.algorithm import CoreAlgorithm
from saccade.agents.arguments import check_share
from saccade.agents.masks import ActionMasks
from saccade.policies import QPolicy


class EpsilonGreedy(CoreAlgorithm):
    """Takes the greedy action, or with probability ε any; ε falls linearly over the first part of the training (SB3's DQN)."""

    supported_action_spaces = (gym.spaces.Discrete,)
    policy: QPolicy

    def set_exploration(self, fraction: float, initial: float, final: float) -> None:
        """Say how ε falls: over a ``fraction`` of the training, from ``initial`` to ``final``.

        Raises:
            ValueError: one of them is not in [0, 1].
        """
        shares = {"exploration_fraction": fraction, "exploration_initial_eps": initial, "exploration_final_eps": final}
        for name, share in shares.items():
            check_share(name, share)
        self.exploration_fraction = fraction
        self.exploration_initial_eps = initial
        self.exploration_final_eps = final
        self.exploration_schedule = LinearSchedule(initial, final, fraction)

    def prepare(self) -> None:
        """Say it where an environment forbids actions: that is for PPO."""
        super().prepare()  # type: ignore[safe-super]
        if self.env is not None and ActionMasks.said_by(self.env):
            warnings.warn(
                f"this environment forbids actions, and {type(self).__name__} tries them all while it learns; PPO keeps to the "
                "allowed ones",
                stacklevel=2,
            )

    @property
    def exploration_rate(self) -> float:
        """ε at this point of the training."""
        if self.exploration_fraction == 0:
            return self.exploration_final_eps
        return self.exploration_schedule(self._current_progress_remaining)

    def exploration(self, greedy: Tensor) -> Tensor:
        """Each action kept, or with probability ε replaced by any."""
        random = torch.randint_like(greedy, int(self.action_space.n))  # type: ignore[attr-defined]
        return torch.where(torch.rand_like(greedy, dtype=torch.float) < self.exploration_rate, random, greedy)

    def explore(self, features: Tensor, t: int) -> Tensor:
        """ε-greedy actions, ``[B]``, from core features ``[B, D]``."""
        return self.exploration(self.policy.head(features).q.argmax(dim=-1))

    def record_training(self) -> None:
        """What every agent records, and ε."""
        super().record_training()
        self.logger.record("rollout/exploration_rate", self.exploration_rate)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: Any = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, Any]:
        """SB3's ``predict``; unless ``deterministic``, ε-greedy with the present ε as SB3's DQN does."""
        actions, state = self.policy.predict(observation, state, episode_start, deterministic, action_masks)
        if not deterministic and action_masks is None:
            actions = self.exploration(torch.as_tensor(actions)).numpy()
        elif not deterministic:
            masks = torch.as_tensor(np.asarray(action_masks, dtype=np.float32)).reshape(actions.size, -1)
            random = torch.multinomial(masks, 1).reshape(actions.shape).numpy()
            actions = np.where(np.random.random(actions.shape) < self.exploration_rate, random, actions)  # noqa: NPY002
        return actions, state
