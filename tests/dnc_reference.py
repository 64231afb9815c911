"""The Differentiable Neural Computer straight from the paper, slot by slot and slow; and small cores to hold against it.

Graves et al. 2016, Nature 538, "Methods". Two things are not the paper's: lengths are ``sqrt(|v|^2 + 1e-6)``, and slot ``i``
counts as used by ``1e-6 (i + 0.3)`` of what it is not. The controller is the core's own.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from examples import leaves, mid_sequence_starts
from saccade.policies import LSTM, Core, State
from saccade.policies.core import map_state
from saccade.policies.dnc import DNC
from saccade.policies.dnc_memory import DNCState


class Interface:
    """One lane's interface vector, taken apart from its first number to its last."""

    def __init__(self, numbers: Tensor, heads: int, width: int) -> None:
        self.numbers = numbers
        self.taken = 0
        self.read_keys = [self.take(width) for _ in range(heads)]
        self.write_key = self.take(width)
        self.read_strengths = [oneplus(self.take(1)) for _ in range(heads)]
        self.write_strength = oneplus(self.take(1))
        self.vector = self.take(width)
        self.erase = self.take(width).sigmoid()
        self.free_gates = [self.take(1).sigmoid() for _ in range(heads)]
        self.allocation_gate = self.take(1).sigmoid()
        self.write_gate = self.take(1).sigmoid()
        backward, forward, content = (self.take(heads) for _ in range(3))
        modes = [torch.stack([backward[i], content[i], forward[i]]) for i in range(heads)]
        self.read_modes = [mode.exp() / mode.exp().sum() for mode in modes]
        assert self.taken == len(numbers) == width * heads + 3 * width + 5 * heads + 3

    def take(self, count: int) -> Tensor:
        self.taken += count
        return self.numbers[self.taken - count : self.taken]


def oneplus(x: Tensor) -> Tensor:
    return 1 + (1 + x.exp()).log()


def content(memory: Tensor, key: Tensor, strength: Tensor) -> Tensor:
    """``C(M, k, beta)``."""
    length = (key.square().sum() + 1e-6).sqrt()
    cosines = [slot @ key / (length * (slot.square().sum() + 1e-6).sqrt()) for slot in memory]
    scores = (torch.stack(cosines) * strength).exp()
    return scores / scores.sum()


def allocation(usage: Tensor) -> Tensor:
    """``a``: equation 1."""
    used = torch.stack([u + 1e-6 * (0.3 + i) * (1 - u) for i, u in enumerate(usage)])
    weights = [used[0]] * len(used)
    product = torch.ones((), dtype=usage.dtype)
    for slot in sorted(range(len(used)), key=lambda i: used[i].item()):
        weights[slot] = (1 - used[slot]) * product
        product = product * used[slot]
    return torch.stack(weights)


def linked(previous: Tensor, precedence: Tensor, weights: Tensor) -> Tensor:
    """``L``."""
    slots = range(len(weights))
    rows = []
    for i in slots:
        row = [(1 - weights[i] - weights[j]) * previous[i, j] + weights[i] * precedence[j] for j in slots]
        row[i] = torch.zeros((), dtype=weights.dtype)
        rows.append(torch.stack(row))
    return torch.stack(rows)


def lane_step(numbers: Tensor, before: DNCState) -> tuple[Tensor, ...]:
    """One lane's step of the memory, from the interface vector and a state without batch: the state's parts, in order."""
    heads, width = before.reads.shape
    interface = Interface(numbers, heads, width)
    retention = torch.ones_like(before.usage)
    for gate, weights in zip(interface.free_gates, before.read_weights, strict=True):
        retention = retention * (1 - gate * weights)
    usage = (before.usage + before.write_weights - before.usage * before.write_weights) * retention
    # Equation 2.
    by_content = content(before.memory, interface.write_key, interface.write_strength)
    allocated, gate = allocation(usage), interface.allocation_gate
    write_weights = interface.write_gate * (gate * allocated + (1 - gate) * by_content)
    memory = torch.stack(
        [slot * (1 - w * interface.erase) + w * interface.vector for slot, w in zip(before.memory, write_weights, strict=True)]
    )
    assert isinstance(before.link, Tensor)
    link = linked(before.link, before.precedence, write_weights)
    precedence = (1 - write_weights.sum()) * before.precedence + write_weights
    read_weights = []
    for i, weights in enumerate(before.read_weights):
        backward, forward = link.t() @ weights, link @ weights
        mode = interface.read_modes[i]
        found = content(memory, interface.read_keys[i], interface.read_strengths[i])
        read_weights.append(mode[0] * backward + mode[1] * found + mode[2] * forward)
    reads = torch.stack([memory.t() @ weights for weights in read_weights])
    return memory, usage, write_weights, torch.stack(read_weights), precedence, link, reads


def unroll(core: DNC, inputs: Tensor, state: State, episode_starts: Tensor) -> tuple[Tensor, State]:
    """Features ``[T, B, D]`` and the state after the last step."""
    features = []
    for x, starts in zip(inputs, episode_starts, strict=True):
        initial = core.initial_state(len(starts))
        lanes = []
        for lane, start in enumerate(starts):
            before = map_state(lambda leaf, lane=lane: leaf[lane], initial if start else state)
            one = map_state(lambda leaf: leaf.unsqueeze(0), before.controller)
            controlled = core.controller.step(torch.cat([x[lane], before.reads.flatten()]).unsqueeze(0), one)
            numbers = core.interface.weight @ controlled.features[0] + core.interface.bias
            parts = lane_step(numbers, before)
            lanes.append((*parts, map_state(lambda leaf: leaf.squeeze(0), controlled.state), controlled.features[0]))
        *parts, controllers, controlled_features = zip(*lanes, strict=True)
        stacked = [torch.stack(part) for part in parts]
        state = DNCState(*stacked, map_state(lambda *leaves: torch.stack(leaves), *controllers))
        features.append(torch.cat([torch.stack(controlled_features), state.reads.flatten(1)], 1))
    return torch.stack(features), state


# --- Cores to hold against it ------------------------------------------------------------------------------------------------

T, B = 7, 5
INPUT, SLOTS, WIDTH, HEADS, HIDDEN = 11, 13, 3, 2, 17
lstm = partial(LSTM, hidden_size=HIDDEN)
small = partial(DNC, (INPUT,), slots=SLOTS, width=WIDTH, read_heads=HEADS, controller=lstm)


def lived(core: Core, lanes: int = B) -> State:
    """A state that a core has come into by itself."""
    inputs = torch.randn(3, lanes, *core.input_shape, dtype=next(core.parameters()).dtype)
    with torch.no_grad():
        state = Core.unroll(core, inputs, core.initial_state(lanes), torch.zeros(3, lanes, dtype=torch.bool)).state
    return map_state(lambda leaf: leaf.clone(), state)


def gradients(core: Core, run: Callable[..., Any], steps: int = T, lanes: int = B) -> tuple[Any, list[Tensor]]:
    """What ``run`` makes of inputs, state and resets in mid-sequence, and gradients by the first two and every parameter."""
    torch.manual_seed(3)
    inputs = torch.randn(steps, lanes, INPUT, dtype=torch.float64)
    state = lived(core, lanes)
    given = [inputs, *leaves(state), *core.parameters()]
    for tensor in given:
        tensor.requires_grad_()
    output = run(inputs, state, mid_sequence_starts(steps, lanes))
    results = [leaf for leaf in leaves(tuple(output)) if leaf.requires_grad]
    loss = torch.stack([(leaf * torch.randn_like(leaf)).sum() for leaf in results]).sum()
    return output, list(torch.autograd.grad(loss, given, allow_unused=True, materialize_grads=True))
