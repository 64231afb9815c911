"""Transformers in agents: what acted is what is learned from, whatever happened to the weights in between."""

from typing import Any

import numpy as np
import pytest
import torch

from conformance import assert_equal
from saccade.agents import PPO, PQN, R2D2
from saccade.envs import PocMemory, TaskVecEnv
from saccade.policies import Core, GTrXL, TrXL, Universal
from saccade.policies.transformer_acting import HeldWindow

SIZES: dict[str, Any] = {"hidden_size": 12, "n_heads": 3, "window": 5, "feedforward_size": 13}
KINDS = pytest.mark.parametrize("kind", [TrXL, GTrXL, Universal])


def ppo(kind: type[Core]) -> PPO:
    """Rollouts of 12 steps, longer than the window, in episodes of 7 to 12."""
    env = TaskVecEnv(PocMemory(3, max_episode_steps=12, seed=0))
    kwargs = {"core_class": kind, "core_kwargs": SIZES}
    rates = {"learning_rate": 3e-2, "n_epochs": 2}
    return PPO(
        "CorePolicy", env, n_steps=12, batch_size=12, sequence_length=4, policy_kwargs=kwargs, seed=0, device="cpu", **rates
    )


@KINDS
def test_a_policy_that_has_not_changed_scores_its_own_actions_as_it_did(kind: type[Core]) -> None:
    model = ppo(kind)
    rollouts = []
    train = model.train

    def scored_first() -> None:
        batch = model.batch()
        with torch.no_grad():
            output, _ = model.policy(batch.observations, batch.state, batch.episode_starts)
            again = model.policy.score(output.parameters, batch.actions).log_prob
        rollouts.append((again, batch.log_probs, batch.episode_starts))
        train()

    model.train = scored_first  # type: ignore[method-assign]
    model.learn(12 * 3 * 4)
    assert len(rollouts) == 4
    assert any(starts[1:].any() for _, _, starts in rollouts), "no episode began in mid-sequence"
    # From the second rollout on the window holds layer inputs of older weights: for acting and for learning the same.
    for again, then, _ in rollouts:
        assert_equal(again, then, 1e-4)


@KINDS
def test_a_state_is_held_while_acting_and_released_after(kind: type[Core]) -> None:
    model = ppo(kind)
    held = []
    look = model.look
    model.look = lambda *arguments: held.append(type(model._last_state)) or look(*arguments)  # type: ignore[method-assign]
    model.learn(36)
    assert issubclass(held[5], HeldWindow)
    assert not isinstance(model._last_state, HeldWindow)
    leaves = {leaf.shape for state in model.rollout.states for leaf in state}
    layers = 3 if kind is not Universal else 6
    assert leaves == {(3, layers, 5, 12), (3, 5)}


@KINDS
@pytest.mark.parametrize("agent", [PQN, R2D2])
def test_agents_of_q_values_learn_with_them(kind: type[Core], agent: Any) -> None:
    env = TaskVecEnv(PocMemory(3, seed=0))
    more = {"n_steps": 8} if agent is PQN else {"buffer_size": 300, "sequence_length": 8, "burn_in": 2, "learning_starts": 30}
    kwargs = {"core_class": kind, "core_kwargs": SIZES}
    model = agent("CorePolicy", env, batch_size=24 if agent is PQN else 4, policy_kwargs=kwargs, seed=0, device="cpu", **more)
    before = [parameter.detach().clone() for parameter in model.policy.core.parameters()]
    model.learn(120)
    after = list(model.policy.core.parameters())
    assert not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(parameter.isfinite().all() for parameter in after)
    actions, state = model.predict(env.reset(), deterministic=True)
    for _ in range(7):
        actions, state = model.predict(env.step(actions)[0], state, np.zeros(3, np.bool_), deterministic=True)
    assert state.filled.sum(axis=1).tolist() == [5, 5, 5]
