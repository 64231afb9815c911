"""Transformer-XL and its gated form as cores: attention over a window of the steps before, with memory as state.

Dai et al. 2019, "Transformer-XL" (arXiv:1901.02860); Parisotto et al. 2019, "Stabilizing Transformers for Reinforcement
Learning" (arXiv:1910.06764).
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from saccade.policies.controller import check_sizes
from saccade.policies.core import Core, CoreOutput, State, check_input_shape
from saccade.policies.relative_attention import RelativeAttention, count_episodes, hidden_steps
from saccade.policies.tap import TapKind, is_recording, tap
from saccade.policies.transformer_acting import HeldWindow
from saccade.policies.transformer_blocks import Block, GatedBlock, PostNormBlock


class WindowState(NamedTuple):
    """What a Transformer carries: the last ``W`` steps of an episode, oldest first.

    Attributes:
        memory: the input of each of ``L`` layers at these steps, as it was then; zeros where there was no step.
        filled: 1 where there was one, else 0.
    """

    memory: Float[Tensor, "B L W D"]
    filled: Float[Tensor, "B W"]


class View(NamedTuple):
    """What a sequence of ``T`` steps can see.

    Attributes:
        past: the inputs of every layer at the steps before the first, as many as any step can see: ``V``, ``W`` at the most.
        hidden: what to add to scores; see :func:`hidden_steps`.
        kept: which of the last ``W`` steps belong to the episode that goes on after the last.
    """

    past: Float[Tensor, "L V B D"]
    hidden: Float[Tensor, "B T S"] | None
    kept: Bool[Tensor, "B W"]

    @property
    def window(self) -> int:
        """``V``."""
        return self.past.shape[1]

    def state_after(self, lines: list[Float[Tensor, "S B D"]]) -> WindowState:
        """The state after the last step, from the inputs of every layer, those of the past first."""
        window, known = self.kept.shape[1], min(self.kept.shape[1], len(lines[0]))
        after = torch.stack([line[-known:] for line in lines]).permute(2, 0, 1, 3)
        after = nn.functional.pad(after, (0, 0, window - known, 0)).masked_fill(~self.kept[:, None, :, None], 0)
        return WindowState(after, self.kept.to(after.dtype))


def look_back(state: WindowState, episode_starts: Bool[Tensor, "T B"]) -> View:
    """What a sequence can see of the steps before it, and of its own."""
    filled = (state.filled > 0.5) & ~episode_starts[0][:, None]
    window = filled.shape[1]
    # Of a window that is not full yet, only as much as any step can see.
    unused = int((~filled.any(0)).cumprod(0).sum())
    seen = min(window, window - unused + len(episode_starts) - 1)
    episodes = count_episodes(filled, episode_starts)
    kept = (episodes == episodes[:, -1:])[:, -window:]
    # A slot that holds no step may hold anything, not a number even, and zero times that is not zero.
    past = state.memory.masked_fill(~filled[:, None, :, None], 0)[:, :, window - seen :].permute(1, 2, 0, 3)
    return View(past, hidden_steps(episodes[:, window - seen :], seen, past.dtype), kept)


class WindowTransformer(Core):
    """Shared by Transformers over a window; features ``[..., D]`` are the last layer's output.

    A step attends, in every layer, to itself and to the ``window`` steps before it in its episode. As every layer looks back
    from what the one below made of the past, information can come from up to ``n_layers * window`` steps ago. Gradients flow
    through all steps of a sequence; the memory it begins with is layer inputs as they were, through which none flow further.

    Args:
        input_shape: ``(features,)``.
        hidden_size: ``D``.
        n_layers: ``L``.
        n_heads: heads of attention; they divide ``hidden_size``.
        window: ``W``, steps before the present one that a step attends to.
        feedforward_size: width of each layer's network; ``None`` for ``4 D``, as in Vaswani et al. 2017.
        shared_values: heads share their values (Lim et al. 2019, eq. 13 to 16), so that the mean of their weights, the tap
            ``mean_attention``, is what acts.
        max_distance: steps longer ago than this are taken to be just so long ago (Shaw et al. 2018, section 3.2), so that
            longer episodes hold no distance that was never practised; ``None`` for no such limit.

    Raises:
        ValueError: the input is not a vector, a size is below 1, or the heads do not divide the features.
    """

    tied: ClassVar[bool] = False
    """Whether all layers are one."""

    def __init__(
        self,
        input_shape: Sequence[int],
        hidden_size: int = 64,
        n_layers: int = 3,
        n_heads: int = 4,
        window: int = 64,
        feedforward_size: int | None = None,
        shared_values: bool = False,
        max_distance: int | None = None,
    ) -> None:
        wide = 4 * hidden_size if feedforward_size is None else feedforward_size
        sizes = {"hidden_size": hidden_size, "n_layers": n_layers, "n_heads": n_heads, "window": window}
        farthest = window if max_distance is None else max_distance
        check_sizes(type(self).__name__, **sizes, feedforward_size=wide, max_distance=farthest)
        check_input_shape(type(self), input_shape)
        super().__init__(input_shape, features_dim=hidden_size)
        self.n_layers, self.n_heads, self.window, self.shared_values = n_layers, n_heads, window, shared_values
        self.embedding = nn.Linear(int(input_shape[0]), hidden_size)
        self.blocks = nn.ModuleList(
            self.make_block(RelativeAttention(hidden_size, n_heads, window, shared_values, max_distance), wide)
            for _ in range(1 if self.tied else n_layers)
        )

    @abstractmethod
    def make_block(self, attention: RelativeAttention, feedforward_size: int) -> Block:
        """One layer."""

    def initial_state(self, batch_size: int) -> WindowState:
        """An empty window."""
        weight = self.embedding.weight
        memory = weight.new_zeros(batch_size, self.n_layers, self.window, self.features_dim)
        return WindowState(memory, weight.new_zeros(batch_size, self.window))

    @torch.no_grad()
    def hold(self, state: State) -> HeldWindow:
        """The window with its keys and values."""
        return HeldWindow(self.embedding, self.blocks, state.memory, state.filled > 0.5)

    def release(self, held: HeldWindow | WindowState) -> WindowState:
        """The window as layer inputs."""
        return WindowState(*held.state()) if isinstance(held, HeldWindow) else held

    def run_one(
        self,
        inputs: Tensor,
        state: State,
        episode_starts: Bool[Tensor, "1 B"],
        replay: Tensor | None,
        deterministic: bool,
    ) -> CoreOutput:
        """As every core, or from what is held."""
        if isinstance(state, HeldWindow):
            with torch.no_grad():
                return state.step(inputs, episode_starts)
        return super().run_one(inputs, state, episode_starts, replay, deterministic)

    def step(self, inputs: Tensor, state: State, replay: Tensor | None = None, deterministic: bool = False) -> CoreOutput:
        """A sequence of one, without a reset."""
        starts = torch.zeros(1, len(inputs), dtype=torch.bool, device=inputs.device)
        output = self.unroll(inputs[None], state, starts)
        cost, ponder = (None if part is None else part[0] for part in (output.cost, output.ponder))
        return CoreOutput(output.features[0], output.state, cost=cost, ponder=ponder)

    def unroll(
        self,
        inputs: Float[Tensor, "T B input"],
        state: State,
        episode_starts: Bool[Tensor, "T B"],
        replay: Tensor | None = None,
        deterministic: bool = False,
    ) -> CoreOutput:
        """All steps at once, layer by layer: one masked attention over the window and the sequence."""
        view = look_back(state, episode_starts)
        stream, lines, weights = self.embedding(inputs), [], []
        for block, past in zip(self.blocks, view.past, strict=True):
            lines.append(torch.cat([past, stream]))
            stream, by_heads = block(lines[-1], view.window, view.hidden)
            weights.append(by_heads)
        if is_recording():
            self.show(torch.stack([one[:, :, 0] for one in weights if one is not None], dim=1), "layer")
        return CoreOutput(stream, view.state_after(lines))

    def show(self, weights: Float[Tensor, "B L H W1"], word: str) -> None:
        """Tap what one step attended to in each layer, or whatever the word for it is."""
        weights = nn.functional.pad(weights, (self.window + 1 - weights.shape[-1], 0))
        layers = [f"{word} {layer + 1}" for layer in range(self.n_layers)]
        heads = [f"head {head + 1}" for head in range(self.n_heads)]
        tap("attention", weights, TapKind.TIME, {"names": (layers, heads)})
        if self.shared_values:
            tap("mean_attention", weights.mean(2), TapKind.TIME, {"names": (layers,)})


class TrXL(WindowTransformer):
    """Transformer-XL (Dai et al. 2019). Known to be hard to train from rewards; :class:`GTrXL` is meant to be easier."""

    def make_block(self, attention: RelativeAttention, feedforward_size: int) -> Block:
        """Normalised after each addition."""
        return PostNormBlock(attention, feedforward_size)


class GTrXL(WindowTransformer):
    """Gated Transformer-XL (Parisotto et al. 2019): a new one passes each step on almost as it is, as if it had no memory."""

    def make_block(self, attention: RelativeAttention, feedforward_size: int) -> Block:
        """Normalised before, and gated."""
        return GatedBlock(attention, feedforward_size)
