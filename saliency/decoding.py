"""What can be read off a memory: a linear decoder, tried on episodes that it was not made from.

Graves et al. 2016 (Nature 538), figure 4d, decode an agent's first moves from its memory before it has made them; so did
Alain & Bengio 2016 (arXiv:1610.01644), whose linear probes these are, for every layer of a network.

Shapes: ``E`` episodes, ``D`` numbers of each.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

FOLDS = 5
"""Every episode is decoded once, by a decoder made from the other four fifths."""
PENALTY = 1e-2
"""Weight of half the squared weights beside the mean loss; numbers have spread 1."""
STEPS = 200
"""At most, of L-BFGS; a few tens are usual."""


class Decoding(NamedTuple):
    """How often a linear decoder is right.

    Attributes:
        accuracy: share of the episodes.
        chance: of a decoder that always names the label that is most frequent in the episodes that it was made from.
    """

    accuracy: float
    chance: float


def decode(numbers: Float[np.ndarray, "E D"], labels: Integer[np.ndarray, " E"], seed: int = 0) -> Decoding:
    """Decode each episode's label from its numbers, by softmax regression with a ridge penalty, five folds.

    Args:
        numbers: what an agent holds at one moment of each episode, the vectors read from its memory, say.
        labels: what is to be found in them, its next action, say; whole numbers from 0 up.
        seed: of the folds.

    Raises:
        ValueError: there are fewer than two episodes a fold.
    """
    if len(labels) < 2 * FOLDS:
        raise ValueError(f"decode needs at least {2 * FOLDS} episodes, two a fold; got {len(labels)}")
    fold = np.random.default_rng(seed).permutation(len(labels)) % FOLDS
    classes, y = np.unique(labels, return_inverse=True)
    right, common = 0, 0
    for held_out in range(FOLDS):
        train, test = fold != held_out, fold == held_out
        mean, spread = numbers[train].mean(axis=0), numbers[train].std(axis=0)
        x = torch.as_tensor((numbers - mean) / np.where(spread > 0, spread, 1), dtype=torch.float64)
        weight, bias = regression(x[train], torch.as_tensor(y[train]), len(classes))
        named = (x[test] @ weight + bias).argmax(dim=1).numpy()
        right += int((named == y[test]).sum())
        common += int((y[test] == np.bincount(y[train]).argmax()).sum())
    return Decoding(right / len(labels), common / len(labels))


def regression(x: Float[Tensor, "E D"], y: Integer[Tensor, " E"], classes: int) -> tuple[Tensor, Tensor]:
    """Weights ``[D, classes]`` and biases of a softmax regression; convex, so there is one answer."""
    weight = x.new_zeros(x.shape[1], classes).requires_grad_()
    bias = x.new_zeros(classes).requires_grad_()
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = nn.functional.cross_entropy(x @ weight + bias, y) + PENALTY / 2 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return weight.detach(), bias.detach()
