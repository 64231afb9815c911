"""Recurrent cores over vectors: LSTM, GRU, and the core without memory.

Stepping uses the cell kernels (a fused call for one step costs more than twice as much). A sequence is one call of the fused
kernel, however many episodes it holds. Two more inputs to every layer, which saturate its gates, make that possible: one wipes
the state between two episodes, the other holds it after the last, both exactly, and with gradients of exactly zero across. So
episodes are laid end to end (:func:`~saccade.policies.recurrent_kernels.pack_episodes`), and none sees another.
"""

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, TypeAlias, cast

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from saccade.policies.core import Core, CoreOutput, State, map_state, reset_state
from saccade.policies.recurrent_kernels import GRULayer, pack_episodes

# What saturates a gate whatever else it reads, in half precision too: sigmoid(SATURATED) = 1 and sigmoid(-SATURATED) = 0.
SATURATED = 1e4


class FeedForward(Core):
    """No memory: features are the inputs. The core of a feed-forward policy."""

    def __init__(self, input_shape: Sequence[int]) -> None:
        super().__init__(input_shape, features_dim=int(input_shape[0]))

    def initial_state(self, batch_size: int) -> State:
        """Nothing to remember: an empty tuple."""
        return ()

    def step(self, inputs: Tensor, state: State, replay: Tensor | None = None, deterministic: bool = False) -> CoreOutput:
        """Features ``[B, D]`` are the inputs ``[B, D]``."""
        return CoreOutput(inputs, state)

    def unroll(
        self,
        inputs: Tensor,
        state: State,
        episode_starts: Tensor,
        replay: Tensor | None = None,
        deterministic: bool = False,
    ) -> CoreOutput:
        """Features ``[T, B, D]`` are the inputs."""
        return CoreOutput(inputs, state)


class LSTMState(NamedTuple):
    """Hidden ``h`` and cell ``c`` of every layer ``L``, ``[B, L, H]``."""

    hidden: Float[Tensor, "B L H"]
    cell: Float[Tensor, "B L H"]


class GRUState(NamedTuple):
    """Hidden ``h`` of every layer ``L``, ``[B, L, H]``."""

    hidden: Float[Tensor, "B L H"]


Leaves: TypeAlias = tuple[Tensor, ...]


class Recurrent(Core):
    """Shared by cores around torch's fused recurrent networks.

    Args:
        input_shape: ``(features,)``.
        hidden_size: ``H``, which is also the number of output features.
        n_layers: ``L``, recurrent layers on top of each other.
        memory_span: steps that something may have to be remembered: gates start so that units keep what they hold for 1 to so
            many steps, instead of about two (chrono initialisation, Tallec & Ollivier 2018); ``None`` for torch's start.

    Raises:
        ValueError: the input is not a vector, a size is below 1, or a span below 2.
    """

    state_type: type[LSTMState] | type[GRUState]

    def __init__(
        self, input_shape: Sequence[int], hidden_size: int = 128, n_layers: int = 1, memory_span: int | None = None
    ) -> None:
        if hidden_size < 1 or n_layers < 1:
            raise ValueError(f"hidden_size and n_layers must be at least 1; got {hidden_size} and {n_layers}")
        super().__init__(input_shape, features_dim=hidden_size)
        self.hidden_size = hidden_size
        self.n_layers = n_layers
        self.network = self.build_network(int(input_shape[0]))
        if memory_span is not None:
            if memory_span < 2:
                raise ValueError(f"memory_span must be at least 2 steps; got {memory_span}")
            self.remember(memory_span)

    @abstractmethod
    def build_network(self, input_size: int) -> nn.RNNBase:
        """The fused network."""

    @torch.no_grad()
    def remember(self, span: int) -> None:
        """Start every layer's gates so that its units keep what they hold for 1 to ``span`` steps."""
        for _, _, b_input, b_hidden in self.network.all_weights:
            b_hidden.zero_()
            b_input.copy_(self.keeping(torch.empty(self.hidden_size, device=b_input.device).uniform_(1, span - 1).log()))

    @abstractmethod
    def keeping(self, bias: Float[Tensor, " H"]) -> Float[Tensor, " gates"]:
        """Biases of all gates, with ``bias`` on the one that keeps the state."""

    @abstractmethod
    def run_cell(self, inputs: Tensor, leaves: Leaves, weights: Sequence[Tensor]) -> Leaves:
        """One layer, one step: the layer's state leaves ``[B, H]``, hidden first, to the next."""

    @abstractmethod
    def run_network(self, inputs: Tensor, leaves: Leaves, weights: Sequence[Tensor]) -> tuple[Tensor, Leaves]:
        """Layers of these weights, ``[T, B, ...]`` and state leaves ``[L, B, H]`` to features ``[T, B, H]`` and next leaves."""

    @abstractmethod
    def switches(self, b_input: Tensor) -> Float[Tensor, "gates 2"]:
        """Input weights of one layer by which the first of two more inputs wipes its state, and the second holds it."""

    def weights(self) -> list[Tensor]:
        """Of all layers, in torch's order: those that the network itself computes with."""
        # The public ``all_weights`` looks every one up by name, which takes as long as a step.
        return cast("list[Tensor]", self.network._flat_weights)

    def initial_state(self, batch_size: int) -> State:
        """Zeros."""
        weight = self.network.all_weights[0][0]
        shape = (batch_size, self.n_layers, self.hidden_size)
        return self.state_type(*(weight.new_zeros(shape) for _ in self.state_type._fields))

    def step(self, inputs: Tensor, state: State, replay: Tensor | None = None, deterministic: bool = False) -> CoreOutput:
        """One step through every layer by the cell kernels."""
        layers: list[Leaves] = []
        weights, of_layer = self.weights(), (leaf.unbind(1) for leaf in state)
        for layer, leaves in enumerate(zip(*of_layer, strict=True)):
            layers.append(self.run_cell(inputs, leaves, weights[4 * layer : 4 * layer + 4]))
            inputs = layers[-1][0]
        if self.n_layers == 1:
            return CoreOutput(inputs, self.state_type(*(leaf.unsqueeze(1) for leaf in layers[0])))
        return CoreOutput(inputs, self.state_type(*(torch.stack(leaf, dim=1) for leaf in zip(*layers, strict=True))))

    def unroll(
        self,
        inputs: Float[Tensor, "T B input"],
        state: State,
        episode_starts: Bool[Tensor, "T B"],
        replay: Tensor | None = None,
        deterministic: bool = False,
    ) -> CoreOutput:
        """One fused call over the sequence; a layer at a time, on packed episodes, if there is a reset in its middle."""
        starts = episode_starts.cpu().numpy()
        if starts[0].any():
            state = reset_state(state, self.initial_state(inputs.shape[1]), episode_starts[0])
        leaves = tuple(leaf.transpose(0, 1).contiguous() for leaf in state)
        if not starts[1:].any():
            features, leaves = self.run_network(inputs, leaves, self.weights())
        elif all(tensor.isfinite().all() for tensor in (inputs, *leaves)):
            with warnings.catch_warnings():
                # cuDNN copies weights that are not one piece, which costs less than a call for each episode (measured).
                warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk")
                features, leaves = self.run_packed(inputs, leaves, starts)
        else:
            features, leaves = self.run_pieces(inputs, leaves, episode_starts, starts)
        return CoreOutput(features, map_state(lambda leaf: leaf.transpose(0, 1), self.state_type(*leaves)))

    def run_packed(self, inputs: Tensor, leaves: Leaves, starts: Bool[np.ndarray, "T B"]) -> tuple[Tensor, Leaves]:
        """As ``run_network``, with resets. A wipe multiplies by zero, so numbers have to be finite."""
        steps, lanes = starts.shape
        source, target, final = (torch.as_tensor(index, device=inputs.device) for index in pack_episodes(starts))
        # Two more inputs, which are (1, 0) where a step wipes, (0, 1) where it holds; such a step's other inputs are zeros.
        switched = nn.functional.one_hot((source - steps * lanes + 1).clamp(min=0), 3)[..., 1:].to(inputs.dtype)
        rows = nn.functional.pad(inputs.flatten(0, 1), (0, 0, 0, 2))
        packed = rows.index_select(0, source.flatten()).unflatten(0, (-1, source.shape[1]))
        layers = []
        for layer, (w_input, w_hidden, *biases) in enumerate(self.network.all_weights):
            weights = [torch.cat([w_input, self.switches(biases[0])], dim=1), w_hidden, *biases]
            before = tuple(nn.functional.pad(leaf[layer : layer + 1], (0, 0, 0, source.shape[1] - lanes)) for leaf in leaves)
            packed, (_, *held) = self.run_network(torch.cat([packed, switched], dim=-1), before, weights)
            features = packed.flatten(0, 1).index_select(0, target.flatten()).unflatten(0, (steps, lanes))
            layers.append((features[-1], *(leaf[0].index_select(0, final) for leaf in held)))
        return features, tuple(torch.stack(leaf) for leaf in zip(*layers, strict=True))

    def run_pieces(
        self, inputs: Tensor, leaves: Leaves, episode_starts: Tensor, starts: Bool[np.ndarray, "T B"]
    ) -> tuple[Tensor, Leaves]:
        """As ``run_network``, a call for each piece between two resets: what is not finite stays in its own episode."""
        cuts = (np.flatnonzero(starts[1:].any(axis=1)) + 1).tolist()
        pieces = []
        for start, end in pairwise([0, *cuts, len(starts)]):
            if start:
                leaves = tuple(leaf.masked_fill(episode_starts[start, :, None], 0) for leaf in leaves)
            features, leaves = self.run_network(inputs[start:end], leaves, self.weights())
            pieces.append(features)
        return torch.cat(pieces), leaves


class LSTM(Recurrent):
    """Long short-term memory (Hochreiter & Schmidhuber 1997, with forget gates)."""

    state_type = LSTMState

    def build_network(self, input_size: int) -> nn.RNNBase:
        """``torch.nn.LSTM``."""
        return nn.LSTM(input_size, self.hidden_size, self.n_layers)

    def keeping(self, bias: Tensor) -> Tensor:
        """The forget gate open, the input gate as much closed; order ``i f g o``."""
        return torch.cat([-bias, bias, torch.zeros_like(bias), torch.zeros_like(bias)])

    def run_cell(self, inputs: Tensor, leaves: Leaves, weights: Sequence[Tensor]) -> Leaves:
        """Hidden and cell after one step."""
        return torch.lstm_cell(inputs, leaves, *weights)

    def run_network(self, inputs: Tensor, leaves: Leaves, weights: Sequence[Tensor]) -> tuple[Tensor, Leaves]:
        """The fused LSTM."""
        features, *leaves_after = torch.lstm(
            inputs, leaves, list(weights), True, leaves[0].shape[0], 0.0, torch.is_grad_enabled(), False, False
        )
        return features, tuple(leaves_after)

    def switches(self, b_input: Tensor) -> Float[Tensor, "gates 2"]:
        """Gates in, forget, cell, out: ``c' = f c + i g``, ``h = o tanh(c')``; wiped by i = f = o = 0, held by i = 0, f = 1."""
        signs = b_input.new_tensor([[-1, -1, 0, -1], [-1, 1, 0, 0]])
        return (signs * SATURATED).t().repeat_interleave(self.hidden_size, dim=0)


class GRU(Recurrent):
    """Gated recurrent unit (Cho et al. 2014)."""

    state_type = GRUState

    def build_network(self, input_size: int) -> nn.RNNBase:
        """``torch.nn.GRU``."""
        return nn.GRU(input_size, self.hidden_size, self.n_layers)

    def keeping(self, bias: Tensor) -> Tensor:
        """The update gate, which keeps the state where it is 1; order ``r z n``."""
        return torch.cat([torch.zeros_like(bias), bias, torch.zeros_like(bias)])

    def run_cell(self, inputs: Tensor, leaves: Leaves, weights: Sequence[Tensor]) -> Leaves:
        """Hidden after one step."""
        return (torch.gru_cell(inputs, leaves[0], *weights),)

    def run_network(self, inputs: Tensor, leaves: Leaves, weights: Sequence[Tensor]) -> tuple[Tensor, Leaves]:
        """On a CPU layer by layer, faster than torch's; elsewhere the fused GRU."""
        hidden = leaves[0]
        if inputs.device.type != "cpu":
            features, after = torch.gru(
                inputs, hidden, list(weights), True, len(hidden), 0.0, torch.is_grad_enabled(), False, False
            )
            return features, (after,)
        last = []
        for layer, initial in enumerate(hidden):
            inputs = GRULayer.apply(inputs, initial, *weights[4 * layer : 4 * layer + 4])  # type: ignore[no-untyped-call]
            last.append(inputs[-1])
        return inputs, (torch.stack(last),)

    def switches(self, b_input: Tensor) -> Float[Tensor, "gates 2"]:
        """Gates reset, update, new: ``h' = (1 - z) n + z h``; wiped by r = z = 0 and n = tanh(b - b), held by z = 1."""
        size = self.hidden_size
        wipe = torch.cat([b_input.new_full((2 * size,), -SATURATED), -b_input[2 * size :]])
        hold = b_input.new_zeros(3 * size)
        hold[size : 2 * size] = SATURATED
        return torch.stack([wipe, hold], dim=1)
