"""How long ``predict`` takes beyond the network itself, ours and SB3's, for one observation."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import harness
import numpy as np
import peers
import stable_baselines3 as sb3
import torch
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from saccade.agents import DQN
from saccade.policies import QHead

FRAME = gym.spaces.Box(0, 255, (4, 84, 84), np.uint8)
VECTOR = gym.spaces.Box(-1, 1, (4,), np.float32)
EQUAL = {"dueling": False, "head_hidden_size": 0}


class Shows(gym.Env[np.ndarray, np.int64]):
    """Agents are made for an environment; nothing here ever steps it."""

    action_space = gym.spaces.Discrete(6)

    def __init__(self, observation_space: gym.spaces.Box) -> None:
        self.observation_space = observation_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """An observation."""
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Another."""
        return self.observation_space.sample(), 0.0, False, False, {}


class HiddenLayers(BaseFeaturesExtractor):
    """SB3's network for vectors, but for its last layer: that is our head."""

    def __init__(self, observation_space: gym.spaces.Box) -> None:
        super().__init__(observation_space, features_dim=64)
        self.network = nn.Sequential(nn.Linear(observation_space.shape[0], 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())

    def forward(self, observations: Tensor) -> Tensor:
        """``[B, D]`` to ``[B, 64]``."""
        features: Tensor = self.network(observations)
        return features


def repeat(call: Callable[[], object], times: int) -> harness.Work:
    """Many calls, one after another."""

    def work() -> int:
        for _ in range(times):
            call()
        return times

    return work


def overhead(
    name: str, space: gym.spaces.Box, ours: DQN, peer: sb3.DQN, goal: float, times: int, settings: harness.Settings
) -> harness.Row:
    """``predict``'s time as a multiple of that of the network alone: no gradient, floats in, Q values out."""
    observation = space.sample()
    ours.policy.set_training_mode(False)
    peer.policy.set_training_mode(False)
    head = ours.policy.head
    assert isinstance(head, QHead)
    floats = torch.as_tensor(observation, device=settings.device)[None].float()

    def our_network() -> None:
        with torch.no_grad():
            head.q(ours.policy.features_extractor(floats))

    def peer_network() -> None:
        with torch.no_grad():
            peer.q_net.q_net(peer.q_net.features_extractor(floats))

    calls = {
        "ours": lambda: ours.predict(observation, deterministic=True),
        "our network": our_network,
        "peer": lambda: peer.predict(observation, deterministic=True),
        "peer network": peer_network,
    }
    rounds = 5 if settings.quick else 11
    rates = harness.median_rates({who: repeat(call, times) for who, call in calls.items()}, rounds, settings.clock)
    factors = [rates[f"{whose} network"] / rates[who] for who, whose in (("ours", "our"), ("peer", "peer"))]
    return harness.compare(name, "network's time", factors[0], factors[1], "SB3 DQN.predict", at_most=settings.goal(goal))


def predict_rows(settings: harness.Settings) -> list[harness.Row]:
    """For a frame of Atari, and for a vector of four numbers."""
    quick, device = settings
    frame, vector = Shows(FRAME), Shows(VECTOR)
    cnn = DQN("CnnPolicy", frame, buffer_size=100, policy_kwargs=EQUAL, device=device, seed=0)
    mlp_kwargs = {**EQUAL, "features_extractor_class": HiddenLayers}
    mlp = DQN("MlpPolicy", vector, buffer_size=100, policy_kwargs=mlp_kwargs, device=device, seed=0)
    cnn_peer = peers.dqn("CnnPolicy", frame, buffer_size=100, device=device)
    mlp_peer = peers.dqn("MlpPolicy", vector, buffer_size=100, device=device)
    return [
        overhead("predict, a frame 4x84x84", FRAME, cnn, cnn_peer, 1.2, 50 if quick else 100, settings),
        overhead("predict, 4 numbers", VECTOR, mlp, mlp_peer, 1.5, 500 if quick else 1000, settings),
    ]
