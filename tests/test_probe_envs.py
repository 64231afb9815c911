"""The probes' exact values, against every sequence of actions tried out."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest

from saccade.envs import TASKS, Probe, ProbeMemory

MakeProbe = Callable[..., Probe]
PROBES: list[MakeProbe] = [task for task in TASKS.values() if issubclass(task, Probe)]


def play_everything(probe: MakeProbe, cue: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Observations ``[T, D]``, actions ``[S, T]`` and rewards ``[T, S]`` of all ``S`` sequences of actions."""
    lane = probe(num_envs=1)
    actions = np.array(list(product(range(int(lane.action_space.n)), repeat=lane.horizon)))
    task = probe(num_envs=len(actions))
    task.cue[:] = cue
    observations, rewards = [], []
    for t in range(task.horizon):
        seen = task.observe()
        assert (seen == seen[0]).all()
        observations.append(seen[0])
        step = task.step(actions[:, t])
        assert (step.terminated == (t == task.horizon - 1)).all()
        assert not step.truncated.any()
        if step.success is not None and t == task.horizon - 1:
            assert (step.success == (step.rewards == 1)).all()
        rewards.append(step.rewards)
    return np.array(observations), actions, np.array(rewards)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.97, 1.0])
@pytest.mark.parametrize("probe", PROBES)
def test_expected_q_is_the_best_return_within_reach(probe: MakeProbe, gamma: float) -> None:
    exact = probe(num_envs=1).expected_q(gamma)
    met = set()
    for cue in (-1, 1):
        observations, actions, rewards = play_everything(probe, cue)
        same = (exact.observations == observations[:, None]).all(axis=(0, 2))
        assert same.sum() == 1, "an episode that expected_q does not know, or knows twice"
        k = int(same.argmax())
        met.add(k)
        reward_to_go = np.zeros(len(actions))
        for t in reversed(range(len(rewards))):
            reward_to_go = rewards[t] + gamma * reward_to_go
            for action in range(exact.q.shape[2]):
                best = reward_to_go[actions[:, t] == action].max()
                assert exact.q[t, k, action] == pytest.approx(best)
    assert met == set(range(exact.q.shape[1])), "expected_q knows an episode that cannot happen"


@pytest.mark.parametrize("probe", PROBES)
def test_observations_stay_in_their_space_and_belong_to_nobody(probe: MakeProbe) -> None:
    task = probe(num_envs=3, seed=0)
    for _ in range(task.horizon + 1):
        seen = task.observe()
        assert all(task.observation_space.contains(lane) for lane in seen)
        before = seen.copy()
        seen[:] = 9
        assert (task.observe() == before).all()
        task.step(np.zeros(3, np.int64))


@pytest.mark.parametrize("probe", PROBES)
def test_both_cues_come_up_half_of_the_time(probe: MakeProbe) -> None:
    task = probe(num_envs=10_000, seed=0)
    assert set(np.unique(task.cue)) == {-1, 1}
    assert abs(task.cue.mean()) < 0.05


@pytest.mark.parametrize("delay", [1, 5])
def test_the_sign_to_remember_is_gone_after_the_first_step(delay: int) -> None:
    task = ProbeMemory(7, delay=delay, seed=0)
    assert (task.observe()[:, 0] == task.cue).all()
    for _ in range(delay):
        step = task.step(np.ones(7, np.int64))
        assert not step.terminated.any()
        assert not step.rewards.any()
        assert (task.observe()[:, 0] == 0).all()
    step = task.step((task.cue > 0).astype(np.int64))
    assert step.terminated.all()
    assert (step.rewards == 1).all()


def test_a_delay_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="delay is 0"):
        ProbeMemory(1, delay=0)
