"""REINFORCE for latent decisions: a bandit with a known answer, the baseline, the mask, the entropy bonus."""

import pytest
import torch
from torch import Tensor

from saccade.agents import PQN, Reinforce
from saccade.agents.reinforce import core_terms
from saccade.agents.update import LossTerms
from saccade.envs import Catch, TaskVecEnv
from saccade.policies import CoreOutput, Decision, LearnedGaze

T, B = 7, 31
TARGET = torch.tensor([0.4, -0.3])


def terms(
    reinforce: Reinforce, decision: Decision, old: Tensor, baseline: Tensor, returns: Tensor, mask: Tensor | None = None
) -> Tensor:
    mask = torch.ones_like(returns) if mask is None else mask
    return reinforce(decision.log_prob, old, decision.entropy, baseline, returns, mask).loss


def play(
    reinforce: Reinforce, rounds: int, epochs: int, learn_sigma: bool = False, flat: bool = False
) -> tuple[LearnedGaze, float]:
    """A bandit without context: reward ``-(l - target)²``, or always 3. Returns the gaze policy and the learned baseline."""
    gaze = LearnedGaze(2, sigma=0.2, learn_sigma=learn_sigma)
    level = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.Adam([*gaze.parameters(), level], lr=0.02)
    features = torch.zeros(T, B, 2)
    for _ in range(rounds):
        taken = gaze(features, None, False)
        returns = torch.full((T, B), 3.0) if flat else -(taken.value - TARGET).square().sum(-1)
        for _ in range(epochs):
            now = gaze(features, taken.value, False)
            loss = terms(reinforce, now, taken.log_prob.detach(), level.expand(T, B), returns)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return gaze, level.item()


@pytest.mark.parametrize(("clip_range", "epochs"), [(0.2, 3), (None, 1)])
@pytest.mark.parametrize("normalize_advantage", [True, False])
def test_the_mean_moves_to_where_the_reward_is(clip_range: float | None, epochs: int, normalize_advantage: bool) -> None:
    reinforce = Reinforce(coef=1.0, clip_range=clip_range, normalize_advantage=normalize_advantage)
    gaze, level = play(reinforce, rounds=120 // epochs, epochs=epochs)
    mean = gaze(torch.zeros(2), None, True).value
    torch.testing.assert_close(mean, TARGET, rtol=0, atol=0.1)
    # What is to be expected at the target: -2 σ².
    assert level == pytest.approx(-2 * 0.2**2, abs=0.05)


def test_the_baseline_learns_the_return_and_a_coefficient_of_zero_moves_no_gaze() -> None:
    # The step of Adam is 0.02: 3 is 150 steps away.
    gaze, level = play(Reinforce(coef=0.0, clip_range=None), rounds=400, epochs=1, flat=True)
    assert level == pytest.approx(3, abs=0.1)
    assert not gaze(torch.zeros(2), None, True).value.any()


def test_the_baseline_is_trained_by_its_own_loss_only() -> None:
    decision = LearnedGaze(2)(torch.randn(T, B, 2), None, False)
    baseline, returns = torch.randn(T, B, requires_grad=True), torch.randn(T, B)
    loss = terms(Reinforce(coef=7.0, baseline_coef=0.5), decision, decision.log_prob.detach(), baseline, returns)
    (gradient,) = torch.autograd.grad(loss, baseline)
    torch.testing.assert_close(gradient, 0.5 * (baseline - returns).detach() / (T * B))


def test_the_gradient_of_the_score_is_minus_the_advantage() -> None:
    log_prob, returns, baseline = torch.randn(T, B, requires_grad=True), torch.randn(T, B), torch.randn(T, B)
    decision = Decision(torch.zeros(T, B, 2), log_prob, torch.zeros(T, B))
    for clip_range in (None, 0.2):
        reinforce = Reinforce(coef=0.3, clip_range=clip_range, normalize_advantage=False)
        (gradient,) = torch.autograd.grad(terms(reinforce, decision, log_prob.detach(), baseline, returns), log_prob)
        torch.testing.assert_close(gradient, -0.3 * (returns - baseline) / (T * B))


def test_normalised_advantages_do_not_depend_on_the_rewards_scale() -> None:
    log_prob, returns, baseline = torch.randn(T, B, requires_grad=True), torch.randn(T, B), torch.randn(T, B)
    decision = Decision(torch.zeros(T, B, 2), log_prob, torch.zeros(T, B))
    gradients = []
    for scale in (1.0, 1000.0):
        loss = terms(Reinforce(baseline_coef=0.0), decision, log_prob.detach(), baseline * scale, returns * scale)
        gradients.append(torch.autograd.grad(loss, log_prob)[0])
    torch.testing.assert_close(gradients[0], gradients[1])
    # Only the size is normalised: a decision better than its baseline stays one.
    assert (gradients[0].sign() == -(returns - baseline).sign()).all()


def test_returns_that_the_baseline_knows_exactly_give_no_gradient_and_no_nan() -> None:
    log_prob, returns = torch.randn(T, B, requires_grad=True), torch.randn(T, B)
    decision = Decision(torch.zeros(T, B, 2), log_prob, torch.zeros(T, B))
    (gradient,) = torch.autograd.grad(terms(Reinforce(), decision, log_prob.detach(), returns, returns), log_prob)
    assert not gradient.any()


def test_masked_decisions_count_for_nothing() -> None:
    """Not in the gradients, not in the baseline, not in the normalisation, not in the metrics."""
    mask = (torch.rand(T, B) > 0.4).float()
    baseline, log_prob = torch.randn(T, B, requires_grad=True), torch.randn(T, B, requires_grad=True)
    old, entropy, returns = torch.randn(3, T, B)
    before = Reinforce(ent_coef=0.1)(log_prob, old, entropy, baseline, returns, mask)
    hidden = mask == 0
    returns, entropy, old = returns.clone(), entropy.clone(), old.clone()
    returns[hidden], entropy[hidden], old[hidden] = 1e3, -1e3, 5.0
    after = Reinforce(ent_coef=0.1)(log_prob, old, entropy, baseline, returns, mask)
    torch.testing.assert_close(before, after)
    for gradient in torch.autograd.grad(after.loss, [baseline, log_prob]):
        assert not gradient[hidden].any()
        assert gradient[~hidden].any()


def test_nothing_to_learn_from_is_a_loss_of_zero() -> None:
    log_prob = torch.randn(T, B, requires_grad=True)
    decision = Decision(torch.zeros(T, B, 2), log_prob, torch.ones(T, B))
    loss = terms(Reinforce(ent_coef=1.0), decision, log_prob.detach(), torch.zeros(T, B), torch.ones(T, B), torch.zeros(T, B))
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, log_prob)[0].any()


def test_an_entropy_bonus_raises_a_learned_sigma_and_the_reward_alone_lowers_it() -> None:
    wide, _ = play(Reinforce(coef=1.0, ent_coef=1.0), rounds=20, epochs=2, learn_sigma=True)
    narrow, _ = play(Reinforce(coef=1.0), rounds=150, epochs=1, learn_sigma=True)
    assert (wide.log_sigma.exp() > 0.3).all()
    assert (narrow.log_sigma.exp() < 0.15).all()


def test_metrics_say_how_much_was_clipped() -> None:
    log_prob = torch.zeros(2, 2)
    old = -torch.tensor([[0.0, 0.1], [0.5, 0.3]])
    made = Reinforce(clip_range=0.2)(log_prob, old, torch.ones(2, 2), torch.zeros(2, 2), torch.ones(2, 2), torch.ones(2, 2))
    assert made.metrics["gaze_clip_fraction"].item() == 0.5
    assert made.metrics["gaze_entropy"].item() == 1
    assert made.metrics["gaze_baseline_loss"].item() == 0.5
    assert not any(value.requires_grad for value in made.metrics.values())


@pytest.mark.parametrize("at_once", [False, True])
def test_a_decision_is_credited_with_what_it_acted_on(at_once: bool) -> None:
    """From the next reward on, by what the step knew; or with its own step's reward, by what was known before the decision."""
    env = TaskVecEnv(Catch(3, height=8, width=8))
    model = PQN("GlimpsePolicy", env, policy_kwargs={"core_kwargs": {"hidden_size": 5}}, device="cpu")
    policy, seen = model.policy, {}
    features, context = torch.randn(2, T, 3, 5)
    log_prob = torch.randn(T, 3, requires_grad=True)
    decision = Decision(torch.zeros(T, 3, 2), log_prob, torch.zeros(T, 3), context if at_once else None)
    returns, rewards = torch.randn(2, T, 3)
    continues = (torch.rand(T, 3) > 0.3).float()

    class Noting(Reinforce):
        def __call__(self, *arguments: Tensor, mask: Tensor) -> LossTerms:  # type: ignore[override]
            seen.update(zip(("log_prob", "old", "entropy", "baseline", "returns"), arguments, strict=True), mask=mask)
            return LossTerms(log_prob.sum(), {})

    core = CoreOutput(features, (), decision)
    core_terms(policy, core, log_prob.detach(), continues, returns, rewards, Noting())
    torch.testing.assert_close(seen["returns"], returns if at_once else returns - rewards)
    torch.testing.assert_close(seen["mask"], torch.ones(T, 3) if at_once else continues)
    assert policy.baseline is not None
    known = policy.baseline(context if at_once else features).squeeze(-1)
    torch.testing.assert_close(seen["baseline"], known)
