"""The Universal Transformer as a core: one layer, applied to every step until it halts.

Dehghani et al. 2019, "Universal Transformers" (arXiv:1807.03819); Graves 2016, "Adaptive Computation Time for Recurrent Neural
Networks" (arXiv:1603.08983).
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saccade.policies.core import CoreOutput, State
from saccade.policies.halting import Halting, Progress
from saccade.policies.relative_attention import RelativeAttention, sinusoids
from saccade.policies.tap import TapKind, is_recording, tap
from saccade.policies.transformer import WindowTransformer, look_back
from saccade.policies.transformer_acting import HeldWindow
from saccade.policies.transformer_blocks import Block, PostNormBlock


class Thought:
    """The computations of some steps, as they go on.

    Attributes:
        progress: how far each step has come.
        goes_on: whether any step has not halted yet.
        features: the weighted sum so far.
    """

    def __init__(self, progress: Progress, features: Tensor) -> None:
        self.progress, self.features, self.goes_on = progress, features, True

    @classmethod
    def begin(cls, stream: Float[Tensor, "*batch D"]) -> "Thought":
        """Before the first computation."""
        return cls(Halting.begin(stream), torch.zeros_like(stream))

    def take(self, computed: Tensor, stream: Tensor, halting: Halting | None, is_last: bool) -> Float[Tensor, "*batch D"]:
        """Take what a computation gave; returns the steps as they are now: those that had halted before stay as they were."""
        running = self.progress.running
        if halting is None:
            self.features, self.goes_on = computed, not is_last
            self.progress = self.progress._replace(taken=self.progress.taken + 1, running=running & (not is_last))
            return computed
        weight, self.progress = halting(computed, self.progress, is_last)
        self.features = self.features + weight.unsqueeze(-1) * computed
        self.goes_on = bool(self.progress.running.any())
        return torch.where(running.unsqueeze(-1), computed, stream)

    def output(self, halting: Halting | None, state: Any) -> CoreOutput:
        """What the core gives."""
        if halting is None:
            return CoreOutput(self.features, state)
        return CoreOutput(self.features, state, cost=halting.charge(self.progress), ponder=self.progress.taken)


class Universal(WindowTransformer):
    """A Universal Transformer over a window; features ``[..., D]`` are the weighted mean over a step's computations.

    The layers are one: computation ``n`` of a step attends to itself and to the ``window`` steps before it, each as it was
    after its own ``n - 1`` computations. With ``ponder`` a step halts by itself (adaptive computation time, for each step of
    each lane); it then stays as it is, and that is what others see. Features are the mean over its computations by ``p_n``
    (Graves 2016, eq. 7), which is how the halting unit gets a gradient. How many there were is the tap ``ponder``.

    To the input of computation ``n`` sines and cosines of ``n`` are added (Dehghani et al. 2019, eq. 4 and 5). Where the paper
    adds those of the position as well, attention here knows how long ago a step was.

    Args:
        input_shape: ``(features,)``.
        hidden_size: ``D``.
        max_steps: ``M``, the most computations of a step; all of them without ``ponder``.
        n_heads: heads of attention; they divide ``hidden_size``.
        window: ``W``, steps before the present one that a step attends to.
        feedforward_size: width of the layer's network; ``None`` for ``4 D``.
        ponder: halt by adaptive computation time.
        cost: ``τ``, the weight of the ponder cost ``N + R`` beside the agent's loss.
        halting_bias: of the halting unit at first; -3 starts with many computations ("deep").
        shared_values: as in :class:`~saccade.policies.TrXL`.
        max_distance: as in :class:`~saccade.policies.TrXL`.

    Raises:
        ValueError: the input is not a vector, a number is out of its range, or the heads do not divide the features.
    """

    tied = True
    number: Tensor

    def __init__(
        self,
        input_shape: Sequence[int],
        hidden_size: int = 64,
        max_steps: int = 6,
        n_heads: int = 4,
        window: int = 64,
        feedforward_size: int | None = None,
        ponder: bool = True,
        cost: float = 0.001,
        halting_bias: float = -3.0,
        shared_values: bool = False,
        max_distance: int | None = None,
    ) -> None:
        super().__init__(input_shape, hidden_size, max_steps, n_heads, window, feedforward_size, shared_values, max_distance)
        self.halting = Halting(hidden_size, max_steps, cost, halting_bias) if ponder else None
        self.register_buffer("number", sinusoids(torch.arange(1, max_steps + 1), hidden_size), persistent=False)

    def make_block(self, attention: RelativeAttention, feedforward_size: int) -> Block:
        """The paper's: normalised after each addition."""
        return PostNormBlock(attention, feedforward_size)

    @torch.no_grad()
    def hold(self, state: State) -> HeldWindow:
        """The window with its keys and values after every number of computations."""
        return HeldUniversal(self, state.memory, state.filled > 0.5)

    def unroll(
        self,
        inputs: Float[Tensor, "T B input"],
        state: State,
        episode_starts: Bool[Tensor, "T B"],
        replay: Tensor | None = None,
        deterministic: bool = False,
    ) -> CoreOutput:
        """All steps at once, until all have halted."""
        view = look_back(state, episode_starts)
        block = cast("Block", self.blocks[0])
        stream, lines, weights = self.embedding(inputs), [], []
        thought = Thought.begin(stream)
        for past, number in zip(view.past, self.number, strict=True):
            lines.append(torch.cat([past, stream]))
            if thought.goes_on:
                computed, by_heads = block(lines[-1] + number, view.window, view.hidden)
                stream = thought.take(computed, stream, self.halting, len(lines) == self.n_layers)
                weights.append(by_heads)
        if is_recording():
            self.show_computations([one[:, :, 0] for one in weights if one is not None], thought.progress.taken[0])
        return thought.output(self.halting, view.state_after(lines))

    def show_computations(self, weights: list[Float[Tensor, "B H W1"]], taken: Float[Tensor, " B"]) -> None:
        """Tap how many computations there were, and what each attended to: after a step has halted, to itself alone."""
        alone = torch.zeros_like(weights[0])
        alone[..., -1] = 1
        every = [*weights, *[alone] * (self.n_layers - len(weights))]
        shown = [torch.where((number < taken)[:, None, None], one, alone) for number, one in enumerate(every)]
        self.show(torch.stack(shown, dim=1), "computation")
        tap("ponder", taken, TapKind.PONDER)


class HeldUniversal(HeldWindow):
    """A window whose keys and values are made, after every number of computations."""

    def __init__(self, core: Universal, memory: Float[Tensor, "B L W D"], filled: Bool[Tensor, "B W"]) -> None:
        self.halting, self.number = core.halting, core.number
        super().__init__(core.embedding, [core.blocks[0]] * core.n_layers, memory, filled, core.number)

    def go_through(self, stream: Float[Tensor, "1 B D"]) -> CoreOutput:
        """All computations: keys and values of each, for steps to come, and what it gives until all lanes have halted."""
        thought = Thought.begin(stream)
        for index, (block, ring, number) in enumerate(zip(self.blocks, self.rings, self.number, strict=True)):
            ring.inputs[self.newest] = stream[0]
            shown = block.shown(stream + number)
            if thought.goes_on:
                computed = block.finish(stream + number, self.read(block.attention, ring, shown))
                stream = thought.take(computed, stream, self.halting, index == len(self.blocks) - 1)
            else:
                self.add(block.attention, ring, shown)
        return thought.output(self.halting, self)
