"""Recurrent cores over vectors: LSTM, GRU, and the core without memory.

Stepping uses the cell kernels (a fused call for one step costs four times as much). A sequence is cut at the steps where any
lane resets, and the fused kernel runs over each piece: measured on one CPU thread this is faster than packing each
lane's episodes, and than a cell loop, from no resets at all to one at every step.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from saccade.policies.core import Core, CoreOutput, State, map_state, reset_state


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

    Raises:
        ValueError: the input is not a vector, or a size is below 1.
    """

    state_type: type[LSTMState] | type[GRUState]

    def __init__(self, input_shape: Sequence[int], hidden_size: int = 128, n_layers: int = 1) -> None:
        if hidden_size < 1 or n_layers < 1:
            raise ValueError(f"hidden_size and n_layers must be at least 1; got {hidden_size} and {n_layers}")
        super().__init__(input_shape, features_dim=hidden_size)
        self.hidden_size = hidden_size
        self.n_layers = n_layers
        self.network = self.build_network(int(input_shape[0]))

    @abstractmethod
    def build_network(self, input_size: int) -> nn.RNNBase:
        """The fused network."""

    @abstractmethod
    def run_cell(self, inputs: Tensor, leaves: Leaves, weights: Sequence[Tensor]) -> Leaves:
        """One layer, one step: the layer's state leaves ``[B, H]``, hidden first, to the next."""

    @abstractmethod
    def run_network(self, inputs: Tensor, leaves: Leaves) -> tuple[Tensor, Leaves]:
        """All layers, ``[T, B, ...]`` and state leaves ``[L, B, H]`` to features ``[T, B, H]`` and the next leaves."""

    def initial_state(self, batch_size: int) -> State:
        """Zeros."""
        weight = next(self.parameters())
        shape = (batch_size, self.n_layers, self.hidden_size)
        return self.state_type(*(weight.new_zeros(shape) for _ in self.state_type._fields))

    def step(self, inputs: Tensor, state: State, replay: Tensor | None = None, deterministic: bool = False) -> CoreOutput:
        """One step through every layer by the cell kernels."""
        layers = []
        for layer, weights in enumerate(self.network.all_weights):
            leaves = self.run_cell(inputs, tuple(leaf[:, layer] for leaf in state), weights)
            layers.append(leaves)
            inputs = leaves[0]
        return CoreOutput(inputs, self.state_type(*(torch.stack(leaf, dim=1) for leaf in zip(*layers, strict=True))))

    def unroll(
        self,
        inputs: Float[Tensor, "T B input"],
        state: State,
        episode_starts: Bool[Tensor, "T B"],
        replay: Tensor | None = None,
        deterministic: bool = False,
    ) -> CoreOutput:
        """The fused kernel over each piece between steps where a lane resets."""
        initial = self.initial_state(inputs.shape[1])
        cuts = [t for t in episode_starts.any(dim=1).nonzero().flatten().tolist() if t > 0]
        pieces = []
        for start, end in zip([0, *cuts], [*cuts, inputs.shape[0]], strict=True):
            state = reset_state(state, initial, episode_starts[start])
            leaves = tuple(leaf.transpose(0, 1).contiguous() for leaf in state)
            features, leaves = self.run_network(inputs[start:end], leaves)
            state = map_state(lambda leaf: leaf.transpose(0, 1), self.state_type(*leaves))
            pieces.append(features)
        return CoreOutput(torch.cat(pieces), state)


class LSTM(Recurrent):
    """Long short-term memory (Hochreiter & Schmidhuber 1997, with forget gates)."""

    state_type = LSTMState

    def build_network(self, input_size: int) -> nn.RNNBase:
        """``torch.nn.LSTM``."""
        return nn.LSTM(input_size, self.hidden_size, self.n_layers)

    def run_cell(self, inputs: Tensor, leaves: Leaves, weights: Sequence[Tensor]) -> Leaves:
        """Hidden and cell after one step."""
        return torch.lstm_cell(inputs, leaves, *weights)

    def run_network(self, inputs: Tensor, leaves: Leaves) -> tuple[Tensor, Leaves]:
        """The fused LSTM."""
        features, (hidden, cell) = self.network(inputs, leaves)
        return features, (hidden, cell)


class GRU(Recurrent):
    """Gated recurrent unit (Cho et al. 2014)."""

    state_type = GRUState

    def build_network(self, input_size: int) -> nn.RNNBase:
        """``torch.nn.GRU``."""
        return nn.GRU(input_size, self.hidden_size, self.n_layers)

    def run_cell(self, inputs: Tensor, leaves: Leaves, weights: Sequence[Tensor]) -> Leaves:
        """Hidden after one step."""
        return (torch.gru_cell(inputs, leaves[0], *weights),)

    def run_network(self, inputs: Tensor, leaves: Leaves) -> tuple[Tensor, Leaves]:
        """The fused GRU."""
        features, hidden = self.network(inputs, leaves[0])
        return features, (hidden,)
