"""Where to look next: gaze policies for hard attention (Mnih et al. 2014, section 3.1, "location network")."""

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from saccade.policies.controller import check_sizes
from saccade.policies.core import Decision


class GazePolicy(nn.Module, ABC):
    """Chooses a gaze ``(x, y)`` from features; nominally in ``[-1, 1]^2``, clamped there by whoever looks."""

    trained: bool = True
    """Whether the choice has a probability that REINFORCE can raise or lower."""

    @abstractmethod
    def forward(
        self, features: Float[Tensor, "*batch D"], replay: Float[Tensor, "*batch 2"] | None, deterministic: bool
    ) -> Decision:
        """Score ``replay`` where it is given; choose otherwise: the likeliest if ``deterministic``, else a sample."""


class LearnedGaze(GazePolicy):
    """A Gaussian around a mean computed from the features, for REINFORCE.

    Args:
        features_dim: ``D``.
        sigma: standard deviation ``σ`` of the gaze, in units of half the image.
        learn_sigma: train ``log σ`` as a parameter; otherwise it stays as it is and the entropy is constant.
        detach: keep REINFORCE's gradient out of the features; the core is then trained by the agent's loss alone.

    Raises:
        ValueError: ``sigma`` is not positive.
    """

    log_sigma: Tensor

    def __init__(self, features_dim: int, sigma: float = 0.05, learn_sigma: bool = False, detach: bool = False) -> None:
        super().__init__()
        if sigma <= 0:
            raise ValueError(f"gaze sigma must be positive (units of half the image); got {sigma}")
        self.mean = nn.Linear(features_dim, 2)
        nn.init.zeros_(self.mean.bias)
        nn.init.normal_(self.mean.weight, std=0.1 / math.sqrt(features_dim))
        self.detach = detach
        start = torch.full((2,), math.log(sigma))
        if learn_sigma:
            self.log_sigma = nn.Parameter(start)
        else:
            self.register_buffer("log_sigma", start)

    def forward(
        self, features: Float[Tensor, "*batch D"], replay: Float[Tensor, "*batch 2"] | None, deterministic: bool
    ) -> Decision:
        """``l ~ N(tanh(f_l(h)), σ²)``; its log-probability is that of the unclamped sample."""
        mean = torch.tanh(self.mean(features.detach() if self.detach else features))
        sigma = self.log_sigma.exp()
        if replay is None:
            replay = mean.detach() if deterministic else mean.detach() + sigma.detach() * torch.randn_like(mean)
        distance = ((replay - mean) / sigma).square()
        log_prob = (-0.5 * distance - self.log_sigma - 0.5 * math.log(2 * math.pi)).sum(-1)
        entropy = (self.log_sigma + 0.5 * (1 + math.log(2 * math.pi))).sum(-1).expand_as(log_prob)
        return Decision(replay, log_prob, entropy)


class CellGaze(GazePolicy):
    """One of the cells of a grid over the image, each with a probability computed from the features, for REINFORCE.

    A gaze is the middle of a cell; one that is scored may lie anywhere in it.

    Args:
        features_dim: ``D``.
        rows: of cells.
        columns: of cells.
        detach: keep REINFORCE's gradient out of the features.

    Raises:
        ValueError: ``rows`` or ``columns`` is below 1.
    """

    centres: Tensor

    def __init__(self, features_dim: int, rows: int = 6, columns: int = 6, detach: bool = False) -> None:
        super().__init__()
        check_sizes("CellGaze", rows=rows, columns=columns)
        self.rows, self.columns, self.detach = rows, columns, detach
        self.scores = nn.Linear(features_dim, rows * columns)
        nn.init.zeros_(self.scores.bias)
        nn.init.normal_(self.scores.weight, std=0.1 / math.sqrt(features_dim))
        self.register_buffer("centres", cell_centres(rows, columns), persistent=False)

    def forward(
        self, features: Float[Tensor, "*batch D"], replay: Float[Tensor, "*batch 2"] | None, deterministic: bool
    ) -> Decision:
        """A cell by the softmax of its scores."""
        log_probs = self.scores(features.detach() if self.detach else features).log_softmax(-1)
        probs = log_probs.exp()
        if replay is not None:
            cell = cell_of(replay, self.rows, self.columns)
        elif deterministic:
            cell = log_probs.argmax(-1)
        else:
            cell = torch.multinomial(probs.detach().flatten(0, -2), 1).view(probs.shape[:-1])
        log_prob = log_probs.gather(-1, cell.unsqueeze(-1)).squeeze(-1)
        return Decision(self.centres[cell] if replay is None else replay, log_prob, -(probs * log_probs).sum(-1))


class UntrainedGaze(GazePolicy):
    """Shared by gazes without parameters, the baselines that a learned gaze has to beat."""

    trained = False

    def __init__(self, features_dim: int) -> None:
        super().__init__()

    @abstractmethod
    def choose(self, shape: Float[Tensor, "*batch 2"]) -> Tensor:
        """A new gaze of that shape."""

    def forward(
        self, features: Float[Tensor, "*batch D"], replay: Float[Tensor, "*batch 2"] | None, deterministic: bool
    ) -> Decision:
        """The chosen gaze, with log-probability and entropy zero."""
        chosen = self.choose(features.new_zeros((*features.shape[:-1], 2))) if replay is None else replay
        zeros = features.new_zeros(features.shape[:-1])
        return Decision(chosen, zeros, zeros)


class CentreGaze(UntrainedGaze):
    """Always the middle of the image."""

    def choose(self, shape: Float[Tensor, "*batch 2"]) -> Tensor:
        """Zeros."""
        return torch.zeros_like(shape)


class RandomGaze(UntrainedGaze):
    """Uniform over the image, the same whether or not the policy is deterministic."""

    def choose(self, shape: Float[Tensor, "*batch 2"]) -> Tensor:
        """Uniform in ``[-1, 1]^2``."""
        return torch.rand_like(shape) * 2 - 1


def cell_centres(height: int, width: int) -> Float[Tensor, "places 2"]:
    """The middle of each cell of a grid, ``(x, y)`` in ``[-1, 1]``, row by row."""
    y, x = ((torch.arange(length) + 0.5) / length * 2 - 1 for length in (height, width))
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1).flatten(0, 1)


def cell_of(gaze: Float[Tensor, "*batch 2"], height: int, width: int) -> Int[Tensor, "*batch"]:
    """The number of the cell, row by row, that ``(x, y)`` lies in; of the nearest one outside ``[-1, 1]``."""
    places = (gaze + 1) / 2 * gaze.new_tensor([width, height])
    column, row = places.floor().long().clamp(min=0).unbind(-1)
    return row.clamp(max=height - 1) * width + column.clamp(max=width - 1)
