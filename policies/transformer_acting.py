"""Acting with a Transformer over a window: keys and values of past steps are kept, so that a step makes only its own.

While weights stay as they are, so do the keys and values of a step. They stand in a ring of ``C = W + 1`` slots, in which every
step overwrites the oldest, so nothing is moved. It has to agree with :meth:`WindowTransformer.step`. Shapes as in
:mod:`saccade.policies.relative_attention`.
"""

from collections.abc import Iterable
from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from saccade.policies.core import CoreOutput
from saccade.policies.relative_attention import RelativeAttention
from saccade.policies.transformer_blocks import Block


class Ring(NamedTuple):
    """What a layer keeps of the steps in the window; ``G`` heads of values."""

    inputs: Float[Tensor, "C B D"]
    keys: Float[Tensor, "BH C d"]
    values: Float[Tensor, "BG C d"]
    positions: Float[Tensor, "H d C2"]
    """``r`` of the distances from ``W`` down to 0, twice: ``C`` in a row for whichever slot is the newest."""


class HeldWindow:
    """A window whose keys and values are made: the state of acting, which each step overwrites.

    Args:
        embedding: from inputs to the first layer.
        blocks: the layers.
        memory: of a state, ``[B, L, W, D]``.
        filled: of that state, ``[B, W]``, true where there is a step.
        added: to the input of each layer before it is looked at, ``[L, D]``; ``None`` for nothing.
    """

    def __init__(
        self,
        embedding: nn.Linear,
        blocks: Iterable[nn.Module],
        memory: Float[Tensor, "B L W D"],
        filled: Bool[Tensor, "B W"],
        added: Float[Tensor, "L D"] | None = None,
    ) -> None:
        self.embedding, self.blocks = embedding, [cast("Block", block) for block in blocks]
        self.window = filled.shape[1]
        self.newest = self.window - 1
        past = memory.masked_fill(~filled[:, None, :, None], 0).permute(1, 2, 0, 3)
        more = past.new_zeros(len(past), past.shape[-1]) if added is None else added
        self.rings = [make_ring(*layer) for layer in zip(self.blocks, past, more, strict=True)]
        room = nn.functional.pad(filled, (0, 1))
        # What is added to scores, for every head alike.
        self.hidden = torch.zeros(room.shape, dtype=memory.dtype, device=room.device).masked_fill_(~room, float("-inf"))

    def step(self, inputs: Float[Tensor, "1 B input"], episode_starts: Bool[Tensor, "1 B"]) -> CoreOutput:
        """One step of all lanes; features ``[1, B, D]``."""
        if episode_starts.device.type != "cpu" or episode_starts.any():
            self.hidden.masked_fill_(episode_starts[0][:, None], float("-inf"))
        self.newest = (self.newest + 1) % (self.window + 1)
        self.hidden[:, self.newest] = 0
        return self.go_through(self.embedding(inputs))

    def go_through(self, stream: Float[Tensor, "1 B D"]) -> CoreOutput:
        """All layers."""
        for block, ring in zip(self.blocks, self.rings, strict=True):
            ring.inputs[self.newest] = stream[0]
            stream = block.finish(stream, self.read(block.attention, ring, block.shown(stream)))
        return CoreOutput(stream, self)

    def read(self, attention: RelativeAttention, ring: Ring, shown: Float[Tensor, "1 B D"]) -> Float[Tensor, "1 B D"]:
        """What this step reads from the window and itself."""
        heads, slots = attention.n_heads, self.window + 1
        self.add(attention, ring, shown)
        by_content, by_position = attention.queries(shown)
        oldest = self.window - self.newest
        scores = torch.bmm(by_position[0].transpose(0, 1), ring.positions[..., oldest : oldest + slots]).transpose(0, 1)
        scores = (scores + self.hidden[:, None]).reshape(-1, 1, slots)
        weights = torch.baddbmm(scores, by_content.view(-1, 1, attention.head_size), ring.keys.mT).softmax(-1)
        if attention.value_heads < heads:
            weights = weights.view(-1, heads, slots).mean(1, keepdim=True)
        return attention.output(torch.bmm(weights, ring.values).view(1, shown.shape[1], -1))

    def add(self, attention: RelativeAttention, ring: Ring, shown: Float[Tensor, "1 B D"]) -> None:
        """Put this step's keys and values in the place of the oldest ones."""
        keys, values = attention.project(shown)
        ring.keys[:, self.newest], ring.values[:, self.newest] = keys[0].flatten(0, 1), values[0].flatten(0, 1)

    def state(self) -> tuple[Float[Tensor, "B L W D"], Float[Tensor, "B W"]]:
        """Memory and filled slots of the state as it is now, oldest step first."""
        slots = (self.newest + 2 + torch.arange(self.window, device=self.hidden.device)) % (self.window + 1)
        filled = self.hidden[:, slots] == 0
        memory = torch.stack([ring.inputs[slots] for ring in self.rings]).permute(2, 0, 1, 3)
        return memory.masked_fill(~filled[:, None, :, None], 0), filled.to(memory.dtype)


def make_ring(block: Block, inputs: Float[Tensor, "W B D"], added: Float[Tensor, " D"]) -> Ring:
    """A layer's window, with a slot more for the next step."""
    attention = block.attention
    inputs = nn.functional.pad(inputs, (0, 0, 0, 0, 0, 1))
    keys, values = attention.project(block.shown(inputs + added))
    positions = attention.positions(attention.window).mT
    return Ring(
        inputs,
        keys.permute(1, 2, 0, 3).flatten(0, 1).contiguous(),
        values.permute(1, 2, 0, 3).flatten(0, 1).contiguous(),
        torch.cat([positions, positions], dim=-1),
    )
