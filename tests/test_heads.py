"""The dueling head (Wang et al. 2016, eq. 9)."""

import pytest
import torch

from saccade.policies import DuelingHead

FEATURES = torch.randn(7, 5, 11, generator=torch.Generator().manual_seed(0))


def raw(head: DuelingHead, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return head.value(features), head.advantage(features)


def test_q_is_value_plus_advantage_less_its_mean() -> None:
    head = DuelingHead(11, n_actions=3, net_arch=[13])
    output = head(FEATURES)
    value, advantage = raw(head, FEATURES)
    torch.testing.assert_close(output.q, value + advantage - advantage.mean(-1, keepdim=True))
    assert output.value.shape == (7, 5, 1)
    assert output.advantage.shape == output.q.shape == (7, 5, 3)
    torch.testing.assert_close(output.value + output.advantage, output.q)


def test_golden_values() -> None:
    head = DuelingHead(11, n_actions=3, net_arch=[13])
    with torch.no_grad():
        for stream, bias in ((head.value, [2.0]), (head.advantage, [1.0, 5.0, 0.0])):
            stream[-1].weight.zero_()
            stream[-1].bias.copy_(torch.tensor(bias))
    output = head(FEATURES[0, 0])
    assert output.value.tolist() == [2]
    assert output.advantage.tolist() == [-1, 3, -2]
    assert output.q.tolist() == [1, 5, 0]


def test_the_advantage_has_mean_zero_and_the_value_is_the_mean_of_q() -> None:
    output = DuelingHead(11, n_actions=5)(FEATURES)
    torch.testing.assert_close(output.advantage.mean(-1), torch.zeros(7, 5), rtol=0, atol=1e-6)
    torch.testing.assert_close(output.q.mean(-1, keepdim=True), output.value, rtol=0, atol=1e-6)


def test_a_shift_of_the_advantage_changes_nothing_and_one_of_the_value_shifts_q() -> None:
    head = DuelingHead(11, n_actions=3)
    before = head(FEATURES)
    with torch.no_grad():
        head.advantage[-1].bias += 17
    torch.testing.assert_close(head(FEATURES).q, before.q, rtol=0, atol=1e-5)
    with torch.no_grad():
        head.value[-1].bias += 17
    after = head(FEATURES)
    torch.testing.assert_close(after.q, before.q + 17, rtol=0, atol=1e-5)
    torch.testing.assert_close(after.advantage, before.advantage, rtol=0, atol=1e-5)


def test_one_action_has_no_advantage() -> None:
    output = DuelingHead(11, n_actions=1)(FEATURES)
    assert not output.advantage.any()
    assert (output.q == output.value).all()


def test_each_output_trains_its_own_stream_and_q_trains_both() -> None:
    head = DuelingHead(11, n_actions=3)
    parts = {"value": list(head.value.parameters()), "advantage": list(head.advantage.parameters())}
    for objective, trained in (("value", {"value"}), ("advantage", {"advantage"}), ("q", {"value", "advantage"})):
        for part, parameters in parts.items():
            score = getattr(head(FEATURES), objective).square().sum()
            gradients = torch.autograd.grad(score, parameters, allow_unused=True)
            assert all(gradient is not None and gradient.any() for gradient in gradients) == (part in trained)


def test_the_gradient_of_one_actions_q_is_centred() -> None:
    """Through ``A - mean A``, action 0 gets ``1 - 1/A`` and every other ``-1/A``; the value gets 1."""
    head = DuelingHead(11, n_actions=3)
    (by_advantage,) = torch.autograd.grad(head(FEATURES[0, 0]).q[0], head.advantage[-1].bias)
    (by_value,) = torch.autograd.grad(head(FEATURES[0, 0]).q[0], head.value[-1].bias)
    assert by_advantage.tolist() == pytest.approx([2 / 3, -1 / 3, -1 / 3])
    assert by_value.tolist() == [1]


def test_gradients_agree_with_finite_differences() -> None:
    head = DuelingHead(3, n_actions=2, net_arch=[5]).double()
    features = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda features: tuple(head(features)), features)


@pytest.mark.parametrize("shape", [(11,), (1, 11), (7, 5, 11)])
def test_any_leading_shape(shape: tuple[int, ...]) -> None:
    output = DuelingHead(11, n_actions=3)(torch.randn(shape))
    assert output.q.shape == (*shape[:-1], 3)
    assert output.value.shape == (*shape[:-1], 1)
