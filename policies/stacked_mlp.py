"""Networks of one shape side by side, in one node of autograd's graph.

Small networks cost what their operations cost to start: so there is one batched product a layer instead of one a network, and
the gradient is written out. Shapes: ``C`` copies, ``N`` rows, ``D`` inputs, ``H`` hidden, ``O`` outputs.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn


def tanh_(x: Tensor) -> Tensor:
    """Hyperbolic tangent in place. On a CPU it is numpy's: 2 µs for 8,192 numbers, torch's takes 18."""
    if x.device.type != "cpu" or x.dtype not in {torch.float32, torch.float64}:
        return x.tanh_()
    numbers = x.numpy()
    np.tanh(numbers, out=numbers)
    return x


def is_traced() -> bool:
    """Whether the operations are being recorded: what numpy does leaves no trace."""
    return torch.compiler.is_compiling() or bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


class Activation(NamedTuple):
    """A function in place, and the gradient by its input from the one by its output and that output."""

    apply_: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]


ACTIVATIONS: dict[type[nn.Module], Activation] = {
    nn.Tanh: Activation(tanh_, torch.ops.aten.tanh_backward.default),
    nn.ReLU: Activation(torch.relu_, lambda slope, output: torch.ops.aten.threshold_backward.default(slope, output, 0)),
}
"""Those whose gradient is known here; with any other a network is left to autograd."""


class StackedMLP(nn.Module):
    """Several multilayer perceptrons of one shape, side by side: one batched product a layer instead of one a network.

    Args:
        copies: ``C``, how many.
        inputs: ``D``.
        widths: of the hidden layers; the last is the number of outputs.
        activation_fn: after every layer.
        gain: of the orthogonal initialisation; ``None`` starts every layer as ``nn.Linear`` does.
    """

    def __init__(
        self, copies: int, inputs: int, widths: Sequence[int], activation_fn: type[nn.Module], gain: float | None
    ) -> None:
        super().__init__()
        self.activation = activation_fn()
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for before, after in pairwise([inputs, *widths]):
            weight, bias = torch.empty(copies, before, after), torch.zeros(copies, 1, after)
            for one, its_bias in zip(weight, bias, strict=True):
                if gain is None:
                    layer = nn.Linear(before, after)
                    one.copy_(layer.weight.detach().t())
                    its_bias.copy_(layer.bias.detach())
                else:
                    nn.init.orthogonal_(one.t(), gain)
            self.weights.append(weight)
            self.biases.append(bias)

    def forward(self, inputs: Float[Tensor, "C N D"]) -> Float[Tensor, "C N H"]:
        """A batch for each copy."""
        for weight, bias in zip(self.weights, self.biases, strict=True):
            inputs = self.activation(torch.baddbmm(bias, inputs, weight))
        return inputs

    def read_out(self, inputs: Float[Tensor, "C *batch D"], layers: Sequence[nn.Linear]) -> tuple[Tensor, ...]:
        """What a linear layer for each copy reads off it, ``[..., O]`` each; hooks of those layers are not called.

        The gradient has no derivative of its own (``create_graph=True``), unless the activation is an unusual one.
        """
        activation = ACTIVATIONS.get(type(self.activation))
        if activation is None or is_traced():
            outputs = self(inputs.reshape(len(inputs), -1, inputs.shape[-1]))
            outputs = outputs.view(*inputs.shape[:-1], -1)
            return tuple(layer(hidden) for layer, hidden in zip(layers, outputs, strict=True))
        # ParameterList's own iteration looks every name up again, 10 µs in all.
        hidden = (*self.weights._parameters.values(), *self.biases._parameters.values())
        parameters = cast("Sequence[Tensor]", (*hidden, *(one.weight for one in layers), *(one.bias for one in layers)))
        if not torch.is_grad_enabled():
            return _forward(activation, inputs, parameters)[0]
        return cast("tuple[Tensor, ...]", ReadOut.apply(activation, inputs, *parameters))  # type: ignore[no-untyped-call]


class ReadOut(torch.autograd.Function):
    """:meth:`StackedMLP.read_out` with its gradient: parameters are weights, biases, and those of the layers that read."""

    @staticmethod
    def forward(ctx: Any, activation: Activation, inputs: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        """One output for each copy."""
        outputs, hidden = _forward(activation, inputs, parameters)
        ctx.activation, ctx.shape = activation, inputs.shape
        ctx.depth = depth = len(hidden) - 1
        ctx.save_for_backward(*hidden, *parameters[:depth], *parameters[2 * depth : -len(outputs)])  # biases are not needed
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        """By inputs and parameters.

        Raises:
            RuntimeError: a gradient that can itself be differentiated is asked for (``create_graph=True``).
        """
        if torch.is_grad_enabled():
            raise RuntimeError("the gradient of StackedMLP.read_out has no derivative (create_graph=True)")
        depth, saved, wants_inputs = ctx.depth, ctx.saved_tensors, ctx.needs_input_grad[1]
        hidden, weights, readers = saved[: depth + 1], saved[depth + 1 : 2 * depth + 1], saved[2 * depth + 1 :]
        gradients = tuple(gradient.reshape(-1, gradient.shape[-1]) for gradient in gradients)
        by_hidden = torch.empty_like(hidden[-1])
        for by_output, reader, row in zip(gradients, readers, by_hidden.unbind(), strict=True):
            torch.mm(by_output, reader, out=row)
        by_readers = [by_output.t().mm(last) for by_output, last in zip(gradients, hidden[-1].unbind(), strict=True)]
        by_reader_biases = [by_output.sum(dim=0) for by_output in gradients]
        by_weights, by_biases = [], []
        for layer in reversed(range(depth)):
            before_activation = ctx.activation.backward(by_hidden, hidden[layer + 1])
            by_biases.append(before_activation.sum(dim=1, keepdim=True))
            by_weights.append(hidden[layer].mT.bmm(before_activation))
            if layer > 0 or wants_inputs:
                by_hidden = before_activation.bmm(weights[layer].mT)
        by_inputs = by_hidden.view(ctx.shape) if wants_inputs else None
        return None, by_inputs, *by_weights[::-1], *by_biases[::-1], *by_readers, *by_reader_biases


def _forward(activation: Activation, inputs: Tensor, parameters: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    """The outputs ``C`` times ``[..., O]``, and inputs and hidden layers ``[C, N, H]``."""
    copies = len(inputs)
    depth = len(parameters) // 2 - copies
    hidden = [inputs.reshape(copies, -1, inputs.shape[-1])]
    for weight, bias in zip(parameters[:depth], parameters[depth : 2 * depth], strict=True):
        hidden.append(activation.apply_(torch.baddbmm(bias, hidden[-1], weight)))
    readers, biases = parameters[2 * depth : 2 * depth + copies], parameters[2 * depth + copies :]
    rows = zip(hidden[-1].unbind(), readers, biases, strict=True)
    shape = inputs.shape[1:-1]
    return tuple(nn.functional.linear(row, weight, bias).view(*shape, -1) for row, weight, bias in rows), hidden
