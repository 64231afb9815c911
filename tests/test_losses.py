"""Returns and losses: golden values, slow loops, and where gradients may and may not flow."""

import math

import pytest
import torch

from saccade.agents.losses import (
    chosen,
    lambda_returns,
    masked_mean,
    policy_gradient_loss,
    q_lambda_targets,
    squared_error,
)

T, B, A = 7, 5, 3


def trajectory() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rewards, discounts that are 0 at random episode ends, and values, in float64."""
    r, v = torch.randn(2, T, B, dtype=torch.float64)
    discount = torch.rand(T, B, dtype=torch.float64) * (torch.rand(T, B) > 0.3)
    return r, discount, v


def slow_n_step(r: list[float], discount: list[float], v: list[float], n: int) -> float:
    """``r_1 + γ_1 r_2 + ... + γ_1..γ_n v_n`` of one lane, at most to the end of the data."""
    total, weight = 0.0, 1.0
    for k in range(min(n, len(r))):
        total += weight * r[k]
        weight *= discount[k]
    return total + weight * v[min(n, len(r)) - 1]


def slow_lambda(r: list[float], discount: list[float], v: list[float], lambda_: float) -> float:
    """The λ-return by its definition: the mean of all n-step returns, weights ``(1 - λ) λ^(n-1)``, the rest on the last."""
    last = len(r)
    total = sum((1 - lambda_) * lambda_ ** (n - 1) * slow_n_step(r, discount, v, n) for n in range(1, last))
    return total + lambda_ ** (last - 1) * slow_n_step(r, discount, v, last)


@pytest.mark.parametrize("lambda_", [0.0, 0.3, 0.95, 1.0])
def test_lambda_returns_are_the_weighted_mean_of_all_n_step_returns(lambda_: float) -> None:
    r, discount, v = trajectory()
    returns = lambda_returns(r, discount, v, lambda_)
    for lane in range(B):
        for t in range(T):
            rest = (part[t:, lane].tolist() for part in (r, discount, v))
            assert returns[t, lane].item() == pytest.approx(slow_lambda(*rest, lambda_))


def test_lambda_0_is_one_step_and_lambda_1_is_monte_carlo() -> None:
    r, discount, v = trajectory()
    torch.testing.assert_close(lambda_returns(r, discount, v, 0.0), r + discount * v)
    g = v[-1].clone()
    for t in reversed(range(T)):
        g = r[t] + discount[t] * g
        torch.testing.assert_close(lambda_returns(r, discount, v, 1.0)[t], g)


def test_golden_returns() -> None:
    r, discount, v = (
        torch.tensor([[1.0], [2.0], [4.0]]),
        torch.tensor([[0.5], [0.0], [0.5]]),
        torch.tensor([[8.0], [16.0], [32.0]]),
    )
    # G_3 = 4 + 16 = 20; G_2 = 2, the episode's end; G_1 = 1 + 0.5 (0.75 * 8 + 0.25 * 2).
    assert lambda_returns(r, discount, v, 0.25).flatten().tolist() == [4.25, 2, 20]


def test_nothing_leaks_over_the_end_of_an_episode() -> None:
    r, discount, v = trajectory()
    discount[3] = 0
    before = lambda_returns(r, discount, v, 0.9)
    r[4:], v[3:] = 1e6, -1e6
    assert (lambda_returns(r, discount, v, 0.9)[:4] == before[:4]).all()


def test_one_step_is_enough() -> None:
    one = torch.ones(1, 1)
    assert lambda_returns(one, one * 0.5, one * 4, 0.7).item() == pytest.approx(3)


def test_q_targets_bootstrap_from_the_best_action_without_gradient() -> None:
    r, discount, _ = trajectory()
    q = torch.randn(T, B, A, dtype=torch.float64, requires_grad=True)
    targets = q_lambda_targets(r, discount, q, 0.6)
    assert not targets.requires_grad
    torch.testing.assert_close(targets, lambda_returns(r, discount, q.detach().max(-1).values, 0.6))


def test_chosen_picks_the_actions_taken() -> None:
    q, actions = torch.randn(T, B, A), torch.randint(A, (T, B))
    picked = chosen(q, actions)
    for t in range(T):
        for lane in range(B):
            assert picked[t, lane] == q[t, lane, actions[t, lane]]


def test_squared_error_has_no_gradient_into_its_target() -> None:
    predicted, target = torch.tensor([1.0, 5.0], requires_grad=True), torch.tensor([3.0, 4.0], requires_grad=True)
    loss = squared_error(predicted, target)
    assert loss.tolist() == [2, 0.5]
    by_predicted, by_target = torch.autograd.grad(loss.sum(), [predicted, target], allow_unused=True)
    assert by_predicted.tolist() == [-2, 1]
    assert by_target is None


def test_masked_mean() -> None:
    values = torch.tensor([[1.0, 2.0], [4.0, 8.0]], requires_grad=True)
    mask = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert masked_mean(values, mask).item() == 4.5
    (gradient,) = torch.autograd.grad(masked_mean(values, mask), values)
    assert gradient.tolist() == [[0.5, 0], [0, 0.5]]
    nothing = masked_mean(values, torch.zeros(2, 2))
    assert nothing.item() == 0
    assert not torch.autograd.grad(nothing, values)[0].any()
    assert masked_mean(values, torch.ones(2, 2)).item() == 3.75


def test_reinforce_without_a_clip_is_minus_advantage_times_the_scores_gradient() -> None:
    log_prob, advantage = torch.randn(T, B, requires_grad=True), torch.randn(T, B, requires_grad=True)
    loss = policy_gradient_loss(log_prob, torch.randn(T, B), advantage, None)
    by_log_prob, by_advantage = torch.autograd.grad(loss.sum(), [log_prob, advantage], allow_unused=True)
    torch.testing.assert_close(by_log_prob, -advantage.detach())
    assert by_advantage is None


def test_with_a_clip_the_first_epochs_gradient_is_reinforces() -> None:
    log_prob, advantage = torch.randn(T, B, requires_grad=True), torch.randn(T, B)
    old = log_prob.detach().clone().requires_grad_()
    loss = policy_gradient_loss(log_prob, old, advantage, 0.2)
    torch.testing.assert_close(loss, -advantage)
    by_log_prob, by_old = torch.autograd.grad(loss.sum(), [log_prob, old], allow_unused=True)
    torch.testing.assert_close(by_log_prob, -advantage)
    assert by_old is None


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.1, 2.0, -2.2, -2.0),  # within the clip
        (1.5, 2.0, -2.4, 0.0),  # already likelier by more than ε: no more of it
        (0.5, 2.0, -1.0, -2.0),  # unlikelier than before: full slope back
        (0.5, -2.0, 1.6, 0.0),  # already unlikelier by more than ε
        (1.5, -2.0, 3.0, 2.0),  # likelier although it was bad: full slope
        (1.2, 2.0, -2.4, None),  # on the edge
    ],
)
def test_golden_values_of_the_clip(ratio: float, advantage: float, loss: float, slope: float | None) -> None:
    """Schulman et al. 2017, figure 1, with ε = 0.2; the slope is that of the loss by the ratio."""
    old = torch.tensor([-1.3], dtype=torch.float64)
    log_prob = (old + math.log(ratio)).requires_grad_()
    value = policy_gradient_loss(log_prob, old, torch.tensor([advantage], dtype=torch.float64), 0.2)
    assert value.item() == pytest.approx(loss)
    if slope is not None:
        (by_log_prob,) = torch.autograd.grad(value.sum(), log_prob)
        assert by_log_prob.item() / ratio == pytest.approx(slope)
