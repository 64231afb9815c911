"""SB3's wrappers of environments around ours, and ours inside them."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecMonitor, VecNormalize

from saccade.agents import PQN
from small_agents import SMALL_GLIMPSE, catch, lstm_agent, memory


def test_vec_normalize() -> None:
    env = VecNormalize(memory())
    model = lstm_agent(env).learn(105)
    assert env.obs_rms.count > 100
    assert model.get_vec_normalize_env() is env
    held_out = VecNormalize(memory(3), training=False, norm_reward=False)
    held_out.obs_rms = env.obs_rms
    assert np.isfinite(evaluate_policy(model, held_out, n_eval_episodes=3)[0])


def test_normalised_images_reach_the_retina_as_floats() -> None:
    model = PQN("GlimpsePolicy", VecNormalize(catch()), n_steps=7, policy_kwargs=SMALL_GLIMPSE, device="cpu").learn(35)
    assert model.rollout.observations.dtype == torch.float32  # type: ignore[union-attr]


def test_vec_frame_stack() -> None:
    model = PQN("GlimpsePolicy", VecFrameStack(catch(), 3), n_steps=7, policy_kwargs=SMALL_GLIMPSE, device="cpu").learn(35)
    assert model.policy.core.input_shape == (3, 7, 11)
    assert lstm_agent(VecFrameStack(memory(), 3)).learn(35).observation_space.shape == (6,)


def test_vec_monitor() -> None:
    env = DummyVecEnv([lambda: gym.make("saccade/ProbeMemory-v0") for _ in range(5)])
    model = lstm_agent(VecMonitor(env)).learn(105)
    assert [info["l"] for info in model.ep_info_buffer] == [3] * 35


def test_episode_statistics_count_each_episode_once() -> None:
    model = lstm_agent(stats_window_size=1000).learn(105)
    assert len(model.ep_info_buffer) == len(model.ep_success_buffer) == 35
    returns = np.array([info["r"] for info in model.ep_info_buffer])
    assert ((returns == 1) == np.array(model.ep_success_buffer)).all()


def test_images_with_channels_last_are_transposed() -> None:
    env = DummyVecEnv([lambda: Monitor(Pictures())])
    model = PQN("GlimpsePolicy", env, n_steps=7, policy_kwargs=SMALL_GLIMPSE, device="cpu").learn(7)
    assert model.policy.core.input_shape == (3, 11, 13)
    assert model.predict(Pictures().observation_space.sample())[0].shape == ()


class Pictures(gym.Env[np.ndarray, np.int64]):
    observation_space = spaces.Box(0, 255, (11, 13, 3), np.uint8)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        return self.observation_space.sample(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        return self.observation_space.sample(), 1.0, bool(np.random.default_rng().random() < 0.3), False, {}
