"""Small DQN and R2D2 agents that learn fast, and the environments they learn in."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from saccade.agents import DQN, R2D2
from saccade.envs import BatchedTask, Probe, ProbeMemory, TaskStep, TaskVecEnv
from small_agents import GAMMA, SMALL, SMALL_GLIMPSE, SMALL_LSTM, falling

FREE: dict[str, Any] = {"learning_starts": 32, "target_update_interval": 64, "exploration_fraction": 1.0, "device": "cpu"}


def dqn(env: VecEnv | str, agent_class: type[DQN] = DQN, policy: str = "MlpPolicy", **arguments: Any) -> DQN:
    defaults = {"policy_kwargs": SMALL, "buffer_size": 2000, "gamma": GAMMA, "batch_size": 32, "seed": 0}
    return agent_class(policy, env, **(FREE | defaults | arguments))


def r2d2(env: VecEnv | str, policy: str = "LstmPolicy", agent_class: type[R2D2] = R2D2, **arguments: Any) -> R2D2:
    kwargs = SMALL_GLIMPSE if policy == "GlimpsePolicy" else SMALL_LSTM
    defaults = {"policy_kwargs": kwargs, "buffer_size": 2000, "gamma": GAMMA, "batch_size": 16, "seed": 0}
    sequences = {"burn_in": 0, "sequence_length": 3, "n_steps": 1}
    return agent_class(policy, env, **(FREE | defaults | sequences | arguments))


def schedule(progress: float) -> float:
    return falling(progress, 0.02)


def fast(dueling: bool = True) -> dict[str, Any]:
    """Policy arguments of what learns a probe in a second."""
    torso = {"features_extractor_kwargs": {"net_arch": (16,)}, "head_hidden_size": 16}
    return torso | {"optimizer_class": torch.optim.Adam, "dueling": dueling}


def probe_error(model: DQN | R2D2, task: Probe) -> float:
    """How far the learned values are from the exact ones."""
    exact = task.expected_q(GAMMA)
    observations = torch.as_tensor(exact.observations)
    starts = torch.zeros(observations.shape[:2], dtype=torch.bool)
    starts[0] = True
    if not isinstance(model, R2D2):
        starts[:] = True
    with torch.no_grad():
        q = model.policy(observations, model.policy.initial_state(starts.shape[1]), starts).head.q
        if isinstance(model, R2D2):
            q = model.unscaled(q)
    return float((q - torch.as_tensor(exact.q)).abs().max())


def dqn_probe(probe: type[Probe], agent_class: type[DQN] = DQN, updates: int = 120, **arguments: Any) -> float:
    task = probe(num_envs=8, seed=0)
    dueling = arguments.pop("dueling", True)
    settings = {"learning_rate": schedule, "train_freq": 1, "exploration_final_eps": 0.3, "policy_kwargs": fast(dueling)}
    model = dqn(TaskVecEnv(task), agent_class, **(settings | arguments))
    return probe_error(model.learn(32 + updates * 8), task)


def r2d2_probe(
    probe: type[Probe], policy: str = "LstmPolicy", agent_class: type[R2D2] = R2D2, updates: int = 120, **arguments: Any
) -> float:
    task = probe(num_envs=8, seed=0)
    kwargs = fast() | {"core_kwargs": {"hidden_size": 16}}
    settings = {"learning_rate": schedule, "train_freq": 1, "exploration_final_eps": 0.3, "policy_kwargs": kwargs}
    model = r2d2(TaskVecEnv(task), policy, agent_class, **(settings | arguments))
    return probe_error(model.learn(32 + updates * 8), task)


class Paid(BatchedTask):
    """Shows nothing, pays 1 a step; ends, or is cut off, every ``length`` steps."""

    lane_arrays = ("time",)

    def __init__(self, num_envs: int = 1, length: int = 3, ends: bool = False, seed: int | None = None) -> None:
        super().__init__(num_envs, spaces.Box(0, 1, (1,), np.float32), spaces.Discrete(2), seed)
        self.length, self.ends = length, ends
        self.time = np.zeros(num_envs, np.int64)

    def reset(self, lanes: np.ndarray) -> None:
        self.time[lanes] = 0

    def step(self, actions: np.ndarray) -> TaskStep:
        self.time += 1
        over = self.time == self.length
        return TaskStep(np.ones(self.num_envs, np.float32), over & self.ends, over & (not self.ends))

    def observe(self) -> np.ndarray:
        return np.zeros((self.num_envs, 1), np.float32)


class Clock(gym.Env[Any, np.int64]):
    """Shows numbers that no other step shows; pays their first; cut off at ``length``. In a dictionary or as an image, too."""

    action_space = spaces.Discrete(3)
    started = 0

    def __init__(self, length: int = 5, kind: str = "vector") -> None:
        self.length, self.kind, self.time, self.episode = length, kind, 0, 0
        vector, image = spaces.Box(-1e6, 1e6, (2,), np.float32), spaces.Box(0, 255, (1, 36, 37), np.uint8)
        self.observation_space = {"vector": vector, "image": image, "dict": spaces.Dict({"a": vector, "b": image})}[kind]

    def look(self) -> Any:
        vector = np.array([self.episode, self.time / 7], np.float32)
        image = np.full((1, 36, 37), (31 * self.episode + self.time) % 256, np.uint8)
        return {"vector": vector, "image": image, "dict": {"a": vector, "b": image}}[self.kind]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.time = 0
        self.episode += 1
        return self.look(), {}

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        return self.look(), float(self.time), False, self.time == self.length, {}


def clocks(n_envs: int = 1, length: int = 5, kind: str = "vector") -> VecEnv:
    return make_vec_env(lambda: Clock(length, kind), n_envs)


def weights_of(network: torch.nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


def memory(num_envs: int = 5) -> TaskVecEnv:
    return TaskVecEnv(ProbeMemory(num_envs, seed=0))


def surprising(agent_class: type[DQN | R2D2], priority_exponent: float = 1.0) -> float:
    """What is learned of a step that pays 1 in one case of nine, drawn by priority from a replay that no longer changes.

    Drawn in proportion to their errors and not made up for, rare steps would weigh ``√8`` times too much: 0.26, not 0.11.
    """
    settings = {
        "priority_exponent": priority_exponent,
        "priority_correction": 1.0,
        "learning_rate": 3e-3,
        "learning_starts": 10**6,
    }
    kwargs = {"features_extractor_kwargs": {"net_arch": (5,)}, "head_hidden_size": 0, "optimizer_class": torch.optim.SGD}
    env = TaskVecEnv(Rare(9))
    if issubclass(agent_class, R2D2):
        kwargs |= {"core_kwargs": {"hidden_size": 5}}
        model: Any = r2d2(env, agent_class=agent_class, rescale_epsilon=None, policy_kwargs=kwargs, **settings)
    else:
        model = dqn(env, agent_class, policy_kwargs=kwargs, **settings)
    model.set_logger(Logger(None, []))
    model.learn(9 * 11)
    model.learning_starts, model.gradient_steps, model.batch_size = 0, 150, 97
    model.lr_schedule = lambda progress: 0.1
    model.train()
    with torch.no_grad():
        starts = torch.ones(1, 1, dtype=torch.bool)
        return float(model.policy(torch.zeros(1, 1, 1), model.policy.initial_state(1), starts).head.q)


class Rare(Paid):
    """One step; pays 1 in the first lane only, which nothing shows."""

    def __init__(self, num_envs: int = 1, seed: int | None = None) -> None:
        super().__init__(num_envs, length=1, ends=True, seed=seed)
        self.action_space = spaces.Discrete(1)

    def step(self, actions: np.ndarray) -> TaskStep:
        result = super().step(actions)
        return result._replace(rewards=(np.arange(self.num_envs) == 0).astype(np.float32))


def assert_clocks_go_on(model: DQN) -> None:
    """In the replay of an agent among :func:`clocks`, which pay the time, every step leads to the next of its episode."""
    batch = model.replay.sample(301)
    (episode, time), (next_episode, next_time) = batch.observations.T, batch.next_observations.T
    assert torch.equal(episode, next_episode)
    torch.testing.assert_close(7 * next_time, 7 * time + 1)
    torch.testing.assert_close(batch.rewards, 7 * next_time)
