"""PPO on tasks whose exact values are known, what each argument does, every kind of action, and its gaze."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from saccade.agents import PPO, Reinforce
from saccade.agents.policy_batch import PolicyBatch
from saccade.agents.update import LossTerms
from saccade.envs import (
    Probe,
    ProbeAction,
    ProbeConstant,
    ProbeDiscount,
    ProbeMemory,
    ProbeObservation,
    ProbePolicy,
    TaskVecEnv,
)
from small_agents import memory, ppo, ppo_probe, same, weights
from test_pqn import Paid, time_limited

PROBES = [
    (ProbeConstant, "MlpPolicy"),
    (ProbeObservation, "MlpPolicy"),
    (ProbeDiscount, "MlpPolicy"),
    (ProbeAction, "MlpPolicy"),
    (ProbePolicy, "MlpPolicy"),
    (ProbePolicy, "LstmPolicy"),
    (ProbeMemory, "LstmPolicy"),
    (ProbeMemory, "GruPolicy"),
    (ProbeMemory, "TwinPolicy"),
]


@pytest.mark.parametrize(("probe", "policy"), PROBES)
def test_the_exact_values_and_the_best_actions_are_learned(probe: type[Probe], policy: str) -> None:
    learned = ppo_probe(probe, policy)
    assert learned.error < 0.1
    assert learned.right


@pytest.mark.parametrize(
    ("make", "gae_lambda", "expected"),
    [
        (lambda: TaskVecEnv(Paid(16, length=3)), 0.9, 2.0),
        (lambda: TaskVecEnv(Paid(16, length=1)), 0.0, 2.0),
        (lambda: TaskVecEnv(Paid(16, length=1, ends=True, cut=False)), 0.5, 1.0),
        (lambda: TaskVecEnv(Paid(16, length=1, ends=True, cut=True)), 0.5, 1.0),
        (time_limited, 0.5, 2.0),
    ],
    ids=["cut at 3", "cut at 1", "ends at 1", "ends and is cut at 1", "TimeLimit"],
)
def test_a_cut_episode_is_worth_what_was_to_come_and_an_ended_one_is_not(
    make: Callable[[], VecEnv], gae_lambda: float, expected: float
) -> None:
    env = make()
    model = ppo("MlpPolicy", env, n_steps=5, gae_lambda=gae_lambda, learning_rate=0.02, n_epochs=3, max_grad_norm=10.0)
    model.learn(20 * 5 * env.num_envs)
    with torch.no_grad():
        output, _ = model.policy(torch.zeros(1, 1, 1), (), torch.ones(1, 1, dtype=torch.bool))
    assert output.value.item() == pytest.approx(expected, abs=0.1)


# Arguments.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_steps": 0}, "n_steps must be at least 1; got 0"),
        ({"n_epochs": 0}, "n_epochs must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"gamma": 1.5}, "gamma must be in .*1.5"),
        ({"gae_lambda": -0.1}, "gae_lambda must be in .*-0.1"),
        ({"target_kl": 0.0}, "target_kl must be positive"),
        ({"clip_range": 0.0}, "clip_range must be positive"),
        ({"clip_range_vf": -0.2}, "clip_range_vf must be positive"),
        ({"max_grad_norm": 0.0}, "max_grad_norm must be positive"),
        ({"sequence_length": 2}, "sequence_length=2 does not divide"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_impossible_numbers_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ppo("LstmPolicy", memory(), **({"n_steps": 7, "batch_size": 35} | arguments))


def test_a_misspelt_argument_is_refused() -> None:
    with pytest.raises(TypeError, match="clip_rnage"):
        ppo("MlpPolicy", memory(), clip_rnage=0.1)


class Counted(PPO):
    """Counts the minibatches, and notes how far the policy had moved before each."""

    moved: list[float]

    def loss(self, batch: PolicyBatch) -> LossTerms:
        terms = super().loss(batch)
        self.moved.append(float(terms.metrics["approx_kl"]))
        return terms


def counted(**arguments: Any) -> Counted:
    model = ppo("LstmPolicy", memory(), Counted, n_epochs=20, learning_rate=0.03, **arguments)
    assert isinstance(model, Counted)
    model.moved = []
    model.learn(35)
    return model


class Measured(PPO):
    """Notes which minibatches are measured."""

    measured: list[bool]

    def loss(self, batch: PolicyBatch) -> LossTerms:
        terms = super().loss(batch)
        self.measured.append("approx_kl" in terms.metrics)
        return terms


@pytest.mark.parametrize("target_kl", [None, 100.0])
def test_all_minibatches_are_measured_if_updates_may_end_early_and_else_every_eighth(target_kl: float | None) -> None:
    model = ppo("MlpPolicy", memory(), Measured, n_epochs=1, batch_size=1, target_kl=target_kl)
    assert isinstance(model, Measured)
    model.measured = []
    model.learn(35)
    assert len(model.measured) > 16
    assert model.measured == [target_kl is not None or k % 8 == 0 for k in range(len(model.measured))]


def test_updates_end_once_the_policy_has_moved_too_far() -> None:
    free, bound = counted(), counted(target_kl=0.001)
    assert len(free.moved) == free._n_updates == 20
    assert 1 < len(bound.moved) == bound._n_updates < 20
    assert bound.moved[-1] > 0.0015 >= max(bound.moved[:-1])
    steps = {int(entry["step"]) for entry in bound.policy.optimizer.state.values()}
    assert steps == {len(bound.moved) - 1}, "the minibatch that is too far off is not learned from"


def test_advantages_are_normalised_or_left_alone() -> None:
    model = ppo("MlpPolicy", memory())
    given = torch.randn(7, 5) * 3 + 11
    done = model.advantages(given)
    assert done.mean().item() == pytest.approx(0, abs=1e-5)
    assert done.std().item() == pytest.approx(1, abs=1e-5)
    one = torch.tensor([[3.0]])
    assert torch.equal(model.advantages(one), one)
    assert torch.equal(ppo("MlpPolicy", memory(), normalize_advantage=False).advantages(given), given)


def test_the_entropy_bonus_keeps_the_policy_open() -> None:
    """Rewards -1 and 1 with a bonus of 1 are best met by the odds ``exp(2)``: an entropy of 0.365."""
    entropies = []
    for coef in (0.0, 1.0):
        env = TaskVecEnv(ProbeAction(16, seed=0))
        arguments = {"ent_coef": coef, "normalize_advantage": False, "n_steps": 3, "n_epochs": 4, "learning_rate": 0.02}
        model = ppo("MlpPolicy", env, **arguments).learn(15 * 3 * 16)
        with torch.no_grad():
            output, _ = model.policy(torch.zeros(1, 1, 1), (), torch.ones(1, 1, dtype=torch.bool))
            entropies.append(float(output.parameters.softmax(-1).mul(-output.parameters.log_softmax(-1)).sum()))
    assert entropies[0] < 0.1
    assert entropies[1] == pytest.approx(0.365, abs=0.12)


def test_what_is_logged() -> None:
    model = ppo("LstmPolicy", memory(), clip_range=lambda progress: 0.1 + progress)
    model.learn(70)
    names = {"value_loss", "policy_gradient_loss", "entropy", "approx_kl", "clip_fraction", "explained_variance", "clip_range"}
    model.train()
    model.record_training()
    recorded = model.logger.name_to_value
    assert {f"train/{name}" for name in names} <= recorded.keys()
    assert recorded["train/clip_range"] == pytest.approx(0.1)
    assert all(np.isfinite(recorded[f"train/{name}"]) for name in names)


# Every kind of action and observation.


class Wanting(gym.Env[Any, Any]):
    """Pays for actions near one that is wanted, and takes none that is out of bounds."""

    def __init__(self, actions: gym.Space[Any], observations: gym.Space[Any]) -> None:
        self.action_space, self.observation_space = actions, observations
        self.time = 0
        self.wanted: Any = {
            spaces.Discrete: lambda: np.int64(1),
            spaces.MultiDiscrete: lambda: np.array([1, 2]),
            spaces.MultiBinary: lambda: np.array([1, 0, 1]),
            spaces.Box: lambda: np.full(actions.shape or (), 0.5),
        }[type(actions)]()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.time = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), f"{action} is not in {self.action_space}"
        self.time += 1
        reward = -float(np.abs(action - self.wanted).mean())
        return self.observation_space.sample(), reward, self.time == 3, False, {}


VECTOR = spaces.Box(-1, 1, (3,), np.float32)
ACTIONS = [
    spaces.Discrete(3),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiBinary(3),
    spaces.Box(-0.7, 0.7, (2,), np.float32),
    spaces.Box(-0.7, 0.7, (2, 3), np.float64),
]
OBSERVATIONS = [
    (spaces.Dict({"vector": VECTOR, "bit": spaces.Discrete(2)}), "MultiInputPolicy"),
    (spaces.Box(0, 255, (3, 17, 19), np.uint8), "CnnPolicy"),
    (spaces.Box(0, 255, (3, 17, 19), np.uint8), "CnnLstmPolicy"),
    (spaces.Box(0, 255, (3, 41, 37), np.uint8), "CnnPolicy"),
    (spaces.Dict({"vector": VECTOR, "bit": spaces.Discrete(2)}), "MultiInputLstmPolicy"),
    (spaces.Discrete(7), "MlpPolicy"),
]


def wanting(actions: gym.Space[Any], observations: gym.Space[Any] = VECTOR, lanes: int = 5) -> VecEnv:
    env = DummyVecEnv([lambda: Monitor(Wanting(actions, observations)) for _ in range(lanes)])
    env.seed(0)
    return env


@pytest.mark.parametrize("actions", ACTIONS, ids=str)
@pytest.mark.parametrize("policy", ["MlpPolicy", "LstmPolicy"])
def test_every_kind_of_action_is_learned_saved_and_learned_on(actions: gym.Space[Any], policy: str, tmp_path: Path) -> None:
    model = ppo(
        policy, wanting(actions, lanes=17), n_steps=5, learning_rate=0.03, n_epochs=3, policy_kwargs={"log_std_init": -1.0}
    )
    model.learn(15 * 5 * 17)
    wanted = Wanting(actions, VECTOR).wanted
    observation = VECTOR.sample()
    action, _ = model.predict(observation, deterministic=True)
    assert np.abs(action - wanted).max() < 0.3
    model.save(tmp_path / "agent")
    loaded = PPO.load(tmp_path / "agent", env=wanting(actions, lanes=3), device="cpu")
    assert same(weights(model), weights(loaded))
    assert (loaded.predict(observation, deterministic=True)[0] == action).all()
    assert loaded.learn(15, reset_num_timesteps=False).num_timesteps == 15 * 5 * 17 + 15
    assert not same(weights(model), weights(loaded))


@pytest.mark.parametrize(("observations", "policy"), OBSERVATIONS, ids=str)
def test_every_kind_of_observation(observations: gym.Space[Any], policy: str) -> None:
    kwargs: dict[str, Any] = {"net_arch": (13,)}
    if "Lstm" in policy:
        kwargs["core_kwargs"] = {"hidden_size": 11}
    env = wanting(spaces.Discrete(3), observations)
    model = PPO(policy, env, n_steps=4, batch_size=20, n_epochs=1, policy_kwargs=kwargs, device="cpu", seed=0)
    before = weights(model)
    model.learn(40)
    assert not any(torch.equal(ours, theirs) for ours, theirs in zip(before, weights(model), strict=True))
    assert model.predict(env.reset())[0].shape == (5,)


def test_an_agent_that_never_learned_is_saved_with_all_its_arguments(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {
        "n_steps": 6,
        "batch_size": 12,
        "n_epochs": 3,
        "gae_lambda": 0.7,
        "clip_range": 0.3,
        "clip_range_vf": 0.4,
        "normalize_advantage": False,
        "ent_coef": 0.01,
        "vf_coef": 0.6,
        "target_kl": 0.05,
        "sequence_length": 3,
        "reinforce": Reinforce(coef=0.7),
    }
    ppo("TwinPolicy", memory(), **arguments).save(tmp_path / "agent")
    loaded = PPO.load(tmp_path / "agent", device="cpu")
    assert {name: getattr(loaded, name) for name in arguments} == arguments
    assert loaded.state_every == 3
    assert loaded.clip_schedule(1.0) == 0.3
