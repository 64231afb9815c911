"""Associative attention: what is looked up is found by its content.

Bahdanau et al. 2015, "Neural Machine Translation by Jointly Learning to Align and Translate" (arXiv:1409.0473).
Shapes: ``B`` batch, ``N`` elements: places of a grid, or of a sequence; ``K`` numbers of a key.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saccade.policies.attending import Attending, Reading
from saccade.policies.controller import check_sizes
from saccade.policies.core import Core, Reads, State
from saccade.policies.recurrent import LSTM
from saccade.policies.tap import TapKind, is_recording, tap


class Score(StrEnum):
    """How well an element fits a question."""

    ADDITIVE = "additive"  # v · tanh(W q + U k), Bahdanau et al. 2015, appendix A.1.2
    DOT = "dot"  # q · k / √K, Vaswani et al. 2017, eq. 1


class AssociativeAttention(Attending):
    """Looks up the elements of a sequence, or the places of a grid, by what they are, and not by where.

    Keys and values are projections of the elements; the recurrent core's features of the step before ask, are compared with
    every key, and the mean of the values by a softmax of these scores is what it reads: aligned by learning alone. What is
    looked up is the tap ``attention``.

    Args:
        input_shape: ``(C, h, w)`` of a grid, or ``(N, C)`` of a sequence.
        hidden_size: features of the recurrent core.
        key_size: ``K``.
        value_size: numbers of a value, which is what is read.
        score: ``additive`` or ``dot``.
        memory: makes the recurrent core: a core class, or a partial of one.

    Raises:
        ValueError: the input is neither, a size is below 1, there is no such score, or the memory takes latent decisions.
    """

    reads: ClassVar[tuple[Reads, ...]] = (Reads.GRID, Reads.SEQUENCE)

    def __init__(
        self,
        input_shape: Sequence[int],
        hidden_size: int = 128,
        key_size: int = 32,
        value_size: int = 64,
        score: str = "additive",
        memory: Callable[..., Core] = LSTM,
    ) -> None:
        check_sizes(type(self).__name__, key_size=key_size, value_size=value_size)
        if score not in set(Score):
            raise ValueError(f"score is {score!r}; it must be one of {', '.join(Score)}")
        super().__init__(input_shape, value_size, hidden_size, memory)
        features = self.input_shape[0] if len(self.input_shape) == 3 else self.input_shape[1]
        self.key, self.value = nn.Linear(features, key_size), nn.Linear(features, value_size)
        self.query = nn.Linear(self.features_dim, key_size)
        self.align = nn.Linear(key_size, 1, bias=False) if score == Score.ADDITIVE else None

    def prepare(self, inputs: Tensor) -> tuple[Float[Tensor, "B N K"], Float[Tensor, "B N V"]]:
        """Keys and values of every element."""
        elements = inputs.flatten(2).mT if inputs.dim() == 4 else inputs
        return self.key(elements), self.value(elements)

    def attend(
        self,
        scene: tuple[Tensor, ...],
        features: Float[Tensor, "B D"],
        focus: State,
        replay: Tensor | None,
        deterministic: bool,
    ) -> Reading:
        """The mean of all values, by how well their keys fit the question."""
        keys, values = scene
        question = self.query(features).unsqueeze(1)
        if self.align is None:
            scores = (question * keys).sum(-1) * keys.shape[-1] ** -0.5
        else:
            scores = self.align(torch.tanh(question + keys)).squeeze(-1)
        weights = scores.softmax(-1)
        if is_recording():
            grid = len(self.input_shape) == 3
            shown = weights.unflatten(-1, self.input_shape[1:]) if grid else weights
            tap("attention", shown, TapKind.SPACE if grid else TapKind.ELEMENTS)
        return Reading(torch.bmm(weights.unsqueeze(1), values).squeeze(1))
