"""Transformer-XL and GTrXL in plain loops over steps and heads, from the papers' equations: slow, and for tests.

Dai et al. 2019 (arXiv:1901.02860), appendix B; Parisotto et al. 2019 (arXiv:1910.06764), section 3 and eq. 6 to 8; Lim et al.
2019 (arXiv:1912.09363), eq. 13 to 16; Shaw et al. 2018 (arXiv:1803.02155), section 3.2; Dehghani et al. 2019
(arXiv:1807.03819); Graves 2016 (arXiv:1603.08983), eq. 5 to 11.
"""

from math import cos, sin, sqrt

import torch
from torch import Tensor

from saccade.policies.transformer import GTrXL, WindowTransformer
from saccade.policies.transformer_blocks import Block, GRUGate
from saccade.policies.universal import Universal


def run_universal(core: Universal, inputs: Tensor) -> tuple[Tensor, list[int], list[Tensor]]:
    """Features ``[T, D]`` of one episode, how many computations each step took, and what each one costs."""
    (block,) = core.blocks
    stream = [core.embedding.weight @ x + core.embedding.bias for x in inputs]
    features, taken = [torch.zeros_like(x) for x in stream], [0] * len(stream)
    probabilities: list[list[Tensor]] = [[] for _ in stream]
    for n in range(1, core.n_layers + 1):
        running = [t for t in range(len(stream)) if taken[t] == 0]
        seen = [x + sinusoid(n, core.features_dim) for x in stream]
        computed = {t: normalised_output(block, seen[t], attend(block, seen, t)) for t in running}
        for t, now in computed.items():
            stream[t] = now
            h = torch.sigmoid(core.halting.unit.weight[0] @ now + core.halting.unit.bias[0])
            before = sum(probabilities[t])
            halts = n == core.n_layers or float(before + h) >= 0.99
            probabilities[t].append(1 - before if halts else h)
            features[t] = features[t] + probabilities[t][-1] * now
            taken[t] = n if halts else 0
    return torch.stack(features), taken, [n + all_of[-1] for n, all_of in zip(taken, probabilities, strict=True)]


def run_episode(core: WindowTransformer, inputs: Tensor, max_distance: int | None = None) -> Tensor:
    """Features ``[T, D]`` of one episode's inputs ``[T, I]``, from its first step on."""
    gated = isinstance(core, GTrXL)
    stream = [core.embedding.weight @ x + core.embedding.bias for x in inputs]
    for block in core.blocks:
        shown = [block.norm_shown(x) if gated else x for x in stream]
        read = [attend(block, shown, t, max_distance) for t in range(len(shown))]
        stream = [(gated_output if gated else normalised_output)(block, x, y) for x, y in zip(stream, read, strict=True)]
    return torch.stack(stream)


def attend(block: Block, shown: list[Tensor], t: int, max_distance: int | None = None) -> Tensor:
    """What step ``t`` reads from the steps that it can see."""
    attention = block.attention
    size, steps = attention.head_size, range(max(0, t - attention.window), t + 1)
    weights, read = [], []
    for head in range(attention.n_heads):
        rows = slice(head * size, (head + 1) * size)
        q = attention.query.weight[rows] @ shown[t]
        u, v = attention.content_bias[head], attention.position_bias[head]
        scores = []
        for j in steps:
            k = attention.key.weight[rows] @ shown[j]
            distance = t - j if max_distance is None else min(t - j, max_distance)
            r = attention.position.weight[rows] @ sinusoid(distance, attention.size)
            scores.append(((q + u) @ k + (q + v) @ r) / sqrt(size))
        exponentials = [score.exp() for score in scores]
        weights.append([one / sum(exponentials) for one in exponentials])
    if attention.value_heads == 1:
        mean = [sum(head[i] for head in weights) / len(weights) for i in range(len(steps))]
        return attention.output.weight @ sum(w * (attention.value.weight @ shown[j]) for w, j in zip(mean, steps, strict=True))
    for head, head_weights in enumerate(weights):
        rows = slice(head * size, (head + 1) * size)
        values = [attention.value.weight[rows] @ shown[j] for j in steps]
        read.append(sum(w * value for w, value in zip(head_weights, values, strict=True)))
    return attention.output.weight @ torch.cat(read)


def sinusoid(distance: int, size: int) -> Tensor:
    """Sines of all frequencies, then cosines."""
    angles = [distance / 10_000 ** (2 * i / size) for i in range((size + 1) // 2)]
    return torch.tensor([*map(sin, angles), *map(cos, angles)][:size])


def normalised_output(block: Block, x: Tensor, y: Tensor) -> Tensor:
    x = block.norm_read(x + y)
    return block.norm_output(x + block.feedforward(x))


def gated_output(block: Block, x: Tensor, y: Tensor) -> Tensor:
    x = gate(block.gate_read, x, y.clamp(min=0))
    return gate(block.gate_output, x, block.feedforward(block.norm_read(x)).clamp(min=0))


def gate(module: GRUGate, x: Tensor, y: Tensor) -> Tensor:
    (w_r, w_z, w_g), (u_r, u_z) = module.w.weight.chunk(3), module.u.weight.chunk(2)
    r = torch.sigmoid(w_r @ y + u_r @ x)
    z = torch.sigmoid(w_z @ y + u_z @ x - module.bias)
    h = torch.tanh(w_g @ y + module.u_candidate.weight @ (r * x))
    return (1 - z) * x + z * h
