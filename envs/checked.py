"""Environments that are not ours are held to their own observation space, and named by index where they break it."""

from typing import Any

import gymnasium as gym
import numpy as np


class WrongExperienceError(ValueError):
    """An environment returned an observation or a reward of another shape than it promised."""


class CheckedExperience(gym.Wrapper[Any, Any, Any, Any]):
    """Checks the shape of every observation and reward; without it numpy would say only that something cannot be broadcast.

    Args:
        env: one environment.
        index: its number among those side by side, for the message.
    """

    def __init__(self, env: gym.Env[Any, Any], index: int) -> None:
        super().__init__(env)
        self.index = index
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset, and check the first observation.

        Raises:
            WrongExperienceError: it has the wrong shape.
        """
        observation, info = self.env.reset(seed=seed, options=options)
        self.check("observation", observation, self.observation_space)
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step, and check what comes back.

        Raises:
            WrongExperienceError: the observation has the wrong shape, or the reward is no number.
        """
        reward: Any
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.steps += 1
        self.check("observation", observation, self.observation_space)
        if np.shape(reward) != ():
            raise WrongExperienceError(
                f"reward of environment {self.index} has shape {list(np.shape(reward))}, at its step {self.steps}; "
                "it must be one number"
            )
        return observation, reward, terminated, truncated, info

    def check(self, key: str, value: Any, space: gym.Space[Any]) -> None:
        """Compare one observation, or every entry of a dictionary, with its space."""
        if isinstance(space, gym.spaces.Dict):
            for name, part in space.spaces.items():
                if not isinstance(value, dict) or name not in value:
                    raise WrongExperienceError(
                        f"{key} of environment {self.index} has no entry {name!r}, at its step {self.steps}; its space has one"
                    )
                self.check(name, value[name], part)
        elif space.shape is not None and np.shape(value) != space.shape:
            raise WrongExperienceError(
                f"{key} of environment {self.index} has shape {list(np.shape(value))}, at its step {self.steps}; "
                f"its space promises {list(space.shape)}"
            )
