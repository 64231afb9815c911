"""The corridor: its map, its exact values against long iteration, and the task against its own description."""

from typing import Any

import numpy as np
import pytest

from saccade.envs import Corridor
from saccade.envs.corridor import DOWN, LEFT, RIGHT, STAY, UP

SMALL: dict[str, int] = {"vertical": 3, "horizontal": 7}
EveryGamma = pytest.mark.parametrize("gamma", [0.0, 0.5, 0.99])
EveryWidth = pytest.mark.parametrize("n_actions", [5, 10, 20])


def random_policy(task: Corridor, seed: int = 0) -> np.ndarray:
    shape = (task.n_states, int(task.action_space.n))
    return np.random.default_rng(seed).dirichlet(np.ones(shape[1]), size=shape[0])


def residual(task: Corridor, q: np.ndarray, next_values: np.ndarray, gamma: float) -> float:
    """How far ``q`` is from its Bellman equation, where it has one."""
    next_state, rewards, terminal = task.transitions()
    assert (q[terminal] == 0).all()
    return float(np.abs(q - rewards - gamma * next_values[next_state])[~terminal].max())


@EveryWidth
def test_the_map_is_that_of_the_paper(n_actions: int) -> None:
    task = Corridor(n_actions=n_actions)
    next_state, rewards, terminal = task.transitions()
    assert next_state.shape == rewards.shape == (10 + 50 + 10, n_actions)
    assert np.flatnonzero(terminal).tolist() == [0, 69]
    there = [DOWN] * 9 + [RIGHT] * 51 + [UP] * 9
    back = {DOWN: UP, RIGHT: LEFT, UP: DOWN}
    for state, action in enumerate(there):
        assert terminal[state] or next_state[state, action] == state + 1
        assert terminal[state + 1] or next_state[state + 1, back[action]] == state
    moved = next_state != np.arange(70)[:, None]
    assert moved[1:-1].sum(axis=1).tolist() == [2] * 68, "every state has two neighbours"
    assert not moved[:, STAY:].any()
    assert not moved[terminal].any()
    assert (rewards != 0).sum() == 2
    assert rewards[1, UP] == 0.1
    assert rewards[68, UP] == 1
    assert task.state.tolist() == [9]


@pytest.mark.parametrize("parameters", [{}, {"n_actions": 11, **SMALL}], ids=str)
def test_the_task_does_what_its_transitions_say(parameters: dict[str, int]) -> None:
    task = Corridor(num_envs=1, **parameters)
    next_state, rewards, terminal = task.transitions()
    states, actions = (grid.ravel() for grid in np.indices(rewards.shape))
    task = Corridor(num_envs=states.size, **parameters)
    task.state[:] = states
    seen = task.observe()
    assert seen.dtype == np.float32
    assert (seen == np.eye(task.n_states)[states]).all()
    step = task.step(actions)
    assert (task.state == next_state[states, actions]).all()
    np.testing.assert_allclose(step.rewards, rewards[states, actions], rtol=1e-6)
    assert (step.terminated == terminal[task.state]).all()
    assert step.success is not None
    assert (step.success == (task.state == task.n_states - 1)).all()
    assert not step.truncated.any()


@EveryGamma
@EveryWidth
def test_exact_q_solves_the_bellman_equation(n_actions: int, gamma: float) -> None:
    task = Corridor(n_actions=n_actions)
    for policy in (random_policy(task), task.behaviour_policy(0.99)):
        q = task.exact_q(policy, gamma)
        assert residual(task, q, (policy * q).sum(axis=1), gamma) < 1e-10


@EveryGamma
def test_exact_q_is_where_long_evaluation_ends(gamma: float) -> None:
    task = Corridor(n_actions=7)
    next_state, rewards, terminal = task.transitions()
    policy = random_policy(task)
    q = np.zeros_like(rewards)
    for _ in range(4000):
        values = (policy * q).sum(axis=1)
        q = np.where(terminal[:, None], 0, rewards + gamma * values[next_state])
    np.testing.assert_allclose(task.exact_q(policy, gamma), q, atol=1e-12)


def test_exact_q_is_the_mean_return_of_episodes() -> None:
    task = Corridor(20_000, **SMALL, max_steps=100_000)
    policy, rng = random_policy(task), np.random.default_rng(1)
    action, gamma = RIGHT, 0.9
    expected = task.exact_q(policy, gamma)[task.start, action]
    returns, running = np.zeros(20_000), np.ones(20_000, np.bool_)
    actions = np.full(20_000, action)
    for time in range(150):
        step = task.step(actions)
        returns += running * gamma**time * step.rewards
        running &= ~step.terminated
        actions = (rng.random((20_000, 1)) > policy[task.state].cumsum(axis=1)[:, :-1]).sum(axis=1)
    assert returns.mean() == pytest.approx(expected, abs=4 * returns.std() / 20_000**0.5 + 1e-6)


@EveryGamma
def test_optimal_q_solves_its_bellman_equation_and_no_policy_beats_it(gamma: float) -> None:
    task = Corridor(n_actions=7)
    best = task.optimal_q(gamma)
    assert residual(task, best, best.max(axis=1), gamma) < 1e-10
    for seed in range(3):
        assert (task.exact_q(random_policy(task, seed), gamma) <= best + 1e-12).all()
    greedy = task.behaviour_policy(gamma, epsilon=0.0)
    np.testing.assert_allclose(task.exact_q(greedy, gamma), best, atol=1e-12)


@EveryWidth
def test_the_best_policy_goes_to_the_larger_reward(n_actions: int) -> None:
    task = Corridor(n_actions=n_actions)
    best = task.optimal_q(0.99).argmax(axis=1)
    for steps in range(1, 61):
        step = task.step(best[task.state])
        assert step.terminated.all() == (steps == 60)
    assert step.rewards == [1]
    assert step.success is not None
    assert step.success.all()


def test_from_which_discount_on_the_larger_reward_is_worth_the_way() -> None:
    task, edge = Corridor(), 0.1 ** (1 / 51)
    for gamma, action in ((edge - 1e-3, UP), (edge + 1e-3, RIGHT)):
        assert task.optimal_q(gamma)[task.start].argmax() == action
    assert task.optimal_q(0.99)[task.start, RIGHT] == pytest.approx(0.99**59)
    assert task.optimal_q(0.99)[task.start, UP] == pytest.approx(max(0.1 * 0.99**8, 0.99**61))


@pytest.mark.parametrize("n_actions", [10, 20])
def test_more_no_ops_change_nothing_else(n_actions: int) -> None:
    wide, narrow = Corridor(n_actions=n_actions), Corridor()
    policy = random_policy(wide)
    q = wide.exact_q(policy, 0.99)
    assert (q[:, STAY:] == q[:, STAY : STAY + 1]).all()
    merged = np.column_stack([policy[:, :STAY], policy[:, STAY:].sum(axis=1)])
    np.testing.assert_allclose(q[:, : STAY + 1], narrow.exact_q(merged, 0.99), atol=1e-12)
    assert (wide.optimal_q(0.99)[:, : STAY + 1] == narrow.optimal_q(0.99)).all()


@EveryWidth
def test_the_behaviour_policy_is_epsilon_greedy(n_actions: int) -> None:
    task = Corridor(n_actions=n_actions)
    policy = task.behaviour_policy(0.99)
    np.testing.assert_allclose(policy.sum(axis=1), 1)
    assert (policy.argmax(axis=1) == task.optimal_q(0.99).argmax(axis=1)).all()
    np.testing.assert_allclose(np.sort(policy, axis=1)[:, :-1], 0.001 / n_actions)


def test_the_time_limit_cuts_off_and_does_not_end() -> None:
    task = Corridor(3, max_steps=3, **SMALL)
    task.state[:] = [4, 9, 11]
    for time in (1, 2, 3):
        step = task.step(np.array([STAY, RIGHT, UP if time == 3 else STAY]))
        assert step.truncated.tolist() == [time == 3, time == 3, False]
        assert step.terminated.tolist() == [False, False, time == 3]


def test_reset_leaves_the_other_lanes_alone() -> None:
    task = Corridor(5, **SMALL)
    for _ in range(3):
        task.step(np.full(5, RIGHT))
    task.reset(np.array([False, True, False, True, False]))
    assert task.state.tolist() == [5, 2, 5, 2, 5]
    assert task.time.tolist() == [3, 0, 3, 0, 3]


def test_what_is_handed_out_belongs_to_nobody() -> None:
    task = Corridor(3, **SMALL)
    for array in (*task.transitions(), task.observe(), task.optimal_q(0.5)):
        array[:] = 1
    assert (task.observe().argmax(axis=1) == 2).all()
    assert (task.transitions().rewards != 0).sum() == 2


def test_the_picture_is_a_map_with_the_agent_in_white() -> None:
    task = Corridor(3, **SMALL)
    pictures = task.render()
    factor = pictures.shape[1] // 3
    assert pictures.shape == (3, 3 * factor, 9 * factor, 3)
    small = pictures[0, ::factor, ::factor]
    assert (small.any(axis=2).sum()) == 3 + 7 + 3
    assert small[2, 0].tolist() == [255, 255, 255]
    assert small[0, 0, 1] > small[0, 8, 1], "the larger reward is redder"
    task.step(np.full(3, RIGHT))
    assert task.render()[0, ::factor, ::factor][2, 1].tolist() == [255, 255, 255]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_actions": 4}, "n_actions is 4; it must be a whole number, 5 or more"),
        ({"vertical": 1}, "vertical is 1"),
        ({"horizontal": 0}, "horizontal is 0"),
        ({"max_steps": 0}, "max_steps is 0"),
        ({"small_reward": 1.0}, "small_reward is 1.0 and large_reward 1.0"),
        ({"small_reward": 0.0}, "small_reward is 0.0"),
    ],
)
def test_bad_parameters_are_named(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Corridor(**parameters)


def test_bad_policies_discounts_and_actions_are_named() -> None:
    task = Corridor(3, **SMALL)
    policy = random_policy(task)
    with pytest.raises(ValueError, match=r"policy has the shape \(13, 4\); it must be .*\(13, 5\)"):
        task.exact_q(policy[:, :4], 0.9)
    policy[7] *= 2
    with pytest.raises(ValueError, match=r"policy\[7\] is no distribution"):
        task.exact_q(policy, 0.9)
    with pytest.raises(ValueError, match="gamma is 1.0; it must be at least 0 and below 1"):
        task.optimal_q(1.0)
    with pytest.raises(ValueError, match="epsilon is 2.0; it must be from 0 to 1"):
        task.behaviour_policy(0.9, epsilon=2.0)
    with pytest.raises(ValueError, match="lane 0: action 5 is not one of 0 to 4"):
        task.check_actions([5, 0, 0])
