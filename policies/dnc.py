"""The Differentiable Neural Computer: a controller with a memory that it allocates, and whose writes it can retrace.

Graves et al. 2016, "Hybrid computing using a neural network with dynamic external memory", Nature 538, "Methods". The paper
numbers two equations; the others are named here by their symbols.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from saccade.policies import addressing
from saccade.policies.controller import MakeController, check_sizes, make_controller
from saccade.policies.core import Core, CoreOutput, State, check_input_shape, reset_state
from saccade.policies.dnc_acting import act, can_act
from saccade.policies.dnc_kernels import Memory
from saccade.policies.dnc_memory import (
    DNCState,
    Interface,
    Link,
    SparseLink,
    dense_link,
    interface_sizes,
    parse_interface,
    relink,
)
from saccade.policies.dnc_unroll import released, unroll
from saccade.policies.recurrent import LSTM
from saccade.policies.tap import TapKind, is_recording, tap

LSTM_128: MakeController = partial(LSTM, hidden_size=128)


class DNC(Core):
    """A Differentiable Neural Computer; features ``[..., C + R W]`` are the controller's and the vectors just read.

    A linear head over both is the paper's output, ``y = W_y h + W_r [r_1; ...; r_R]``. In a step the controller reads the
    input and the vectors read in the step before. From its features one linear layer, ``W_xi``, makes the interface vector. The
    memory is written first, where there is room (allocation) or by content, and then read: by content, or from what was
    written before or after what was read last (links).

    A sequence runs in one node of autograd's graph, whose derivative by itself is not known (``create_graph=True``): step the
    core where that is wanted. A step without gradients uses the same operations, and of few lanes numpy's
    (:mod:`saccade.policies.dnc_acting`).

    Args:
        input_shape: ``(features,)``.
        slots: ``N``.
        width: ``W``, numbers in a slot.
        read_heads: ``R``.
        controller: makes the controller from ``(features,)``: a core class, or a partial of one. ``LSTM`` with one layer is the
            fastest; of any other, autograd differentiates every step.
        link_slots: ``K``, links kept of every slot, the strongest (the paper's sparse link matrix, for which 8 was enough);
            ``None`` for the whole matrix. It pays from some 256 slots on.

    Raises:
        ValueError: the input is not a vector, a size is below 1, ``link_slots`` is above ``slots``, or the controller takes
            latent decisions.
    """

    one: Tensor
    ties: Tensor

    def __init__(
        self,
        input_shape: Sequence[int],
        slots: int = 64,
        width: int = 32,
        read_heads: int = 4,
        controller: MakeController = LSTM_128,
        link_slots: int | None = None,
    ) -> None:
        check_sizes("DNC", slots=slots, width=width, read_heads=read_heads)
        if link_slots is not None and not 1 <= link_slots <= slots:
            raise ValueError(f"DNC's link_slots must be from 1 to its {slots} slots, or None for all; got {link_slots}")
        check_input_shape(DNC, input_shape)
        core = make_controller("DNC", controller, int(input_shape[0]) + read_heads * width)
        super().__init__(input_shape, features_dim=core.features_dim + read_heads * width)
        self.slots, self.width, self.read_heads, self.link_slots = slots, width, read_heads, link_slots
        self.controller = core
        self.interface = nn.Linear(core.features_dim, sum(interface_sizes(read_heads, width)))
        self.register_buffer("one", torch.ones(()), persistent=False)
        self.register_buffer("ties", addressing.tie_breakers(slots), persistent=False)

    def resize(self, slots: int) -> None:
        """Have so many slots from now on, in states that begin from now on: no weight depends on how many there are.

        Raises:
            ValueError: there are fewer slots than links kept of each.
        """
        if slots < (self.link_slots or 1):
            raise ValueError(f"slots must be at least its {self.link_slots or 1} link_slots; got {slots}")
        self.slots, self.ties = slots, addressing.tie_breakers(slots).to(self.ties)

    def initial_state(self, batch_size: int) -> DNCState:
        """An empty memory, nothing written or read, and the controller's own initial state."""
        zeros = partial(self.interface.weight.new_zeros, batch_size)
        slots, heads = self.slots, self.read_heads
        link: Link = zeros(slots, slots) if self.link_slots is None else SparseLink(*zeros(2, slots, self.link_slots).unbind(1))
        return DNCState(
            memory=zeros(slots, self.width),
            usage=zeros(slots),
            write_weights=zeros(slots),
            read_weights=zeros(heads, slots),
            precedence=zeros(slots),
            link=link,
            reads=zeros(heads, self.width),
            controller=self.controller.initial_state(batch_size),
        )

    def step(
        self,
        inputs: Float[Tensor, "B input"],
        state: State,
        replay: Tensor | None = None,
        deterministic: bool = False,
    ) -> CoreOutput:
        """One step: control, write, read."""
        heads = self.read_heads
        controlled = self.controller.step(torch.cat([inputs, state.reads.flatten(1)], 1), state.controller)
        interface = parse_interface(self.interface(controlled.features), heads, self.width)
        strengths, free_gates = interface.strengths.squeeze(2), interface.free_gates.squeeze(2)
        allocation_gate, write_gate = interface.allocation_gate.squeeze(2), interface.write_gate.squeeze(2)
        # psi, u, a: equation 1
        retained = addressing.retention(free_gates, state.read_weights)
        usage = addressing.usage(state.usage, state.write_weights, retained)
        allocated = addressing.allocation(usage, self.ties)
        # c_w = C(M_tm1, k_w, beta_w), w_w: equation 2, M
        content = addressing.content_weights(state.memory, interface.keys[:, heads:], strengths[:, heads:]).squeeze(1)
        write_weights = addressing.write_weights(content, allocated, allocation_gate, write_gate)
        memory = addressing.write(state.memory, write_weights.unsqueeze(1), interface.erase, interface.vector)
        # L, b, f, p
        linked = relink(state.link, state.precedence, write_weights, state.read_weights)
        precedence = addressing.precedence(state.precedence, write_weights)
        # c_r = C(M, k_r, beta_r), w_r, r
        content = addressing.content_weights(memory, interface.keys[:, :heads], strengths[:, :heads])
        modes = interface.modes.squeeze(3)[:, [0, 2, 1]].transpose(1, 2)
        read_weights = addressing.read_weights(linked.backward, content, linked.forward, modes)
        reads = addressing.read(memory, read_weights)
        after = DNCState(memory, usage, write_weights, read_weights, precedence, linked.link, reads, controlled.state)
        if is_recording():
            tap_all(after, interface, modes)
        return CoreOutput(torch.cat([controlled.features, reads.flatten(1)], 1), after, cost=controlled.cost)

    def unroll(
        self,
        inputs: Float[Tensor, "T B input"],
        state: State,
        episode_starts: Bool[Tensor, "T B"],
        replay: Tensor | None = None,
        deterministic: bool = False,
    ) -> CoreOutput:
        """A whole sequence without autograd, and its gradient by hand."""
        return unroll(self.controller, self.interface, self.new_memory, inputs, state, episode_starts)

    def run_one(
        self,
        inputs: Float[Tensor, "1 B input"],
        state: State,
        episode_starts: Bool[Tensor, "1 B"],
        replay: Tensor | None,
        deterministic: bool,
    ) -> CoreOutput:
        """A sequence of one step: acting."""
        if torch.is_grad_enabled() or is_recording():
            return super().run_one(inputs, state, episode_starts, replay, deterministic)
        # Asking a GPU costs more than resetting; numpy is asked in half of torch's time.
        if not episode_starts.is_cpu or np.count_nonzero(episode_starts.numpy()):
            state = reset_state(state, self.initial_state(inputs.shape[1]), episode_starts[0])
        multiplications, ties = inputs.shape[1] * self.read_heads * self.slots * max(self.slots, self.width), self.ties
        if self.link_slots is None and can_act(inputs, ties, multiplications):
            return act(self.controller, self.interface, ties, inputs, state)
        controlled = self.controller.step(torch.cat([inputs[0], state.reads.flatten(1)], 1), state.controller)
        memory = self.new_memory()
        held, reads = memory.forward(0, controlled.features, memory.hold(state))
        features = torch.cat([controlled.features, reads.flatten(1)], 1)
        cost = None if controlled.cost is None else controlled.cost.unsqueeze(0)
        return CoreOutput(features.unsqueeze(0), released(held, reads, controlled.state), cost=cost)

    def new_memory(self, kept: tuple[int, int] | None = None) -> Memory:
        """The memory of one call, with room for what a way back over ``kept``, ``(T, B)``, needs."""
        return Memory(self.interface, self.one, self.ties, (self.read_heads, self.width), kept)


def tap_all(state: DNCState, interface: Interface, modes: Float[Tensor, "B R 3"]) -> None:
    """Hand a recording what one step did; the modes are backward, content, forward."""
    heads = [f"read {head}" for head in range(modes.shape[1])]
    tap("write_weights", state.write_weights, TapKind.MEMORY)
    tap("read_weights", state.read_weights, TapKind.MEMORY)
    tap("usage", state.usage, TapKind.USAGE)
    tap("memory", state.memory, TapKind.CONTENT)
    tap("link", dense_link(state.link), TapKind.LINK)
    tap("write_gate", interface.write_gate.flatten(), TapKind.GATE)
    tap("allocation_gate", interface.allocation_gate.flatten(), TapKind.GATE)
    tap("free_gates", interface.free_gates.squeeze(2), TapKind.GATE, {"names": (heads,)})
    tap("read_modes", modes, TapKind.GATE, {"names": (heads, ["backward", "content", "forward"])})
