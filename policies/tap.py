"""Taps: every mechanism that attends names what it computes, and a recording collects it.

Outside a recording a tap is one test of a module variable, so it costs nothing worth measuring, and a compiled graph
folds it away. Inside one, cores run step by step (see :meth:`saccade.policies.core.Core.forward`), so that every tap holds
exactly what acted.

    with recording() as taps:
        core(inputs, state, episode_starts)
    taps.stacked("gaze")  # [T, B, 2]
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

import torch
from torch import Tensor


class TapKind(StrEnum):
    """What the last axes of a tapped tensor run over."""

    SPACE = "space"  # pixels or grid cells, [B, ..., H, W]
    MEMORY = "memory"  # memory slots, [B, ..., N]: a head's weights, which sum to at most 1
    USAGE = "usage"  # memory slots, [B, N]: how much each is in use, from 0 to 1
    LINK = "link"  # from slot to slot, [B, N, N]: how much the row's was written right after the column's, from 0 to 1
    CONTENT = "content"  # what each slot holds, [B, N, W]
    GATE = "gate"  # numbers from 0 to 1, [B, ...]: gates, modes, kernels
    ELEMENTS = "elements"  # elements of an observed sequence, [B, ..., L]
    TIME = "time"  # past steps, [B, ..., window]
    GAZE = "gaze"  # a place in [-1, 1]^2, (x, y), [B, 2]
    PONDER = "ponder"  # steps spent, [B]


@dataclass
class Recording:
    """Everything tapped between entering and leaving :func:`recording`.

    Attributes:
        kinds: for each tap, what its values run over.
        values: for each tap, one tensor ``[B, ...]`` a step, in order.
        notes: for each tap, constants that a picture needs: the sizes of a gaze's ``fields``; the ``names`` of what stands
            along the first axes of a step's value, a list an axis (of heads, and of what a head chooses from).
    """

    kinds: dict[str, TapKind] = field(default_factory=dict)
    values: dict[str, list[Tensor]] = field(default_factory=dict)
    notes: dict[str, dict[str, object]] = field(default_factory=dict)

    def stacked(self, name: str) -> Tensor:
        """All values of one tap, time first: ``[T, B, ...]``.

        Raises:
            KeyError: nothing of that name was tapped; the message lists what was.
        """
        if name not in self.values:
            raise KeyError(f"no tap named {name!r} in this recording; it holds {sorted(self.values) or 'none'}")
        return torch.stack(self.values[name])


_active: Recording | None = None


def is_recording() -> bool:
    """Whether taps are being collected, so that cores must run step by step."""
    return _active is not None


def tap(name: str, value: Tensor, kind: TapKind, notes: Mapping[str, object] | None = None) -> None:
    """Hand ``value`` (``[B, ...]``, one step) to the recording, if there is one."""
    if _active is None:
        return
    _active.kinds[name] = kind
    _active.values.setdefault(name, []).append(value)
    _active.notes[name] = dict(notes or {})


@contextmanager
def recording() -> Iterator[Recording]:
    """Collect every tap until the block ends; the innermost of nested recordings gets them."""
    global _active
    outer, _active = _active, Recording()
    try:
        yield _active
    finally:
        _active = outer
