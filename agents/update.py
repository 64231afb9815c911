"""One gradient step, and what the lecture says to watch while taking it."""

from collections import defaultdict, deque
from collections.abc import Sequence
from math import isfinite
from typing import NamedTuple

import torch
from jaxtyping import Float
from stable_baselines3.common.logger import Logger
from torch import Tensor, nn

from saccade.policies.policy import CorePolicy

WINDOW = 1000
"""The most gradient steps whose terms are averaged in a row of metrics."""


class LossTerms(NamedTuple):
    """A scalar to minimise, and detached scalars to log."""

    loss: Float[Tensor, ""]
    metrics: dict[str, Tensor]


class Updater:
    """Takes clipped gradient steps on a policy and averages what it sees until :meth:`log` is called.

    Gradient norms of the policy's parts (torso, core, heads) are of the first step after each :meth:`log`.

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
        self._parts_due = True
        # Bounded: a training may never write a row.
        self._seen: defaultdict[str, deque[Tensor]] = defaultdict(lambda: deque(maxlen=WINDOW))

    @property
    def has_stepped(self) -> bool:
        """Whether there is anything to log."""
        return bool(self._seen)

    def step(self, terms: LossTerms) -> None:
        """Descend; a step whose gradient is not finite is counted and left out."""
        for parameter in self.parameters:  # an optimiser's zero_grad takes as long as a small layer
            parameter.grad = None
        terms.loss.backward()
        if self._parts_due:  # once a row of the log: norms of every part in every step would cost as much as the steps
            self._parts_due = False
            for name, part in self.parts.items():
                if part:
                    self._seen[f"grad_norm_{name}"].append(grad_norm(part))
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        size = float(norm)
        if isfinite(size):
            if size > self.max_grad_norm:
                torch._foreach_mul_(gradients, self.max_grad_norm / (size + 1e-6))
            self.policy.optimizer.step()
        else:
            self.skipped += 1
        for name, value in (("loss", terms.loss.detach()), ("grad_norm", norm), *terms.metrics.items()):
            self._seen[name].append(value)

    def log(self, logger: Logger) -> None:
        """Record the means since the last call, of the last ``WINDOW`` steps at most, as ``train/...``."""
        for name, values in self._seen.items():
            logger.record(f"train/{name}", float(torch.stack(list(values)).mean()))
        logger.record("train/skipped_updates", self.skipped)
        self._seen.clear()
        self._parts_due = True


def grad_norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Euclidean norm of the parameters' gradients."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return nn.utils.get_total_norm(gradients) if gradients else torch.zeros(())
