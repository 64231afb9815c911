"""Controllers of an external memory over the steps of one call, and their way back.

Shapes: ``T`` time, ``B`` lanes, ``D`` the controller's features, ``Q`` all numbers read from the memory.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from saccade.policies.core import Core, CoreOutput, State, map_state, reset_state
from saccade.policies.recurrent import LSTM, LSTMState


def tensors(tree: State) -> Iterator[Tensor]:
    """Every tensor of a state, in order."""
    if isinstance(tree, Tensor):
        yield tree
    else:
        for part in tree:
            yield from tensors(part)


def rebuilt(tree: State, values: Iterator[Tensor]) -> State:
    """A state of the same structure, of these tensors."""
    return map_state(lambda _: next(values), tree)


def emptied(tree: State, lanes: Int[Tensor, " lanes"]) -> State:
    """Zeros in these lanes."""
    return map_state(lambda leaf: leaf.index_fill(0, lanes, 0), tree)


class Recorded:
    """Parts of steps that autograd differentiates: every call of a function keeps a graph of its own.

    Args:
        parameters: tensors that the functions use besides those they are given.
    """

    def __init__(self, parameters: Sequence[Tensor] = ()) -> None:
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.calls: list[tuple[list[Tensor], tuple[Tensor, ...]]] = []

    def forward(self, function: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> list[Tensor]:
        """What the function makes of these."""
        with torch.inference_mode(False), torch.enable_grad():
            given = [tensor.clone().requires_grad_() for tensor in inputs]
            outputs = function(*given)
        self.calls.append((given, outputs))
        return [output.detach() for output in outputs]

    def backward(self, t: int, *gradients: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Gradients by what went into call ``t``, and by the parameters."""
        given, outputs = self.calls[t]
        pairs = [pair for pair in zip(outputs, gradients, strict=True) if pair[0].requires_grad]
        with torch.inference_mode(False):
            found = torch.autograd.grad(
                [output for output, _ in pairs],
                [*given, *self.parameters],
                [gradient.clone() for _, gradient in pairs],
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
        return list(found[: len(given)]), list(found[len(given) :])


class Controller(ABC):
    """A controller over the steps of one call, and its way back where that was kept."""

    def enter(self, state: State) -> State:
        """A state, or a gradient by it, in the form in which it is kept meanwhile."""
        return state

    def leave(self, state: State) -> State:
        """And back."""
        return state

    @abstractmethod
    def forward(self, t: int, state: State, reads: Float[Tensor, "B Q"], lanes: Int[Tensor, " lanes"] | None) -> CoreOutput:
        """One step, from the initial state in these lanes."""

    @abstractmethod
    def prepare(self) -> None:
        """Before a way back."""

    @abstractmethod
    def backward(
        self, t: int, d_features: Float[Tensor, "B D"], d_state: State, d_cost: Float[Tensor, " B"] | None
    ) -> tuple[State, Float[Tensor, "B Q"]]:
        """Gradients by the state before step ``t`` and by what was read before it."""

    @abstractmethod
    def finish(self) -> tuple[Float[Tensor, "T B input"], list[Tensor | None]]:
        """Gradients by the inputs and by the controller's parameters."""


class AnyController(Controller):
    """Any core: autograd differentiates every step of it."""

    def __init__(self, core: Core, inputs: Float[Tensor, "T B input"], keep: bool) -> None:
        self.core, self.inputs, self.keep = core, inputs.unbind(), keep
        self.recorded = Recorded(list(core.parameters()))

    def forward(self, t: int, state: State, reads: Float[Tensor, "B Q"], lanes: Int[Tensor, " lanes"] | None) -> CoreOutput:
        """One step."""

        def run(inputs: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
            before = rebuilt(state, iter(leaves))
            if lanes is not None:
                starts = torch.zeros(len(inputs), dtype=torch.bool, device=lanes.device).index_fill(0, lanes, True)
                before = reset_state(before, self.core.initial_state(len(inputs)), starts)
            output = self.core.step(inputs, before)
            return output.features, *tensors(output.state), *([] if output.cost is None else [output.cost])

        given = (torch.cat([self.inputs[t], reads], 1), *tensors(state))
        features, *after = self.recorded.forward(run, *given) if self.keep else run(*given)
        cost = after.pop() if len(after) == len(given) else None
        return CoreOutput(features, rebuilt(state, iter(after)), None, cost)

    def prepare(self) -> None:
        """Nothing yet of what is summed up or collected."""
        self.d_parameters = [torch.zeros_like(parameter) for parameter in self.recorded.parameters]
        self.d_inputs: list[Tensor] = []

    def backward(
        self, t: int, d_features: Float[Tensor, "B D"], d_state: State, d_cost: Float[Tensor, " B"] | None
    ) -> tuple[State, Float[Tensor, "B Q"]]:
        """One step."""
        gradients = (d_features, *tensors(d_state), *([] if d_cost is None else [d_cost]))
        (d_given, *d_leaves), d_parameters = self.recorded.backward(t, *gradients)
        for total, gradient in zip(self.d_parameters, d_parameters, strict=True):
            total.add_(gradient)
        size = self.inputs[0].shape[1]
        self.d_inputs.append(d_given[:, :size])
        return rebuilt(d_state, iter(d_leaves)), d_given[:, size:]

    def finish(self) -> tuple[Float[Tensor, "T B input"], list[Tensor | None]]:
        """Sums over all steps."""
        found = iter(self.d_parameters)
        wanted = [parameter.requires_grad for parameter in self.core.parameters()]
        return torch.stack(self.d_inputs[::-1]), [next(found) if each else None for each in wanted]


def regrouped(weight: Float[Tensor, "gates ..."], order: Sequence[int]) -> Float[Tensor, "gates ..."]:
    """Rows of an LSTM's weights with its four gates in another order."""
    return weight.unflatten(0, (4, -1))[list(order)].flatten(0, 1)


class LSTMController(Controller):
    """An LSTM of one layer, by hand. Its state is kept without the axis of layers.

    Gates lie in the order ``o i f g``: the first three are sigmoids, the last three go by the cell.
    """

    def __init__(self, core: LSTM, inputs: Float[Tensor, "T B input"], keep: bool) -> None:
        w_all, w_hidden, b_input, b_hidden = core.network.all_weights[0]
        order, size = (3, 0, 1, 2), inputs.shape[2]
        self.size, self.inputs, self.keep = core.hidden_size, inputs, keep
        self.w_input = regrouped(w_all[:, :size], order)
        self.w_before = regrouped(torch.cat([w_hidden, w_all[:, size:]], 1), order)
        self.transposed = self.w_before.t()
        # Sums over the inputs now, the rest step by step.
        self.gates = nn.functional.linear(inputs, self.w_input, regrouped(b_input + b_hidden, order))
        parts = (self.gates, self.gates[..., : 3 * self.size], *self.gates.split(self.size, 2))
        self.steps = list(zip(*(part.unbind() for part in parts), strict=True))
        self.before: list[Tensor] = []
        self.cells: list[Tensor] = []
        self.bent: list[Tensor] = []

    def enter(self, state: State) -> State:
        """Without the axis of layers."""
        return LSTMState(state.hidden.squeeze(1), state.cell.squeeze(1))

    def leave(self, state: State) -> State:
        """With it."""
        return LSTMState(state.hidden.unsqueeze(1), state.cell.unsqueeze(1))

    def forward(self, t: int, state: State, reads: Float[Tensor, "B Q"], lanes: Int[Tensor, " lanes"] | None) -> CoreOutput:
        """One step."""
        if lanes is not None:
            state = emptied(state, lanes)
        before = torch.cat([state.hidden, reads], 1)
        sums, opened, output, keep_in, keep, new = self.steps[t]
        sums.addmm_(before, self.transposed)
        opened.sigmoid_()
        # c = f c_tm1 + i g;  h = o tanh(c)
        cell = torch.addcmul(keep * state.cell, keep_in, new.tanh_())
        bent = cell.tanh()
        hidden = output * bent
        if self.keep:
            self.before.append(before)
            self.cells.append(state.cell)
            self.bent.append(bent)
        return CoreOutput(hidden, LSTMState(hidden, cell))

    def prepare(self) -> None:
        """What does not depend on later gradients, of all steps at once."""
        output, keep_in, keep, new = self.gates.split(self.size, 2)
        bent, cells = torch.stack(self.bent), torch.stack(self.cells)
        by_cell = [new * keep_in * (1 - keep_in), cells * keep * (1 - keep), keep_in * (1 - new * new)]
        slopes = (bent * output * (1 - output), torch.stack(by_cell, 2), output * (1 - bent * bent), keep)
        self.d_gates = torch.empty_like(self.gates)
        parts = (self.d_gates, self.d_gates[..., : self.size], self.d_gates[..., self.size :].unflatten(2, (3, -1)))
        self.ways = list(zip(*(part.unbind() for part in (*slopes, *parts)), strict=True))

    def backward(
        self, t: int, d_features: Float[Tensor, "B D"], d_state: State, d_cost: Float[Tensor, " B"] | None
    ) -> tuple[State, Float[Tensor, "B Q"]]:
        """One step."""
        by_output, by_cell, to_cell, keep, d_gates, d_output, d_others = self.ways[t]
        d_hidden = d_features + d_state.hidden
        d_cell = torch.addcmul(d_state.cell, d_hidden, to_cell)
        torch.mul(by_output, d_hidden, out=d_output)
        torch.mul(by_cell, d_cell.unsqueeze(1), out=d_others)
        d_before, d_reads = torch.mm(d_gates, self.w_before).tensor_split([self.size], 1)
        return LSTMState(d_before, d_cell.mul_(keep)), d_reads

    def finish(self) -> tuple[Float[Tensor, "T B input"], list[Tensor | None]]:
        """One product for all steps."""
        rows = self.d_gates.flatten(0, 1)
        d_inputs = (rows @ self.w_input).view_as(self.inputs)
        d_before = rows.t() @ torch.stack(self.before).flatten(0, 1)
        d_hidden, d_reads = d_before.tensor_split([self.size], 1)
        d_input = torch.cat([rows.t() @ self.inputs.flatten(0, 1), d_reads], 1)
        order = (1, 2, 3, 0)
        d_bias = regrouped(rows.sum(0), order)
        return d_inputs, [regrouped(d_input, order), regrouped(d_hidden, order), d_bias, d_bias]


def controller_over(core: Core, inputs: Float[Tensor, "T B input"], keep: bool) -> Controller:
    """The fastest that there is for this core; with ``keep``, there will be a way back."""
    if type(core) is LSTM and core.n_layers == 1:
        return LSTMController(core, inputs, keep)
    return AnyController(core, inputs, keep)
