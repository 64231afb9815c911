"""The core contract: memory and attention over time, state in and state out.

Shapes: ``T`` time, ``B`` batch (lanes), ``D`` features, ``K`` numbers in a latent decision.
Sequences are time-major. A state is a NamedTuple (nested, if need be) of batch-first tensors.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, ClassVar, NamedTuple, TypeAlias, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from saccade.policies.tap import is_recording

State: TypeAlias = Any
"""A NamedTuple of batch-first tensors, or of further such tuples."""


class Reads(Enum):
    """What a core reads in a step, and how many axes that has."""

    VECTOR = ("a vector [features]", 1)
    IMAGE = ("an image [channels, height, width]", 3)
    GRID = ("a grid [channels, height, width]", 3)
    SEQUENCE = ("a sequence [elements, features]", 2)

    def __init__(self, words: str, axes: int) -> None:
        self.words, self.axes = words, axes


class Decision(NamedTuple):
    """A core's latent decision at every step: a gaze, say.

    Attributes:
        value: what was decided; has no gradient.
        log_prob: of that, differentiable with respect to the core's parameters.
        entropy: of what it was drawn from.
        context: what was known before the decision, for one that acts in its own step, as the features of that step are
            no baseline for it; ``None`` for one that acts from the next step on.
    """

    value: Float[Tensor, "*batch K"]
    log_prob: Float[Tensor, "*batch"]
    entropy: Float[Tensor, "*batch"]
    context: Float[Tensor, "*batch D"] | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> "Decision":
        """The same of every part."""
        return Decision(*(None if part is None else function(part) for part in self))  # type: ignore[arg-type]


class CoreOutput(NamedTuple):
    """What a core returns: for a step with leading shape ``[B]``, for a sequence ``[T, B]``.

    Attributes:
        features: what the heads read.
        state: the state after the last step.
        decision: the latent decisions, or ``None`` for cores that take none.
        cost: a differentiable cost per step (of pondering, say), or ``None``.
        ponder: how many computations each step took, for cores that choose it, or ``None``.
    """

    features: Float[Tensor, "*batch D"]
    state: State
    decision: Decision | None = None
    cost: Float[Tensor, "*batch"] | None = None
    ponder: Float[Tensor, "*batch"] | None = None


def map_state(function: Callable[..., Tensor], *states: State) -> State:
    """Apply ``function`` leaf by leaf to states of one structure."""
    first = states[0]
    if isinstance(first, tuple):
        leaves = [map_state(function, *children) for children in zip(*states, strict=True)]
        return type(first)(*leaves) if hasattr(first, "_fields") else tuple(leaves)
    return function(*states)


def reset_state(state: State, initial: State, starts: Bool[Tensor, " B"]) -> State:
    """Put ``initial`` in the lanes where an episode starts; the other lanes keep ``state``."""

    def pick(now: Tensor, fresh: Tensor) -> Tensor:
        return torch.where(starts.view(-1, *[1] * (now.ndim - 1)), fresh, now)

    return map_state(pick, state, initial)


class Core(nn.Module, ABC):
    """Reads one input a step, carries a state, gives features.

    A core is written as one :meth:`step`. Where a whole sequence can be computed faster, :meth:`unroll` is overridden
    and must agree with stepping; the conformance table (``tests/test_core_conformance.py``) holds every core to that.

    Attributes:
        input_shape: shape of one input, without batch.
        features_dim: ``D``, the number of output features.
        decision_size: ``K``, how many numbers a latent decision has; 0 for cores that take none.
        trains_decisions: whether those decisions have probabilities for REINFORCE to raise or lower.
        acts_at_once: whether a decision acts in the step that takes it, and not only from the next one on.
        reads: what the core can read, what it is made for first.
    """

    reads: ClassVar[tuple[Reads, ...]] = (Reads.VECTOR,)

    def __init__(self, input_shape: Sequence[int], features_dim: int, decision_size: int = 0) -> None:
        super().__init__()
        check_input_shape(type(self), input_shape)
        self.input_shape = tuple(input_shape)
        self.features_dim = features_dim
        self.decision_size = decision_size
        self.trains_decisions = decision_size > 0
        self.acts_at_once = False

    @abstractmethod
    def initial_state(self, batch_size: int) -> State:
        """The state before an episode's first step, for ``batch_size`` lanes; may depend on parameters."""

    @abstractmethod
    def step(
        self,
        inputs: Tensor,
        state: State,
        replay: Float[Tensor, "B K"] | None = None,
        deterministic: bool = False,
    ) -> CoreOutput:
        """One step. Resets are the caller's: ``state`` is already the initial state where an episode starts.

        Args:
            inputs: ``[B, *input_shape]``.
            state: the state before the step.
            replay: latent decisions ``[B, K]`` taken earlier, to be scored instead of sampling new ones.
            deterministic: take the most likely latent decision instead of sampling one.
        """

    def unroll(
        self,
        inputs: Tensor,
        state: State,
        episode_starts: Bool[Tensor, "T B"],
        replay: Float[Tensor, "T B K"] | None = None,
        deterministic: bool = False,
    ) -> CoreOutput:
        """A whole sequence; the same arguments as :meth:`forward`. The reference: one :meth:`step` after another."""
        initial = self.initial_state(inputs.shape[1])
        outputs = []
        for t in range(inputs.shape[0]):
            state = reset_state(state, initial, episode_starts[t])
            output = self.step(inputs[t], state, None if replay is None else replay[t], deterministic)
            state = output.state
            outputs.append(output)
        return stack_outputs(outputs)

    def forward(
        self,
        inputs: Tensor,
        state: State,
        episode_starts: Bool[Tensor, "T B"],
        replay: Float[Tensor, "T B K"] | None = None,
        deterministic: bool = False,
    ) -> CoreOutput:
        """Run ``T`` steps; ``T = 1`` when acting.

        Args:
            inputs: ``[T, B, *input_shape]``.
            state: the state before the first step.
            episode_starts: where true, the state is the initial state before that step, per lane, in mid-sequence too.
            replay: latent decisions ``[T, B, K]`` recorded earlier, to be scored instead of sampling new ones.
            deterministic: take the most likely latent decisions.

        Raises:
            ValueError: the inputs do not have the shape this core was built for.
        """
        if tuple(inputs.shape[2:]) != self.input_shape or inputs.shape[:2] != episode_starts.shape:
            raise ValueError(
                f"{type(self).__name__} expects inputs [T, B, {', '.join(map(str, self.input_shape))}] and episode_starts "
                f"[T, B]; got {list(inputs.shape)} and {list(episode_starts.shape)}"
            )
        if inputs.shape[0] == 1:
            return self.run_one(inputs, state, episode_starts, replay, deterministic)
        if is_recording():
            return Core.unroll(self, inputs, state, episode_starts, replay, deterministic)
        return self.unroll(inputs, state, episode_starts, replay, deterministic)

    def hold(self, state: State) -> Any:
        """A state to act with while weights stay as they are: :meth:`forward` takes it where ``T = 1``, and may overwrite it.

        Most cores have nothing to gain, and give ``state`` itself. The argument is left as it is.
        """
        return state

    def release(self, held: Any) -> State:
        """The state that something held stands for now; a state stands for itself."""
        return held

    def run_one(
        self,
        inputs: Tensor,
        state: State,
        episode_starts: Bool[Tensor, "1 B"],
        replay: Float[Tensor, "1 B K"] | None,
        deterministic: bool,
    ) -> CoreOutput:
        """A sequence of one step: acting."""
        starts = episode_starts[0]
        # Asking a GPU costs more than resetting.
        if starts.device.type != "cpu" or starts.any():
            state = reset_state(state, self.initial_state(inputs.shape[1]), starts)
        output = self.step(inputs[0], state, None if replay is None else replay[0], deterministic)
        decision = None if output.decision is None else output.decision.map(lambda part: part[None])
        cost, ponder = (None if part is None else part[None] for part in (output.cost, output.ponder))
        return CoreOutput(output.features[None], output.state, decision, cost, ponder)

    def __call__(self, *args: Any, **kwargs: Any) -> CoreOutput:
        """Typed entry to :meth:`forward`, through torch's module hooks."""
        return cast("CoreOutput", super().__call__(*args, **kwargs))


@torch.no_grad()
def complete(
    core: Core, inputs: Tensor, state: State, episode_starts: Bool[Tensor, "T B"], replay: Float[Tensor, "T B K"]
) -> Float[Tensor, "T B K"]:
    """Decisions to replay, those that nobody took, NaN, as the core would take them now.

    Of an observation that was never acted on, what a decision in its own step shows depends on that decision; one that acts
    from the next step on may be anything there, and is zero.
    """
    if not core.acts_at_once:
        return replay.nan_to_num(0.0)
    missing, replay, start = replay.isnan().any(-1), replay.clone(), 0
    for t in missing.any(1).nonzero().flatten().tolist():
        if t > start:
            state = core(inputs[start:t], state, episode_starts[start:t], replay[start:t]).state
        chosen = core(inputs[t : t + 1], state, episode_starts[t : t + 1]).decision
        assert chosen is not None
        replay[t] = torch.where(missing[t, :, None], chosen.value[0], replay[t])
        start = t
    return replay


def check_input_shape(core: type[Core], input_shape: Sequence[int]) -> None:
    """Refuse an input that the core cannot read.

    Raises:
        ValueError: a core that looks at images was given a vector, say, or the other way round.
    """
    if len(input_shape) not in {kind.axes for kind in core.reads}:
        wants = " or ".join(kind.words for kind in core.reads)
        raise ValueError(f"{core.__name__} reads {wants}; its input has shape {list(input_shape)}")


def stack_outputs(outputs: Sequence[CoreOutput]) -> CoreOutput:
    """Join the outputs of consecutive steps along a new time axis."""
    return _combine(torch.stack, outputs)


def join_outputs(outputs: Sequence[CoreOutput]) -> CoreOutput:
    """Join the outputs of consecutive sequences along their time axis."""
    return outputs[0] if len(outputs) == 1 else _combine(torch.cat, outputs)


def _combine(function: Callable[[list[Tensor]], Tensor], outputs: Sequence[CoreOutput]) -> CoreOutput:
    def combined(parts: Sequence[Tensor | None]) -> Tensor | None:
        there = [part for part in parts if part is not None]
        return function(there) if there else None

    decisions = [output.decision for output in outputs if output.decision is not None]
    return CoreOutput(
        function([output.features for output in outputs]),
        outputs[-1].state,
        Decision(*map(combined, zip(*decisions, strict=True))) if decisions else None,  # type: ignore[arg-type]
        combined([output.cost for output in outputs]),
        combined([output.ponder for output in outputs]),
    )
