"""A whole sequence of a Differentiable Neural Computer as one node of autograd's graph.

Shapes: ``T`` time, ``B`` lanes.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from saccade.policies.core import Core, CoreOutput, State, map_state
from saccade.policies.dnc_backward import Gradients, MemoryGradient
from saccade.policies.dnc_controllers import controller_over, emptied, rebuilt, tensors
from saccade.policies.dnc_kernels import Held, Memory
from saccade.policies.dnc_memory import DNCState, SparseLink

NewMemory: TypeAlias = Callable[[tuple[int, int] | None], Memory]


class Unrolling:
    """One call of a DNC over a sequence: its steps, and their way back.

    Args:
        core: the DNC's controller.
        new_memory: makes the memory, with room for what a way back over ``(T, B)`` needs.
        inputs: of all steps.
        state: before the first.
        episode_starts: where the state is the initial one.
        keep: whether there is a way back.
    """

    def __init__(
        self,
        core: Core,
        new_memory: NewMemory,
        inputs: Float[Tensor, "T B input"],
        state: DNCState,
        episode_starts: Bool[Tensor, "T B"],
        keep: bool,
    ) -> None:
        self.core, self.new_memory, self.inputs, self.state, self.keep = core, new_memory, inputs, state, keep
        # Asked once: at most steps no episode starts.
        where = [np.flatnonzero(starts) for starts in episode_starts.cpu().numpy()]
        self.lanes = [torch.as_tensor(lanes, device=inputs.device) if lanes.size else None for lanes in where]

    def forward(self) -> CoreOutput:
        """Every step. Nothing that it returns is looked at on the way back."""
        with torch.inference_mode():
            outputs, vectors, state = self.run()
        costs = [output.cost for output in outputs if output.cost is not None]
        self.has_cost = bool(costs)
        features = torch.cat([self.features, torch.stack(vectors).flatten(2)], 2)
        return CoreOutput(features, map_state(torch.clone, state), cost=torch.stack(costs) if costs else None)

    def run(self) -> tuple[list[CoreOutput], list[Tensor], DNCState]:
        """What the controller puts out, what is read, and the state after the last step."""
        self.controller = controller_over(self.core, self.inputs, self.keep)
        reads, control = self.state.reads, self.controller.enter(self.state.controller)
        self.memory = self.new_memory((len(self.inputs), len(reads)) if self.keep else None)
        held = self.memory.hold(self.state)
        outputs, vectors = [], []
        for t, lanes in enumerate(self.lanes):
            if lanes is not None:
                before = emptied(released(held, reads, ()), lanes)
                held, reads = self.memory.hold(before), before.reads
            outputs.append(self.controller.forward(t, control, reads.flatten(1), lanes))
            control = outputs[-1].state
            held, reads = self.memory.forward(t, outputs[-1].features, held)
            vectors.append(reads)
        self.features = torch.stack([output.features for output in outputs])
        return outputs, vectors, released(held, reads, self.controller.leave(control))

    def backward(self, d_features: Tensor, d_state: DNCState, d_cost: Tensor | None) -> list[Tensor | None]:
        """Gradients by the inputs, the state, the interface's weight and bias, and the controller's parameters."""
        with torch.inference_mode():
            gradients = self.run_back(d_features, d_state, d_cost)
        return [None if gradient is None else gradient.clone() for gradient in gradients]

    def run_back(self, d_features: Tensor, d_state: DNCState, d_cost: Tensor | None) -> list[Tensor | None]:
        """As :meth:`backward`."""
        memory = MemoryGradient(self.memory)
        self.controller.prepare()
        d, d_reads, d_control = first_gradients(d_state), d_state.reads, self.controller.enter(d_state.controller)
        by_controller, by_reads = d_features.tensor_split([self.features.shape[2]], 2)
        by_reads = by_reads.unflatten(2, d_reads.shape[1:])
        costs = [None] * len(self.lanes) if d_cost is None else list(d_cost)
        for t in reversed(range(len(self.lanes))):
            d, d_numbers = memory.backward(t, by_reads[t] + d_reads, d)
            d_output = torch.addmm(by_controller[t], d_numbers, self.memory.weight)
            d_control, d_flat = self.controller.backward(t, d_output, d_control, costs[t])
            d_reads = d_flat.view_as(d_reads)
            if (lanes := self.lanes[t]) is not None:
                d, d_reads, d_control = emptied(d, lanes), emptied(d_reads, lanes), emptied(d_control, lanes)
        d_inputs, d_parameters = self.controller.finish()
        d_held = Held(memory.finish(d), *d[1:6], d.turn, d.memory)
        d_before = released(d_held, d_reads, self.controller.leave(d_control))
        rows = memory.table.flatten(0, 1)
        return [d_inputs, *tensors(d_before), rows.t() @ self.features.flatten(0, 1), rows.sum(0), *d_parameters]


def released(held: Held, reads: Tensor, controller: State) -> DNCState:
    """A core's state, or a gradient by it."""
    memory, usage, write_weights, read_weights, precedence, link = held[:6]
    rows = (usage.squeeze(1), write_weights.squeeze(1), read_weights, precedence.squeeze(1))
    return DNCState(memory, *rows, link, reads, controller)


def first_gradients(d_state: DNCState) -> Gradients:
    """The way back begins with the gradient by the state after the last step, copied, and nothing waiting."""
    memory, usage, write_weights, read_weights, precedence, link = map_state(torch.clone, tuple(d_state[:6]))
    rows = (usage.unsqueeze(1), write_weights.unsqueeze(1), read_weights, precedence.unsqueeze(1))
    nothing = torch.zeros_like(rows[0])
    return Gradients(memory, *rows, link, nothing, torch.zeros_like(memory[:, :1]), nothing)


class Unroll(torch.autograd.Function):
    """A sequence of a DNC, once differentiable."""

    @staticmethod
    def forward(ctx: Any, unrolling: Unrolling, *given: Tensor) -> tuple[Tensor, ...]:
        """Features, the state's tensors, and the costs, if any."""
        ctx.unrolling = unrolling
        # Saved only so that torch notices when one is changed before the way back.
        ctx.save_for_backward(*given)
        output = unrolling.forward()
        if isinstance(output.state.link, SparseLink):
            ctx.mark_non_differentiable(output.state.link.slots)
        return output.features, *tensors(output.state), *([] if output.cost is None else [output.cost])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Backpropagation through time.

        Raises:
            RuntimeError: a gradient that can itself be differentiated is asked for (``create_graph=True``).
        """
        if torch.is_grad_enabled():
            raise RuntimeError("the gradient of a DNC's sequence has no derivative (create_graph=True); step the core instead")
        _ = ctx.saved_tensors
        unrolling = ctx.unrolling
        d_features, *rest = gradients
        d_cost = rest.pop() if unrolling.has_cost else None
        return None, *unrolling.backward(d_features, rebuilt(unrolling.state, iter(rest)), d_cost)


def unroll(
    core: Core,
    interface: nn.Linear,
    new_memory: NewMemory,
    inputs: Float[Tensor, "T B input"],
    state: DNCState,
    episode_starts: Bool[Tensor, "T B"],
) -> CoreOutput:
    """A whole sequence of a DNC.

    Args:
        core: its controller.
        interface: from the controller's features to the interface's numbers.
        new_memory: see :class:`Unrolling`.
        inputs: of all steps.
        state: before the first.
        episode_starts: where the state is the initial one.
    """
    given = (inputs, *tensors(state), *interface.parameters(), *core.parameters())
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given)
    unrolling = Unrolling(core, new_memory, inputs, state, episode_starts, keep)
    if not keep:
        return unrolling.forward()
    features, *rest = Unroll.apply(unrolling, *given)  # type: ignore[no-untyped-call]
    cost = rest.pop() if unrolling.has_cost else None
    return CoreOutput(features, rebuilt(state, iter(rest)), cost=cost)
