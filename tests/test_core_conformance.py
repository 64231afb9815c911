"""The parity law for every core of the table (tests/cores.py), and a broken core for every clause of it."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch

import broken_cores as broken
import conformance as law
import held_cores as held
from cores import ROWS, CoreRow
from saccade.policies import LSTM, Core, LSTMState

Check = Callable[[Core], None]
CHECKS: list[Check] = [
    law.check_steps_equal_unroll,
    law.check_a_sequence_cut_in_two,
    law.check_episodes_stand_alone,
    law.check_episode_start_wipes,
    law.check_lanes_are_independent,
    law.check_same_arguments_agree,
    law.check_nothing_is_kept,
    law.check_arguments_are_left_alone,
    held.check_held_states,
    law.check_shapes,
    law.check_replay,
    law.check_taps,
    law.check_wrong_shapes_are_refused,
]
every_core = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)


@every_core
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_law(row: CoreRow, check: Check) -> None:
    check(row.core())


@every_core
def test_gradients_reach_every_parameter(row: CoreRow) -> None:
    law.check_gradients_reach(row.core(), row.beyond_features)


@every_core
def test_gradients_agree_with_finite_differences(row: CoreRow) -> None:
    law.check_gradients_are_right(row.tiny_core())


@every_core
def test_a_state_dict_holds_everything(row: CoreRow) -> None:
    law.check_round_trip(row.core)


@every_core
def test_the_wrong_kind_of_input_is_refused(row: CoreRow) -> None:
    vector = len(row.input_shape) == 1
    wants, given = ("vector", (3, 5, 7)) if vector else ("image|grid|sequence", (11,))
    with pytest.raises(ValueError, match=wants) as error:
        row.make(given)
    assert str(list(given)) in str(error.value)


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="hidden_size.*0 and 1"):
        LSTM((3,), hidden_size=0)
    with pytest.raises(ValueError, match="n_layers.*3 and 0"):
        LSTM((3,), hidden_size=3, n_layers=0)


def test_an_unroll_without_a_single_reset_is_one_call_of_the_fused_network() -> None:
    core = LSTM((11,), hidden_size=13, n_layers=2)
    inputs, starts = torch.randn(7, 5, 11), torch.zeros(7, 5, dtype=torch.bool)
    features, (hidden, cell) = core.network(inputs)
    output = core(inputs, core.initial_state(5), starts)
    law.assert_equal(output.features, features, 1e-6)
    law.assert_equal(output.state, LSTMState(hidden.transpose(0, 1), cell.transpose(0, 1)), 1e-6)


def reaches_everything(core: Core) -> None:
    law.check_gradients_reach(core)


def round_trip(core: Core) -> None:
    law.check_round_trip(lambda: type(core)(core.input_shape))


def gradients_right(core: Core) -> None:
    law.check_gradients_are_right(core.double())


class Fault(NamedTuple):
    """A broken core and the clause that must notice."""

    broken: type[Core]
    check: Check


FAULTS = [
    Fault(broken.StateOnSelf, law.check_nothing_is_kept),
    Fault(broken.StateOnSelf, law.check_same_arguments_agree),
    Fault(broken.StateInAHelper, law.check_nothing_is_kept),
    Fault(broken.MadeOnFirstUse, law.check_nothing_is_kept),
    Fault(broken.Noisy, law.check_same_arguments_agree),
    Fault(broken.Writes, law.check_arguments_are_left_alone),
    Fault(held.HoldsWithoutACopy, held.check_held_states),
    Fault(held.HoldsThroughResets, held.check_held_states),
    Fault(held.ReleasesTheStateItBeganWith, held.check_held_states),
    Fault(broken.ResetOneStepLate, law.check_steps_equal_unroll),
    Fault(broken.ResetOneStepLate, law.check_episodes_stand_alone),
    Fault(broken.ResetAfterTheStep, law.check_episodes_stand_alone),
    Fault(broken.ResetAfterTheStep, law.check_episode_start_wipes),
    Fault(broken.ResetEveryLane, law.check_steps_equal_unroll),
    Fault(broken.ResetEveryLane, law.check_lanes_are_independent),
    Fault(broken.ResetByMultiplying, law.check_episode_start_wipes),
    Fault(broken.FirstStepsState, law.check_a_sequence_cut_in_two),
    Fault(broken.FirstStepsState, law.check_steps_equal_unroll),
    Fault(broken.BatchMean, law.check_lanes_are_independent),
    Fault(broken.NeighboursState, law.check_lanes_are_independent),
    Fault(broken.OtherUnroll, law.check_steps_equal_unroll),
    Fault(broken.Squeezes, law.check_shapes),
    Fault(broken.Detached, reaches_everything),
    Fault(broken.NeverUsed, reaches_everything),
    Fault(broken.WrongGradient, gradients_right),
    Fault(broken.NotInTheStateDict, round_trip),
    Fault(broken.SharedByAll, round_trip),
    Fault(broken.RecordsDifferently, law.check_taps),
    Fault(broken.DoesNotSumToOne, law.check_taps),
    Fault(broken.NegativeWeights, law.check_taps),
    Fault(broken.TapsTheWholeBatchAtOnce, law.check_taps),
    Fault(broken.SwallowsShapes, law.check_wrong_shapes_are_refused),
    Fault(broken.SaysNothingOfShapes, law.check_wrong_shapes_are_refused),
    Fault(broken.IgnoresReplay, law.check_replay),
    Fault(broken.ScoresAnotherDecision, law.check_replay),
    Fault(broken.ScoreWithoutGradient, law.check_replay),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.broken.__name__}-{fault.check.__name__}")
def test_a_broken_core_is_caught(fault: Fault) -> None:
    with pytest.raises(AssertionError):
        fault.check(fault.broken((11,)))


@pytest.mark.parametrize("core", [broken.Leaky, broken.Attends, broken.Decides, held.Holds])
@pytest.mark.parametrize("check", [*CHECKS, round_trip, gradients_right], ids=lambda check: check.__name__)
def test_the_core_that_the_faults_are_made_from_keeps_the_law(core: type[Core], check: Check) -> None:
    check(core((11,)))
