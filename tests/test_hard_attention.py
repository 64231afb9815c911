"""What a core adds to an agent's loss, end to end: the price of its features, and a gaze that REINFORCE trains."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from saccade.agents import PPO, PQN, R2D2, Reinforce
from saccade.agents.algorithm import Shown
from saccade.envs import (
    BatchedTask,
    ProbeAction,
    TaskStep,
    TaskVecEnv,
)
from saccade.policies import GRU, Core, CoreOutput, HardAttention, LearnedGaze, Retina, recording
from saccade.policies.policy import CorePolicy
from small_agents import agent


class Costly(Core):
    """Its features cost something, by a parameter that they do not depend on."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__(input_shape, features_dim=input_shape[0])
        self.price = nn.Parameter(torch.ones(()))

    def initial_state(self, batch_size: int) -> tuple[()]:
        return ()

    def step(self, inputs: Tensor, state: Any, replay: Tensor | None = None, deterministic: bool = False) -> CoreOutput:
        return CoreOutput(inputs, state, cost=self.price.square().expand(len(inputs)))


def test_what_a_core_costs_is_part_of_the_loss() -> None:
    policy_kwargs = {"core_class": Costly, "features_extractor_kwargs": {"net_arch": (16,)}}
    model = PQN(
        "CorePolicy", TaskVecEnv(ProbeAction(5)), learning_rate=0.05, n_steps=7, policy_kwargs=policy_kwargs, device="cpu"
    )
    model.learn(20 * 7 * 5)
    assert abs(model.policy.core.price.item()) < 0.5  # type: ignore[operator, union-attr]


class Peek(BatchedTask):
    """Dark, then for one step a bar of light in the right part of the picture, upper or lower: which of the two must be named.

    Who looks at the middle does not see it. Where to look has to be decided in the dark.
    """

    lane_arrays = ("time", "cue")

    def __init__(self, num_envs: int = 1, seed: int | None = None) -> None:
        super().__init__(num_envs, spaces.Box(0, 255, (1, 7, 13), np.uint8), spaces.Discrete(2), seed)
        self.time, self.cue = np.zeros(num_envs, np.int64), np.zeros(num_envs, np.int64)
        self.reset(np.ones(num_envs, np.bool_))

    def reset(self, lanes: np.ndarray) -> None:
        self.time[lanes] = 0
        self.cue[lanes] = self.rng.integers(2, size=int(lanes.sum()))

    def step(self, actions: np.ndarray) -> TaskStep:
        self.time += 1
        last = self.time == 2
        rewards = np.where(last, np.where(actions == self.cue, 1, -1), 0).astype(np.float32)
        return TaskStep(rewards, last, np.zeros(self.num_envs, np.bool_), rewards == 1)

    def observe(self) -> np.ndarray:
        pictures = np.zeros((self.num_envs, 1, 7, 13), np.uint8)
        lit = self.time == 1
        pictures[lit, 0, 2 + 2 * self.cue[lit], 8:] = 255
        return pictures


def test_a_gaze_is_learned_that_nothing_but_the_reward_asks_for() -> None:
    env = TaskVecEnv(Peek(num_envs=64, seed=0))
    sizes = {"hidden_size": 16, "glimpse_size": 16, "pathway_size": 16, "memory": GRU}
    core_kwargs = sizes | {"gaze": partial(LearnedGaze, sigma=0.3), "retina": partial(Retina, patch_size=3, scales=1)}
    explores = {"exploration_fraction": 1.0, "exploration_final_eps": 0.1, "reinforce": Reinforce(coef=0.5)}
    model = agent(
        "GlimpsePolicy", env, core_kwargs=core_kwargs, learning_rate=0.01, n_steps=4, gamma=0.9, q_lambda=0.5, **explores
    ).learn(80 * 4 * 64)
    pictures = torch.zeros(2, 2, 1, 7, 13, dtype=torch.uint8)
    pictures[1, 0, 0, 2, 8:] = pictures[1, 1, 0, 4, 8:] = 255
    starts = torch.tensor([[True, True], [False, False]])
    with torch.no_grad():
        output = model.policy(pictures, model.policy.initial_state(2), starts, deterministic=True)
    x = output.core.decision.value[0, :, 0]  # type: ignore[union-attr]
    # At the middle, 0, three columns are seen of which none is lit.
    assert (x > 0.4).all()
    assert output.head.q[1].argmax(-1).tolist() == [0, 1]


class Pointed(BatchedTask):
    """In the middle a mark, upper or lower, says whether the sign to be named, upper or lower, is to the left or the right.

    The other side shows a sign as well. An episode is one step: who looks once knows nothing.
    """

    lane_arrays = ("side", "signs")

    def __init__(self, num_envs: int = 1, seed: int | None = None) -> None:
        super().__init__(num_envs, spaces.Box(0, 255, (1, 5, 15), np.uint8), spaces.Discrete(2), seed)
        self.side, self.signs = np.zeros(num_envs, np.int64), np.zeros((num_envs, 2), np.int64)
        self.reset(np.ones(num_envs, np.bool_))

    def reset(self, lanes: np.ndarray) -> None:
        self.side[lanes] = self.rng.integers(2, size=int(lanes.sum()))
        self.signs[lanes] = self.rng.integers(2, size=(int(lanes.sum()), 2))

    def step(self, actions: np.ndarray) -> TaskStep:
        right = actions == self.signs[np.arange(self.num_envs), self.side]
        ends = np.ones(self.num_envs, np.bool_)
        return TaskStep(np.where(right, 1, -1).astype(np.float32), ends, ~ends, right)

    def observe(self) -> np.ndarray:
        pictures, lanes = np.zeros((self.num_envs, 1, 5, 15), np.uint8), np.arange(self.num_envs)
        pictures[lanes, 0, 1 + 2 * self.side, 7] = 255
        for side, columns in enumerate((slice(0, 4), slice(11, 15))):
            pictures[lanes, 0, 1 + 2 * self.signs[:, side], columns] = 255
        return pictures


@pytest.mark.slow
def test_who_looks_twice_lets_the_first_look_say_where_the_second_one_goes() -> None:
    env = TaskVecEnv(Pointed(num_envs=128, seed=0))
    sizes = {"hidden_size": 32, "glimpse_size": 32, "pathway_size": 32, "memory": GRU, "n_glimpses": 2}
    core_kwargs = sizes | {"gaze": partial(LearnedGaze, sigma=0.4), "retina": partial(Retina, patch_size=3, scales=1)}
    explores = {"exploration_fraction": 0.5, "exploration_final_eps": 0.05, "reinforce": Reinforce(coef=0.5)}
    model = agent("GlimpsePolicy", env, core_kwargs=core_kwargs, learning_rate=0.005, n_steps=2, gamma=0.9, **explores)
    model.learn(100 * 2 * 128)
    task = Pointed(num_envs=400, seed=1)
    pictures, starts = torch.as_tensor(task.observe())[None], torch.ones(1, 400, dtype=torch.bool)
    with torch.no_grad():
        output = model.policy(pictures, model.policy.initial_state(400), starts, deterministic=True)
    second = output.core.decision.value[0, :, 0].numpy()  # type: ignore[union-attr]
    assert ((second > 0) == (task.side == 1)).mean() > 0.95
    right = output.head.q[0].argmax(-1).numpy() == task.signs[np.arange(400), task.side]
    assert right.mean() > 0.95


class Find(BatchedTask):
    """One of six places is lit, and holds one of two signs that the others hold too: name it, at once."""

    lane_arrays = ("place", "signs")

    def __init__(self, num_envs: int = 1, seed: int | None = None) -> None:
        super().__init__(num_envs, spaces.Box(0, 255, (2, 2, 3), np.uint8), spaces.Discrete(2), seed)
        self.place, self.signs = np.zeros(num_envs, np.int64), np.zeros((num_envs, 6), np.int64)
        self.reset(np.ones(num_envs, np.bool_))

    def reset(self, lanes: np.ndarray) -> None:
        self.place[lanes] = self.rng.integers(6, size=int(lanes.sum()))
        self.signs[lanes] = self.rng.integers(2, size=(int(lanes.sum()), 6))

    def step(self, actions: np.ndarray) -> TaskStep:
        right = actions == self.signs[np.arange(self.num_envs), self.place]
        ends = np.ones(self.num_envs, np.bool_)
        return TaskStep(right.astype(np.float32), ends, ~ends, right)

    def observe(self) -> np.ndarray:
        pictures = np.zeros((self.num_envs, 2, 6), np.uint8)
        pictures[:, 0] = self.signs * 255
        pictures[np.arange(self.num_envs), 1, self.place] = 255
        return pictures.reshape(-1, 2, 2, 3)


AGENTS: dict[type[PPO] | type[PQN] | type[R2D2], dict[str, Any]] = {
    PPO: {"n_steps": 8, "batch_size": 512, "learning_rate": 0.005, "ent_coef": 0.01},
    PQN: {"n_steps": 4, "learning_rate": 0.01, "exploration_fraction": 0.5},
    R2D2: {"learning_starts": 256, "learning_rate": 0.005, "train_freq": 1, "burn_in": 0, "sequence_length": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("agent", AGENTS, ids=lambda agent: agent.__name__)
def test_hard_attention_is_learned_by_reinforce_with_every_agent(agent: type[PPO] | type[PQN] | type[R2D2]) -> None:
    """What is read acts in its own step: who looks elsewhere is right half of the time."""
    core = {"hidden_size": 16, "n_heads": 1, "key_size": 4, "value_size": 4, "basis": 1, "query_size": 8, "memory": GRU}
    torso = {"layers": [(8, 1, 1)]}
    kwargs = {"core_kwargs": core, "features_extractor_kwargs": torso}
    lanes = 64
    model = agent(
        "HardPolicy",
        TaskVecEnv(Find(num_envs=lanes, seed=0)),
        policy_kwargs=kwargs,
        reinforce=Reinforce(coef=0.5),
        seed=0,
        device="cpu",
        **AGENTS[agent],
    )
    model.learn(40_000)
    task = Find(num_envs=500, seed=1)
    pictures = torch.as_tensor(task.observe())[None]
    with torch.no_grad(), recording() as taps:
        starts = torch.ones(1, 500, dtype=torch.bool)
        model.policy.encode(pictures, model.policy.initial_state(500), starts, deterministic=True)
    looked = taps.stacked("attention")[0, :, 0].flatten(1).argmax(-1).numpy()
    assert (looked == task.place).mean() > 0.9


class Later(BatchedTask):
    """Dark in the first step; in the second a sign at the left of three places, to be named."""

    lane_arrays = ("time", "sign")

    def __init__(self, num_envs: int = 1, seed: int | None = None) -> None:
        super().__init__(num_envs, spaces.Box(0, 255, (1, 1, 3), np.uint8), spaces.Discrete(2), seed)
        self.time, self.sign = np.zeros((2, num_envs), np.int64)
        self.reset(np.ones(num_envs, np.bool_))

    def reset(self, lanes: np.ndarray) -> None:
        self.time[lanes], self.sign[lanes] = 0, self.rng.integers(2, size=int(lanes.sum()))

    def step(self, actions: np.ndarray) -> TaskStep:
        self.time += 1
        right = (self.time == 2) & (actions == self.sign)
        return TaskStep(right.astype(np.float32), self.time == 2, np.zeros(self.num_envs, np.bool_), right)

    def observe(self) -> np.ndarray:
        pictures = np.zeros((self.num_envs, 1, 1, 3), np.uint8)
        pictures[self.time == 1, 0, 0, 0] = np.where(self.sign, 255, 100)[self.time == 1]
        return pictures


SMALL_HARD = {
    "core_kwargs": {"hidden_size": 8, "n_heads": 1, "key_size": 4, "value_size": 4, "basis": 1, "query_size": 8, "memory": GRU},
    "features_extractor_kwargs": {"layers": [(8, 1, 1)]},
}


def looks_left(policy: CorePolicy) -> None:
    """Make the policy look at the left place, whatever it knows."""
    core = policy.core
    assert isinstance(core, HardAttention)
    with torch.no_grad():
        core.query[-1].weight.zero_()  # type: ignore[union-attr, operator]
        core.query[-1].bias.zero_()  # type: ignore[union-attr, operator]
        core.query[-1].bias[-4:] = 50 * (core.where[0] - core.where[1])  # type: ignore[index, union-attr, operator]


def check_looks_left(model: PQN | R2D2, replay: torch.Tensor, shown: Shown) -> None:
    """Where nobody decided anything, and there only, the policy looks where it would."""
    missing = replay.isnan().any(-1)
    with torch.no_grad():
        core = model.policy.encode(shown.observations, shown.state, shown.episode_starts, replay)
        forced = model.policy.encode(shown.observations, shown.state, shown.episode_starts, replay.nan_to_num(0.0))
    assert core.decision is not None
    np.testing.assert_allclose(core.decision.value[..., 0][missing], -2 / 3, rtol=1e-5)
    torch.testing.assert_close(core.decision.value[~missing], replay[~missing])
    lit = (torch.as_tensor(shown.observations) > 0).flatten(2).any(-1) & missing
    assert lit.any()
    assert not torch.isclose(core.features[lit], forced.features[lit]).all(-1).any()
    torch.testing.assert_close(core.features[0][~missing[0]], forced.features[0][~missing[0]])


@pytest.mark.parametrize("steps", [1, 3])
def test_what_follows_a_rollout_is_seen_where_the_policy_would_look(steps: int) -> None:
    """Targets stand on the value of an observation that nobody acted on: of the place chosen there, and no other."""
    env = TaskVecEnv(Later(16, seed=0))
    model = PQN("HardPolicy", env, learning_rate=1e-8, n_steps=steps, policy_kwargs=SMALL_HARD, seed=0, device="cpu")
    looks_left(model.policy)
    model.learn(steps * 16)
    replay = model.rollout.replay()
    assert replay is not None
    assert replay.isnan().any(-1).tolist() == [[False] * 16] * steps + [[True] * 16]
    check_looks_left(model, replay, model.show(model.rollout))


def test_what_follows_a_replayed_sequence_is_seen_where_the_policy_would_look() -> None:
    env, kwargs = TaskVecEnv(Later(16, seed=0)), {"burn_in": 0, "sequence_length": 1, "learning_starts": 32}
    model = R2D2("HardPolicy", env, learning_rate=1e-8, policy_kwargs=SMALL_HARD, seed=0, device="cpu", **kwargs)  # type: ignore[arg-type]
    looks_left(model.policy)
    model.learn(160)
    shown = model.show(model.replay.sample(32))
    assert shown.replay is not None
    check_looks_left(model, shown.replay, shown)
