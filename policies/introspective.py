"""Introspective attention: a recurrent core that looks back over its own past states, and finds them by their content.

The score and how what is found joins the present are those of Luong et al. 2015, "Effective Approaches to Attention-based
Neural Machine Translation" (arXiv:1508.04025), eq. 5 and 8; what is looked at is not another sequence, but the core's own past,
as in Cheng et al. 2016, "Long Short-Term Memory-Networks for Machine Reading" (arXiv:1601.06733).
Shapes: ``T`` time, ``B`` lanes, ``H`` heads, ``W`` window, ``S`` steps that can be seen, ``D`` features.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from saccade.policies.controller import check_sizes
from saccade.policies.core import Core, CoreOutput, State, check_input_shape
from saccade.policies.recurrent import LSTM
from saccade.policies.tap import TapKind, is_recording, tap
from saccade.policies.transformer import View, WindowState, look_back


class IntrospectiveState(NamedTuple):
    """``past``: the recurrent core's features of the last ``W`` steps of an episode; ``memory``: its state."""

    past: WindowState
    memory: State


class Introspective(Core):
    """A recurrent core and what it finds in its own past: features are ``tanh(W_c [c; h])``.

    Each head asks by the core's present features ``h_t``, and scores every state of the window, the present one too, by
    ``h_t^T W_a h_s / √D``; ``c`` is the mean of the states by a softmax of the scores, of all heads. States that are looked up
    take no part in the recurrence, so that a whole sequence is one run of the recurrent core and one masked attention. A step
    costs ``O(W)``; with a window as long as an episode everything in it can be found. Where each head looks is the tap
    ``attention``.

    Gradients flow to all steps of a sequence; states that it begins with are as they were.

    Args:
        input_shape: ``(features,)``.
        hidden_size: ``D``.
        n_heads: ``H``.
        window: ``W``, steps before the present one.
        memory: makes the recurrent core from ``(features,)`` and ``hidden_size``: a core class, or a partial of one.

    Raises:
        ValueError: the input is not a vector, a size is below 1, or the memory takes latent decisions of its own.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        hidden_size: int = 128,
        n_heads: int = 2,
        window: int = 64,
        memory: Callable[..., Core] = LSTM,
    ) -> None:
        check_sizes("Introspective", hidden_size=hidden_size, n_heads=n_heads, window=window)
        check_input_shape(type(self), input_shape)
        super().__init__(input_shape, features_dim=hidden_size)
        self.memory = memory(tuple(input_shape), hidden_size=hidden_size)
        if self.memory.decision_size:
            name = type(self.memory).__name__
            raise ValueError(f"{name} takes decisions of its own; introspection needs a memory that takes none")
        size = self.memory.features_dim
        self.n_heads, self.window = n_heads, window
        self.query = nn.Linear(size, n_heads * size, bias=False)
        self.join = nn.Linear((n_heads + 1) * size, hidden_size, bias=False)

    def initial_state(self, batch_size: int) -> IntrospectiveState:
        """No past."""
        weight = self.join.weight
        past = WindowState(
            weight.new_zeros(batch_size, 1, self.window, self.memory.features_dim), weight.new_zeros(batch_size, self.window)
        )
        return IntrospectiveState(past, self.memory.initial_state(batch_size))

    def step(self, inputs: Tensor, state: State, replay: Tensor | None = None, deterministic: bool = False) -> CoreOutput:
        """Remember, look back."""
        memory = self.memory.step(inputs, state.memory)
        starts = torch.zeros(1, len(inputs), dtype=torch.bool, device=inputs.device)
        features, past = self.introspect(memory.features[None], state.past, starts)
        return memory._replace(features=features[0], state=IntrospectiveState(past, memory.state))

    def unroll(
        self,
        inputs: Float[Tensor, "T B input"],
        state: State,
        episode_starts: Bool[Tensor, "T B"],
        replay: Tensor | None = None,
        deterministic: bool = False,
    ) -> CoreOutput:
        """The recurrent core over the whole sequence, then one masked attention."""
        memory = self.memory(inputs, state.memory, episode_starts)
        features, past = self.introspect(memory.features, state.past, episode_starts)
        return memory._replace(features=features, state=IntrospectiveState(past, memory.state))

    def introspect(
        self, present: Float[Tensor, "T B D"], past: WindowState, episode_starts: Bool[Tensor, "T B"]
    ) -> tuple[Float[Tensor, "T B features"], WindowState]:
        """What every step finds in its past, joined with its present."""
        view = look_back(past, episode_starts)
        line = torch.cat([view.past[0], present])
        states = line.transpose(0, 1).unsqueeze(1)
        query = self.query(present).unflatten(-1, (self.n_heads, -1)).permute(1, 2, 0, 3)
        scores = query @ states.mT * states.shape[-1] ** -0.5
        weights = scores.masked_fill(self.unseen(view, len(present)), float("-inf")).softmax(-1)
        if is_recording():
            shown = nn.functional.pad(weights[:, :, 0], (self.window + 1 - weights.shape[-1], 0))
            tap("attention", shown, TapKind.TIME, {"names": ([f"head {head + 1}" for head in range(self.n_heads)],)})
        found = (weights @ states).permute(2, 0, 1, 3).flatten(2)
        return torch.tanh(self.join(torch.cat([found, present], dim=-1))), view.state_after([line])

    def unseen(self, view: View, steps: int) -> Bool[Tensor, "_ 1 T S"]:
        """What lies ahead, before the window, or in another episode."""
        device = view.past.device
        ago = torch.arange(steps, device=device)[:, None] + view.window - torch.arange(view.window + steps, device=device)
        outside = (ago < 0) | (ago > self.window)
        return outside[None, None] if view.hidden is None else (outside | (view.hidden != 0))[:, None]
