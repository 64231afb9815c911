"""Calls of a core to test it by, and what is needed to compare two outputs."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saccade.policies import Core, CoreOutput, State
from saccade.policies.core import map_state

T, B = 7, 5


class Example(NamedTuple):
    """The arguments of one call."""

    inputs: Tensor
    state: State
    episode_starts: Tensor
    replay: Tensor | None

    def lanes(self, index: list[int]) -> "Example":
        """The call for some lanes only."""
        replay = None if self.replay is None else self.replay[:, index]
        state = map_state(lambda leaf: leaf[index], self.state)
        return Example(self.inputs[:, index], state, self.episode_starts[:, index], replay)

    def steps(self, start: int, end: int, state: State) -> "Example":
        """The call for some steps only, from a state."""
        replay = None if self.replay is None else self.replay[start:end]
        return Example(self.inputs[start:end], state, self.episode_starts[start:end], replay)


def mid_sequence_starts(steps: int = T, lanes: int = B) -> Tensor:
    """Lane by lane: at the first step; at two steps running; never; in the middle; at the last step."""
    starts = torch.zeros(steps, lanes, dtype=torch.bool)
    for lane, when in enumerate([[0], [2, 3], [], [steps // 2], [0, steps - 1]][:lanes]):
        starts[[min(step, steps - 1) for step in when], lane] = True
    return starts


def example(core: Core, steps: int = T, lanes: int = B, dtype: torch.dtype = torch.float32) -> Example:
    """A call for ``core``, whose parameters have this type."""
    inputs = torch.rand(steps, lanes, *core.input_shape, dtype=dtype) * 2 - 1
    # A state that something has happened to, and decisions that are not the likeliest.
    state = map_state(lambda leaf: leaf + 0.3 * torch.randn_like(leaf), core.initial_state(lanes))
    replay = torch.rand(steps, lanes, core.decision_size, dtype=dtype) * 2 - 1 if core.decision_size else None
    return Example(inputs, map_state(torch.Tensor.detach, state), mid_sequence_starts(steps, lanes), replay)


def leaves(tree: Any) -> Iterator[Tensor]:
    """Every tensor of an output, a state, an example, in order."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, tuple):
        for part in tree:
            yield from leaves(part)


def structure(tree: Any) -> Any:
    """The same tree with types and shapes in place of tensors."""
    if isinstance(tree, Tensor):
        return tuple(tree.shape), tree.dtype
    if isinstance(tree, tuple):
        return type(tree).__name__, [structure(part) for part in tree]
    return tree


def assert_equal(ours: Any, theirs: Any, tolerance: float = 0.0) -> None:
    """The same structure, and numbers within ``tolerance`` (of one another where they are large)."""
    assert structure(ours) == structure(theirs)
    for a, b in zip(leaves(ours), leaves(theirs), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def step_by_step(core: Core, call: Example) -> CoreOutput:
    """The call as ``T`` calls of one step."""
    state, outputs = call.state, []
    for t in range(len(call.inputs)):
        output = core(*call.steps(t, t + 1, state))
        state = output.state
        outputs.append(output)
    joined = [torch.cat([next(leaves(output.features)) for output in outputs]), state]
    decision = outputs[0].decision
    if decision is not None:
        parts = zip(*(output.decision or () for output in outputs), strict=True)
        decision = type(decision)(*(None if part[0] is None else torch.cat(part) for part in parts))
    cost, ponder = (
        None if parts[0] is None else torch.cat(parts)
        for parts in ([output.cost for output in outputs], [output.ponder for output in outputs])
    )
    return CoreOutput(joined[0], joined[1], decision, cost, ponder)


def pick(output: CoreOutput, lanes: list[int]) -> CoreOutput:
    """Some lanes of an output."""
    state = map_state(lambda leaf: leaf[lanes], output.state)
    decision = output.decision and output.decision.map(lambda part: part[:, lanes])
    cost, ponder = (None if part is None else part[:, lanes] for part in (output.cost, output.ponder))
    return CoreOutput(output.features[:, lanes], state, decision, cost, ponder)
