"""Relational attention over a feature grid: against plain loops, in SB3's agents and ours, and what it refuses."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3 as sb3
import torch
from torch import Tensor

from conformance import assert_equal
from saccade.agents import PPO
from saccade.envs import Catch, TaskVecEnv
from saccade.policies import GRU, Relational, TapKind, recording

SPACE = gym.spaces.Box(0.0, 1.0, (3, 7, 6), np.float32)
SMALL: dict[str, Any] = {"channels": (5, 7), "size": 12, "n_heads": 3, "features_dim": 11}


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 7, 6)


def by_loops(torso: Relational, image: Tensor) -> Tensor:
    """Features of one image ``[C, H, W]``, place by place."""
    found = torso.convolutions(image[None])[0]
    _, height, width = found.shape
    entities = []
    for y in range(height):
        for x in range(width):
            where = torch.tensor([2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1])
            entities.append(torso.entities(torch.cat([found[:, y, x], where])))
    block, size = torso.block, 4
    for _ in range(torso.n_blocks):
        read = [[] for _ in entities]
        for head in range(3):
            parts = []
            for part, norm in enumerate(block.norms):
                rows = slice(part * 12 + head * size, part * 12 + (head + 1) * size)
                weight, bias = block.project.weight[rows], block.project.bias[rows]
                parts.append([norm(weight @ entity + bias) for entity in entities])
            queries, keys, values = parts
            for i, query in enumerate(queries):
                scores = torch.stack([query @ key for key in keys]) / size**0.5
                read[i].append(sum(w * value for w, value in zip(scores.softmax(0), values, strict=True)))
        entities = [block.norm(e + block.network(torch.cat(r))) for e, r in zip(entities, read, strict=True)]
    return torso.linear(torch.stack(entities).max(dim=0).values)


def test_it_is_what_plain_loops_make_of_it() -> None:
    torso, seen = Relational(SPACE, **SMALL), images()
    expected = torch.stack([by_loops(torso, image) for image in seen])
    assert expected.std() > 0
    assert_equal(torso(seen), expected, 1e-5)


def test_a_recording_shows_how_much_each_place_was_attended_to_and_changes_nothing() -> None:
    torso, seen = Relational(SPACE, **SMALL), images()
    with recording() as taps:
        features = torso(seen)
    assert_equal(features, torso(seen), 1e-5)
    weights = taps.stacked("relational_attention")
    assert taps.kinds["relational_attention"] is TapKind.SPACE
    assert weights.shape == (1, 2, 2, 3, 5, 4)
    assert_equal(weights.sum((-2, -1)), torch.ones(1, 2, 2, 3), 1e-5)
    assert taps.notes["relational_attention"]["names"] == (["block 1", "block 2"], ["head 1", "head 2", "head 3"])


def test_blocks_share_their_weights() -> None:
    def weights(n_blocks: int) -> int:
        return sum(parameter.numel() for parameter in Relational(SPACE, **SMALL, n_blocks=n_blocks).parameters())

    assert weights(1) == weights(5)


def test_plain_sb3_agents_learn_with_it() -> None:
    env = TaskVecEnv(Catch(2, seed=0))
    kwargs = {"features_extractor_class": Relational, "features_extractor_kwargs": SMALL, "normalize_images": False}
    model = sb3.PPO("CnnPolicy", env, n_steps=8, batch_size=16, n_epochs=1, policy_kwargs=kwargs, device="cpu")
    before = [parameter.clone() for parameter in model.policy.features_extractor.parameters()]
    model.learn(16)
    changed = [not torch.equal(a, b) for a, b in zip(before, model.policy.features_extractor.parameters(), strict=True)]
    assert all(changed)


def test_our_agents_record_it_step_by_step() -> None:
    env = TaskVecEnv(Catch(2, seed=0))
    kwargs = {"features_extractor_class": Relational, "features_extractor_kwargs": SMALL, "core_class": GRU}
    policy = PPO("CorePolicy", env, n_steps=8, batch_size=16, policy_kwargs=kwargs, device="cpu").policy
    seen = torch.as_tensor(np.stack([env.reset() for _ in range(3)]))
    starts = torch.zeros(3, 2, dtype=torch.bool)
    quiet = policy.encode(seen, policy.initial_state(2), starts)
    with recording() as taps:
        recorded = policy.encode(seen, policy.initial_state(2), starts)
    assert_equal(recorded, quiet, 1e-5)
    assert taps.stacked("relational_attention").shape[:4] == (3, 2, 2, 3)


@pytest.mark.parametrize(
    ("space", "arguments", "message"),
    [
        (gym.spaces.Box(0, 1, (5,)), {}, "Relational reads an image"),
        (gym.spaces.Discrete(3), {}, "Relational reads an image"),
        (SPACE, {"n_heads": 5}, "n_heads=5 does not divide size=64; nearest valid: 2, 4, 8"),
        (SPACE, {"n_blocks": 0}, "n_blocks.*0"),
        (SPACE, {"strides": (1,)}, "2 convolutions, and strides=.*for others"),
        (SPACE, {"kernel_size": 7}, "an image of 7x6 is too small for 2 convolutions of 7x7"),
        (gym.spaces.Box(0, 1, (4, 84, 84)), {}, "82x82 places.*use larger strides"),
    ],
)
def test_what_does_not_fit_is_refused(space: gym.Space[Any], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Relational(space, **arguments)
