"""Adaptive computation time around any recurrent core (Graves 2016, arXiv:1603.08983)."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from saccade.policies.arguments import check_arguments
from saccade.policies.core import Core, CoreOutput, State, check_input_shape, map_state
from saccade.policies.halting import Halting
from saccade.policies.recurrent import LSTM
from saccade.policies.tap import Recording, TapKind, is_recording, recording, tap
from saccade.policies.transformer import WindowTransformer

LSTM_128 = partial(LSTM, hidden_size=128)


class Ponder(Core):
    """Runs a core several times on every input, as often as it takes; features and state are the runs' weighted means.

    The core sees the input beside a flag that is 1 in a step's first run. A step ends when the halting probabilities of its
    runs sum to almost 1, and they are the weights (eq. 4 to 8 of the paper). The number of runs is the tap ``ponder``; the
    inner core's own taps are weighted means as well.

    Args:
        input_shape: ``(features,)``.
        core: makes the core from the input shape: a core class, or a partial of one.
        max_steps: ``M``, the most runs in a step.
        cost: ``τ``, the weight of the ponder cost ``N + R`` beside the agent's loss.
        halting_bias: of the halting unit at first; -3 starts with many runs ("deep").

    Raises:
        ValueError: the input is not a vector, a number is out of its range, or the core takes latent decisions, has no state,
            or looks back over a window of steps.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        core: Callable[[Sequence[int]], Core] = LSTM_128,
        max_steps: int = 10,
        cost: float = 0.01,
        halting_bias: float = -3.0,
    ) -> None:
        check_input_shape(Ponder, input_shape)
        inner = core((int(input_shape[0]) + 1,))
        check_ponders(inner)
        super().__init__(input_shape, features_dim=inner.features_dim)
        self.inner = inner
        self.halting = Halting(inner.features_dim, max_steps, cost, halting_bias)

    def initial_state(self, batch_size: int) -> State:
        """The core's."""
        return self.inner.initial_state(batch_size)

    def step(self, inputs: Tensor, state: State, replay: Tensor | None = None, deterministic: bool = False) -> CoreOutput:
        """Run the core until every lane has halted."""
        lanes = len(inputs)
        progress = Halting.begin(inputs)
        features: Any = inputs.new_zeros(lanes, self.features_dim)
        mean, seen = map_state(torch.zeros_like, state), []
        for run in range(self.halting.max_steps):
            flagged = torch.cat([inputs, inputs.new_full((lanes, 1), float(run == 0))], dim=-1)
            output, taps = run_recorded(self.inner, flagged, state)
            state = output.state
            weight, progress = self.halting(output.features, progress, run == self.halting.max_steps - 1)
            features = torch.addcmul(features, weight[:, None], output.features)
            mean = map_state(partial(add_weighted, weight), mean, state)
            seen.append((weight, taps))
            if not progress.running.any():
                break
        if is_recording():
            tap_means(seen)
            tap("ponder", progress.taken, TapKind.PONDER)
        return CoreOutput(features, mean, cost=self.halting.charge(progress), ponder=progress.taken)


def make_core(core: Callable[..., Core], input_shape: Sequence[int], arguments: Mapping[str, Any]) -> Core:
    """A core, and adaptive computation time around it where its arguments ask for that.

    Args:
        core: its class.
        input_shape: the shape of one input.
        arguments: the core's further ones. ``ponder`` among them is for :class:`Ponder`, except where the core itself has an
            argument of that name: true, or a dictionary of Ponder's own arguments; ``False`` or ``None`` for none.

    Raises:
        ValueError: ``ponder`` is anything else.
        TypeError: Ponder has no such argument; names the nearest.
    """
    if "ponder" in inspect.signature(core).parameters:
        return core(input_shape, **arguments)
    others = {name: value for name, value in arguments.items() if name != "ponder"}
    ponder = arguments.get("ponder")
    if ponder is None or ponder is False:
        return core(input_shape, **others)
    if ponder is not True and not isinstance(ponder, Mapping):
        raise ValueError(f"ponder is {ponder!r}; it must be true, false, or a dictionary such as {{max_steps: 10, cost: 0.01}}")
    settings = {} if ponder is True else dict(ponder)
    check_arguments(Ponder, settings)
    return Ponder(input_shape, partial(core, **others), **settings)


def add_weighted(weight: Tensor, total: Tensor, leaf: Tensor) -> Tensor:
    """``total + weight * leaf``, a weight a lane."""
    return torch.addcmul(total, weight.view(-1, *[1] * (leaf.ndim - 1)), leaf)


def run_recorded(core: Core, inputs: Tensor, state: State) -> tuple[CoreOutput, Recording]:
    """One step of a core, and what it tapped, if there is a recording."""
    if not is_recording():
        return core.step(inputs, state), Recording()
    with recording() as taps:
        output = core.step(inputs, state)
    return output, taps


def tap_means(runs: list[tuple[Tensor, Recording]]) -> None:
    """Tap the weighted means of what a core tapped in each run of a step."""
    first = runs[0][1]
    for name, kind in first.kinds.items():
        total = torch.zeros_like(first.values[name][0])
        for weight, taps in runs:
            total = add_weighted(weight, total, taps.values[name][0])
        tap(name, total, kind, first.notes[name])


def check_ponders(core: Core) -> None:
    """Refuse a core of which several runs on one input mean nothing.

    Raises:
        ValueError: names the core.
    """
    name = type(core).__name__
    if isinstance(core, WindowTransformer):
        raise ValueError(f"{name} looks back over steps, each of which would be in its window several times; use Universal")
    if core.decision_size:
        raise ValueError(f"{name} takes latent decisions, one a step; Ponder needs a core that takes none, such as LSTM")
    if core.initial_state(1) == ():
        raise ValueError(f"{name} has no state, so a second run would be the first; Ponder needs a core such as LSTM")
