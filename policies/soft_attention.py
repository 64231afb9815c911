"""Attention over the places of a grid, asked for by what is remembered: soft, or hard.

Soft: Mott et al. 2019, "Towards Interpretable Reinforcement Learning Using Attention Augmented Agents" (arXiv:1906.02500).
Hard: Xu et al. 2015, "Show, Attend and Tell" (arXiv:1502.03044), section 4.1.
Shapes: ``B`` batch, ``H`` heads, ``N = h w`` places, ``K V S`` numbers of a key, a value, and of where a place is.
"""

import math
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from saccade.policies.attending import Attending, Reading
from saccade.policies.controller import check_sizes
from saccade.policies.core import Core, Decision, Reads, State
from saccade.policies.gaze import cell_centres, cell_of
from saccade.policies.recurrent import LSTM
from saccade.policies.tap import TapKind, is_recording, tap


class SoftAttention(Attending):
    """Several heads look at all places of a grid at once, each weighing them by how well they answer its question.

    The grid's channels are projected to keys and values, and where a place is, products of cosines and sines along both axes
    (the paper's spatial basis), is put beside both: a question can ask for what is somewhere, or for where something is. The
    recurrent core's features of the step before ask, by a network of one hidden layer; it reads the heads' answers and their
    questions. Where each head looks is the tap ``attention``.

    Args:
        input_shape: ``(C, h, w)`` of the grid.
        hidden_size: features of the recurrent core.
        n_heads: ``H``.
        key_size: ``K``.
        value_size: ``V``.
        basis: frequencies along each axis; ``S = (2 basis) ** 2``.
        query_size: width of the hidden layer that makes the questions.
        strength: what scores are multiplied by before the softmax; larger is sharper.
        memory: makes the recurrent core: a core class, or a partial of one.

    Raises:
        ValueError: the input is no grid, a size is below 1, ``strength`` is not positive, or the memory takes latent decisions.
    """

    reads: ClassVar[tuple[Reads, ...]] = (Reads.GRID,)
    chooses: ClassVar[bool] = False
    where: Tensor
    centres: Tensor

    def __init__(
        self,
        input_shape: Sequence[int],
        hidden_size: int = 128,
        n_heads: int = 4,
        key_size: int = 8,
        value_size: int = 32,
        basis: int = 4,
        query_size: int = 64,
        strength: float = 1.0,
        memory: Callable[..., Core] = LSTM,
    ) -> None:
        sizes = {"n_heads": n_heads, "key_size": key_size, "value_size": value_size, "query_size": query_size}
        check_sizes(type(self).__name__, basis=basis, **sizes)
        if strength <= 0:
            raise ValueError(f"strength of {type(self).__name__} must be positive; got {strength}")
        answer, question = value_size + (2 * basis) ** 2, key_size + (2 * basis) ** 2
        decided = 2 * n_heads if self.chooses else 0
        super().__init__(input_shape, n_heads * (answer + question), hidden_size, memory, decided)
        channels, height, width = self.input_shape
        self.n_heads, self.key_size, self.strength = n_heads, key_size, strength
        self.project = nn.Linear(channels, key_size + value_size)
        self.query = nn.Sequential(
            nn.Linear(self.features_dim, query_size), nn.ReLU(), nn.Linear(query_size, n_heads * question)
        )
        self.register_buffer("where", spatial_basis(height, width, basis), persistent=False)
        self.register_buffer("centres", cell_centres(height, width), persistent=False)
        self.tap_notes = {"names": ([f"head {head + 1}" for head in range(n_heads)],)}
        self.acts_at_once = self.chooses

    def prepare(self, inputs: Float[Tensor, "N C h w"]) -> tuple[Float[Tensor, "N places _"], Float[Tensor, "N places _"]]:
        """Keys and values of every place, where it is beside both."""
        keys, values = self.project(inputs.flatten(2).mT).tensor_split([self.key_size], dim=-1)
        where = self.where.expand(len(inputs), -1, -1)
        return torch.cat([keys, where], dim=-1), torch.cat([values, where], dim=-1)

    def attend(
        self,
        scene: tuple[Tensor, ...],
        features: Float[Tensor, "B D"],
        focus: State,
        replay: Float[Tensor, "B K"] | None,
        deterministic: bool,
    ) -> Reading:
        """The mean of all values, by the weights of each head."""
        keys, values = scene
        questions = self.query(features).unflatten(-1, (self.n_heads, -1))
        scores = torch.bmm(questions * self.strength, keys.mT)
        weights, decision = self.weigh(scores, features, replay, deterministic)
        answers = torch.bmm(weights, values)
        return Reading(torch.cat([answers, questions], dim=-1).flatten(1), (), decision)

    def weigh(
        self, scores: Float[Tensor, "B H N"], features: Float[Tensor, "B D"], replay: Tensor | None, deterministic: bool
    ) -> tuple[Float[Tensor, "B H N"], Decision | None]:
        """How much each head reads of each place."""
        weights = scores.softmax(-1)
        self.show(weights)
        return weights, None

    def show(self, weights: Float[Tensor, "B H N"]) -> None:
        """Tap where each head looks."""
        if is_recording():
            tap("attention", weights.unflatten(-1, self.input_shape[1:]), TapKind.SPACE, self.tap_notes)


class HardAttention(SoftAttention):
    """As :class:`SoftAttention`, but each head reads one place, drawn by its weights; trained by REINFORCE.

    Which places are read is the core's latent decision, each as its ``(x, y)`` in ``[-1, 1]``, the heads one after another. It
    acts in its own step, and its baseline is learned from the features that asked. Of what a head does not read, nothing has a
    gradient. What the places are drawn by is the tap ``attention``, the place that was read the tap ``gaze``, or
    ``gaze_1`` and so on of several heads.
    """

    chooses = True

    def weigh(
        self, scores: Float[Tensor, "B H N"], features: Float[Tensor, "B D"], replay: Tensor | None, deterministic: bool
    ) -> tuple[Float[Tensor, "B H N"], Decision]:
        """All on one place."""
        log_weights = scores.log_softmax(-1)
        weights = log_weights.exp()
        if replay is not None:
            chosen = self.place(replay.unflatten(-1, (-1, 2)))
        elif deterministic:
            chosen = scores.argmax(-1)
        else:
            chosen = torch.multinomial(weights.detach().flatten(0, 1), 1).view(scores.shape[:2])
        self.show(weights)
        height, width = self.input_shape[1:]
        for head, place in enumerate(chosen.unbind(-1)):
            name = "gaze" if self.n_heads == 1 else f"gaze_{head + 1}"
            tap(name, self.centres[place], TapKind.GAZE, {"fields": [(2 / width, 2 / height)]})
        log_prob = log_weights.gather(-1, chosen.unsqueeze(-1)).flatten(1).sum(-1)
        entropy = -(weights * log_weights).sum((-2, -1))
        value = self.centres[chosen].flatten(1) if replay is None else replay
        read = nn.functional.one_hot(chosen, scores.shape[-1]).to(scores.dtype)
        return read, Decision(value, log_prob, entropy, features)

    def place(self, gaze: Float[Tensor, "*batch 2"]) -> Int[Tensor, "*batch"]:
        """The number of the place that ``(x, y)`` in ``[-1, 1]`` lies in."""
        return cell_of(gaze, *self.input_shape[1:])


def spatial_basis(height: int, width: int, frequencies: int) -> Float[Tensor, "places S"]:
    """Where each place is: every product of a cosine or sine along the height with one along the width.

    Frequencies are half a period to ``frequencies`` halves over the grid; ``S = (2 frequencies) ** 2``.
    """

    def waves(length: int) -> Tensor:
        at = (torch.arange(length) + 0.5) / length
        angles = math.pi * at[:, None] * torch.arange(1, frequencies + 1)
        return torch.cat([angles.cos(), angles.sin()], dim=-1)

    down, across = waves(height), waves(width)
    return torch.einsum("iu,jv->ijuv", down, across).reshape(height * width, -1)
