"""Taps: nothing outside a recording, everything inside one."""

import timeit

import pytest
import torch
from torch import Tensor

from saccade.policies import LSTM, Recording, RecurrentGlimpse, TapKind, is_recording, recording, tap


def look(value: float) -> None:
    tap("gaze", torch.full((3, 2), value), TapKind.GAZE, {"fields": [(1, 2)]})


def test_outside_a_recording_nothing_is_kept() -> None:
    assert not is_recording()
    look(1)
    with recording() as taps:
        assert is_recording()
    assert not is_recording()
    look(2)
    assert taps == Recording()


def test_a_recording_holds_every_step_in_order_with_kind_and_notes() -> None:
    with recording() as taps:
        look(1)
        look(2)
        tap("usage", torch.zeros(3, 5), TapKind.MEMORY)
    assert taps.stacked("gaze")[:, 0, 0].tolist() == [1, 2]
    assert taps.stacked("gaze").shape == (2, 3, 2)
    assert taps.stacked("usage").shape == (1, 3, 5)
    assert taps.kinds == {"gaze": TapKind.GAZE, "usage": TapKind.MEMORY}
    assert taps.notes == {"gaze": {"fields": [(1, 2)]}, "usage": {}}


def test_an_unknown_tap_is_named_with_those_there_are() -> None:
    with recording() as taps:
        look(1)
    with pytest.raises(KeyError, match="'gase'.*gaze"):
        taps.stacked("gase")
    with recording() as empty, pytest.raises(KeyError, match="holds none"):
        empty.stacked("gaze")


def test_the_innermost_recording_gets_what_is_tapped() -> None:
    with recording() as outer:
        look(1)
        with recording() as inner:
            look(2)
        look(3)
    assert outer.stacked("gaze")[:, 0, 0].tolist() == [1, 3]
    assert inner.stacked("gaze")[:, 0, 0].tolist() == [2]


def test_an_error_ends_a_recording() -> None:
    with pytest.raises(RuntimeError), recording():
        raise RuntimeError
    assert not is_recording()


def test_a_recording_holds_what_acted_while_a_whole_sequence_is_replayed() -> None:
    core = RecurrentGlimpse((1, 11, 13))
    images, starts = torch.rand(7, 5, 1, 11, 13), torch.zeros(7, 5, dtype=torch.bool)
    replay = torch.rand(7, 5, 2)
    with recording() as taps:
        core(images, core.initial_state(5), starts, replay)
    assert (taps.stacked("gaze")[1:] == replay[:-1]).all()
    assert len(taps.values["gaze"]) == 7


def test_values_keep_their_graph_so_that_they_can_be_differentiated() -> None:
    weight = torch.ones(3, 2, requires_grad=True)
    with recording() as taps:
        tap("weights", weight * 2, TapKind.MEMORY)
    (gradient,) = torch.autograd.grad(taps.stacked("weights").sum(), weight)
    assert (gradient == 2).all()


def test_outside_a_recording_a_tap_costs_next_to_nothing() -> None:
    value = torch.zeros(3, 2)
    best = min(timeit.repeat(lambda: tap("gaze", value, TapKind.GAZE), number=1000, repeat=5)) / 1000
    # A small torch operation takes a microsecond; shape checks, which production does without, are counted here.
    assert best < 50e-6


def test_a_tap_does_not_break_a_compiled_graph() -> None:
    def attend(x: Tensor) -> Tensor:
        weights = torch.softmax(x, -1)
        tap_unchecked("weights", weights, TapKind.MEMORY)
        return weights * x

    # The compiler cannot look through the checks that these tests put around every function.
    tap_unchecked = unchecked(tap)
    x = torch.randn(3, 5)
    compiled = torch.compile(attend, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), attend(x))


def unchecked(function: object) -> object:
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function


def test_a_fused_core_still_runs_step_by_step_inside_a_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    core = LSTM((11,), hidden_size=13)
    calls = []
    monkeypatch.setattr(LSTM, "run_network", lambda *_: calls.append(1))
    with recording():
        core(torch.rand(7, 5, 11), core.initial_state(5), torch.zeros(7, 5, dtype=torch.bool))
    assert not calls
