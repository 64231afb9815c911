"""REINFORCE for a core's latent decisions (a gaze), next to any agent's own loss (Mnih et al. 2014, section 3.2)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from saccade.agents.losses import masked_mean, policy_gradient_loss, squared_error
from saccade.agents.update import LossTerms
from saccade.policies.core import CoreOutput
from saccade.policies.policy import CorePolicy


@dataclass(frozen=True)
class Reinforce:
    """How latent decisions are trained.

    A decision taken after step ``t`` acts from step ``t + 1`` on, so its return is the agent's own return of step ``t``
    less the reward of step ``t``. At the last step of an episode it acts on nothing and is left out. A decision that comes
    with a context of its own acts in step ``t`` already: its return is the agent's, and it is never left out.

    Attributes:
        coef: weight of the policy-gradient term beside the agent's loss.
        clip_range: PPO's clip of the decision's own probability ratio, for several epochs over the same decisions; measured:
            without one, or inside the action's ratio, the gaze learns nothing. ``None`` for one epoch.
        ent_coef: weight of the entropy bonus; matters only where the spread ``σ`` is learned.
        baseline_coef: weight of the baseline's squared error.
        normalize_advantage: divide advantages by their root mean square over the minibatch.
    """

    coef: float = 0.3
    clip_range: float | None = 0.2
    ent_coef: float = 0.0
    baseline_coef: float = 0.5
    normalize_advantage: bool = True

    def __call__(
        self,
        log_prob: Float[Tensor, "T B"],
        old_log_prob: Float[Tensor, "T B"],
        entropy: Float[Tensor, "T B"],
        baseline: Float[Tensor, "T B"],
        returns: Float[Tensor, "T B"],
        mask: Float[Tensor, "T B"],
    ) -> LossTerms:
        """The terms for one minibatch.

        Args:
            log_prob: of the recorded decisions, under the present parameters.
            old_log_prob: of the same decisions when they were taken.
            entropy: of the distribution they were drawn from.
            baseline: learned estimate of ``returns`` from what was known before the decision.
            returns: what followed the decision.
            mask: 1 where the decision acted on something, else 0.
        """
        advantage = (returns - baseline).detach()
        if self.normalize_advantage:
            advantage = advantage / (masked_mean(advantage.square(), mask).sqrt() + 1e-6)
        policy = masked_mean(policy_gradient_loss(log_prob, old_log_prob, advantage, self.clip_range), mask)
        entropy_mean = masked_mean(entropy, mask)
        baseline_loss = masked_mean(squared_error(baseline, returns), mask)
        loss = self.coef * policy - self.ent_coef * entropy_mean + self.baseline_coef * baseline_loss
        with torch.no_grad():
            ratio = (log_prob - old_log_prob).exp()
            clipped = ((ratio - 1).abs() > (self.clip_range or float("inf"))).float()
            metrics = {
                "gaze_loss": policy.detach(),
                "gaze_entropy": entropy_mean.detach(),
                "gaze_baseline_loss": baseline_loss.detach(),
                "gaze_clip_fraction": masked_mean(clipped, mask),
            }
        return LossTerms(loss, metrics)


def core_cost(core: CoreOutput, mask: Float[Tensor, "T B"] | None = None) -> LossTerms:
    """What a core asks for its steps, a ponder cost say, in the mean over all or those where ``mask`` is 1; often nothing."""
    if core.cost is None:
        return LossTerms(core.features.new_zeros(()), {})

    def mean(part: Tensor) -> Tensor:
        return part.mean() if mask is None else masked_mean(part[: len(mask)], mask)

    cost = mean(core.cost)
    ponder = {} if core.ponder is None else {"ponder": mean(core.ponder).detach()}
    return LossTerms(cost, {"core_cost": cost.detach(), **ponder})


def core_terms(
    policy: CorePolicy,
    core: CoreOutput,
    old_log_prob: Float[Tensor, "T B"],
    continues: Float[Tensor, "T B"],
    returns: Float[Tensor, "T B"],
    rewards: Float[Tensor, "T B"],
    reinforce: Reinforce,
    mask: Float[Tensor, "T B"] | None = None,
) -> LossTerms:
    """What a core adds to the loss of any agent: its own cost, and REINFORCE for its latent decisions.

    Args:
        policy: holds the learned baseline.
        core: the core's output for ``T`` steps or more; further ones are left out.
        old_log_prob: of the decisions when they were taken.
        continues: 1 where a step is learned from and the episode goes on after it, else 0.
        returns: the agent's own, of every step.
        rewards: of every step.
        reinforce: how decisions are trained.
        mask: 1 for steps that are learned from; all are without one.
    """
    steps, learned = len(returns), torch.ones_like(returns) if mask is None else mask
    cost, decision = core_cost(core, learned), core.decision
    if policy.baseline is None or decision is None:
        return cost
    acts_at_once = decision.context is not None
    known = core.features if decision.context is None else decision.context
    decisions = reinforce(
        decision.log_prob[:steps],
        old_log_prob,
        decision.entropy[:steps],
        policy.baseline(known[:steps].detach()).squeeze(-1),
        returns if acts_at_once else returns - rewards,
        mask=learned if acts_at_once else continues,
    )
    return LossTerms(cost.loss + decisions.loss, {**cost.metrics, **decisions.metrics})
