"""Returns and losses: golden values, slow loops, and where gradients may and may not flow."""

import math

import numpy as np
import pytest
import torch
from stable_baselines3.common import utils

from saccade.agents.losses import (
    chosen,
    clipped_value_loss,
    explained_variance,
    greedy_values,
    lambda_returns,
    masked_mean,
    n_step_returns,
    policy_gradient_loss,
    q_lambda_targets,
    rescale,
    squared_error,
    unscale,
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


# Actor-critic losses.


@pytest.mark.parametrize("lambda_", [0.0, 0.3, 0.95, 1.0])
def test_lambda_returns_less_values_are_generalised_advantages(lambda_: float) -> None:
    """Schulman et al. 2016, eq. 16: ``A_t = Σ (γλ)^l δ_{t+l}``, to the end of the episode."""
    r, discount, _ = trajectory()
    v = torch.randn(T + 1, B, dtype=torch.float64)
    advantages = lambda_returns(r, discount, v[1:], lambda_) - v[:-1]
    for lane in range(B):
        for t in range(T):
            total, weight = 0.0, 1.0
            for k in range(t, T):
                delta = float(r[k, lane] + discount[k, lane] * v[k + 1, lane] - v[k, lane])
                total += weight * delta
                weight *= lambda_ * float(discount[k, lane])
            assert advantages[t, lane].item() == pytest.approx(total, abs=1e-9)


@pytest.mark.parametrize("clip_range", [0.05, 0.2])
def test_the_clipped_objective_element_by_element(clip_range: float) -> None:
    log_prob, old, advantage = torch.randn(3, T, B, dtype=torch.float64)
    loss = policy_gradient_loss(log_prob, old, advantage, clip_range)
    clipped = 0
    for t in range(T):
        for lane in range(B):
            ratio, a = math.exp(log_prob[t, lane] - old[t, lane]), float(advantage[t, lane])
            bounded = min(max(ratio, 1 - clip_range), 1 + clip_range)
            clipped += bounded * a < ratio * a
            assert loss[t, lane].item() == pytest.approx(-min(ratio * a, bounded * a))
    assert 0 < clipped < T * B


@pytest.mark.parametrize("clip_range", [None, 0.1, 1.0])
def test_the_clipped_value_loss_is_sb3s(clip_range: float | None) -> None:
    value, old, target = torch.randn(3, T, B, dtype=torch.float64)
    bounded = value if clip_range is None else old + torch.clamp(value - old, -clip_range, clip_range)
    ours = clipped_value_loss(value.requires_grad_(), old, target, clip_range)
    torch.testing.assert_close(ours.mean(), torch.nn.functional.mse_loss(target, bounded))
    (gradient,) = torch.autograd.grad(ours.sum(), value)
    free = torch.ones(T, B, dtype=torch.bool) if clip_range is None else (value - old).abs() < clip_range
    torch.testing.assert_close(gradient, torch.where(free, 2 * (value - target), 0.0).detach())


def test_explained_variance_is_sb3s() -> None:
    predicted, target = torch.randn(2, T, B)
    assert explained_variance(predicted, target) == pytest.approx(
        utils.explained_variance(predicted.numpy().flatten(), target.numpy().flatten()), rel=1e-5
    )
    assert explained_variance(target, target) == 1
    assert explained_variance(torch.full((T, B), 3.0), target) == pytest.approx(0, abs=1e-6)
    assert math.isnan(explained_variance(predicted, torch.ones(T, B)))


# Returns and values of replaying agents.


@pytest.mark.parametrize("n", [1, 2, 5, T, T + 4])
def test_n_step_returns_are_their_definition(n: int) -> None:
    r, discount, v = trajectory()
    returns = n_step_returns(r, discount, v, n)
    assert returns.shape == (T, B)
    for lane in range(B):
        rewards, discounts, values = (part[:, lane].tolist() for part in (r, discount, v))
        for t in range(T):
            expected = slow_n_step(rewards[t:], discounts[t:], values[t:], n)
            assert returns[t, lane].item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("epsilon", [0.0, 1e-3, 0.1])
def test_rescaling_is_undone(epsilon: float) -> None:
    magnitudes = torch.logspace(-6, 5, 89, dtype=torch.float64)
    x = torch.cat([-magnitudes.flip(0), torch.zeros(1, dtype=torch.float64), magnitudes])
    h = torch.sign(x) * ((x.abs() + 1).sqrt() - 1) + epsilon * x
    torch.testing.assert_close(rescale(x, epsilon), h)
    torch.testing.assert_close(unscale(rescale(x, epsilon), epsilon), x, rtol=1e-9, atol=1e-12)
    assert (rescale(x, epsilon).diff() > 0).all()
    single = x.float()
    torch.testing.assert_close(rescale(single, epsilon), h.float(), rtol=1e-6, atol=0)
    torch.testing.assert_close(unscale(h.float(), epsilon), single, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(unscale(rescale(single, epsilon), epsilon), single, rtol=1e-5, atol=0)


def test_golden_values_of_rescaling() -> None:
    assert rescale(torch.tensor([3.0, -8.0, 0.0]), 0.5).tolist() == [2.5, -6, 0]
    assert unscale(torch.tensor([2.5, -6.0, 0.0]), 0.5).tolist() == pytest.approx([3, -8, 0])


def test_double_q_learning_takes_the_value_of_the_action_that_another_likes() -> None:
    q, selector = torch.randn(2, T, B, A)
    values = greedy_values(q, selector)
    for t in range(T):
        for lane in range(B):
            assert values[t, lane] == q[t, lane, int(np.argmax(selector[t, lane].numpy()))]
    assert torch.equal(greedy_values(q, q), q.amax(-1))
    assert (values <= q.amax(-1)).all()
    assert (values < q.amax(-1)).any()
