"""Broken cores, each in a way that published code is, and the correct ones that they are made from."""

from typing import Any

import torch
from torch import Tensor, nn

import examples
from saccade.policies import Core, CoreOutput, Decision, TapKind, is_recording, tap
from saccade.policies.core import reset_state


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
        tap("signed", inputs.new_tensor([1.25, -0.25]).expand(len(inputs), 2), TapKind.TIME)
        return output


class TapsTheWholeBatchAtOnce(Leaky):
    def step(self, inputs: Tensor, state: Any, replay: Tensor | None = None, deterministic: bool = False) -> CoreOutput:
        tap("weights", torch.softmax(inputs.mean(0), -1), TapKind.MEMORY)
        return super().step(inputs, state)


class SwallowsShapes(Leaky):
    def forward(self, inputs: Tensor, *arguments: Any) -> CoreOutput:
        return super().forward(inputs[..., :11].reshape(examples.T, examples.B, -1)[..., :11], *arguments)


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
