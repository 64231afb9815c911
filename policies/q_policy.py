"""The policy of agents that learn Q values: torso, core, and a dueling head or a single one."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from saccade.policies.core import CoreOutput, State
from saccade.policies.distributions import MASKED
from saccade.policies.heads import DuelingHead, DuelingOutput, QHead, hidden_widths
from saccade.policies.policy import CorePolicy, Observations


class QOutput(NamedTuple):
    """Everything a Q policy computes for ``[T, B]``: the dueling head's outputs and the core's."""

    head: DuelingOutput
    core: CoreOutput


class QPolicy(CorePolicy):
    """Torso, core and a head of Q values, over discrete actions.

    Args:
        head_hidden_size: width of the one hidden layer of the head, or of each of its two streams; 0 for none.
        dueling: value and advantage as streams of their own (Wang et al. 2016); else one stream of Q values.
        layer_norm: normalise the head's hidden layers, as PQN needs.
        net_arch: hidden widths of the head, or of each of its two streams (SB3); ``head_hidden_size`` then counts for nothing.
        activation_fn: after every hidden layer of the head (SB3).

    Further arguments are :class:`CorePolicy`'s.

    Raises:
        ValueError: ``net_arch`` is no list of widths, or the actions are not discrete from 0.
    """

    head: DuelingHead | QHead

    def __init__(
        self,
        *args: Any,
        head_hidden_size: int = 128,
        dueling: bool = True,
        layer_norm: bool = True,
        net_arch: Sequence[int] | None = None,
        activation_fn: type[nn.Module] = nn.ReLU,
        **kwargs: Any,
    ) -> None:
        one_layer = [head_hidden_size] if head_hidden_size else []
        self._head = QHead if not dueling else DuelingHead
        self._head_arguments = (hidden_widths(one_layer if net_arch is None else net_arch), layer_norm, activation_fn)
        super().__init__(*args, **kwargs)

    def build_heads(self) -> None:
        """The head of Q values."""
        if not isinstance(self.action_space, gym.spaces.Discrete):
            raise ValueError(f"Q-learning needs a Discrete action space; got {self.action_space}")
        if self.action_space.start != 0:
            raise ValueError(f"actions must start at 0; got {self.action_space}")
        self.head = self._head(self.core.features_dim, int(self.action_space.n), *self._head_arguments)

    def forward(
        self,
        observations: Observations,
        state: State,
        episode_starts: Bool[Tensor, "T B"],
        replay: Float[Tensor, "T B K"] | None = None,
        deterministic: bool = False,
    ) -> QOutput:
        """Value, advantage and Q for every step of ``[T, B, ...]``; arguments as in ``Core.forward``."""
        core = self.encode(observations, state, episode_starts, replay, deterministic)
        return QOutput(self.head(core.features), core)

    def outputs(self, features: Float[Tensor, "*batch D"]) -> dict[str, Tensor]:
        """``value`` V ``[..., 1]`` and ``advantage`` A ``[..., A]``."""
        head = self.head(features)
        return {"value": head.value, "advantage": head.advantage}

    def choose(self, core: CoreOutput, deterministic: bool, masks: Bool[Tensor, "*batch M"] | None = None) -> Tensor:
        """The greedy action, among those that ``masks`` allow; exploration is the agent's."""
        # What ranks the actions: the value would only be added to all of them.
        stream = self.head.advantage if isinstance(self.head, DuelingHead) else self.head.q
        scores = stream(core.features)
        return (scores if masks is None else torch.where(masks, scores, MASKED)).argmax(dim=-1)
