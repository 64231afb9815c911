"""Located attention: a window that moves along a sequence.

Graves 2013, "Generating Sequences With Recurrent Neural Networks" (arXiv:1308.0850), section 5.1.
Shapes: ``B`` batch, ``U`` elements of the sequence, ``K`` Gaussians.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saccade.policies.attending import Attending, Reading
from saccade.policies.controller import check_sizes
from saccade.policies.core import Core, Reads, State
from saccade.policies.recurrent import LSTM
from saccade.policies.tap import TapKind, is_recording, tap

FARTHEST = 3.0
"""The exponent of a number from the network is at most this: a window moves ``e ** 3 = 20`` elements a step at the most."""


class WindowPlace(NamedTuple):
    """``κ``: where each Gaussian is; 1 is the first element."""

    kappa: Float[Tensor, "B K"]


class LocatedAttention(Attending):
    """A mixture of Gaussians that moves along an observed sequence, from its first element towards its last.

    ``φ(t, u) = Σ α exp(-β (κ - u)²)`` is how much of element ``u`` is read (eq. 46), where ``α``, ``β`` and how far ``κ`` moves
    on are exponentials of numbers that the recurrent core's features of the step before give (eq. 48 to 51); ``w = Σ φ c`` is
    what it reads (eq. 47). Nothing is looked up: what is read depends on where it is alone. A window never moves back.

    ``φ`` does not sum to one; its share of each element is the tap ``attention``.

    Args:
        input_shape: ``(U, features)``.
        hidden_size: features of the recurrent core.
        mixtures: ``K``.
        stride: elements that a window moves in a step at first.
        memory: makes the recurrent core: a core class, or a partial of one.

    Raises:
        ValueError: the input is no sequence, a size is below 1, ``stride`` is not positive, or the memory takes decisions.
    """

    reads: ClassVar[tuple[Reads, ...]] = (Reads.SEQUENCE,)
    elements: Tensor

    def __init__(
        self,
        input_shape: Sequence[int],
        hidden_size: int = 128,
        mixtures: int = 5,
        stride: float = 1.0,
        memory: Callable[..., Core] = LSTM,
    ) -> None:
        check_sizes(type(self).__name__, mixtures=mixtures)
        if stride <= 0:
            raise ValueError(f"stride of {type(self).__name__} must be positive, in elements a step; got {stride}")
        super().__init__(input_shape, int(input_shape[-1]), hidden_size, memory)
        self.mixtures = mixtures
        self.window = nn.Linear(self.features_dim, 3 * mixtures)
        with torch.no_grad():
            self.window.bias[2 * mixtures :] += torch.tensor(stride).log()
        # Counted from 1, so that a first move of 1 lands on the first.
        self.register_buffer("elements", torch.arange(1, self.input_shape[0] + 1), persistent=False)

    def initial_focus(self, batch_size: int) -> WindowPlace:
        """Before the first element."""
        return WindowPlace(self.window.weight.new_zeros(batch_size, self.mixtures))

    def prepare(self, inputs: Float[Tensor, "N U features"]) -> tuple[Tensor]:
        """The elements as they are."""
        return (inputs,)

    def attend(
        self,
        scene: tuple[Tensor, ...],
        features: Float[Tensor, "B D"],
        focus: State,
        replay: Tensor | None,
        deterministic: bool,
    ) -> Reading:
        """Move on, and read what lies under the window."""
        alpha, beta, moved = self.window(features).clamp(max=FARTHEST).exp().unflatten(-1, (3, -1)).unbind(1)
        kappa = focus.kappa + moved
        distance = (kappa.unsqueeze(-1) - self.elements).square()
        phi = (alpha.unsqueeze(-1) * (-beta.unsqueeze(-1) * distance).exp()).sum(1)
        if is_recording():
            # Of a window that has left the sequence, nothing is read: it is shown at the last element.
            beyond = (self.elements == len(self.elements)) * phi.new_tensor(torch.finfo(phi.dtype).tiny)
            shown = phi + beyond
            tap("attention", shown / shown.sum(-1, keepdim=True), TapKind.ELEMENTS)
        return Reading(torch.bmm(phi.unsqueeze(1), scene[0]).squeeze(1), WindowPlace(kappa))
