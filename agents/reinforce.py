"""REINFORCE for a core's latent decisions (a gaze), next to any agent's own loss (Mnih et al. 2014, section 3.2)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from saccade.agents.losses import masked_mean, policy_gradient_loss, squared_error
from saccade.agents.rollout import Rollout
from saccade.agents.update import LossTerms
from saccade.policies.core import CoreOutput
from saccade.policies.policy import CorePolicy


@dataclass(frozen=True)
class Reinforce:
    """How latent decisions are trained.

    A decision taken after step ``t`` acts from step ``t + 1`` on, so its return is the agent's own return of step ``t``
    less the reward of step ``t``. At the last step of an episode it acts on nothing and is left out.

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


def core_terms(
    policy: CorePolicy, core: CoreOutput, batch: Rollout, returns: Float[Tensor, "T B"], reinforce: Reinforce
) -> LossTerms:
    """What a core adds to the loss of any agent: its own cost, and REINFORCE for its latent decisions.

    Args:
        policy: holds the learned baseline.
        core: the core's output for all the observations of the batch, ``T + 1`` steps.
        batch: the sequences, with the decisions taken then.
        returns: the agent's own return from each step on, its reward included.
        reinforce: how decisions are trained.
    """
    loss, metrics = returns.new_zeros(()), {}
    if core.cost is not None:
        cost = core.cost[:-1].mean()
        loss, metrics = loss + cost, {"core_cost": cost.detach()}
    if policy.baseline is None or core.decision is None:
        return LossTerms(loss, metrics)
    decisions = reinforce(
        core.decision.log_prob[:-1],
        batch.decision_log_probs,
        core.decision.entropy[:-1],
        policy.baseline(core.features[:-1].detach()).squeeze(-1),
        returns=returns - batch.rewards,
        mask=batch.continues(),
    )
    return LossTerms(loss + decisions.loss, {**metrics, **decisions.metrics})
