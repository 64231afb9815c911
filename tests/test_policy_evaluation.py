"""Policy evaluation against exact values: that it gets there, what it aims at, and what it cannot be asked."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import Tensor, nn

from saccade.agents import PolicyEvaluation
from saccade.agents.policy_evaluation import expected_targets
from saccade.agents.rollout import Rollout
from saccade.envs import Corridor, TaskVecEnv
from saccade.policies import MLPTorso
from small_agents import catch, falling

GAMMA, EPSILON = 0.9, 0.5
T, B, A, S = 7, 5, 11, 7
BOTH = pytest.mark.parametrize("dueling", [True, False], ids=["dueling", "single"])


def corridor(num_envs: int = B, **parameters: Any) -> TaskVecEnv:
    return TaskVecEnv(Corridor(num_envs, **{"vertical": 2, "horizontal": 3, **parameters}))


def evaluation(
    env: VecEnv | None = None, agent_class: type[PolicyEvaluation] = PolicyEvaluation, dueling: bool = True, **arguments: Any
) -> PolicyEvaluation:
    kwargs: dict[str, Any] = {"features_extractor_kwargs": {"net_arch": (23,), "layer_norm": False}, "layer_norm": False}
    kwargs |= {"head_hidden_size": 29, "dueling": dueling, "optimizer_class": torch.optim.Adam}
    defaults = {"n_steps": T, "gamma": GAMMA, "epsilon": EPSILON, "policy_kwargs": kwargs, "seed": 0, "device": "cpu"}
    return agent_class("MlpPolicy", env or corridor(n_actions=A), **(defaults | arguments))


class Rows(KVWriter):
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        self.rows.append(dict(key_values))

    def close(self) -> None:
        pass


def learned(agent_class: type[PolicyEvaluation] = PolicyEvaluation, dueling: bool = True) -> tuple[PolicyEvaluation, Rows]:
    """An agent after 300 updates in a corridor of 7 states, where it has seen every action many times, and its rows."""
    env = corridor(61, n_actions=5)
    model = evaluation(env, agent_class, dueling, n_steps=2, learning_rate=partial(falling, start=0.02))
    rows = Rows()
    model.set_logger(Logger(None, [rows]))
    return model.learn(300 * 2 * env.num_envs, log_interval=100), rows


def collected(model: PolicyEvaluation) -> Rollout:
    """A rollout of an agent that has not learned."""
    _, callback = model._setup_learn(1, CallbackList([]))
    model.set_logger(Logger(None, []))
    model.prepare()
    assert model.env is not None
    return model.first_batch(model.env, callback)


# What is learned.


@BOTH
def test_the_exact_values_are_learned(dueling: bool) -> None:
    model, rows = learned(dueling=dueling)
    errors = [row["train/squared_error"] for row in rows.rows]
    assert errors[-1] == model.squared_error() < 0.02
    assert len(errors) == 3
    task = Corridor(n_actions=5, vertical=2, horizontal=3)
    exact = task.exact_q(task.behaviour_policy(GAMMA, EPSILON), GAMMA)
    np.testing.assert_allclose(model.learned_q()[1:-1].numpy(), exact[1:-1], atol=0.1)


class LearnsTheBest(PolicyEvaluation):
    """Q-learning: the best next action in place of the policy's."""

    def targets(self, batch: Rollout, q: Tensor) -> Tensor:
        return batch.rewards + self.gamma * batch.continues() * q[1:].detach().amax(dim=-1)


class BootstrapsBeyondTheEnd(PolicyEvaluation):
    def targets(self, batch: Rollout, q: Tensor) -> Tensor:
        discount = torch.full_like(batch.rewards, self.gamma)
        return expected_targets(batch.rewards, discount, q[1:], self.look_up(batch.observations)[1:])


@pytest.mark.parametrize("broken", [LearnsTheBest, BootstrapsBeyondTheEnd])
def test_other_targets_lead_elsewhere(broken: type[PolicyEvaluation]) -> None:
    assert learned(broken)[0].squared_error() > 0.1


@BOTH
def test_the_squared_error_is_that_of_every_action_in_every_state_but_the_terminal_ones(dueling: bool) -> None:
    model = evaluation(dueling=dueling)
    task = Corridor(n_actions=A, vertical=2, horizontal=3)
    exact = task.exact_q(task.behaviour_policy(GAMMA, EPSILON), GAMMA)
    slow = 0.0
    for state in range(1, S - 1):
        with torch.no_grad():
            q = model.policy(torch.eye(S)[state].view(1, 1, S), (), torch.ones(1, 1, dtype=torch.bool)).head.q
        slow += sum((float(q[0, 0, action]) - exact[state, action]) ** 2 for action in range(A))
    assert model.squared_error() == pytest.approx(slow, rel=1e-4)


# What is aimed at.


def test_targets_are_those_of_a_slow_loop() -> None:
    r, discount = torch.randn(2, T, B, dtype=torch.float64)
    discount[torch.rand(T, B) < 0.3] = 0
    q, pi = torch.randn(T, B, A, dtype=torch.float64), torch.rand(T, B, A, dtype=torch.float64).softmax(dim=-1)
    targets = expected_targets(r, discount, q, pi)
    assert not expected_targets(r, discount, q.clone().requires_grad_(), pi).requires_grad
    for t in range(T):
        for lane in range(B):
            expected = sum(float(pi[t, lane, action] * q[t, lane, action]) for action in range(A))
            assert float(targets[t, lane]) == pytest.approx(float(r[t, lane] + discount[t, lane] * expected))


def test_targets_of_a_rollout_look_one_step_ahead() -> None:
    model = evaluation(n_steps=13)
    batch, q = collected(model), torch.randn(14, B, A)
    targets = model.targets(batch, q)
    assert isinstance(batch.observations, Tensor)
    assert batch.episode_starts[1:].any()
    for t in range(13):
        for lane in range(B):
            state = int(batch.observations[t + 1, lane].argmax())
            after = 0.0 if batch.episode_starts[t + 1, lane] else GAMMA * float(model.pi[state] @ q[t + 1, lane])
            assert float(targets[t, lane]) == pytest.approx(float(batch.rewards[t, lane]) + after, abs=1e-6)


def test_an_episode_that_is_cut_off_is_worth_what_the_policy_expects_there() -> None:
    env = corridor(n_actions=A, max_steps=1)
    model = evaluation(env, n_steps=1, epsilon=1.0)
    batch = collected(model)
    next_state, rewards, _ = env.task.transitions()  # type: ignore[attr-defined]
    q = model.learned_q()
    for lane in range(B):
        action = int(batch.actions[0, lane])
        state = next_state[1, action]
        expected = rewards[1, action] + (0 if state == 0 else GAMMA * float(model.pi[state] @ q[state]))
        assert float(batch.rewards[0, lane]) == pytest.approx(expected, abs=1e-6)
    assert batch.episode_starts[1].all()


@pytest.mark.parametrize("epsilon", [0.0, 0.4, 1.0])
def test_it_acts_by_the_policy_whatever_it_has_learned(epsilon: float) -> None:
    model = evaluation(corridor(53, n_actions=A), n_steps=59, epsilon=epsilon)
    batch = collected(model)
    assert isinstance(batch.observations, Tensor)
    best = Corridor(n_actions=A, vertical=2, horizontal=3).optimal_q(GAMMA).argmax(axis=1)
    greedy = batch.actions == torch.as_tensor(best)[batch.observations[:-1].argmax(dim=-1)]
    assert float(greedy.float().mean()) == pytest.approx(1 - epsilon + epsilon / A, abs=0.03)
    assert len(batch.actions.unique()) == (A if epsilon else 2)


# What it needs.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (catch, "saccade/Corridor-v0; this one has no behaviour_policy and no exact_q and no transitions"),
        (lambda: VecNormalize(corridor(), norm_obs=False), "leave out VecNormalize"),
    ],
    ids=["no exact values", "normalised"],
)
def test_environments_without_exact_values_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PolicyEvaluation("MlpPolicy", make(), device="cpu")


@pytest.mark.parametrize(
    ("policy", "arguments", "message"),
    [
        ("LstmPolicy", {}, "LSTM remembers"),
        ("MlpPolicy", {"gamma": 1.0}, "gamma is 1.0; it must be at least 0 and below 1"),
        ("MlpPolicy", {"epsilon": 1.5}, "epsilon must be in"),
        ("MlpPolicy", {"n_steps": 0}, "n_steps must be at least 1"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(policy: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PolicyEvaluation(policy, corridor(), device="cpu", **arguments)


def test_a_checkpoint_acts_without_an_environment_and_learns_on_with_one(tmp_path: Path) -> None:
    model = evaluation()
    model.set_logger(Logger(None, []))
    model.learn(3 * T * B).save(tmp_path / "evaluation")
    states = np.eye(S, dtype=np.float32)
    alone = PolicyEvaluation.load(tmp_path / "evaluation.zip", device="cpu")
    np.testing.assert_array_equal(alone.predict(states)[0], model.predict(states)[0])
    again = PolicyEvaluation.load(tmp_path / "evaluation.zip", env=corridor(n_actions=A), device="cpu")
    assert again.squared_error() == model.squared_error()
    again.set_logger(Logger(None, []))
    again.learn(T * B, reset_num_timesteps=False)
    assert again.squared_error() != model.squared_error()


def test_the_paper_s_networks_have_as_many_hidden_units_and_no_layer_normalisation() -> None:
    torso = MLPTorso(corridor().observation_space, (50,), layer_norm=False)
    assert [type(layer) for layer in torso.network] == [nn.Flatten, nn.Linear, nn.ReLU]
    assert nn.LayerNorm in {type(layer) for layer in MLPTorso(corridor().observation_space, (50,)).network}
    for dueling in (True, False):
        assert nn.LayerNorm not in {type(module) for module in evaluation(dueling=dueling).policy.modules()}
