"""Everything on a GPU as on a processor; without one these tests are left out."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cores import ROWS, CoreRow
from examples import T, assert_equal, example
from saccade.agents import DQN, PPO
from saccade.agents.algorithm import CoreAlgorithm
from saccade.envs import make_vec_env
from saccade.policies import Core
from saccade.policies.core import map_state
from small_agents import EVERY_AGENT, agent, catch, memory, ppo, weights

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def moved(tree: Any) -> Any:
    return map_state(lambda leaf: leaf.cuda(), tree)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_core_gives_the_same_on_a_gpu(row: CoreRow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # products of 10 bits
    core = row.core()
    call = example(core)
    there: Core = copy.deepcopy(core).cuda()
    ours, theirs = core(*call), there(*(None if part is None else moved(part) for part in call))
    assert len(theirs.features) == T
    assert_equal(theirs.features.cpu(), ours.features, 1e-4)
    assert_equal(map_state(lambda leaf: leaf.cpu(), theirs.state), ours.state, 1e-4)
    for output in (ours, theirs):
        if output.features.requires_grad:
            output.features.square().mean().backward()
    for a, b in zip(core.parameters(), there.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None)
        if a.grad is not None and b.grad is not None:
            assert_equal(b.grad.cpu(), a.grad, 1e-4)


@pytest.mark.parametrize("make", EVERY_AGENT, ids=lambda make: make.__name__)
def test_an_agent_learns_there_and_acts_here(make: Callable[..., CoreAlgorithm], tmp_path: Path) -> None:
    model = make(device="cuda")
    before = weights(model)
    model.learn(140)
    assert all(parameter.is_cuda for parameter in model.policy.parameters())
    assert not any(torch.equal(ours, theirs) for ours, theirs in zip(before, weights(model), strict=True))
    model.save(tmp_path / "agent")
    here = type(model).load(tmp_path / "agent", env=memory(), device="cpu")
    observations = memory().reset()
    starts = np.ones(len(observations), np.bool_)
    there, _ = model.predict(observations, None, starts, deterministic=True)
    assert (here.predict(observations, None, starts, deterministic=True)[0] == there).all()
    here.learn(140, reset_num_timesteps=False)


@pytest.mark.parametrize("make", [agent, ppo])
def test_a_gaze_learns_there(make: Callable[..., CoreAlgorithm]) -> None:
    model = make("GlimpsePolicy", catch(), device="cuda")
    before = [weight.detach().clone() for weight in model.policy.core.gaze_policy.parameters()]
    model.learn(140)
    assert not any(torch.equal(a, b) for a, b in zip(before, model.policy.core.gaze_policy.parameters(), strict=True))


@pytest.mark.parametrize("mixed_precision", [False, True])
def test_images_and_their_replay(mixed_precision: bool) -> None:
    kwargs = {"mixed_precision": mixed_precision}
    sizes: dict[str, Any] = {"n_steps": 4, "batch_size": 4}
    replayed: dict[str, Any] = {"buffer_size": 100, "learning_starts": 8, "batch_size": 4}
    for agent_class, arguments in ((PPO, sizes), (DQN, replayed)):
        env = make_vec_env("atari/pong", 1, seed=0)
        model = agent_class("CnnPolicy", env, **arguments, policy_kwargs=kwargs, device="cuda", seed=0)  # type: ignore[operator]
        before = weights(model)
        model.learn(16)
        assert not any(torch.equal(a, b) for a, b in zip(before, weights(model), strict=True))
