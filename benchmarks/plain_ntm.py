"""A Neural Turing Machine as the paper's equations stand there: one head and one step after another, and autograd.

Graves, Wayne & Danihelka 2014 (arXiv:1410.5401), with a linear layer for each head's orders. Given the same weights, its
outputs are those of ``saccade.policies.NTM``.

Shapes: ``B`` lanes, ``N`` slots, ``W`` numbers in a slot, ``C`` features of the controller, ``T`` time.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

EPSILON = 1e-6
SHIFTS = (-1, 0, 1)


class PlainState(NamedTuple):
    """The memory, both heads' weights, the vector just read, and the LSTM's state."""

    memory: Float[Tensor, "B N W"]
    read_weights: Float[Tensor, "B N"]
    write_weights: Float[Tensor, "B N"]
    read: Float[Tensor, "B W"]
    hidden: Float[Tensor, "B C"]
    cell: Float[Tensor, "B C"]


class Head(nn.Module):
    """One head's orders, and where it looks: equations 5 to 9.

    Args:
        features: ``C``.
        width: ``W``.
        words: vectors that it is told beside its key, ``V``: none to read, two to write.
    """

    def __init__(self, features: int, width: int, words: int) -> None:
        super().__init__()
        self.sizes = (width, 1, 1, len(SHIFTS), 1, words * width)
        self.orders = nn.Linear(features, sum(self.sizes))

    def forward(
        self, features: Float[Tensor, "B C"], memory: Float[Tensor, "B N W"], before: Float[Tensor, "B N"]
    ) -> tuple[Float[Tensor, "B N"], Float[Tensor, "B VW"]]:
        """The head's weights, from those of the step before; and the vectors."""
        key, strength, gate, kernel, power, words = self.orders(features).split(self.sizes, 1)
        # Eq. 5 and 6: by content.
        key = key.tanh().unsqueeze(1)
        lengths = (memory.square().sum(2) + EPSILON).sqrt() * (key.square().sum(2) + EPSILON).sqrt()
        content = (F.softplus(strength) * (memory * key).sum(2) / lengths).softmax(1)
        # Eq. 7: or where it was.
        gate = gate.sigmoid()
        weights = gate * content + (1 - gate) * before
        # Eq. 8: moved.
        kernel = kernel.softmax(1)
        moved = torch.stack([weights.roll(by, 1) for by in SHIFTS], 1)
        weights = (moved * kernel.unsqueeze(2)).sum(1)
        # Eq. 9: sharpened.
        raised = (weights + EPSILON) ** (1 + F.softplus(power))
        return raised / raised.sum(1, keepdim=True), words


class PlainNTM(nn.Module):
    """One reading and one writing head, and an LSTM that controls them.

    Args:
        inputs: features of an input.
        slots: ``N``.
        width: ``W``.
        hidden_size: ``C``.
    """

    def __init__(self, inputs: int, slots: int = 128, width: int = 20, hidden_size: int = 100) -> None:
        super().__init__()
        self.slots, self.width = slots, width
        self.controller = nn.LSTMCell(inputs + width, hidden_size)
        self.reader, self.writer = Head(hidden_size, width, 0), Head(hidden_size, width, 2)

    def initial_state(self, batch_size: int) -> PlainState:
        """A constant memory, and both heads at slot 0."""
        memory = torch.full((batch_size, self.slots, self.width), EPSILON)
        weights = F.one_hot(torch.zeros(batch_size, dtype=torch.long), self.slots).float()
        nothing = torch.zeros(batch_size, self.controller.hidden_size)
        return PlainState(memory, weights, weights, memory[:, 0], nothing, nothing)

    def step(self, inputs: Float[Tensor, "B input"], state: PlainState) -> tuple[Float[Tensor, "B features"], PlainState]:
        """Control, look, read, write; the features are the controller's and the vector just read."""
        hidden, cell = self.controller(torch.cat([inputs, state.read], 1), (state.hidden, state.cell))
        read_weights, _ = self.reader(hidden, state.memory, state.read_weights)
        write_weights, words = self.writer(hidden, state.memory, state.write_weights)
        # Eq. 2.
        read = (read_weights.unsqueeze(2) * state.memory).sum(1)
        # Eq. 3 and 4.
        erase, add = words.unsqueeze(1).chunk(2, 2)
        written = write_weights.unsqueeze(2)
        memory = state.memory * (1 - written * erase.sigmoid()) + written * add.tanh()
        return torch.cat([hidden, read], 1), PlainState(memory, read_weights, write_weights, read, hidden, cell)

    def forward(
        self, inputs: Float[Tensor, "T B input"], state: PlainState | None = None
    ) -> tuple[Float[Tensor, "T B features"], PlainState]:
        """A sequence, from the initial state unless there is another."""
        state = self.initial_state(inputs.shape[1]) if state is None else state
        outputs = []
        for x in inputs:
            features, state = self.step(x, state)
            outputs.append(features)
        return torch.stack(outputs), state
