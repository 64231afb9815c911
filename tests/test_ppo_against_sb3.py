"""PPO without memory is SB3's PPO: the same weights, environments and actions give the same rollout and the same update."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from saccade.agents import PPO
from saccade.policies.distributions import Draw

T, B, D = 7, 5, 3
ACTIONS = {
    "discrete": spaces.Discrete(3),
    "box": spaces.Box(-0.5, 0.7, (2,), np.float32),
    "multi discrete": spaces.MultiDiscrete([2, 3]),
    "multi binary": spaces.MultiBinary(3),
}


class Noise(gym.Env[np.ndarray, Any]):
    """Random observations, some ends, and rewards that depend on both and on the action."""

    observation_space = spaces.Box(-3, 3, (D,), np.float32)

    def __init__(self, actions: gym.Space[Any]) -> None:
        self.action_space = actions

    def look(self) -> np.ndarray:
        self.seen = self.np_random.uniform(-2, 2, D).astype(np.float32)
        return self.seen

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return self.look(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), f"{action} is out of bounds"
        reward = float(self.seen.sum() + np.sum(action))
        return self.look(), reward, bool(self.np_random.random() < 0.15), False, {}


def noise(actions: gym.Space[Any]) -> VecEnv:
    return make_vec_env(lambda: gym.wrappers.TimeLimit(Noise(actions), 4), B, seed=3)


def script(space: gym.Space[Any]) -> list[Tensor]:
    """Actions of all environments, step by step; those of a box are not always inside."""
    rng = np.random.default_rng(0)
    if isinstance(space, spaces.Box):
        return [torch.as_tensor(rng.normal(size=(B, *space.shape)).astype(space.dtype)) for _ in range(T)]
    space.seed(0)
    return [torch.as_tensor(np.stack([space.sample() for _ in range(B)])) for _ in range(T)]


class Rollouts(BaseCallback):
    """SB3's buffer, before it is shuffled."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, np.ndarray] = {}

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        names = ("values", "log_probs", "advantages", "returns", "rewards")
        self.kept = {name: getattr(self.model.rollout_buffer, name).copy() for name in names}


def sb3_told(model: stable_baselines3.PPO, actions: list[Tensor]) -> None:
    """SB3's agent will take these actions."""
    left = iter(actions)

    def forward(observations: Tensor, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        chosen = next(left)
        bits = isinstance(model.action_space, spaces.MultiBinary)  # SB3 wants these as floats
        values, log_prob, _ = model.policy.evaluate_actions(observations, chosen.float() if bits else chosen)
        return chosen, values, log_prob

    model.policy.forward = forward  # type: ignore[method-assign, assignment]


def told(model: PPO, actions: list[Tensor]) -> None:
    """Our agent will take these actions."""
    left, distribution = iter(actions), model.policy.distribution

    def sample(parameters: Tensor) -> Draw:
        chosen = next(left)
        return Draw(chosen, distribution.score(parameters, chosen).log_prob)

    distribution.sample = sample  # type: ignore[method-assign]


def pairs(ours: PPO, theirs: stable_baselines3.PPO) -> list[tuple[Tensor, Tensor]]:
    """The weights of both in our layout; ours are views, so that they can be copied into."""
    head, policy = ours.policy.head, theirs.policy
    networks = (policy.mlp_extractor.policy_net, policy.mlp_extractor.value_net)
    both = []
    for copy, network in enumerate(networks):
        linear = [layer for layer in network if isinstance(layer, torch.nn.Linear)]
        stack, one = (head.hidden[0], copy) if len(head.hidden) == 1 else (head.hidden[copy], 0)
        for weight, bias, layer in zip(stack.weights, stack.biases, linear, strict=True):
            both += [(weight[one], layer.weight.t()), (bias[one, 0], layer.bias)]
    for mine, layer in ((head.action, policy.action_net), (head.value, policy.value_net)):
        both += [(mine.weight, layer.weight), (mine.bias, layer.bias)]
    if isinstance(ours.action_space, spaces.Box):
        both.append((ours.policy.distribution.log_std, policy.log_std))
    return both


def twins(
    actions: gym.Space[Any], net_arch: Any = (11, 13), **arguments: Any
) -> tuple[PPO, stable_baselines3.PPO, dict[str, np.ndarray]]:
    """Ours and SB3's agent after a rollout of the same actions and an update each, and SB3's rollout."""
    arguments = {"n_steps": T, "batch_size": T * B, "n_epochs": 1, "gamma": 0.9, "gae_lambda": 0.8, "device": "cpu"} | arguments
    arguments["policy_kwargs"] = {"net_arch": net_arch}
    theirs = stable_baselines3.PPO("MlpPolicy", noise(actions), **arguments)
    ours = PPO("MlpPolicy", noise(actions), **arguments)
    with torch.no_grad():
        for mine, yours in pairs(ours, theirs):
            mine.copy_(yours)
    told(ours, script(actions))
    sb3_told(theirs, script(actions))
    rollouts = Rollouts()
    theirs.learn(T * B, callback=rollouts)
    ours.learn(T * B)
    return ours, theirs, rollouts.kept


def assert_same_rollout(ours: PPO, theirs: dict[str, np.ndarray]) -> None:
    batch = ours.batch()
    for name, mine in {
        "values": batch.values,
        "log_probs": batch.log_probs,
        "advantages": batch.advantages,
        "returns": batch.returns,
        "rewards": batch.rewards,
    }.items():
        np.testing.assert_allclose(mine.reshape(T, B).numpy(), theirs[name], rtol=1e-6, atol=2e-6, err_msg=name)


def assert_same_weights(ours: PPO, theirs: stable_baselines3.PPO) -> None:
    for mine, yours in pairs(ours, theirs):
        torch.testing.assert_close(mine, yours, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", ACTIONS)
def test_a_rollout_and_an_update_are_sb3s(name: str) -> None:
    ours, theirs, rollout = twins(ACTIONS[name], ent_coef=0.01)
    assert_same_rollout(ours, rollout)
    assert_same_weights(ours, theirs)
    starts = ours.rollout.episode_starts[1:]
    assert starts.any()
    assert not starts.all()


@pytest.mark.parametrize(
    "arguments",
    [
        {"n_epochs": 4, "learning_rate": 0.01},
        {"n_epochs": 4, "learning_rate": 0.01, "clip_range_vf": 0.05, "clip_range": 0.05},
        {"normalize_advantage": False, "max_grad_norm": 0.01},
        {"net_arch": {"pi": [11], "vf": [7, 13]}},
        {"net_arch": []},
        {"n_epochs": 9, "learning_rate": 0.02, "target_kl": 0.01},
        {"gae_lambda": 1.0, "vf_coef": 0.1, "ent_coef": 0.3},
        {"learning_rate": lambda progress: 0.01 * (1 + progress), "clip_range": lambda progress: 0.1 + progress},
    ],
    ids=lambda arguments: " ".join(arguments),
)
@pytest.mark.parametrize("name", ["discrete", "box"])
def test_every_argument_means_what_it_means_to_sb3(name: str, arguments: dict[str, Any]) -> None:
    ours, theirs, rollout = twins(ACTIONS[name], **arguments)
    assert_same_rollout(ours, rollout)
    assert_same_weights(ours, theirs)
    assert ours._n_updates == theirs._n_updates


@pytest.mark.parametrize("name", ACTIONS)
def test_the_weights_start_as_sb3s(name: str) -> None:
    """Orthogonal with the same gains: singular values say so, whatever was drawn."""
    arguments: dict[str, Any] = {"policy_kwargs": {"net_arch": (11, 13)}, "device": "cpu"}
    ours = PPO("MlpPolicy", noise(ACTIONS[name]), **arguments)
    theirs = stable_baselines3.PPO("MlpPolicy", noise(ACTIONS[name]), **arguments)
    for mine, yours in pairs(ours, theirs):
        assert mine.shape == yours.shape
        if mine.ndim == 2:
            torch.testing.assert_close(torch.linalg.svdvals(mine), torch.linalg.svdvals(yours), rtol=1e-4, atol=1e-5)
        else:
            assert torch.equal(mine, yours)


@pytest.mark.parametrize(
    "make",
    [
        lambda space: PPO("MlpPolicy", noise(space), device="cpu"),
        lambda space: stable_baselines3.PPO("MlpPolicy", noise(space), device="cpu"),
    ],
    ids=["ours", "sb3"],
)
def test_the_rollout_of_a_box_keeps_what_was_drawn_and_the_environment_gets_what_is_allowed(
    make: Callable[[gym.Space[Any]], Any],
) -> None:
    space = ACTIONS["box"]
    assert isinstance(space, spaces.Box)
    for deterministic in (False, True):
        actions, _ = make(space).predict(np.full((B, D), 3, np.float32), deterministic=deterministic)
        assert all(space.contains(action) for action in actions)
