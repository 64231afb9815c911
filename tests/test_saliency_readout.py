"""What is read off a policy head: the same, however the policy is parametrised."""

from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from saccade.policies.distributions import action_distribution
from saccade.saliency.readout import preference


def preferences(space: Any, logits: Tensor, taken: Tensor, masks: Tensor | None = None) -> Tensor:
    return preference(action_distribution(space), logits, taken, masks)[:, 0]


def test_a_shift_of_all_logits_and_what_is_not_allowed_change_nothing() -> None:
    logits, taken = torch.randn(5, 7), torch.tensor([0, 3, 3, 0, 3])
    masks = torch.tensor([[True, False, False, True, True, False, True]] * 5)
    before = preferences(spaces.Discrete(7), logits, taken, masks)
    changed = torch.where(masks, logits + 11, torch.randn(5, 7))
    torch.testing.assert_close(before, preferences(spaces.Discrete(7), changed, taken, masks), rtol=0, atol=1e-5)
    assert (before - preferences(spaces.Discrete(7), logits, taken)).abs().max() > 0.01


def test_parts_and_bits_are_one_discrete_space_of_all_combinations() -> None:
    logits = torch.randn(11, 5)
    parts = torch.stack([torch.randint(2, (11,)), torch.randint(3, (11,))], dim=1)
    joint = (logits[:, :2, None] + logits[:, None, 2:]).flatten(1)
    torch.testing.assert_close(
        preferences(spaces.MultiDiscrete([2, 3]), logits, parts),
        preferences(spaces.Discrete(6), joint, 3 * parts[:, 0] + parts[:, 1]),
    )
    bits, coins = parts[:, :1], logits[:, :1]
    torch.testing.assert_close(
        preferences(spaces.MultiBinary(1), coins, bits),
        preferences(spaces.Discrete(2), torch.cat([torch.zeros(11, 1), coins], dim=1), bits[:, 0]),
    )
