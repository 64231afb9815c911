"""Losses and returns as pure functions of tensors.

Time suffixes: ``q_tm1`` belongs to the state that was acted in, ``r_t`` and ``discount_t`` to what followed. Shapes are
``[T, B]`` (time, lanes), with actions last where there are any (``A``).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def lambda_returns(
    r_t: Float[Tensor, "T B"], discount_t: Float[Tensor, "T B"], v_t: Float[Tensor, "T B"], lambda_: float
) -> Float[Tensor, "T B"]:
    """``G_t = r_t + γ_t ((1 - λ) v_t + λ G_{t+1})``, the last return bootstrapping from ``v_T`` alone.

    With ``v_t = max_a Q(s_t, a)`` this is the Q(λ) target of PQN (Gallici et al. 2024, section 4; Peng & Williams 1996):
    traces are not cut after exploratory actions.

    Args:
        r_t: rewards.
        discount_t: ``γ``, or 0 where the episode ended.
        v_t: value of the next state.
        lambda_: 0 for one-step targets, 1 for Monte-Carlo returns.
    """
    # What does not depend on the next return, for all steps at once: 4 µs a step instead of 8.
    fixed, traces = r_t + (1 - lambda_) * discount_t * v_t, lambda_ * discount_t
    g_t = v_t[-1]
    returns = []
    for r, trace in zip(reversed(fixed.unbind()), reversed(traces.unbind()), strict=True):
        g_t = torch.addcmul(r, trace, g_t)
        returns.append(g_t)
    return torch.stack(returns[::-1])


def q_lambda_targets(
    r_t: Float[Tensor, "T B"], discount_t: Float[Tensor, "T B"], q_t: Float[Tensor, "T B A"], lambda_: float
) -> Float[Tensor, "T B"]:
    """Q(λ) targets: :func:`lambda_returns` of the greedy values, without gradient."""
    return lambda_returns(r_t, discount_t, q_t.detach().amax(dim=-1), lambda_)


def chosen(q_tm1: Float[Tensor, "*batch A"], a_tm1: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Entries of the last axis at the actions taken."""
    return q_tm1.gather(-1, a_tm1.unsqueeze(-1)).squeeze(-1)


def squared_error(predicted: Float[Tensor, "*batch"], target: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """``(target - predicted)² / 2``, with no gradient into the target."""
    return 0.5 * (target.detach() - predicted).square()


def masked_mean(values: Float[Tensor, "*batch"], mask: Float[Tensor, "*batch"]) -> Float[Tensor, ""]:
    """Mean over the places where ``mask`` is 1; 0 where there are none."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def policy_gradient_loss(
    log_prob: Float[Tensor, "*batch"],
    old_log_prob: Float[Tensor, "*batch"],
    advantage: Float[Tensor, "*batch"],
    clip_range: float | None,
) -> Float[Tensor, "*batch"]:
    """The negative of the policy-gradient objective, element by element.

    Args:
        log_prob: of the recorded choice under the present parameters.
        old_log_prob: of the same choice when it was taken.
        advantage: return less baseline; no gradient flows into it.
        clip_range: ``ε`` of PPO's clipped ratio (Schulman et al. 2017, eq. 7), for several epochs on the same choices;
            ``None`` for REINFORCE (Williams 1992).
    """
    advantage = advantage.detach()
    if clip_range is None:
        return -log_prob * advantage
    ratio = (log_prob - old_log_prob.detach()).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip_range, 1 + clip_range) * advantage)


def clipped_value_loss(
    value: Float[Tensor, "*batch"],
    old_value: Float[Tensor, "*batch"],
    target: Float[Tensor, "*batch"],
    clip_range: float | None,
) -> Float[Tensor, "*batch"]:
    """``(target - value)²`` of a value that is kept within ``clip_range`` of what it was when acting (SB3); ``None``: free."""
    if clip_range is not None:
        value = old_value + (value - old_value).clamp(-clip_range, clip_range)
    return (target - value).square()


def explained_variance(predicted: Float[Tensor, "*batch"], target: Float[Tensor, "*batch"]) -> float:
    """``1 - Var[target - predicted] / Var[target]``: 1 for perfect predictions, 0 for a constant; NaN where nothing varies."""
    variance = target.var()
    return float(1 - (target - predicted).var() / variance) if variance > 0 else float("nan")


def greedy_values(q_t: Float[Tensor, "*batch A"], selector_t: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch"]:
    """``q_t`` at the action that ``selector_t`` likes best.

    With another network's values as selector this is double Q-learning (van Hasselt et al. 2016, eq. 4); with ``q_t`` itself,
    its maximum.
    """
    return chosen(q_t, selector_t.argmax(dim=-1))


def n_step_returns(
    r_t: Float[Tensor, "T B"], discount_t: Float[Tensor, "T B"], v_t: Float[Tensor, "T B"], n: int
) -> Float[Tensor, "T B"]:
    """``G_t = r_t + γ_t (r_{t+1} + ... γ_{t+n-1} v_{t+n-1})``; near the end over the steps that are left.

    Args:
        r_t: rewards.
        discount_t: ``γ``, or 0 where the episode ended.
        v_t: value of the next state.
        n: how many rewards before it bootstraps.
    """
    last = n - 1
    r_t = torch.cat([r_t, torch.zeros_like(r_t[:1]).expand(last, -1)])
    discount_t = torch.cat([discount_t, torch.ones_like(discount_t[:1]).expand(last, -1)])
    returns = torch.cat([v_t[last:], v_t[-1:].expand(min(last, len(v_t)), -1)])
    for k in reversed(range(n)):
        steps = slice(k, k + len(v_t))
        returns = r_t[steps] + discount_t[steps] * returns
    return returns


def rescale(x: Float[Tensor, "*batch"], epsilon: float) -> Float[Tensor, "*batch"]:
    """``h(x) = sign(x) (√(|x| + 1) - 1) + ε x`` (Pohlen et al. 2018, proposition A.2): large values made small, invertibly.

    ``sign(x) (√(|x| + 1) - 1)`` as ``x / (√(|x| + 1) + 1)``, which keeps its digits for small ``x``.
    """
    return x / ((x.abs() + 1).sqrt() + 1) + epsilon * x


def unscale(y: Float[Tensor, "*batch"], epsilon: float) -> Float[Tensor, "*batch"]:
    """``h⁻¹(y)`` of :func:`rescale`, in a form that keeps its digits for small ``y``.

    With ``s = √(|x| + 1)``, ``|y| = s - 1 + ε (s² - 1)``, so ``s - 1`` is the positive root of
    ``ε u² + (1 + 2ε) u - |y| = 0``, and ``|x| = u (u + 2)``.
    """
    b = 1 + 2 * epsilon
    u = 2 * y.abs() / (b + (b * b + 4 * epsilon * y.abs()).sqrt())
    return y.sign() * u * (u + 2)
