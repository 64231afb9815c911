"""What controls an external memory: a core of its own, which reads the input next to what was read from memory before."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from torch import Tensor, nn

from saccade.policies.core import Core, CoreOutput, State
from saccade.policies.recurrent import LSTM

MakeController: TypeAlias = Callable[[Sequence[int]], Core]
"""Makes a controller from the shape ``(features,)`` of what it reads: a core class, or a partial of one."""

LSTM_CONTROLLER: MakeController = partial(LSTM, hidden_size=100)
"""The controller of the NTM's experiments (Graves et al. 2014, table 2)."""


class Dense(Core):
    """One hidden layer and no state: the feed-forward controller, which remembers by the external memory alone.

    Args:
        input_shape: ``(features,)``.
        hidden_size: width of the layer, and number of output features.
        activation: makes the nonlinearity: ``torch.nn.ReLU``, ``torch.nn.Tanh``, or a partial of another.

    Raises:
        ValueError: the input is not a vector, or the layer's width is below 1.
    """

    def __init__(
        self, input_shape: Sequence[int], hidden_size: int = 100, activation: Callable[[], nn.Module] = nn.ReLU
    ) -> None:
        check_sizes("Dense", hidden_size=hidden_size)
        super().__init__(input_shape, features_dim=hidden_size)
        self.hidden = nn.Linear(int(input_shape[0]), hidden_size)
        self.activation = activation()

    def initial_state(self, batch_size: int) -> State:
        """Nothing to remember: an empty tuple."""
        return ()

    def step(self, inputs: Tensor, state: State, replay: Tensor | None = None, deterministic: bool = False) -> CoreOutput:
        """Features ``[B, H]`` of inputs ``[B, D]``."""
        return CoreOutput(self.activation(self.hidden(inputs)), state)

    def unroll(
        self,
        inputs: Tensor,
        state: State,
        episode_starts: Tensor,
        replay: Tensor | None = None,
        deterministic: bool = False,
    ) -> CoreOutput:
        """Features ``[T, B, H]`` of the whole sequence at once."""
        return self.step(inputs, state)


def make_controller(who: str, controller: MakeController, features: int) -> Core:
    """The controller of the memory core named ``who``, which reads that many features.

    Raises:
        ValueError: it takes latent decisions, which a memory core has no place for.
    """
    core = controller((features,))
    if core.decision_size:
        raise ValueError(
            f"{type(core).__name__} takes latent decisions, {core.decision_size} numbers a step; {who} needs a controller that "
            "takes none, such as LSTM or Dense"
        )
    return core


def check_sizes(who: str, **sizes: int) -> None:
    """Refuse sizes below 1.

    Raises:
        ValueError: names every size that is too small, with its number.
    """
    wrong = {name: size for name, size in sizes.items() if size < 1}
    if wrong:
        given = ", ".join(f"{name}={size}" for name, size in wrong.items())
        raise ValueError(f"{who}'s {', '.join(wrong)} must be at least 1; got {given}")
