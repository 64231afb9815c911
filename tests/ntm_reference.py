"""The Neural Turing Machine straight from the paper's equations (arXiv:1410.5401): slow, one head and one step after another.

Written apart from ``saccade.policies.addressing``: what the tests compare with, and what a plain implementation costs.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from saccade.policies import LSTM, Core, CoreOutput

EPSILON = 1e-6


def unroll(core: Any, inputs: Tensor, state: Any, episode_starts: Tensor) -> CoreOutput:
    """What ``core``, an ``NTM``, must give: features, and the state after the last step."""
    outputs = []
    for x, starts in zip(inputs, episode_starts, strict=True):
        state = restart(state, core.initial_state(len(starts)), starts)
        features, state = step(core, x, state)
        outputs.append(features)
    return CoreOutput(torch.stack(outputs), state)


def restart(now: Any, fresh: Any, starts: Tensor) -> Any:
    """The initial state, lane by lane, where an episode starts."""
    if isinstance(now, Tensor):
        return torch.stack([fresh[b] if start else now[b] for b, start in enumerate(starts.tolist())])
    leaves = [restart(*leaves, starts) for leaves in zip(now, fresh, strict=True)]
    return type(now)(*leaves) if leaves else ()


def step(core: Any, x: Tensor, state: Any) -> tuple[Tensor, Any]:
    """Figure 2: the controller; every head's weighting; reading; erasing and adding."""
    heads, writers, width, shifts = core.read_heads + core.write_heads, core.write_heads, core.width, 2 * core.max_shift + 1
    reads = [state.reads[:, r] for r in range(core.read_heads)]
    h, controller = control(core.controller, torch.cat([x, *reads], dim=1), state.controller)
    interface = core.interface
    said = torch.split(
        h @ interface.weight.T + interface.bias,
        [
            *([width] * heads),  # keys
            *([width] * writers),  # add vectors
            *([width] * writers),  # erase vectors
            *([1] * heads),  # gates
            *([1] * heads),  # strengths
            *([1] * heads),  # powers
            *([shifts] * heads),  # kernels
        ],
        dim=1,
    )
    words = iter(said)
    keys, adds, erases, gates, strengths, powers, kernels = (
        [next(words) for _ in range(count)] for count in (heads, writers, writers, heads, heads, heads, heads)
    )
    memory = state.memory.transpose(1, 2)
    weights = []
    for n in range(heads):
        w = look(memory, torch.tanh(keys[n]), F.softplus(strengths[n]), torch.sigmoid(gates[n]), state.weights[:, n])
        w = move(w, torch.softmax(kernels[n], dim=1), core.max_shift)
        weights.append(sharpen(w, 1 + F.softplus(powers[n])))
    # Eq. 2.
    reads = [(weights[n].unsqueeze(2) * memory).sum(dim=1) for n in range(core.read_heads)]
    after = memory
    for n in range(writers):  # eq. 3
        w = weights[core.read_heads + n].unsqueeze(2)
        after = after * (1 - w * torch.sigmoid(erases[n]).unsqueeze(1))
    for n in range(writers):  # eq. 4
        after = after + weights[core.read_heads + n].unsqueeze(2) * torch.tanh(adds[n]).unsqueeze(1)
    return torch.cat([h, *reads], dim=1), type(state)(
        after.transpose(1, 2), torch.stack(weights, dim=1), torch.stack(reads, dim=1), controller
    )


def control(controller: Core, x: Tensor, state: Any) -> tuple[Tensor, Any]:
    """Features and state of the controller: an LSTM of one layer by its equations, any other by its own step."""
    if not isinstance(controller, LSTM) or controller.n_layers > 1:
        output = controller.step(x, state)
        return output.features, output.state
    network = controller.network
    h, c = state.hidden[:, 0], state.cell[:, 0]
    sums = x @ network.weight_ih_l0.T + network.bias_ih_l0 + h @ network.weight_hh_l0.T + network.bias_hh_l0
    i, f, g, o = sums.chunk(4, dim=1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(o) * torch.tanh(c)
    return h, type(state)(h.unsqueeze(1), c.unsqueeze(1))


def look(memory: Tensor, key: Tensor, strength: Tensor, gate: Tensor, before: Tensor) -> Tensor:
    """Eq. 5 to 7: by content, and between that and the weighting before."""
    key = key.unsqueeze(1)
    lengths = torch.sqrt((memory**2).sum(2) + EPSILON) * torch.sqrt((key**2).sum(2) + EPSILON)
    similarity = (memory * key).sum(2) / lengths
    amplified = torch.exp(strength * similarity)
    content = amplified / amplified.sum(dim=1, keepdim=True)
    return gate * content + (1 - gate) * before


def move(weights: Tensor, kernel: Tensor, reach: int) -> Tensor:
    """Eq. 8: ``w~(i) = sum_j w(j) s(i - j)``, modulo the number of slots."""
    moved = torch.zeros_like(weights)
    for n, by in enumerate(range(-reach, reach + 1)):
        moved = moved + kernel[:, n : n + 1] * torch.roll(weights, by, dims=1)
    return moved


def sharpen(weights: Tensor, power: Tensor) -> Tensor:
    """Eq. 9. Negative weights, which only a made-up state has, count as none."""
    raised = (weights.clamp(min=0) + EPSILON) ** power
    return raised / raised.sum(dim=1, keepdim=True)
