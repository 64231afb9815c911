"""One gradient step, and what the lecture says to watch while taking it."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from stable_baselines3.common.logger import Logger
from torch import Tensor, nn

from saccade.policies.policy import CorePolicy


class LossTerms(NamedTuple):
    """A scalar to minimise, and detached scalars to log."""

    loss: Float[Tensor, ""]
    metrics: dict[str, Tensor]


class Updater:
    """Takes clipped gradient steps on a policy and averages what it sees until :meth:`log` is called.

    Args:
        policy: its ``optimizer`` steps.
        max_grad_norm: gradients are scaled down to this norm.

    Attributes:
        skipped: how many steps were left out because a gradient was not finite.
    """

    def __init__(self, policy: CorePolicy, max_grad_norm: float) -> None:
        self.policy = policy
        self.max_grad_norm = max_grad_norm
        # Listed once: walking the modules costs as much as a norm.
        self.parameters = list(policy.parameters())
        self.parts = {name: list(part.parameters()) for name, part in policy.named_children()}
        self.skipped = 0
        self._sums: defaultdict[str, list[Tensor]] = defaultdict(list)

    def step(self, terms: LossTerms) -> None:
        """Descend; a step whose gradient is not finite is counted and left out."""
        self.policy.optimizer.zero_grad(set_to_none=True)
        terms.loss.backward()
        for name, part in self.parts.items():
            if part:
                self._sums[f"grad_norm_{name}"].append(grad_norm(part))
        norm = nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm)
        if bool(torch.isfinite(norm)):
            self.policy.optimizer.step()
        else:
            self.skipped += 1
        for name, value in {"loss": terms.loss.detach(), "grad_norm": norm, **terms.metrics}.items():
            self._sums[name].append(value)

    def log(self, logger: Logger) -> None:
        """Record the means since the last call as ``train/...``."""
        for name, values in self._sums.items():
            logger.record(f"train/{name}", float(torch.stack(values).mean()))
        logger.record("train/skipped_updates", self.skipped)
        self._sums.clear()


def grad_norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Euclidean norm of the parameters' gradients."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return nn.utils.get_total_norm(gradients) if gradients else torch.zeros(())
