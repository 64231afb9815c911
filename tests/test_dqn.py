"""DQN against SB3's, step by step where they should be equal, and on tasks whose exact values are known."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3.dqn.dqn as sb3_module
import torch
from stable_baselines3 import DQN as SB3DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch import Tensor

from replay_agents import Paid, clocks, dqn, dqn_probe, schedule, surprising
from saccade.agents import DQN
from saccade.agents.transitions import Transitions
from saccade.envs import (
    Probe,
    ProbeAction,
    ProbeConstant,
    ProbeDiscount,
    ProbeObservation,
    ProbePolicy,
    TaskVecEnv,
)

PLAIN: dict[str, Any] = {
    "n_steps": 1,
    "double": False,
    "priority_exponent": 0.0,
    "policy_kwargs": {
        "features_extractor_class": FlattenExtractor,
        "head_hidden_size": 17,
        "dueling": False,
        "layer_norm": False,
        "optimizer_class": torch.optim.Adam,
    },
}

# Against SB3.


def twins(**settings: Any) -> tuple[DQN, SB3DQN]:
    """Ours and SB3's with equal weights; the target networks have other ones."""
    env = clocks(3)
    ours = dqn(env, learning_rate=0.01, **(PLAIN | settings))
    theirs = SB3DQN("MlpPolicy", env, learning_rate=0.01, gamma=ours.gamma, policy_kwargs={"net_arch": [17]}, device="cpu")
    with torch.no_grad():
        for parameter in ours.target.parameters():
            parameter.add_(torch.randn_like(parameter))
    for net, copy in ((ours.policy, theirs.q_net), (ours.target, theirs.q_net_target)):
        copy.load_state_dict({f"q_net.{name}": weight for name, weight in net.head.q.state_dict().items()})
    for model in (ours, theirs):
        model.set_logger(Logger(None, []))
    return ours, theirs


def random_batch(size: int, discounts: Tensor | None = None) -> Transitions:
    """Of clocks; every third transition ends its episode."""
    ends = torch.arange(size) % 3 == 0
    return Transitions(
        observations=torch.randn(size, 2),
        actions=torch.randint(3, (size,)),
        rewards=3 * torch.randn(size),
        discounts=0.5 * (~ends).float(),
        next_observations=torch.randn(size, 2),
        weights=torch.ones(size),
        indices=np.arange(size),
    )


def for_sb3(batch: Transitions) -> ReplayBufferSamples:
    assert isinstance(batch.observations, Tensor) and isinstance(batch.next_observations, Tensor)
    columns = batch.actions[:, None], batch.next_observations, (batch.discounts == 0).float()[:, None], batch.rewards[:, None]
    return ReplayBufferSamples(batch.observations, *columns, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("max_grad_norm", [10.0, 0.1])
def test_loss_and_weights_are_those_of_sb3_without_what_was_added(max_grad_norm: float) -> None:
    ours, theirs = twins(max_grad_norm=max_grad_norm)
    theirs.max_grad_norm = max_grad_norm
    for _ in range(5):
        batch = random_batch(31)
        theirs.replay_buffer.sample = lambda *_, batch=batch, **__: for_sb3(batch)  # type: ignore[union-attr, method-assign]
        theirs.train(1, 31)
        lesson = ours.judge(batch, ours.targets(batch))
        ours.updater.step(lesson.terms)
        assert lesson.terms.loss.item() == pytest.approx(theirs.logger.name_to_value["train/loss"], abs=1e-6)
        for mine, other in zip(ours.policy.parameters(), theirs.q_net.parameters(), strict=True):
            torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-5)


def test_targets_are_those_of_sb3_and_gradients_do_not_reach_them() -> None:
    ours, theirs = twins()
    batch = random_batch(31)
    with torch.no_grad():
        q = theirs.q_net_target(batch.next_observations).max(dim=1).values
    targets = ours.targets(batch)
    assert not targets.requires_grad
    torch.testing.assert_close(targets, batch.rewards + batch.discounts * q, atol=1e-6, rtol=1e-6)


class Watch(BaseCallback):
    """Updates so far, at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.updates: list[tuple[int, int]] = []

    def _on_step(self) -> bool:
        self.updates.append((self.num_timesteps, self.model._n_updates))
        return True


SCHEDULES = [
    {"learning_starts": 20, "train_freq": 4, "gradient_steps": 1, "target_update_interval": 10},
    {"learning_starts": 21, "train_freq": 1, "gradient_steps": 2, "target_update_interval": 1},
    {"learning_starts": 36, "train_freq": 3, "gradient_steps": -1, "target_update_interval": 17},
    {"learning_starts": 1, "train_freq": 5, "gradient_steps": -1, "target_update_interval": 2},
]


@pytest.mark.parametrize("settings", SCHEDULES)
@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.filterwarnings("ignore:The number of environments used is greater than the target network")
def test_updates_of_both_networks_and_exploration_come_when_sb3s_do(
    monkeypatch: pytest.MonkeyPatch, n_envs: int, settings: dict[str, Any]
) -> None:
    common = settings | {"buffer_size": 300, "batch_size": 5, "exploration_fraction": 0.6, "exploration_final_eps": 0.1}
    ours = dqn(clocks(n_envs), **(PLAIN | common | {"exploration_initial_eps": 0.9}))
    theirs = SB3DQN("MlpPolicy", clocks(n_envs), exploration_initial_eps=0.9, device="cpu", **common)
    followed: dict[Any, list[tuple[int, int]]] = {ours: [], theirs: []}
    rates: dict[Any, list[float]] = {ours: [], theirs: []}
    follow, explore, sample = ours.update_target, ours.exploration, theirs._sample_action

    def follow_ours() -> None:
        followed[ours].append((ours.num_timesteps, ours._n_updates))
        follow()

    def explore_ours(greedy: Tensor) -> Tensor:
        rates[ours].append(ours.exploration_rate)
        return explore(greedy)

    def sample_theirs(learning_starts: int, *arguments: Any) -> Any:
        rates[theirs].append(1.0 if theirs.num_timesteps < learning_starts else theirs.exploration_rate)
        return sample(learning_starts, *arguments)

    monkeypatch.setattr(ours, "update_target", follow_ours)
    monkeypatch.setattr(ours, "exploration", explore_ours)
    monkeypatch.setattr(theirs, "_sample_action", sample_theirs)
    monkeypatch.setattr(
        sb3_module,
        "polyak_update",
        lambda parameters, *_: list(parameters) and followed[theirs].append((theirs.num_timesteps, theirs._n_updates)),
    )
    watches = Watch(), Watch()
    ours.learn(100, callback=watches[0])
    theirs.learn(100, callback=watches[1])
    assert watches[0].updates == watches[1].updates
    assert watches[0].updates[-1][1] > 0
    assert followed[ours] == followed[theirs] != []
    assert rates[ours] == pytest.approx(rates[theirs])


@pytest.mark.parametrize("tau", [1.0, 0.3])
def test_the_target_network_goes_a_share_of_the_way(tau: float) -> None:
    model = dqn(clocks(3), tau=tau)
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter.add_(1)
    before = [parameter.clone() for parameter in model.target.parameters()]
    model.update_target()
    for old, new, aim in zip(before, model.target.parameters(), model.policy.parameters(), strict=True):
        torch.testing.assert_close(new, old + tau * (aim - old))


# What SB3's does not have.


def test_double_learning_takes_the_policys_choice_at_the_target_networks_value() -> None:
    ours, theirs = twins(double=True)
    batch = random_batch(31)
    with torch.no_grad():
        choice = theirs.q_net(batch.next_observations).argmax(dim=1)
        q = theirs.q_net_target(batch.next_observations)
    values = q[torch.arange(31), choice]
    assert not torch.equal(values, q.max(dim=1).values)
    torch.testing.assert_close(ours.targets(batch), batch.rewards + batch.discounts * values, atol=1e-6, rtol=1e-6)


def test_weights_scale_the_loss_of_their_transition_and_errors_come_back_as_priorities() -> None:
    ours, _ = twins()
    batch = random_batch(31)
    weights = torch.rand(31)
    targets = ours.targets(batch)
    singles = [ours.judge(Transitions(*(part[i : i + 1] for part in batch)), targets[i : i + 1]) for i in range(31)]
    whole = ours.judge(batch._replace(weights=weights), targets)
    expected = torch.stack([weight * single.terms.loss for weight, single in zip(weights, singles, strict=True)]).mean()
    torch.testing.assert_close(whole.terms.loss, expected)
    torch.testing.assert_close(whole.priorities, torch.cat([single.priorities for single in singles]))
    q = ours.q(ours.policy, batch.observations).head.q[0, torch.arange(31), batch.actions]
    torch.testing.assert_close(whole.priorities.abs(), (targets - q).abs())


def test_what_surprises_is_drawn_more_and_does_not_weigh_more() -> None:
    assert surprising(DQN) == pytest.approx(1 / 9, abs=0.03)
    assert surprising(DQN, priority_exponent=0.0) == pytest.approx(1 / 9, abs=0.03)


def test_the_correction_of_priorities_becomes_complete() -> None:
    model = dqn(clocks(3), priority_correction=0.4)
    seen = []

    class Look(BaseCallback):
        def _on_step(self) -> bool:
            seen.append(model.beta)
            return True

    model.learn(3 * 50, callback=Look())
    assert seen[0] == pytest.approx(0.4)
    assert seen[25] == pytest.approx(0.7)
    assert model.beta == pytest.approx(1)


# Values.

SWITCHES: list[dict[str, Any]] = [
    {},
    {"n_steps": 1},
    {"n_steps": 1, "double": False},
    {"n_steps": 1, "priority_exponent": 0.0},
    {"n_steps": 1, "dueling": False},
    {"n_steps": 3, "double": False, "dueling": False, "priority_exponent": 0.0, "tau": 0.5},
]


@pytest.mark.parametrize("switches", SWITCHES)
@pytest.mark.parametrize("probe", [ProbeConstant, ProbeObservation, ProbeDiscount, ProbeAction, ProbePolicy])
def test_the_exact_values_are_learned(probe: type[Probe], switches: dict[str, Any]) -> None:
    assert dqn_probe(probe, updates=90, **switches) < 0.05


class Endless(gym.Env[np.ndarray, np.int64]):
    """Pays 1 a step for ever."""

    observation_space = gym.spaces.Box(0, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        return np.zeros(1, np.float32), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return np.zeros(1, np.float32), 1.0, False, False, {}


@pytest.mark.parametrize("n_steps", [1, 3])
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: TaskVecEnv(Paid(8, length=5)), 2.0),
        (lambda: TaskVecEnv(Paid(8, length=1)), 2.0),
        (lambda: make_vec_env(lambda: gym.wrappers.TimeLimit(Endless(), 2), 8), 2.0),
        (lambda: TaskVecEnv(Paid(8, length=1, ends=True)), 1.0),
    ],
    ids=["cut at 5", "cut at 1", "TimeLimit", "ends at 1"],
)
def test_a_cut_episode_is_worth_what_was_to_come_and_an_ended_one_is_not(make: Any, expected: float, n_steps: int) -> None:
    model = dqn(make(), n_steps=n_steps, learning_rate=schedule, train_freq=1, target_update_interval=24).learn(8 * 120)
    with torch.no_grad():
        q = model.policy(torch.zeros(1, 1, 1), (), torch.ones(1, 1, dtype=torch.bool)).head.q
    assert q.flatten().tolist() == pytest.approx([expected] * 2, abs=0.1)
