"""Two cores of one kind side by side: separate memories for actor and critic."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saccade.policies.core import Core, CoreOutput, State
from saccade.policies.recurrent import LSTM
from saccade.policies.tap import is_recording, recording, tap

# sb3-contrib's default.
LSTM_256 = partial(LSTM, hidden_size=256)


class TwinState(NamedTuple):
    """The state of each core."""

    actor: State
    critic: State


class Twin(Core):
    """Two cores that read the same inputs and share nothing; features ``[..., 2 D]`` are the actor's, then the critic's.

    sb3-contrib's RecurrentPPO remembers this way. The two run one after the other: one thread multiplies no faster when both
    are stacked in one product, and the fused LSTM is faster than either. Costs and ponder steps are summed; a tap
    ``name`` becomes ``actor_name`` and ``critic_name``.

    Args:
        input_shape: ``(features,)``.
        core: makes each core from the input shape: a core class, or a partial of one.

    Raises:
        ValueError: the core takes latent decisions: two of them would be two decisions a step.
    """

    def __init__(self, input_shape: Sequence[int], core: Callable[[Sequence[int]], Core] = LSTM_256) -> None:
        actor, critic = core(input_shape), core(input_shape)
        super().__init__(input_shape, features_dim=actor.features_dim + critic.features_dim)
        if actor.decision_size:
            raise ValueError(
                f"{type(actor).__name__} takes latent decisions; Twin needs a core that takes none, such as LSTM. "
                f"Use {type(actor).__name__} itself: actor and critic then share its memory"
            )
        self.actor, self.critic = actor, critic

    def initial_state(self, batch_size: int) -> TwinState:
        """That of each core."""
        return TwinState(self.actor.initial_state(batch_size), self.critic.initial_state(batch_size))

    def step(self, inputs: Tensor, state: State, replay: Tensor | None = None, deterministic: bool = False) -> CoreOutput:
        """One step of each core."""
        return join(
            run_named("actor", lambda: self.actor.step(inputs, state.actor)),
            run_named("critic", lambda: self.critic.step(inputs, state.critic)),
        )

    def unroll(
        self,
        inputs: Float[Tensor, "T B input"],
        state: State,
        episode_starts: Bool[Tensor, "T B"],
        replay: Tensor | None = None,
        deterministic: bool = False,
    ) -> CoreOutput:
        """Each core's own fast path."""
        return join(
            run_named("actor", lambda: self.actor(inputs, state.actor, episode_starts)),
            run_named("critic", lambda: self.critic(inputs, state.critic, episode_starts)),
        )


def run_named(who: str, run: Callable[[], CoreOutput]) -> CoreOutput:
    """The output of ``run``, whose taps are recorded under names of their own."""
    if not is_recording():
        return run()
    with recording() as taps:
        output = run()
    for name, kind in taps.kinds.items():
        for value in taps.values[name]:
            tap(f"{who}_{name}", value, kind, taps.notes[name])
    return output


def join(actor: CoreOutput, critic: CoreOutput) -> CoreOutput:
    """One output of both."""
    features = torch.cat([actor.features, critic.features], dim=-1)
    costs, ponders = zip((actor.cost, actor.ponder), (critic.cost, critic.ponder), strict=True)
    return CoreOutput(features, TwinState(actor.state, critic.state), cost=total(costs), ponder=total(ponders))


def total(parts: Iterable[Tensor | None]) -> Tensor | None:
    """The sum of those that there are."""
    present = [part for part in parts if part is not None]
    return torch.stack(present).sum(0) if present else None
