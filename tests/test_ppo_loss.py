import pytest
import torch

from saccade.agents.losses import clipped_value_loss, policy_gradient_loss
from saccade.agents.ppo_loss import Objective, PPOLoss, Recorded

L, N = 7, 11


@pytest.mark.parametrize("clip_range_vf", [None, 0.3])
@pytest.mark.parametrize("ent_coef", [0.0, 0.05])
def test_written_out_gradient_is_that_of_the_plain_loss(clip_range_vf, ent_coef):
    generator = torch.Generator().manual_seed(3)

    def numbers():
        return torch.randn(L, N, generator=generator, dtype=torch.float64)

    recorded = Recorded(numbers() - 2, numbers(), numbers(), numbers())
    inputs = [recorded.log_probs + 0.3 * numbers(), numbers(), recorded.values + 0.5 * numbers()]
    inputs = [tensor.requires_grad_() for tensor in inputs]
    log_prob, entropy, value = inputs

    policy = policy_gradient_loss(log_prob, recorded.log_probs, recorded.advantages, 0.2).mean()
    values = clipped_value_loss(value, recorded.values, recorded.returns, clip_range_vf).mean()
    plain = policy - ent_coef * entropy.mean() + 0.7 * values
    loss, means = PPOLoss.apply(*inputs, recorded, Objective(0.2, clip_range_vf, ent_coef, 0.7))

    torch.testing.assert_close(loss, plain, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(means[:3], torch.stack([values, policy, entropy.mean()]).detach())
    expected = torch.autograd.grad(3 * plain, inputs)
    torch.testing.assert_close(torch.autograd.grad(3 * loss, inputs), expected, rtol=1e-9, atol=1e-12)
    assert 0 < means[4] < 1, "some ratios are clipped and some are not, or the test tests nothing"


def test_means_are_of_the_ratios():
    recorded = Recorded(*(torch.zeros(1, 2) for _ in range(4)))
    log_prob = torch.tensor([[0.5, 0.0]], requires_grad=True)
    _, means = PPOLoss.apply(log_prob, torch.zeros(1, 2), torch.zeros(1, 2), recorded, Objective(0.2, None, 0.0, 0.5))
    ratio = torch.tensor(0.5).exp()
    torch.testing.assert_close(means[3:], torch.stack([(ratio - 1 - 0.5) / 2, torch.tensor(0.5)]))


@pytest.mark.parametrize("ent_coef", [0.0, 0.05])
def test_a_loss_that_is_not_measured_is_the_same_loss(ent_coef):
    recorded = Recorded(*(torch.randn(L, N) for _ in range(4)))
    found = []
    for measure in (True, False):
        torch.manual_seed(5)
        inputs = [torch.randn(L, N, requires_grad=True) for _ in range(3)]
        loss, means = PPOLoss.apply(*inputs, recorded, Objective(0.2, None, ent_coef, 0.7, measure))
        assert (means is not None) == measure
        found.append([loss, *torch.autograd.grad(loss, inputs, allow_unused=True)])
    for one, other in zip(*found, strict=True):
        assert (one is None and other is None) or torch.equal(one, other)


def test_a_second_derivative_is_refused():
    log_prob = torch.randn(L, N, requires_grad=True)
    recorded = Recorded(*(torch.randn(L, N) for _ in range(4)))
    loss, _ = PPOLoss.apply(log_prob, torch.zeros(L, N), torch.zeros(L, N), recorded, Objective(0.2, None, 0.0, 0.5))
    with pytest.raises(RuntimeError, match="create_graph"):
        torch.autograd.grad(loss, log_prob, create_graph=True)
