"""Small agents that learn fast, and the environments they learn in."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from saccade.agents import DQN, PPO, PQN, R2D2
from saccade.agents.algorithm import CoreAlgorithm
from saccade.envs import (
    Catch,
    Probe,
    ProbeMemory,
    TaskVecEnv,
)
from saccade.policies import LSTM, Twin

GAMMA = 0.5
SMALL = {"features_extractor_kwargs": {"net_arch": (13,)}, "head_hidden_size": 17}
SMALL_LSTM = SMALL | {"core_kwargs": {"hidden_size": 11}}
SMALL_GLIMPSE = {"core_kwargs": {"hidden_size": 11, "glimpse_size": 13, "pathway_size": 7}, "head_hidden_size": 17}


def memory(num_envs: int = 5, seed: int = 0) -> TaskVecEnv:
    return TaskVecEnv(ProbeMemory(num_envs, seed=seed))


def catch(num_envs: int = 5) -> TaskVecEnv:
    return TaskVecEnv(Catch(num_envs, height=7, width=11, seed=0))


def lstm_agent(env: VecEnv | None = None, **arguments: Any) -> PQN:
    defaults = {"n_steps": 7, "policy_kwargs": SMALL_LSTM, "device": "cpu", "seed": 0}
    return PQN("LstmPolicy", env or memory(), **(defaults | arguments))


def weights(model: CoreAlgorithm) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.policy.parameters()]


def same(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def flat(tree: Any) -> list[np.ndarray]:
    return [tree] if isinstance(tree, np.ndarray) else [leaf for part in tree for leaf in flat(part)]


def agent(
    policy: str, env: VecEnv, agent_class: type[PQN] = PQN, core_kwargs: dict[str, Any] | None = None, **arguments: Any
) -> PQN:
    """A small agent that learns fast, one minibatch an epoch."""
    policy_kwargs: dict[str, Any] = {"head_hidden_size": 16, "optimizer_class": torch.optim.Adam}
    if policy == "GlimpsePolicy":
        policy_kwargs["core_kwargs"] = core_kwargs or {"hidden_size": 13, "glimpse_size": 17, "pathway_size": 19}
    else:
        policy_kwargs["features_extractor_kwargs"] = {"net_arch": (16,)}
    if policy in {"LstmPolicy", "GruPolicy"}:
        policy_kwargs["core_kwargs"] = {"hidden_size": 16}
    n_steps = arguments.setdefault("n_steps", 3)
    defaults = {"learning_rate": 0.02, "gamma": GAMMA, "batch_size": n_steps * env.num_envs, "seed": 0, "device": "cpu"}
    return agent_class(policy, env, policy_kwargs=policy_kwargs, **(defaults | arguments))


def learn_probe(probe: type[Probe], policy: str = "MlpPolicy", agent_class: type[PQN] = PQN, updates: int = 60) -> float:
    """How far the learned values are from the exact ones, after so many updates; large steps first, small ones last."""
    env = TaskVecEnv(probe(num_envs=16, seed=0))
    n_steps = 6 if probe is ProbeMemory else 2
    schedule = partial(falling, start=0.02)
    model = agent(
        policy,
        env,
        agent_class,
        learning_rate=schedule,
        n_steps=n_steps,
        q_lambda=0.0 if probe is ProbeMemory else 0.65,
        exploration_fraction=1.0,
        exploration_final_eps=0.3,
    )
    model.learn(updates * n_steps * env.num_envs)
    exact = env.task.expected_q(GAMMA)  # type: ignore[attr-defined]
    observations = torch.as_tensor(exact.observations)
    starts = torch.zeros(observations.shape[:2], dtype=torch.bool)
    starts[0] = True
    with torch.no_grad():
        q = model.policy(observations, model.policy.initial_state(starts.shape[1]), starts).head.q
    return float((q - torch.as_tensor(exact.q)).abs().max())


def falling(progress: float, start: float) -> float:
    return start * (0.2 + 0.8 * progress)


class Learned(NamedTuple):
    """What an actor-critic agent has made of a probe.

    Attributes:
        error: how far its values are from the best that can be had.
        right: whether its likeliest actions are the best, wherever there is a best.
    """

    error: float
    right: bool


PPO_CORES: dict[str, dict[str, Any]] = {
    "MlpPolicy": {},
    "LstmPolicy": {"core_kwargs": {"hidden_size": 16}},
    "GruPolicy": {"core_kwargs": {"hidden_size": 16}},
    "TwinPolicy": {"core_class": Twin, "core_kwargs": {"core": partial(LSTM, hidden_size=16)}},
    "GlimpsePolicy": {"core_kwargs": {"hidden_size": 13, "glimpse_size": 17, "pathway_size": 19}},
}


def ppo(policy: str, env: VecEnv, agent_class: type[PPO] = PPO, **arguments: Any) -> PPO:
    """A small agent that learns fast; ``TwinPolicy`` has the core ``Twin``."""
    policy_kwargs = {"net_arch": (16,), **PPO_CORES[policy], **arguments.pop("policy_kwargs", {})}
    n_steps = arguments.setdefault("n_steps", 7)
    defaults = {"learning_rate": 0.01, "gamma": GAMMA, "batch_size": n_steps * env.num_envs, "seed": 0, "device": "cpu"}
    name = "CorePolicy" if policy == "TwinPolicy" else policy
    return agent_class(name, env, policy_kwargs=policy_kwargs, **(defaults | arguments))


def ppo_probe(probe: type[Probe], policy: str = "MlpPolicy", agent_class: type[PPO] = PPO, updates: int = 20) -> Learned:
    """What is learned from a probe in so many rollouts; large steps first, small ones last."""
    env = TaskVecEnv(probe(num_envs=16, seed=0))
    n_steps = 7 if probe is ProbeMemory else 2
    schedule = partial(falling, start=0.03)
    model = ppo(policy, env, agent_class, learning_rate=schedule, n_steps=n_steps, n_epochs=4, max_grad_norm=10.0)
    model.learn(updates * n_steps * env.num_envs)
    exact = env.task.expected_q(GAMMA)  # type: ignore[attr-defined]
    observations, q = torch.as_tensor(exact.observations), torch.as_tensor(exact.q)
    starts = torch.zeros(observations.shape[:2], dtype=torch.bool)
    starts[0] = True
    with torch.no_grad():
        output, _ = model.policy(observations, model.policy.initial_state(starts.shape[1]), starts)
    greedy = q.gather(-1, output.parameters.argmax(-1, keepdim=True)).squeeze(-1)
    return Learned(float((output.value - q.amax(-1)).abs().max()), bool((greedy == q.amax(-1)).all()))


# One of every agent: 35 steps in 5 environments are enough for each to learn from.


def dqn_agent(env: VecEnv | None = None, **arguments: Any) -> DQN:
    defaults = {"learning_starts": 10, "buffer_size": 300, "batch_size": 11, "policy_kwargs": SMALL, "device": "cpu", "seed": 0}
    return DQN("MlpPolicy", env or memory(), **(defaults | arguments))


def r2d2_agent(env: VecEnv | None = None, **arguments: Any) -> R2D2:
    defaults = {"learning_starts": 10, "buffer_size": 300, "batch_size": 3, "sequence_length": 3, "burn_in": 2}
    defaults |= {"policy_kwargs": SMALL_LSTM, "device": "cpu", "seed": 0}
    return R2D2("LstmPolicy", env or memory(), **(defaults | arguments))


def ppo_agent(env: VecEnv | None = None, **arguments: Any) -> PPO:
    defaults = {
        "n_steps": 7,
        "batch_size": 7,
        "n_epochs": 2,
        "policy_kwargs": PPO_CORES["LstmPolicy"],
        "device": "cpu",
        "seed": 0,
    }
    return PPO("LstmPolicy", env or memory(), **(defaults | arguments))


EVERY_AGENT = [ppo_agent, lstm_agent, dqn_agent, r2d2_agent]
