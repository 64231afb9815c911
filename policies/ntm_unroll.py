"""A Neural Turing Machine over a whole sequence, in one node of autograd's graph.

What can wait until every step is done, waits: above all the gradients of weights. The controllers known here are
:class:`~saccade.policies.recurrent.LSTM`, of one layer, and :class:`~saccade.policies.controller.Dense`.

Shapes: ``T`` time, ``B`` lanes, ``N`` slots, ``W`` width, ``R`` heads that read, ``I`` numbers of the interface, ``D`` inputs,
``C`` features of the controller, made from ``G`` sums over the inputs and over ``Q`` numbers of the step before.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saccade.policies.controller import Dense
from saccade.policies.core import Core, State
from saccade.policies.ntm_kernels import Heads, Layout
from saccade.policies.recurrent import LSTM, LSTMState
from saccade.policies.stacked_mlp import ACTIVATIONS, Activation, tanh_


class Cell(ABC):
    """A controller but for its weights: from the sums of a step to its features, and back.

    Args:
        sums: ``[T, B, G]``, which are filled in step by step.
        carried: ``[T + 1, B, ...]`` each, what it hands from step to step; a step fills in the entry after its own.
    """

    def __init__(self, sums: Float[Tensor, "T B G"], carried: Sequence[Tensor]) -> None:
        self.sums, self.carried, self.sum = sums, carried, sums.unbind()

    @abstractmethod
    def forward(self, t: int, features: Float[Tensor, "B C"]) -> None:
        """Fill in the features of step ``t``; its sums may become whatever the way back needs."""

    @abstractmethod
    def prepare(self, d_sums: Float[Tensor, "T B G"], d_carried: Sequence[Tensor]) -> None:
        """Begin the way back, which fills in the one and keeps the other up to date."""

    @abstractmethod
    def backward(self, t: int, d_features: Float[Tensor, "B C"]) -> None:
        """One step of the way back."""


MakeCell: TypeAlias = Callable[[Tensor, Sequence[Tensor]], Cell]


class DenseCell(Cell):
    """A nonlinearity; carries nothing."""

    def __init__(self, sums: Float[Tensor, "T B G"], carried: Sequence[Tensor], activation: Activation) -> None:
        super().__init__(sums, carried)
        self.activation = activation

    def forward(self, t: int, features: Float[Tensor, "B C"]) -> None:
        """In place: its slope is a function of what comes out."""
        features.copy_(self.activation.apply_(self.sum[t]))

    def prepare(self, d_sums: Float[Tensor, "T B G"], d_carried: Sequence[Tensor]) -> None:
        """Nothing ahead of time."""
        self.d_sums = d_sums

    def backward(self, t: int, d_features: Float[Tensor, "B C"]) -> None:
        """By the slope."""
        self.d_sums[t] = self.activation.backward(d_features, self.sums[t])


class LSTMCell(Cell):
    """``c' = f c + i g``, ``h = o tanh(c')``, sums in torch's order ``i f g o``; carries ``c``."""

    def __init__(self, sums: Float[Tensor, "T B G"], carried: Sequence[Tensor]) -> None:
        super().__init__(sums, carried)
        (self.cells,) = carried
        self.tanh_cells = torch.empty_like(self.cells[1:])
        self.cell, self.tanh_cell = self.cells.unbind(), self.tanh_cells.unbind()
        size = self.cells.shape[-1]
        self.i_f = sums[..., : 2 * size].unbind()
        self.i, self.f, self.g, self.o = (gate.unbind() for gate in sums.split(size, -1))

    def forward(self, t: int, features: Float[Tensor, "B C"]) -> None:
        """Sums become gates, in place."""
        self.i_f[t].sigmoid_()
        self.o[t].sigmoid_()
        cell = torch.mul(self.f[t], self.cell[t], out=self.cell[t + 1]).addcmul_(self.i[t], tanh_(self.g[t]))
        torch.mul(self.o[t], tanh_(self.tanh_cell[t].copy_(cell)), out=features)

    def prepare(self, d_sums: Float[Tensor, "T B G"], d_carried: Sequence[Tensor]) -> None:
        """The slopes of ``c'`` by the first three sums, and of ``h`` by the last and by ``c'``, for all steps at once."""
        (self.d_cell,) = d_carried
        i, f, g, o = self.sums.unflatten(-1, (4, -1)).unbind(2)
        tanh = self.tanh_cells
        slopes = torch.stack([g * i * (1 - i), self.cells[:-1] * f * (1 - f), i * (1 - g * g)], dim=2)
        self.slopes, self.slope_o, self.slope_c = (s.unbind() for s in (slopes, tanh * o * (1 - o), o * (1 - tanh * tanh)))
        d_gates = d_sums.unflatten(-1, (4, -1))
        self.d_ifg, self.d_o = d_gates[:, :, :3].unbind(), d_gates[:, :, 3].unbind()

    def backward(self, t: int, d_features: Float[Tensor, "B C"]) -> None:
        """Through ``h``, then through ``c'``."""
        self.d_cell.addcmul_(d_features, self.slope_c[t])
        torch.mul(self.slopes[t], self.d_cell.unsqueeze(1), out=self.d_ifg[t])
        torch.mul(d_features, self.slope_o[t], out=self.d_o[t])
        self.d_cell.mul_(self.f[t])


class Drive(NamedTuple):
    """What a controller is to :class:`Unrolled`: its kind, its sums over inputs and bias, its weights for the step before."""

    make_cell: MakeCell
    by_inputs: Float[Tensor, "T B G"]
    w_before: Float[Tensor, "G Q"]


def find_drive(controller: Core, inputs: Float[Tensor, "T B D"]) -> Drive | None:
    """That of a controller; ``None`` where it is of a kind that has to be stepped."""
    size = inputs.shape[-1]
    if type(controller) is LSTM and controller.n_layers == 1:
        w_input, w_hidden, b_input, b_hidden = controller.weights()
        by_inputs = torch.nn.functional.linear(inputs, w_input[:, :size], b_input + b_hidden)
        return Drive(LSTMCell, by_inputs, torch.cat([w_hidden, w_input[:, size:]], 1))
    if type(controller) is Dense and type(controller.activation) in ACTIVATIONS:
        weight, bias = controller.hidden.weight, controller.hidden.bias
        by_inputs = torch.nn.functional.linear(inputs, weight[:, :size], bias)
        return Drive(partial(DenseCell, activation=ACTIVATIONS[type(controller.activation)]), by_inputs, weight[:, size:])
    return None


def to_leaves(controller: State, reads: Float[Tensor, "B R W"]) -> list[Tensor]:
    """What the controller reads of the step before, ``[B, Q]``, and what its cell carries."""
    if isinstance(controller, LSTMState):
        return [torch.cat([controller.hidden[:, 0], reads.flatten(1)], 1), controller.cell[:, 0]]
    return [reads.flatten(1)]


def from_leaves(features: Float[Tensor, "B C"], carried: Sequence[Tensor]) -> State:
    """The controller's state from its last features and what its cell carries."""
    return LSTMState(features.unsqueeze(1), carried[0].unsqueeze(1)) if carried else ()


class Unrolled(torch.autograd.Function):
    """Every step of a sequence; once differentiable."""

    @staticmethod
    def forward(
        ctx: Any,
        layout: Layout,
        make_cell: MakeCell,
        episode_starts: Bool[Tensor, "T B"],
        w_interface: Float[Tensor, "I C"],
        b_interface: Float[Tensor, " I"],
        by_inputs: Float[Tensor, "T B G"],
        w_before: Float[Tensor, "G Q"],
        *leaves: Tensor,
    ) -> tuple[Tensor, ...]:
        """Features ``[T, B, C + R W]``; and after the last step memory, weights, and what the cell carries.

        ``leaves`` are memory, weights, ``Q`` features and what the cell carries: before the first step, and then initially.
        """
        steps, size = len(by_inputs), w_interface.shape[1]
        state, initial = leaves[: len(leaves) // 2], leaves[len(leaves) // 2 :]
        memory, weights = state[:2]
        memories = memory.new_empty(steps, *memory.shape).unbind()
        carried = [leaf.new_empty(steps + 1, *leaf.shape) for leaf in state[2:]]
        for buffer, leaf in zip(carried, state[2:], strict=True):
            buffer[0] = leaf
        rows = carried[0].unbind()
        cell = make_cell(torch.empty_like(by_inputs), carried[1:])
        features = by_inputs.new_empty(*by_inputs.shape[:2], size + layout.read_heads * layout.width)
        hidden, reads, recalled = split_features(layout, features, size, w_before.shape[1])
        heads, found = Heads(layout, steps, memory), []
        into_sums, into_interface = w_before.t(), w_interface.t()
        interfaces, sums = heads.interface.unbind(), cell.sums.unbind()
        for t, any_starts in enumerate(episode_starts.any(1).tolist()):
            if any_starts:
                memory, weights = (
                    restart(*leaves, episode_starts[t]) for leaves in zip((memory, weights), initial, strict=False)
                )
                for buffer, leaf in zip(carried, initial[2:], strict=True):
                    buffer[t] = restart(buffer[t], leaf, episode_starts[t])
            found.append((memory, weights))
            torch.addmm(by_inputs[t], rows[t], into_sums, out=sums[t])
            cell.forward(t, hidden[t])
            torch.addmm(b_interface, hidden[t], into_interface, out=interfaces[t])
            heads.look(t, memory, weights)
            heads.access(t, memory, reads[t], memories[t])
            memory, weights = memories[t], heads.steps[t].weights
            rows[t + 1].copy_(recalled[t])
        ctx.cell, ctx.heads, ctx.found = cell, heads, found
        ctx.save_for_backward(episode_starts, w_interface, w_before, carried[0], features)
        return features, memory.clone(), weights.clone(), *(buffer[-1].clone() for buffer in carried[1:])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        """Backpropagation through time.

        Raises:
            RuntimeError: a gradient that can itself be differentiated is asked for (``create_graph=True``).
        """
        if torch.is_grad_enabled():
            raise RuntimeError("the gradient of an unrolled NTM has no derivative (create_graph=True); step the core instead")
        cell, heads, found = ctx.cell, ctx.heads, ctx.found
        episode_starts, w_interface, w_before, rows, features = ctx.saved_tensors
        # By what the step at hand leaves behind; in the end, by what the first one found.
        d_features, d_memory, d_weights, *d_cell = (
            gradient.clone(memory_format=torch.contiguous_format) for gradient in gradients
        )
        d_row = rows.new_zeros(rows.shape[1:])
        d_initial = [torch.zeros_like(leaf) for leaf in (d_memory, d_weights, d_row, *d_cell)]
        d_hidden, d_reads, d_recalled = split_features(heads.layout, d_features, w_interface.shape[1], w_before.shape[1])
        d_sums, d_interfaces = torch.empty_like(cell.sums), torch.empty_like(heads.interface)
        cell.prepare(d_sums, d_cell)
        heads.prepare(d_interfaces)
        d_sum, d_interface = d_sums.unbind(), d_interfaces.unbind()
        for t, any_starts in reversed([*enumerate(episode_starts.any(1).tolist())]):
            memory, before = found[t]
            d_recalled[t].add_(d_row)
            heads.access_back(t, memory, d_reads[t], d_memory, d_weights)
            d_weights = heads.look_back(t, memory, before, d_memory, d_weights)
            d_hidden[t].addmm_(d_interface[t], w_interface)
            cell.backward(t, d_hidden[t])
            torch.mm(d_sum[t], w_before, out=d_row)
            if any_starts:
                for d_leaf, d_fresh in zip((d_memory, d_weights, d_row, *d_cell), d_initial, strict=True):
                    starts = spread(episode_starts[t], d_leaf)
                    d_fresh.add_(d_leaf.masked_fill(~starts, 0))
                    d_leaf.masked_fill_(starts, 0)
        by_interface, by_sums = d_interfaces.flatten(0, 1), d_sums.flatten(0, 1)
        d_w_interface = by_interface.t() @ features[..., : w_interface.shape[1]].flatten(0, 1)
        d_w_before = by_sums.t() @ rows[:-1].flatten(0, 1)
        d_leaves = (d_memory, d_weights, d_row, *d_cell, *d_initial)
        return None, None, None, d_w_interface, by_interface.sum(0), d_sums, d_w_before, *d_leaves


def split_features(layout: Layout, features: Float[Tensor, "T B _"], size: int, recalled: int) -> tuple[Sequence[Tensor], ...]:
    """Step by step, views on what is the controller's, on what was read, and on what the controller reads in the step after."""
    reads = features[..., size:].unflatten(-1, (-1, layout.width))
    return features[..., :size].unbind(), reads.unbind(), features[..., -recalled:].unbind()


def spread(starts: Bool[Tensor, " B"], like: Tensor) -> Tensor:
    """Lanes, to be broadcast over another tensor's other axes."""
    return starts.view(-1, *[1] * (like.ndim - 1))


def restart(now: Tensor, fresh: Tensor, starts: Bool[Tensor, " B"]) -> Tensor:
    """The initial state's leaf in the lanes where an episode starts."""
    return torch.where(spread(starts, now), fresh, now)
