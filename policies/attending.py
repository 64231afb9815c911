"""What cores share that look with what they remember: recurrent, and fed by what attention reads (top-down attention).

Shapes: ``B`` lanes, ``D`` features of the recurrent core, ``R`` numbers that are read.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor

from saccade.policies.controller import check_sizes
from saccade.policies.core import Core, CoreOutput, Decision, State, check_input_shape, reset_state, stack_outputs


class AttendingState(NamedTuple):
    """What a core that attends carries.

    Attributes:
        features: of the step before, which ask where to look now; zeros at first.
        focus: what attention itself carries; often nothing.
        memory: the recurrent core's state.
    """

    features: Float[Tensor, "B D"]
    focus: State
    memory: State


class Reading(NamedTuple):
    """What attention gives.

    Attributes:
        read: what was read.
        focus: what attention carries on.
        decision: which place was chosen, by attention that chooses.
    """

    read: Float[Tensor, "B R"]
    focus: State = ()
    decision: Decision | None = None


class Attending(Core):
    """A recurrent core that asks, reads what attention gives, and remembers.

    A subclass says what attention makes of an input before anything is asked (:meth:`prepare`), which is done for all steps of
    a sequence at once, and what it reads for a question (:meth:`attend`).

    Args:
        input_shape: of what attention looks at.
        read_size: ``R``.
        hidden_size: ``D``.
        memory: makes the recurrent core over ``(R,)``, given ``hidden_size``: a core class, or a partial of one.
        decision_size: numbers that attention decides in a step.

    Raises:
        ValueError: the input is of another kind, a size is below 1, or the memory takes latent decisions of its own.
    """

    def __init__(
        self, input_shape: Sequence[int], read_size: int, hidden_size: int, memory: Callable[..., Core], decision_size: int = 0
    ) -> None:
        check_sizes(type(self).__name__, hidden_size=hidden_size)
        check_input_shape(type(self), input_shape)
        super().__init__(input_shape, features_dim=hidden_size, decision_size=decision_size)
        self.memory = memory((read_size,), hidden_size=hidden_size)
        if self.memory.decision_size:
            name = type(self.memory).__name__
            raise ValueError(f"{name} takes decisions of its own; attention needs a memory that takes none")
        self.features_dim = self.memory.features_dim

    @abstractmethod
    def prepare(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """What attention looks at, ``[N, ...]`` each, of inputs ``[N, *input_shape]``: keys and values, say."""

    @abstractmethod
    def attend(
        self,
        scene: tuple[Tensor, ...],
        features: Float[Tensor, "B D"],
        focus: State,
        replay: Float[Tensor, "B K"] | None,
        deterministic: bool,
    ) -> Reading:
        """Look at what :meth:`prepare` gave of one step.

        Args:
            scene: that.
            features: of the step before.
            focus: what attention carries.
            replay: decisions taken earlier, to be scored.
            deterministic: take the likeliest decision.
        """

    def initial_focus(self, batch_size: int) -> State:
        """What attention carries at first: nothing."""
        return ()

    def initial_state(self, batch_size: int) -> AttendingState:
        """Nothing is remembered; features are zeros."""
        features = next(self.parameters()).new_zeros(batch_size, self.features_dim)
        return AttendingState(features, self.initial_focus(batch_size), self.memory.initial_state(batch_size))

    def step(
        self, inputs: Tensor, state: State, replay: Float[Tensor, "B K"] | None = None, deterministic: bool = False
    ) -> CoreOutput:
        """Ask, read, remember."""
        return self.read(self.prepare(inputs), state, replay, deterministic)

    def read(
        self, scene: tuple[Tensor, ...], state: AttendingState, replay: Float[Tensor, "B K"] | None, deterministic: bool
    ) -> CoreOutput:
        """A step, from what :meth:`prepare` gave."""
        reading = self.attend(scene, state.features, state.focus, replay, deterministic)
        memory = self.memory.step(reading.read, state.memory)
        after = AttendingState(memory.features, reading.focus, memory.state)
        return CoreOutput(memory.features, after, reading.decision, memory.cost, memory.ponder)

    def unroll(
        self,
        inputs: Tensor,
        state: State,
        episode_starts: Bool[Tensor, "T B"],
        replay: Float[Tensor, "T B K"] | None = None,
        deterministic: bool = False,
    ) -> CoreOutput:
        """Keys and values of all steps at once, then step by step: where to look depends on what was read before."""
        scenes = [part.unflatten(0, episode_starts.shape).unbind() for part in self.prepare(inputs.flatten(0, 1))]
        initial, outputs = self.initial_state(inputs.shape[1]), []
        resets = episode_starts.any(dim=1).tolist()
        for t, scene in enumerate(zip(*scenes, strict=True)):
            if resets[t]:
                state = reset_state(state, initial, episode_starts[t])
            output = self.read(scene, state, None if replay is None else replay[t], deterministic)
            state = output.state
            outputs.append(output)
        return stack_outputs(outputs)
