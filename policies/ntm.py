"""The Neural Turing Machine: a controller with a memory that it addresses by content and by location.

Graves, Wayne & Danihelka 2014 (arXiv:1410.5401), whose equation numbers stand in the comments.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from saccade.policies import addressing
from saccade.policies.controller import LSTM_CONTROLLER, MakeController, check_sizes, make_controller
from saccade.policies.core import Core, CoreOutput, State, check_input_shape, reset_state, stack_outputs
from saccade.policies.ntm_kernels import Layout
from saccade.policies.ntm_unroll import Unrolled, find_drive, from_leaves, to_leaves
from saccade.policies.tap import TapKind, is_recording, tap

EMPTY = 1e-6
"""Every number of a memory that is not learned, at an episode's start: not zero, which has no direction, but next to it."""


class NTMState(NamedTuple):
    """What an NTM carries. The memory's slots are its last axis, over which a processor's vector units run.

    Attributes:
        memory: ``M``, transposed.
        weights: ``w`` of every head, the reading ones first.
        reads: the vectors read in the step before, ``r``.
        controller: the controller's own state.
    """

    memory: Float[Tensor, "B W N"]
    weights: Float[Tensor, "B H N"]
    reads: Float[Tensor, "B R W"]
    controller: State


class NTM(Core):
    """A Neural Turing Machine; features ``[..., C + R W]`` are the controller's ``[..., C]`` and the vectors just read.

    In a step the controller reads the input and the vectors read in the step before. From its features one linear layer makes
    the orders of all heads, which find their weights in the memory as the step before left it. The reading heads read that
    memory; then the writing ones change it, so what they write can be read in the step after. (The paper leaves the order open.
    This one, tanh for keys and added vectors, and softplus for strengths and powers, are those of Collier & Beel 2018,
    arXiv:1807.08518, an implementation known to train reliably.)

    An episode begins with a constant memory, with which that paper found training to be twice as fast as with the next best
    start, and with every head at slot 0. A constant memory tells no slot from another: heads that began everywhere alike would
    stay so; learned weights that begin almost so, as in that implementation, needed three times as many updates to learn to
    copy, in a rough trial.

    Args:
        input_shape: ``(features,)``.
        slots: ``N``.
        width: ``W``, numbers in a slot.
        read_heads: ``R``.
        write_heads: writing heads; ``H`` in all.
        max_shift: slots by which a head can move in a step, to either side.
        controller: makes the controller from ``(features,)``: a core class, or a partial of one. Of ``LSTM`` with one layer and
            of ``Dense`` whole sequences are fast; any other is stepped.
        learn_memory: learn what the memory holds initially.

    Raises:
        ValueError: the input is not a vector, a size is below 1 (``max_shift``: below 0), the shifts are more than there are
            slots, or the controller takes latent decisions.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        slots: int = 128,
        width: int = 20,
        read_heads: int = 1,
        write_heads: int = 1,
        max_shift: int = 1,
        controller: MakeController = LSTM_CONTROLLER,
        learn_memory: bool = False,
    ) -> None:
        check_sizes("NTM", slots=slots, width=width, read_heads=read_heads, write_heads=write_heads)
        check_shifts(max_shift, slots)
        words = read_heads * width
        check_input_shape(NTM, input_shape)
        core = make_controller("NTM", controller, int(input_shape[0]) + words)
        super().__init__(input_shape, features_dim=core.features_dim + words)
        self.slots, self.width, self.read_heads, self.write_heads, self.max_shift = (
            slots,
            width,
            read_heads,
            write_heads,
            max_shift,
        )
        self.controller = core
        self.layout = Layout(read_heads, write_heads, width, 2 * max_shift + 1)
        self.interface = nn.Linear(core.features_dim, sum(self.layout.sections))
        self.memory = nn.Parameter(torch.empty(width, slots).uniform_(-1, 1).div_(width**0.5)) if learn_memory else None

    @property
    def tap_names(self) -> tuple[list[str], list[str]]:
        """Of all heads, the reading ones first, and of their shifts: for a picture."""
        heads = [
            f"{what} {i}" for what, count in (("read", self.read_heads), ("write", self.write_heads)) for i in range(count)
        ]
        return heads, [f"{by:+d}" if by else "0" for by in range(-self.max_shift, self.max_shift + 1)]

    def resize(self, slots: int) -> None:
        """Have so many slots from now on, in states that begin from now on: no weight depends on how many there are.

        Raises:
            ValueError: what the memory holds initially is learned, or there are fewer slots than shifts.
        """
        if self.memory is not None:
            raise ValueError(f"this NTM has learned what its {self.slots} slots hold at first, and cannot have {slots}")
        check_shifts(self.max_shift, slots)
        self.slots = slots

    def initial_state(self, batch_size: int) -> NTMState:
        """Every head at slot 0, and having read that."""
        weight = self.interface.weight
        memory = weight.new_full((self.width, self.slots), EMPTY) if self.memory is None else self.memory
        weights = weight.new_zeros(self.layout.heads, self.slots)
        weights[:, 0] = 1
        reads = memory[:, 0].expand(self.read_heads, -1)
        memory, weights, reads = (leaf.expand(batch_size, -1, -1) for leaf in (memory, weights, reads))
        return NTMState(memory, weights, reads, self.controller.initial_state(batch_size))

    def step(self, inputs: Tensor, state: State, replay: Tensor | None = None, deterministic: bool = False) -> CoreOutput:
        """One step: control, look, read, write."""
        layout, memory = self.layout, state.memory.mT
        control = self.controller.step(torch.cat([inputs, state.reads.flatten(1)], dim=-1), state.controller)
        squashed, opened, positive, kernels = self.interface(control.features).split_with_sizes(layout.sections, -1)
        orders = layout.split(squashed.tanh(), opened.sigmoid(), nn.functional.softplus(positive))
        kernels = kernels.unflatten(-1, (layout.heads, layout.shifts)).softmax(-1)
        # Eq. 5 to 9.
        content = addressing.content_weights(memory, orders.keys, orders.strengths.squeeze(-1))
        weights = addressing.interpolate(content, state.weights, orders.gates.squeeze(-1))
        weights = addressing.sharpen(addressing.shift(weights, kernels), 1 + orders.powers.squeeze(-1))
        read_weights, write_weights = weights.split_with_sizes([self.read_heads, self.write_heads], 1)
        # Eq. 2; eq. 3 and 4.
        reads = addressing.read(memory, read_weights)
        memory = addressing.write(memory, write_weights, orders.erase, orders.add)
        if is_recording():
            tap("write_weights", write_weights, TapKind.MEMORY)
            tap("read_weights", read_weights, TapKind.MEMORY)
            tap("content_weights", content, TapKind.MEMORY, {"names": self.tap_names[:1]})
            tap("interpolation_gate", orders.gates.squeeze(-1), TapKind.GATE, {"names": self.tap_names[:1]})
            tap("shift_kernel", kernels, TapKind.GATE, {"names": self.tap_names})
            tap("memory", memory, TapKind.CONTENT)
        features = torch.cat([control.features, reads.flatten(1)], dim=-1)
        return CoreOutput(features, NTMState(memory.mT, weights, reads, control.state), cost=control.cost)

    def unroll(
        self,
        inputs: Float[Tensor, "T B input"],
        state: State,
        episode_starts: Bool[Tensor, "T B"],
        replay: Tensor | None = None,
        deterministic: bool = False,
    ) -> CoreOutput:
        """All steps in one node of autograd's graph, if the controller is known there."""
        initial, drive = self.initial_state(inputs.shape[1]), find_drive(self.controller, inputs)
        if drive is None:
            return self.unroll_steps(inputs, state, initial, episode_starts)
        leaves = (leaf for one in (state, initial) for leaf in (one.memory, one.weights, *to_leaves(one.controller, one.reads)))
        features, memory, weights, *carried = Unrolled.apply(  # type: ignore[no-untyped-call]
            self.layout,
            drive.make_cell,
            episode_starts,
            self.interface.weight,
            self.interface.bias,
            drive.by_inputs,
            drive.w_before,
            *leaves,
        )
        last, reads = features[-1].split_with_sizes([self.controller.features_dim, self.read_heads * self.width], -1)
        reads = reads.unflatten(-1, (self.read_heads, self.width))
        return CoreOutput(features, NTMState(memory, weights, reads, from_leaves(last, carried)))

    def unroll_steps(self, inputs: Tensor, state: State, initial: State, episode_starts: Bool[Tensor, "T B"]) -> CoreOutput:
        """One step after another, with resets where there are any."""
        outputs = []
        for x, starts, any_starts in zip(inputs, episode_starts, episode_starts.any(1).tolist(), strict=True):
            if any_starts:
                state = reset_state(state, initial, starts)
            outputs.append(self.step(x, state))
            state = outputs[-1].state
        return stack_outputs(outputs)


def check_shifts(max_shift: int, slots: int) -> None:
    """Refuse more shifts than there are slots.

    Raises:
        ValueError: names both numbers.
    """
    if max_shift < 0 or 2 * max_shift + 1 > slots:
        raise ValueError(
            f"NTM's max_shift must be at least 0, and 2 max_shift + 1 shifts at most as many as slots; got "
            f"max_shift={max_shift} and slots={slots}"
        )
