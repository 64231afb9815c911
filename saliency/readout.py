"""What of a head is differentiated: the few of its outputs, or of their sums, that are about the action taken.

Shapes: ``N`` steps, ``P`` numbers that parametrise a distribution over actions, ``M`` entries of an action mask.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from saccade.policies.actor_critic import ActorCriticPolicy
from saccade.policies.distributions import ActionDistribution, Bernoulli, Categorical, DiagonalGaussian, MultiCategorical
from saccade.policies.policy import CorePolicy
from saccade.policies.q_policy import QPolicy


def readouts(
    policy: CorePolicy,
    features: Float[Tensor, "N D"],
    actions: Shaped[Tensor, "N ..."],
    masks: Bool[Tensor, "N M"] | None = None,
) -> dict[str, Float[Tensor, "N _"]]:
    """What to differentiate of every head that ``policy.outputs`` names.

    - ``advantage`` of a dueling policy: ``A(s, a)`` of the action taken, less the mean over the actions.
    - ``policy`` of an actor-critic: :func:`preference` for the action taken.
    - Any other, ``value`` among them: all its outputs.
    """
    read = policy.outputs(features)
    match policy:
        case QPolicy():
            read["advantage"] = read["advantage"].gather(1, actions[:, None].long())
        case ActorCriticPolicy():
            read["policy"] = preference(policy.distribution, read["policy"], actions, masks)
    return read


def preference(
    distribution: ActionDistribution,
    parameters: Float[Tensor, "N P"],
    actions: Shaped[Tensor, "N ..."],
    masks: Bool[Tensor, "N M"] | None = None,
) -> Float[Tensor, "N _"]:
    """How much the policy prefers the action taken, in numbers that no change of its parametrisation alters.

    Choices (Discrete, MultiDiscrete, MultiBinary): one number, the logit of the choice taken less the mean logit of the
    choices allowed, summed over the parts or bits. A softmax does not see a shift of all its logits, and neither does this.
    Over one Discrete space that enumerates every combination it would be the same number; a bit has the two logits 0 and
    that of its being 1. It is what the advantage is in a dueling head. (The log-probability would be as invariant, and its
    derivative vanish wherever the policy is sure.)

    Numbers (Box): the means, before they are clipped to the space, each in units of its standard deviation, so that a
    rescaled action gives the same. The root of the sum of their squared derivatives, which the maps show, is then the
    root of the Fisher information: moving ``x`` by a small ``h`` moves the policy by a divergence of half its square times
    ``h²``. (The log-density of the mean has no derivative, and in a sum opposite numbers would cancel.)
    """
    count = len(parameters)
    match distribution:
        case DiagonalGaussian():
            return parameters / distribution.log_std.exp()
        case Categorical():
            parts: Sequence[Tensor] = [parameters]
        case MultiCategorical():
            parts = parameters.split(distribution.sizes, dim=1)
        case Bernoulli():
            parts = torch.stack([torch.zeros_like(parameters), parameters], dim=2).unbind(dim=1)
        case _:
            return parameters
    allowed = torch.ones_like(torch.cat(list(parts), dim=1), dtype=torch.bool) if masks is None else masks
    taken = actions.reshape(count, -1).long().unbind(dim=1)
    sizes = [part.shape[1] for part in parts]
    rows = zip(parts, taken, allowed.split(sizes, dim=1), strict=True)
    return torch.stack([above_mean(*row) for row in rows], dim=1).sum(dim=1, keepdim=True)


def above_mean(logits: Float[Tensor, "N A"], taken: Shaped[Tensor, " N"], allowed: Bool[Tensor, "N A"]) -> Float[Tensor, " N"]:
    """The logit taken, less the mean of those allowed; always 0 where one alone is."""
    mean = torch.where(allowed, logits, 0).sum(dim=1) / allowed.sum(dim=1)
    return logits.gather(1, taken[:, None])[:, 0] - mean
