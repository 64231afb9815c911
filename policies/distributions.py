"""Distributions over actions, as functions of a head's outputs: no distribution objects are made while acting or learning.

Shapes: ``P`` numbers that parametrise a distribution, any leading axes. A subclass is chosen by the action space.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

MASKED = -1e8
"""Logit of an action that is not allowed: its probability is exactly 0, its gradient finite."""


class Scores(NamedTuple):
    """Of given actions: ``log_prob`` ``[...]``, and the ``entropy`` ``[...]`` of the distribution they were drawn from."""

    log_prob: Float[Tensor, "*batch"]
    entropy: Float[Tensor, "*batch"]


class Draw(NamedTuple):
    """``actions`` drawn at random ``[..., *action shape]``, and their ``log_prob`` ``[...]``."""

    actions: Tensor
    log_prob: Float[Tensor, "*batch"]


class ActionDistribution(nn.Module, ABC):
    """One distribution for each position of a batch.

    Attributes:
        n_parameters: ``P``, how many outputs of the policy head it reads.
        choices: how many entries of an action mask belong to each choice; none where actions cannot be masked.
        mask_size: how many entries an action mask has.
    """

    def __init__(self, n_parameters: int, choices: Sequence[int] = ()) -> None:
        super().__init__()
        self.n_parameters = n_parameters
        self.choices = tuple(choices)
        self.mask_size = sum(choices)

    @abstractmethod
    def sample(self, parameters: Float[Tensor, "*batch P"]) -> Draw:
        """Actions drawn at random; they carry no gradient."""

    @abstractmethod
    def mode(self, parameters: Float[Tensor, "*batch P"]) -> Tensor:
        """The most likely actions, ``[..., *action shape]``."""

    @abstractmethod
    def score(self, parameters: Float[Tensor, "*batch P"], actions: Tensor) -> Scores:
        """Log-probability of actions ``[..., *action shape]``, and entropy."""

    def mask(self, parameters: Float[Tensor, "*batch P"], allowed: Bool[Tensor, "*batch M"]) -> Float[Tensor, "*batch P"]:
        """Parameters under which only the allowed choices have any probability."""
        return torch.where(allowed, parameters, MASKED)


class CategoricalScores(torch.autograd.Function):
    """:func:`categorical` with its gradient written out: one node of the graph instead of seven."""

    @staticmethod
    def forward(ctx: Any, logits: Float[Tensor, "*batch P"], actions: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability and entropy."""
        log_probs = logits.log_softmax(dim=-1)
        probs = log_probs.exp()
        index = actions.unsqueeze(-1)
        entropy = torch.special.entr(probs).sum(dim=-1)
        ctx.save_for_backward(log_probs, probs, index, entropy)
        ctx.set_materialize_grads(False)
        return log_probs.gather(-1, index).squeeze(-1), entropy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, None]:
        """By logits: ``1[a] - p`` of a log-probability, ``-p (log p + H)`` of the entropy ``H``.

        Raises:
            RuntimeError: a gradient that can itself be differentiated is asked for (``create_graph=True``).
        """
        if torch.is_grad_enabled():
            raise RuntimeError("the gradient of categorical scores has no derivative (create_graph=True)")
        log_probs, probs, index, entropy = ctx.saved_tensors
        by_log_prob, by_entropy = gradients
        by_logits = None
        if by_log_prob is not None:
            by_log_prob = by_log_prob.unsqueeze(-1)
            by_logits = (by_log_prob * probs).neg_().scatter_add_(-1, index, by_log_prob)
        if by_entropy is not None:
            by_entropy = (by_entropy.unsqueeze(-1) * probs).mul_(log_probs + entropy.unsqueeze(-1)).neg_()
            by_logits = by_entropy if by_logits is None else by_logits.add_(by_entropy)
        return by_logits, None


def categorical(logits: Float[Tensor, "*batch P"], actions: Tensor) -> Scores:
    """Scores of whole-number actions ``[...]`` under a softmax over the last axis."""
    return Scores(*CategoricalScores.apply(logits, actions))  # type: ignore[no-untyped-call]


def draw(logits: Float[Tensor, "*batch P"]) -> Draw:
    """Whole numbers ``[...]`` drawn from a softmax over the last axis: the first of independent exponential clocks to ring."""
    log_probs = logits.log_softmax(dim=-1)
    actions = (log_probs.exp() / torch.empty_like(logits).exponential_()).argmax(dim=-1, keepdim=True)
    return Draw(actions.squeeze(-1), log_probs.gather(-1, actions).squeeze(-1))


class Categorical(ActionDistribution):
    """For ``Discrete``: a softmax over ``A`` logits."""

    def __init__(self, space: gym.spaces.Discrete) -> None:
        super().__init__(int(space.n), choices=[int(space.n)])

    def sample(self, parameters: Tensor) -> Draw:
        """Whole numbers ``[...]``."""
        return draw(parameters)

    def mode(self, parameters: Tensor) -> Tensor:
        """Whole numbers ``[...]``."""
        return parameters.argmax(dim=-1)

    def score(self, parameters: Tensor, actions: Tensor) -> Scores:
        """Of whole numbers ``[...]``."""
        return categorical(parameters, actions)


class MultiCategorical(ActionDistribution):
    """For ``MultiDiscrete``: an independent softmax for each of its parts."""

    def __init__(self, space: gym.spaces.MultiDiscrete) -> None:
        self.sizes = [int(size) for size in space.nvec.reshape(-1)]
        super().__init__(sum(self.sizes), choices=self.sizes)

    def sample(self, parameters: Tensor) -> Draw:
        """Whole numbers ``[..., parts]``."""
        draws = [draw(part) for part in parameters.split(self.sizes, dim=-1)]
        return Draw(
            torch.stack([one.actions for one in draws], dim=-1), torch.stack([one.log_prob for one in draws]).sum(dim=0)
        )

    def mode(self, parameters: Tensor) -> Tensor:
        """Whole numbers ``[..., parts]``."""
        return torch.stack([part.argmax(dim=-1) for part in parameters.split(self.sizes, dim=-1)], dim=-1)

    def score(self, parameters: Tensor, actions: Tensor) -> Scores:
        """Of whole numbers ``[..., parts]``: sums over the parts."""
        parts = zip(parameters.split(self.sizes, dim=-1), actions.unbind(dim=-1), strict=True)
        log_probs, entropies = zip(*(categorical(logits, action) for logits, action in parts), strict=True)
        return Scores(torch.stack(log_probs).sum(dim=0), torch.stack(entropies).sum(dim=0))


class Bernoulli(ActionDistribution):
    """For ``MultiBinary``: an independent coin for each of its bits. Masks are two entries a bit: may it be 0, may it be 1."""

    def __init__(self, space: gym.spaces.MultiBinary) -> None:
        size = int(np.prod(space.shape))
        super().__init__(size, choices=[2] * size)

    def sample(self, parameters: Tensor) -> Draw:
        """Zeros and ones ``[..., bits]``."""
        actions = (torch.rand_like(parameters) < parameters.sigmoid()).to(torch.int8)
        return Draw(actions, self.score(parameters, actions).log_prob)

    def mode(self, parameters: Tensor) -> Tensor:
        """Zeros and ones ``[..., bits]``."""
        return (parameters > 0).to(torch.int8)

    def score(self, parameters: Tensor, actions: Tensor) -> Scores:
        """Of zeros and ones ``[..., bits]``: sums over the bits."""
        one, zero = nn.functional.logsigmoid(parameters), nn.functional.logsigmoid(-parameters)
        log_prob = torch.where(actions.bool(), one, zero).sum(dim=-1)
        return Scores(log_prob, -(one.exp() * one + zero.exp() * zero).sum(dim=-1))

    def mask(self, parameters: Tensor, allowed: Tensor) -> Tensor:
        """A bit that may not be 1 is 0, and the other way round."""
        zero, one = allowed.unflatten(-1, (self.n_parameters, 2)).unbind(dim=-1)
        return torch.where(one, torch.where(zero, parameters, -MASKED), MASKED)


class DiagonalGaussian(ActionDistribution):
    """For ``Box``: an independent normal for each number, its mean from the head, its spread a parameter of its own.

    Actions are not bounded; whoever acts clips them to the space, as SB3 does.
    """

    def __init__(self, space: gym.spaces.Box, log_std_init: float = 0.0) -> None:
        size = int(np.prod(space.shape))
        super().__init__(size)
        self.shape = space.shape
        self.log_std = nn.Parameter(torch.full((size,), float(log_std_init)))

    def sample(self, parameters: Tensor) -> Draw:
        """Numbers ``[..., *shape]``."""
        noise = torch.randn_like(parameters) * self.log_std.detach().exp()
        actions = (parameters.detach() + noise).reshape(*parameters.shape[:-1], *self.shape)
        return Draw(actions, self.score(parameters, actions).log_prob)

    def mode(self, parameters: Tensor) -> Tensor:
        """The means ``[..., *shape]``."""
        return parameters.reshape(*parameters.shape[:-1], *self.shape)

    def score(self, parameters: Tensor, actions: Tensor) -> Scores:
        """Of numbers ``[..., *shape]``."""
        distance = (actions.reshape(parameters.shape) - parameters) * (-self.log_std).exp()
        spread = self.log_std.sum()
        log_prob = -0.5 * distance.square().sum(dim=-1) - spread - 0.5 * self.n_parameters * math.log(2 * math.pi)
        entropy = spread + 0.5 * self.n_parameters * (1 + math.log(2 * math.pi))
        return Scores(log_prob, entropy.expand(log_prob.shape))


def action_distribution(space: gym.Space[Any], log_std_init: float = 0.0) -> ActionDistribution:
    """The distribution over actions of a space.

    Raises:
        ValueError: none is known for it, it has several axes of choices, or its numbers do not start at 0.
    """
    if isinstance(space, gym.spaces.MultiDiscrete | gym.spaces.MultiBinary) and len(space.shape) != 1:
        raise ValueError(f"actions of several choices must be a vector of them; got {space}")
    starts: Any = getattr(space, "start", 0)
    if np.any(np.asarray(starts) != 0):
        raise ValueError(f"actions must start at 0; got {space}")
    match space:
        case gym.spaces.Discrete():
            return Categorical(space)
        case gym.spaces.MultiDiscrete():
            return MultiCategorical(space)
        case gym.spaces.MultiBinary():
            return Bernoulli(space)
        case gym.spaces.Box():
            return DiagonalGaussian(space, log_std_init)
    raise ValueError(f"actions must be Discrete, MultiDiscrete, MultiBinary or Box; got {space}")
