"""The parity law for every core of the table (tests/cores.py), and a broken core for every clause of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import conformance as law
from cores import ROWS, CoreRow
from saccade.policies import LSTM, Core, CoreOutput, Decision, LSTMState, TapKind, is_recording, tap
from saccade.policies.core import reset_state

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
    wants, given = ("vector", (3, 5, 7)) if vector else ("image", (11,))
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


# Broken cores. Each breaks the law in a way that published code does, and the clause named beside it must notice.


class Leaky(Core):
    """A leaky integrator, correct: what the broken cores are made from."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__(input_shape, features_dim=13)
        self.read = nn.Linear(input_shape[0], 13)
        self.keep = nn.Parameter(torch.full((13,), 0.5))

    def initial_state(self, batch_size: int) -> tuple[Tensor]:
        return (self.keep.new_zeros(batch_size, 13),)

    def step(self, inputs: Tensor, state: Any, replay: Tensor | None = None, deterministic: bool = False) -> CoreOutput:
        now = torch.tanh(self.keep * state[0] + self.read(inputs))
        return CoreOutput(now, (now,))


class StateOnSelf(Leaky):
    def step(self, inputs: Tensor, state: Any, replay: Tensor | None = None, deterministic: bool = False) -> CoreOutput:
        kept = getattr(self, "kept", None)
        output = super().step(inputs, state if kept is None or len(kept) != len(inputs) else (kept,))
        self.kept = output.features.detach()
        return output


class StateInAHelper(Leaky):
    class Notes:
        seen = 0

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__(input_shape)
        self.notes = self.Notes()

    def step(self, inputs: Tensor, state: Any, replay: Tensor | None = None, deterministic: bool = False) -> CoreOutput:
        self.notes.seen += 1
        return super().step(inputs, state)


class ResetOneStepLate(Leaky):
    def unroll(self, inputs: Tensor, state: Any, episode_starts: Tensor, *how: Any) -> CoreOutput:
        late = torch.cat([torch.zeros_like(episode_starts[:1]), episode_starts[:-1]])
        return super().unroll(inputs, state, late, *how)


class ResetAfterTheStep(Leaky):
    """Acting and learning agree with each other here, and are both wrong."""

    def forward(self, inputs: Tensor, state: Any, episode_starts: Tensor, *how: Any) -> CoreOutput:
        outputs = []
        for t in range(len(inputs)):
            output = self.step(inputs[t], state)
            state = reset_state(output.state, self.initial_state(inputs.shape[1]), episode_starts[t])
            outputs.append(output.features)
        return CoreOutput(torch.stack(outputs), state)


class ResetEveryLane(Leaky):
    def unroll(self, inputs: Tensor, state: Any, episode_starts: Tensor, *how: Any) -> CoreOutput:
        return super().unroll(inputs, state, episode_starts.any(1, keepdim=True).expand_as(episode_starts), *how)


class ResetByMultiplying(Leaky):
    """The usual ``state * (1 - start)``, in which a NaN survives."""

    def forward(self, inputs: Tensor, state: Any, episode_starts: Tensor, *how: Any) -> CoreOutput:
        masked = (state[0] * (~episode_starts[0]).float()[:, None],)
        rest = episode_starts.clone()
        rest[0] = False
        return super().forward(inputs, masked, rest, *how)


class FirstStepsState(Leaky):
    """An unroll that gives back the state it began with."""

    def unroll(self, inputs: Tensor, state: Any, episode_starts: Tensor, *how: Any) -> CoreOutput:
        return super().unroll(inputs, state, episode_starts, *how)._replace(state=state)


class BatchMean(Leaky):
    def step(self, inputs: Tensor, state: Any, replay: Tensor | None = None, deterministic: bool = False) -> CoreOutput:
        return super().step(inputs - inputs.mean(0, keepdim=True), state)


class NeighboursState(Leaky):
    def step(self, inputs: Tensor, state: Any, replay: Tensor | None = None, deterministic: bool = False) -> CoreOutput:
        return super().step(inputs, (state[0] + 1e-3 * state[0].roll(1, 0),))


class OtherUnroll(Leaky):
    def unroll(self, inputs: Tensor, state: Any, episode_starts: Tensor, *how: Any) -> CoreOutput:
        output = super().unroll(inputs, state, episode_starts, *how)
        return output._replace(features=output.features * 1.0001)


class Squeezes(Leaky):
    def step(self, inputs: Tensor, state: Any, replay: Tensor | None = None, deterministic: bool = False) -> CoreOutput:
        output = super().step(inputs, state)
        return output._replace(features=output.features.squeeze())


class Detached(Leaky):
    def step(self, inputs: Tensor, state: Any, replay: Tensor | None = None, deterministic: bool = False) -> CoreOutput:
        now = torch.tanh(self.keep.detach() * state[0] + self.read(inputs))
        return CoreOutput(now, (now,))


class NeverUsed(Leaky):
    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__(input_shape)
        self.spare = nn.Linear(2, 3)


class MadeOnFirstUse(Leaky):
    def step(self, inputs: Tensor, state: Any, replay: Tensor | None = None, deterministic: bool = False) -> CoreOutput:
        if not hasattr(self, "late"):
            self.late = nn.Linear(13, 13)
        output = super().step(inputs, state)
        return output._replace(features=self.late(output.features))


class Writes(Leaky):
    def step(self, inputs: Tensor, state: Any, replay: Tensor | None = None, deterministic: bool = False) -> CoreOutput:
        state[0].mul_(self.keep.detach()).add_(self.read(inputs).detach()).tanh_()
        return CoreOutput(state[0].clone(), (state[0].clone(),))


class Noisy(Leaky):
    def step(self, inputs: Tensor, state: Any, replay: Tensor | None = None, deterministic: bool = False) -> CoreOutput:
        self.calls = getattr(self, "calls", 0) + 1
        return super().step(inputs + 1e-3 * self.calls, state)


class WrongGradient(Leaky):
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return 2 * gradient

    def step(self, inputs: Tensor, state: Any, replay: Tensor | None = None, deterministic: bool = False) -> CoreOutput:
        return super().step(self.Double.apply(inputs), state)


class NotInTheStateDict(Leaky):
    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__(input_shape)
        self.gain = torch.rand(13)

    def step(self, inputs: Tensor, state: Any, replay: Tensor | None = None, deterministic: bool = False) -> CoreOutput:
        output = super().step(inputs, state)
        return output._replace(features=output.features * self.gain)


class SharedByAll(Leaky):
    shared = nn.Linear(13, 13)

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__(input_shape)
        self.out = self.shared


class RecordsDifferently(Leaky):
    def step(self, inputs: Tensor, state: Any, replay: Tensor | None = None, deterministic: bool = False) -> CoreOutput:
        output = super().step(inputs, state)
        return output._replace(features=output.features + 1e-3 * is_recording())


class Attends(Leaky):
    """Correct: soft attention over three slots."""

    scale = 1.0

    def step(self, inputs: Tensor, state: Any, replay: Tensor | None = None, deterministic: bool = False) -> CoreOutput:
        output = super().step(inputs, state)
        tap("weights", torch.softmax(output.features[:, :3], -1) * self.scale, TapKind.MEMORY)
        tap("map", torch.softmax(output.features[:, :6], -1).view(-1, 2, 3), TapKind.SPACE)
        return output


class DoesNotSumToOne(Attends):
    scale = 1.01


class NegativeWeights(Attends):
    def step(self, inputs: Tensor, state: Any, replay: Tensor | None = None, deterministic: bool = False) -> CoreOutput:
        output = super().step(inputs, state)
        tap("signed", output.features[:, :2] - output.features[:, :2].mean(-1, keepdim=True) + 0.5, TapKind.TIME)
        return output


class TapsTheWholeBatchAtOnce(Leaky):
    def step(self, inputs: Tensor, state: Any, replay: Tensor | None = None, deterministic: bool = False) -> CoreOutput:
        tap("weights", torch.softmax(inputs.mean(0), -1), TapKind.MEMORY)
        return super().step(inputs, state)


class SwallowsShapes(Leaky):
    def forward(self, inputs: Tensor, *arguments: Any) -> CoreOutput:
        return super().forward(inputs[..., :11].reshape(law.T, law.B, -1)[..., :11], *arguments)


class SaysNothingOfShapes(Leaky):
    def forward(self, inputs: Tensor, *arguments: Any) -> CoreOutput:
        if inputs.shape[-1] != 11:
            raise ValueError("wrong shape")
        return super().forward(inputs, *arguments)


class Decides(Leaky):
    """Correct: a Gaussian decision that acts on the next step."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__(input_shape)
        self.decision_size = 2
        self.trains_decisions = True
        self.mean = nn.Linear(13, 2)

    def step(self, inputs: Tensor, state: Any, replay: Tensor | None = None, deterministic: bool = False) -> CoreOutput:
        output = super().step(inputs, state)
        chance = torch.distributions.Normal(self.mean(output.features), 1.0)
        value = chance.sample() if replay is None and not deterministic else chance.mean.detach()
        value = value if replay is None else replay
        now = output.features + value.sum(-1, keepdim=True).tanh()
        decision = Decision(value, chance.log_prob(value).sum(-1), chance.entropy().sum(-1))
        return CoreOutput(output.features, (now,), decision)


class IgnoresReplay(Decides):
    def step(self, inputs: Tensor, state: Any, replay: Tensor | None = None, deterministic: bool = False) -> CoreOutput:
        return super().step(inputs, state, None, deterministic)


class ScoresAnotherDecision(Decides):
    def step(self, inputs: Tensor, state: Any, replay: Tensor | None = None, deterministic: bool = False) -> CoreOutput:
        output = super().step(inputs, state, replay, deterministic)
        assert output.decision is not None
        log_prob = output.decision.log_prob if replay is None else output.decision.log_prob - 0.1
        return output._replace(decision=output.decision._replace(log_prob=log_prob))


class ScoreWithoutGradient(Decides):
    def step(self, inputs: Tensor, state: Any, replay: Tensor | None = None, deterministic: bool = False) -> CoreOutput:
        output = super().step(inputs, state, replay, deterministic)
        assert output.decision is not None
        return output._replace(decision=output.decision._replace(log_prob=output.decision.log_prob.detach()))


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
    Fault(StateOnSelf, law.check_nothing_is_kept),
    Fault(StateOnSelf, law.check_same_arguments_agree),
    Fault(StateInAHelper, law.check_nothing_is_kept),
    Fault(MadeOnFirstUse, law.check_nothing_is_kept),
    Fault(Noisy, law.check_same_arguments_agree),
    Fault(Writes, law.check_arguments_are_left_alone),
    Fault(ResetOneStepLate, law.check_steps_equal_unroll),
    Fault(ResetOneStepLate, law.check_episodes_stand_alone),
    Fault(ResetAfterTheStep, law.check_episodes_stand_alone),
    Fault(ResetAfterTheStep, law.check_episode_start_wipes),
    Fault(ResetEveryLane, law.check_steps_equal_unroll),
    Fault(ResetEveryLane, law.check_lanes_are_independent),
    Fault(ResetByMultiplying, law.check_episode_start_wipes),
    Fault(FirstStepsState, law.check_a_sequence_cut_in_two),
    Fault(FirstStepsState, law.check_steps_equal_unroll),
    Fault(BatchMean, law.check_lanes_are_independent),
    Fault(NeighboursState, law.check_lanes_are_independent),
    Fault(OtherUnroll, law.check_steps_equal_unroll),
    Fault(Squeezes, law.check_shapes),
    Fault(Detached, reaches_everything),
    Fault(NeverUsed, reaches_everything),
    Fault(WrongGradient, gradients_right),
    Fault(NotInTheStateDict, round_trip),
    Fault(SharedByAll, round_trip),
    Fault(RecordsDifferently, law.check_taps),
    Fault(DoesNotSumToOne, law.check_taps),
    Fault(NegativeWeights, law.check_taps),
    Fault(TapsTheWholeBatchAtOnce, law.check_taps),
    Fault(SwallowsShapes, law.check_wrong_shapes_are_refused),
    Fault(SaysNothingOfShapes, law.check_wrong_shapes_are_refused),
    Fault(IgnoresReplay, law.check_replay),
    Fault(ScoresAnotherDecision, law.check_replay),
    Fault(ScoreWithoutGradient, law.check_replay),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.broken.__name__}-{fault.check.__name__}")
def test_a_broken_core_is_caught(fault: Fault) -> None:
    with pytest.raises(AssertionError):
        fault.check(fault.broken((11,)))


@pytest.mark.parametrize("core", [Leaky, Attends, Decides])
@pytest.mark.parametrize("check", [*CHECKS, round_trip, gradients_right], ids=lambda check: check.__name__)
def test_the_core_that_the_faults_are_made_from_keeps_the_law(core: type[Core], check: Check) -> None:
    check(core((11,)))
