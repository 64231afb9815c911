"""PPO's objective with its gradient written out.

One node of the graph instead of some twenty: in small minibatches each operation costs more than its arithmetic.
Shapes: ``L`` steps of ``N`` sequences.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Objective(NamedTuple):
    """The numbers of PPO's loss.

    Attributes:
        clip_range: ``ε`` of the clipped ratio.
        clip_range_vf: how far a value may move from what it was; ``None`` for no limit.
        ent_coef: weight of the entropy bonus.
        vf_coef: weight of the value's loss.
        measure: whether to say more than the loss.
    """

    clip_range: float
    clip_range_vf: float | None
    ent_coef: float
    vf_coef: float
    measure: bool = True


class Recorded(NamedTuple):
    """What was known when the actions were taken: their ``log_probs`` and ``values``, their ``advantages`` and ``returns``."""

    log_probs: Float[Tensor, "L N"]
    values: Float[Tensor, "L N"]
    advantages: Float[Tensor, "L N"]
    returns: Float[Tensor, "L N"]


class PPOLoss(torch.autograd.Function):
    """Schulman et al. 2017, eq. 9, in the means of :func:`~saccade.agents.losses.policy_gradient_loss` and others."""

    @staticmethod
    def forward(
        ctx: Any,
        log_prob: Float[Tensor, "L N"],
        entropy: Float[Tensor, "L N"],
        value: Float[Tensor, "L N"],
        recorded: Recorded,
        objective: Objective,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " 5"] | None]:
        """The loss; and the means of value loss, policy loss, entropy, estimated divergence and share of clipped ratios.

        The means are only taken if the objective is to be measured, for they cost as much as the loss.
        """
        clip_range, clip_range_vf, ent_coef, vf_coef, measure = objective
        log_ratio = log_prob - recorded.log_probs
        ratio = log_ratio.exp()
        free = ratio * recorded.advantages
        kept = torch.minimum(free, ratio.clamp(1 - clip_range, 1 + clip_range) * recorded.advantages)
        error = slope = value - recorded.returns
        if clip_range_vf is not None:
            moved = value - recorded.values
            clamped = moved.clamp(-clip_range_vf, clip_range_vf)
            error = recorded.values + clamped - recorded.returns
            slope = torch.where(moved == clamped, error, 0)
        losses = error.square().mul_(vf_coef).sub_(kept)
        loss = (losses.sub_(entropy, alpha=ent_coef) if ent_coef else losses).mean()
        # d ratio / d log_prob = ratio; where the clipped ratio is the smaller term, it is constant.
        ctx.save_for_backward((kept * (free == kept)).mul_(-1 / free.numel()), slope * (2 * vf_coef / free.numel()))
        ctx.entropy_slope = -ent_coef / free.numel()
        ctx.set_materialize_grads(False)
        if not measure:
            return loss, None
        change = ratio - 1
        # Schulman's estimate of the divergence from the policy that acted, http://joschu.net/blog/kl-approx.html
        terms = (error.square(), -kept, entropy, change - log_ratio, (change.abs() > clip_range).to(error.dtype))
        means = torch.stack(terms).flatten(1).mean(dim=1)
        ctx.mark_non_differentiable(means)
        return loss, means

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """By log-probability, entropy and value.

        Raises:
            RuntimeError: a gradient that can itself be differentiated is asked for (``create_graph=True``).
        """
        if torch.is_grad_enabled():
            raise RuntimeError("the gradient of PPOLoss has no derivative (create_graph=True)")
        log_prob, value = ctx.saved_tensors
        scale = gradients[0]
        assert scale is not None
        entropy = (scale * ctx.entropy_slope).expand_as(log_prob) if ctx.needs_input_grad[1] else None
        return scale * log_prob, entropy, scale * value, None, None
