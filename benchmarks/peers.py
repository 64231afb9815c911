"""The agents that ours are measured against, as their users make them."""

import warnings
from typing import Any

import ale_py  # noqa: F401  (registers the games)
from sb3_contrib import RecurrentPPO
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack

GAME = "PongNoFrameskip-v4"


def cartpole(lanes: int) -> VecEnv:
    """SB3's ``make_vec_env``."""
    return make_vec_env("CartPole-v1", lanes, seed=0)


def pong(lanes: int) -> VecEnv:
    """SB3's ``make_atari_env``, four frames stacked; its agents put ``VecTransposeImage`` around it."""
    return VecFrameStack(make_atari_env(GAME, lanes, seed=0), 4)


def ppo(policy: str, env: VecEnv, **arguments: Any) -> PPO:
    """SB3's PPO."""
    return PPO(policy, env, **arguments, seed=0)


def recurrent_ppo(policy: str, env: VecEnv, **arguments: Any) -> RecurrentPPO:
    """sb3-contrib's PPO with LSTMs."""
    return RecurrentPPO(policy, env, **arguments, seed=0)


def dqn(policy: str, env: GymEnv, **arguments: Any) -> DQN:
    """SB3's DQN."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You are using a CNN policy")
        return DQN(policy, env, **arguments, seed=0)
