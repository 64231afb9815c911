"""Action masks where they are easily forgotten: in evaluations, by agents without them, in the infos of steps alone."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv

from saccade.agents import DQN, PPO, PQN
from saccade.agents.masks import Masked


class Shows(gym.Env[np.ndarray, Any]):
    observation_space = spaces.Box(0, 1, (3,), np.float32)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}


class Says(Shows):
    """Says in every step what is allowed, but not when it is reset."""

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 1.0, False, False, {"action_mask": np.array([True, False, True])}


class Forbids(Says):
    """Ends an episode at a forbidden action, badly; and after nine others, well."""

    def action_masks(self) -> np.ndarray:
        return np.array([True, self.time % 2 == 0, True])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.time = 0
        return super().reset(seed=seed)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.action_masks()[action], "a forbidden action"
        self.time += 1
        return self.observation_space.sample(), float(action == 1), self.time == 9, False, {}


class ForbidsInInfos(gym.Wrapper[Any, Any, Any, Any]):
    def __init__(self) -> None:
        super().__init__(Forbids())

    def has_wrapper_attr(self, name: str) -> bool:
        return name != "action_masks" and super().has_wrapper_attr(name)

    def get_wrapper_attr(self, name: str) -> Any:
        if name == "action_masks":
            raise AttributeError(name)
        return super().get_wrapper_attr(name)

    def reset(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        observation, _ = self.env.reset(**arguments)
        return observation, {"action_mask": self.env.unwrapped.action_masks()}  # type: ignore[attr-defined]

    def step(self, action: Any) -> Any:
        observation, reward, ended, cut, _ = self.env.step(action)
        return observation, reward, ended, cut, {"action_mask": self.env.unwrapped.action_masks()}  # type: ignore[attr-defined]


@pytest.mark.parametrize("make", [Forbids, ForbidsInInfos])
def test_an_evaluation_keeps_to_the_allowed_actions(make: Any) -> None:
    envs = DummyVecEnv([make] * 3)
    model = PPO("MlpPolicy", DummyVecEnv([make]), n_steps=8, batch_size=8, device="cpu", seed=0)
    with torch.no_grad():
        model.policy.head.action.bias[1] += 100  # what is forbidden every other time
    player = Masked(model, envs)
    rewards, lengths = evaluate_policy(player, envs, 7, callback=player.note, return_episode_rewards=True, warn=False)
    assert (rewards, lengths) == ([5.0] * 7, [9] * 7)
    assert evaluate_policy(player, envs, 5, callback=player.note, warn=False) == (5.0, 0.0)


def test_masks_in_infos_have_to_be_told() -> None:
    envs = DummyVecEnv([ForbidsInInfos])
    model = PPO("MlpPolicy", envs, n_steps=8, batch_size=8, device="cpu")
    with pytest.raises(ValueError, match="callback=player.note"):
        evaluate_policy(Masked(model, envs), envs, 1, warn=False)


class Tolerates(Says):
    def action_masks(self) -> np.ndarray:
        return np.array([True, False, True])


def test_masks_of_steps_without_those_of_reset_are_refused() -> None:
    with pytest.raises(ValueError, match="infos of steps have 'action_mask', and those of reset have none"):
        PPO("MlpPolicy", DummyVecEnv([Says]), n_steps=8, batch_size=8, device="cpu").learn(8)


@pytest.mark.parametrize("agent_class", [PQN, DQN])
def test_an_agent_that_tries_forbidden_actions_says_so(agent_class: Any) -> None:
    with pytest.warns(UserWarning, match=f"forbids actions, and {agent_class.__name__} tries them all"):
        agent_class("MlpPolicy", DummyVecEnv([Tolerates]), device="cpu").learn(32)
