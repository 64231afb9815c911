"""A Transformer over a window as implementations for PPO commonly have it: every step comes with a window of its own.

The weights are those of one of our cores, so that both compute the same; how is that of
github.com/MarcoMeter/episodic-transformer-memory-ppo and of CleanRL's ``ppo_trxl.py``: the inputs of every layer are stored at
every step, learning picks the ``W`` steps before each, and keys and values of every window are made anew. Acting is the same
for one step. Shapes: ``N`` steps, ``L`` layers, ``W`` steps of the window, ``H`` heads of ``d`` numbers, ``D`` features.
"""

import torch
from torch import Tensor

from saccade.policies.relative_attention import RelativeAttention
from saccade.policies.transformer import WindowTransformer


def run(core: WindowTransformer, inputs: Tensor, windows: Tensor, filled: Tensor) -> tuple[Tensor, Tensor]:
    """Features ``[N, D]`` of inputs ``[N, I]``, and the inputs of each layer ``[N, L, D]``.

    Args:
        core: whose weights.
        inputs: a step of each.
        windows: layer inputs before it ``[N, L, W, D]``, without a gradient.
        filled: whether each step of a window is there ``[N, W]``.
    """
    stream, layers = core.embedding(inputs), []
    for layer, block in enumerate(core.blocks):
        layers.append(stream.detach())
        shown = block.shown(torch.cat([windows[:, layer], stream[:, None]], dim=1))
        stream = block.finish(stream, attend(block.attention, shown, filled))
    return stream, torch.stack(layers, dim=1)


def attend(attention: RelativeAttention, shown: Tensor, filled: Tensor) -> Tensor:
    """What the last step of each window reads from it."""
    heads, size = attention.n_heads, attention.head_size
    query = attention.query(shown[:, -1]).unflatten(-1, (heads, size))
    keys = attention.key(shown).unflatten(-1, (heads, size))
    values = attention.value(shown).unflatten(-1, (heads, size))
    positions = attention.position(attention.distances).unflatten(-1, (heads, size))
    scores = torch.einsum("nhd,nshd->nhs", query + attention.content_bias, keys)
    scores = (scores + torch.einsum("nhd,shd->nhs", query + attention.position_bias, positions)) / size**0.5
    there = torch.nn.functional.pad(filled, (0, 1), value=True)
    weights = scores.masked_fill(~there[:, None], float("-inf")).softmax(-1)
    return attention.output(torch.einsum("nhs,nshd->nhd", weights, values).flatten(1))


def pick_windows(stored: Tensor, window: int) -> Tensor:
    """The window of every step ``[T * B, L, W, D]``, from layer inputs ``[W + T, B, L, D]``, the oldest first."""
    steps = len(stored) - window
    index = torch.arange(steps)[:, None] + torch.arange(window)
    return stored[index].permute(0, 2, 3, 1, 4).flatten(0, 1)
