"""A step of a Differentiable Neural Computer in numpy: acting on a processor, without gradients.

Graves et al. 2016, Nature 538, "Methods", whose symbols are used here. A step of few lanes is a hundred operations on little
data. Each costs what it costs to start, and that is half as much in numpy as in torch. Arrays are views of the tensors that
come in, which are never written to; of those that go out none is kept. It has to agree with
:meth:`saccade.policies.dnc.DNC.step`.

Shapes: ``B`` lanes, ``N`` slots, ``W`` numbers in a slot, ``R`` read heads; ``D`` numbers to the controller, ``H`` from it.
"""

from functools import cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor, nn

from saccade.policies.addressing import EPSILON
from saccade.policies.core import Core, CoreOutput, State
from saccade.policies.dnc_memory import DNCState, interface_sizes
from saccade.policies.recurrent import LSTM, LSTMState
from saccade.policies.stacked_mlp import is_traced

LARGEST_STEP = 2**17
"""Multiplications of read weights by links, in all lanes, up to which numpy is the faster. With 64 slots and 4 heads one lane
takes 0.63 of torch's time, 8 lanes take 0.98, and 16 lanes 1.05 (measured)."""

LARGEST_PRODUCT = 2**18 if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else 2**13
"""Multiplications up to which features times weights are numpy's: of one row in half of torch's time. For larger ones OpenBLAS
starts threads, whatever ``torch.set_num_threads`` says, and where other processes are busy waits for them for milliseconds."""

# Arrays: a number would first be made one, at twice the cost.
ONE, HALF, TINY = (np.array(number, np.float32) for number in (1, 0.5, EPSILON))
# A sigmoid is 1/2 tanh(x / 2) + 1/2. Of an LSTM's gates in, forget, cell, out the third is a tanh.
GATE_SCALES, GATE_SHIFTS = (np.array(column, np.float32).reshape(4, 1) for column in ([0.5, 0.5, 1, 0.5], [0.5, 0.5, 0, 0.5]))


class Arrays(NamedTuple):
    """A :class:`~saccade.policies.dnc_memory.DNCState` but for the controller's part."""

    memory: Float32[np.ndarray, "B N W"]
    usage: Float32[np.ndarray, "B N"]
    write_weights: Float32[np.ndarray, "B N"]
    read_weights: Float32[np.ndarray, "B R N"]
    precedence: Float32[np.ndarray, "B N"]
    link: Float32[np.ndarray, "B N N"]
    reads: Float32[np.ndarray, "B R W"]


class Orders(NamedTuple):
    """What the controller asks of the memory. Keys are as long as they are strong; the last of them writes."""

    keys: Float32[np.ndarray, "B heads W"]
    vector: Float32[np.ndarray, "B 1 W"]
    erase: Float32[np.ndarray, "B 1 W"]
    free_gates: Float32[np.ndarray, "B R 1"]
    allocation_gate: Float32[np.ndarray, "B 1"]
    write_gate: Float32[np.ndarray, "B 1"]
    modes: Float32[np.ndarray, "B 3 R"]


def can_act(inputs: Tensor, ties: Tensor, multiplications: int) -> bool:
    """Whether :func:`act` can do it, and faster than torch."""
    return multiplications <= LARGEST_STEP and inputs.is_cpu and inputs.dtype == ties.dtype == torch.float32 and not is_traced()


def act(
    controller: Core,
    interface: nn.Linear,
    ties: Float32[Tensor, " N"],
    inputs: Float32[Tensor, "1 B input"],
    state: State,
) -> CoreOutput:
    """A sequence of one step where gradients are off, with a dense link.

    Args:
        controller: a DNC's.
        interface: from the controller's features to the interface's numbers.
        ties: see :func:`~saccade.policies.addressing.tie_breakers`.
        inputs: of the step.
        state: before it.
    """
    before = Arrays(*[leaf.numpy() for leaf in state[:7]])
    lanes = len(before.reads)
    given = np.concatenate((inputs.numpy()[0], before.reads.reshape(lanes, -1)), 1)
    # What is not finite is handed on without a word, as by torch.
    with np.errstate(all="ignore"):
        if type(controller) is LSTM and controller.n_layers == 1 and 4 * controller.hidden_size * given.size <= LARGEST_PRODUCT:
            features, control = lstm(controller.weights(), given, state.controller)
            cost = None
        else:
            output = controller.step(torch.from_numpy(given), state.controller)
            features, control = output.features.numpy(), output.state
            cost = None if output.cost is None else output.cost.unsqueeze(0)
        after = step(linear(features, interface.weight, interface.bias), before, ties.numpy())
    read = np.concatenate((features, after.reads.reshape(lanes, -1)), 1)
    return CoreOutput(torch.from_numpy(read[None]), DNCState._make((*map(torch.from_numpy, after), control)), cost=cost)


# --- Controller --------------------------------------------------------------------------------------------------------------


def linear(
    rows: Float32[np.ndarray, "B D"], weight: Float32[Tensor, "E D"], bias: Float32[Tensor, " E"]
) -> Float32[np.ndarray, "B E"]:
    """``x W^T + b``, new."""
    if len(rows) * weight.numel() > LARGEST_PRODUCT:
        return nn.functional.linear(torch.from_numpy(rows), weight, bias).numpy()
    sums = np.matmul(rows, weight.numpy().T)
    sums += bias.numpy()
    return sums


def squash_(
    sums: Float32[np.ndarray, "*shape"], scale: Float32[np.ndarray, "*#shape"], shift: Float32[np.ndarray, "*#shape"]
) -> None:
    """``scale tanh(scale x) + shift``, in place; no number is too large for it."""
    sums *= scale
    np.tanh(sums, out=sums)
    sums *= scale
    sums += shift


def lstm(
    weights: list[Tensor], inputs: Float32[np.ndarray, "B D"], state: LSTMState
) -> tuple[Float32[np.ndarray, "B H"], LSTMState]:
    """An LSTM of one layer: its features, and its state."""
    w_input, w_hidden, b_input, b_hidden = weights
    sums = linear(inputs, w_input, b_input)
    sums += linear(state.hidden.numpy()[:, 0], w_hidden, b_hidden)
    gates = sums.reshape(len(inputs), 4, -1)
    squash_(gates, GATE_SCALES, GATE_SHIFTS)
    # c = f c_tm1 + i g;  h = o tanh(c)
    cell = gates[:, 1] * state.cell.numpy()[:, 0]
    cell += gates[:, 0] * gates[:, 2]
    hidden = np.tanh(cell)
    hidden *= gates[:, 3]
    return hidden, LSTMState(torch.from_numpy(hidden[:, None]), torch.from_numpy(cell[:, None]))


# --- Memory ------------------------------------------------------------------------------------------------------------------


@cache
def ones(count: int) -> Float32[np.ndarray, " count"]:
    """Ones, whose product with rows are their sums: several times as fast as numpy's own."""
    return np.ones(count, np.float32)


@cache
def bounds(heads: int, width: int) -> list[int]:
    """Where the parts of an interface vector end, and those of its gates."""
    keys, strengths, vector, _, modes = interface_sizes(heads, width)
    return list(accumulate((keys, strengths, vector, width, heads, 1, 1, modes)))


def softmax_(logits: Float32[np.ndarray, "*shape"], axis: int) -> None:
    """In place."""
    logits -= np.maximum.reduce(logits, axis=axis, keepdims=True)
    np.exp(logits, out=logits)
    logits /= np.add.reduce(logits, axis=axis, keepdims=True)


def lengths(vectors: Float32[np.ndarray, "B n W"]) -> Float32[np.ndarray, "B n"]:
    """``|v|``, never 0."""
    squares = np.matmul(vectors * vectors, ones(vectors.shape[2]))
    squares += TINY
    return np.sqrt(squares, out=squares)


def orders_of(numbers: Float32[np.ndarray, "B numbers"], heads: int, width: int) -> Orders:
    """Parts of the interface vector, in place: as in :func:`~saccade.policies.dnc_memory.parse_interface`."""
    lanes = len(numbers)
    keyed, strong, valued, erased, freed, allocated, opened, _ = bounds(heads, width)
    keys = numbers[:, :keyed].reshape(lanes, heads + 1, width)
    # oneplus(x) = 1 + log(1 + e^x)
    strengths = np.logaddexp(numbers[:, keyed:strong], 0)
    strengths += ONE
    strengths /= lengths(keys)
    keys *= strengths[:, :, None]
    squash_(numbers[:, valued:opened], HALF, HALF)
    modes = numbers[:, opened:].reshape(lanes, 3, heads)
    softmax_(modes, 1)
    vector, erase = numbers[:, None, strong:valued], numbers[:, None, valued:erased]
    free_gates = numbers[:, erased:freed, None]
    return Orders(keys, vector, erase, free_gates, numbers[:, freed:allocated], numbers[:, allocated:opened], modes)


def used(before: Arrays, free_gates: Float32[np.ndarray, "B R 1"]) -> Float32[np.ndarray, "B N"]:
    """``psi = prod_r (1 - f_r w_r)``; ``u = (u_tm1 + w_w - u_tm1 w_w) psi``."""
    freed = free_gates * before.read_weights
    np.subtract(ONE, freed, out=freed)
    usage = before.usage + before.write_weights
    usage -= before.usage * before.write_weights
    usage *= np.multiply.reduce(freed, axis=1)
    return usage


def allocation(usage: Float32[np.ndarray, "B N"], ties: Float32[np.ndarray, " N"]) -> Float32[np.ndarray, "B N"]:
    """``a[phi_j] = (1 - u[phi_j]) prod_{i<j} u[phi_i]``: the product up to a slot less the one with it."""
    lanes, slots = usage.shape
    usage_with_ties = ONE - usage
    usage_with_ties *= ties
    usage_with_ties += usage
    order = usage_with_ties.argsort(axis=1, kind="stable")
    if lanes > 1:
        order += np.arange(0, lanes * slots, slots)[:, None]
    products = np.empty((lanes, slots + 1), np.float32)
    products[:, 0] = ONE
    np.multiply.accumulate(usage_with_ties.take(order), axis=1, out=products[:, 1:])
    allocated = np.empty((lanes, slots), np.float32)
    allocated.put(order, products[:, :-1] - products[:, 1:])
    return allocated


def relinked(
    link: Float32[np.ndarray, "B N N"], precedence: Float32[np.ndarray, "B N"], weights: Float32[np.ndarray, "B N"]
) -> Float32[np.ndarray, "B N N"]:
    """``L[i, j] = L_tm1 + w[i] (p_tm1[j] - L_tm1) - w[j] L_tm1``, ``L[i, i] = 0``."""
    links = np.subtract(precedence[:, None], link, order="C")
    links *= weights[:, :, None]
    links += link
    links -= link * weights[:, None]
    lanes, slots = weights.shape
    links.reshape(lanes, -1)[:, :: slots + 1] = 0
    return links


def step(numbers: Float32[np.ndarray, "B numbers"], before: Arrays, ties: Float32[np.ndarray, " N"]) -> Arrays:
    """A step of the memory, from the interface vector, which is used up."""
    memory, _, _, read_weights, precedence, link, reads = before
    lanes, heads, width = reads.shape
    orders = orders_of(numbers, heads, width)
    usage = used(before, orders.free_gates)
    # c_w = C(M_tm1, k_w, beta_w);  w_w = g_w (g_a a + (1 - g_a) c_w)
    content = np.matmul(memory, orders.keys[:, heads, :, None])[:, :, 0]
    content /= lengths(memory)
    softmax_(content, 1)
    weights = allocation(usage, ties)
    weights -= content
    weights *= orders.allocation_gate
    weights += content
    weights *= orders.write_gate
    # M = M_tm1 + w_w (v - e M_tm1);  p = (1 - sum w_w) p_tm1 + w_w
    written = memory * orders.erase
    np.subtract(orders.vector, written, out=written)
    written *= weights[:, :, None]
    written += memory
    links = relinked(link, precedence, weights)
    precedence = precedence * (ONE - np.add.reduce(weights, axis=1, keepdims=True))
    precedence += weights
    # b = L^T w_r;  f = L w_r;  c_r = C(M, k_r, beta_r)
    routes = np.empty((lanes, 3, *read_weights.shape[1:]), np.float32)
    np.matmul(read_weights, links, out=routes[:, 0])
    np.matmul(read_weights, links.swapaxes(1, 2), out=routes[:, 1])
    content = np.matmul(orders.keys[:, :heads], written.swapaxes(1, 2), out=routes[:, 2])
    content /= lengths(written)[:, None]
    softmax_(content, 2)
    # w_r = pi_1 b + pi_2 c_r + pi_3 f;  r = M^T w_r
    routes *= orders.modes[..., None]
    read_weights = np.add.reduce(routes, axis=1)
    return Arrays(written, usage, weights, read_weights, precedence, links, np.matmul(read_weights, written))
