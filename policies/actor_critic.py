"""The policy of actor-critic agents: torso, core, and two heads, one for the actions and one for the value."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Bool, Float
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN
from torch import Tensor, nn

from saccade.policies.adam import FusedAdam
from saccade.policies.core import Core, CoreOutput, Reads, State
from saccade.policies.distributions import Scores, action_distribution
from saccade.policies.heads import hidden_widths
from saccade.policies.policy import CorePolicy, Observations
from saccade.policies.recurrent import FeedForward
from saccade.policies.stacked_mlp import StackedMLP
from saccade.policies.torso import NATURE_PIXELS, default_torso
from saccade.policies.twin import Twin


class ActorCriticOutput(NamedTuple):
    """``parameters`` of the distribution over actions ``[..., P]``, and the state's ``value`` ``[...]``."""

    parameters: Float[Tensor, "*batch P"]
    value: Float[Tensor, "*batch"]


class ActorCriticHead(nn.Module):
    """Hidden layers for the actions and for the value, and a linear output of each.

    Initialised as SB3's: orthogonal, with gain √2 in hidden layers, 0.01 for the actions and 1 for the value; or as torch's.

    Args:
        features_dim: ``D``, what each of the two reads.
        n_parameters: ``P``, of the distribution over actions.
        pi: hidden widths for the actions; ``vf`` for the value.
        activation_fn: after every hidden layer.
        ortho_init: start orthogonal; else as ``nn.Linear`` does.
    """

    def __init__(
        self,
        features_dim: int,
        n_parameters: int,
        pi: Sequence[int],
        vf: Sequence[int],
        activation_fn: type[nn.Module],
        ortho_init: bool = True,
    ) -> None:
        super().__init__()
        gain = float(np.sqrt(2)) if ortho_init else None
        copies, networks = (2, [pi]) if list(pi) == list(vf) else (1, [pi, vf])
        self.hidden = nn.ModuleList(StackedMLP(copies, features_dim, widths, activation_fn, gain) for widths in networks)
        self.action = nn.Linear(pi[-1] if pi else features_dim, n_parameters)
        self.value = nn.Linear(vf[-1] if vf else features_dim, 1)
        for layer, scale in ((self.action, 0.01), (self.value, 1.0)) if ortho_init else ():
            nn.init.orthogonal_(layer.weight, scale)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Float[Tensor, "2 *batch D"]) -> ActorCriticOutput:
        """From what the actions read and what the value reads."""
        networks = cast("list[StackedMLP]", list(self.hidden))
        layers = (self.action, self.value)
        if len(networks) == 1:
            parameters, value = networks[0].read_out(features, layers)
        else:
            parts = zip(networks, features, layers, strict=True)
            parameters, value = (network.read_out(part[None], [layer])[0] for network, part, layer in parts)
        return ActorCriticOutput(parameters, value.squeeze(-1))

    def critic(self, features: Float[Tensor, "N D"]) -> Float[Tensor, " N"]:
        """The value alone, from what the value reads."""
        copies = 2 if len(self.hidden) == 1 else 1
        return self.value(self.hidden[-1](features.expand(copies, -1, -1))[-1]).squeeze(-1)


def two_networks(net_arch: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Hidden widths for the actions and for the value, from any of the forms that SB3 has had for them.

    Raises:
        ValueError: it is none of them.
    """
    if isinstance(net_arch, Sequence) and len(net_arch) == 1 and isinstance(net_arch[0], Mapping):
        net_arch = net_arch[0]  # [dict(pi=..., vf=...)], up to SB3 1.7
    by_name = net_arch if isinstance(net_arch, Mapping) else {"pi": net_arch, "vf": net_arch}
    if by_name.keys() != {"pi", "vf"}:
        raise ValueError(f"net_arch must name the widths of 'pi' and 'vf', or be one list for both; got {net_arch}")
    return hidden_widths(by_name["pi"]), hidden_widths(by_name["vf"])


class ActorCriticPolicy(CorePolicy):
    """Torso, core and an actor-critic head, over any actions that SB3's PPO takes.

    Args:
        net_arch: hidden widths of the head, the same for actions and value; or ``{"pi": ..., "vf": ...}``, alone in a list or
            not (SB3).
        activation_fn: after every hidden layer (SB3).
        log_std_init: of the spread of continuous actions, at the start (SB3).
        ortho_init: start the head orthogonal; else as ``nn.Linear`` does (SB3).
        share_features_extractor: only true is possible (SB3).
        optimizer_class: Adam with ``eps`` 1e-5 (SB3) and one kernel for all parameters, unless named.

    Further arguments are :class:`CorePolicy`'s.

    With the core :class:`Twin` actions and value have a memory each; with any other they share one.

    Raises:
        ValueError: ``net_arch`` is none of these, or a torso each is asked for.
    """

    head: ActorCriticHead

    def __init__(
        self,
        *args: Any,
        net_arch: Sequence[int | Mapping[str, Sequence[int]]] | Mapping[str, Sequence[int]] = (64, 64),
        activation_fn: type[nn.Module] = nn.Tanh,
        log_std_init: float = 0.0,
        ortho_init: bool = True,
        share_features_extractor: bool = True,
        optimizer_class: Callable[..., torch.optim.Optimizer] = FusedAdam,
        optimizer_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not share_features_extractor:
            raise ValueError("share_features_extractor=False: one torso serves both; core Twin gives separate memories")
        self._widths = two_networks(net_arch)
        self._activation_fn = activation_fn
        self._ortho_init = ortho_init
        self._log_std_init = log_std_init
        if optimizer_kwargs is None and optimizer_class is FusedAdam:
            optimizer_kwargs = {"eps": 1e-5}
        elif optimizer_kwargs is None and optimizer_class is torch.optim.Adam:
            optimizer_kwargs = {"eps": 1e-5, "fused": True}
        kwargs |= {"optimizer_class": optimizer_class, "optimizer_kwargs": optimizer_kwargs}
        super().__init__(*args, **kwargs)

    @classmethod
    def default_torso(cls, observation_space: gym.Space[Any], core: type[Core]) -> type[BaseFeaturesExtractor]:
        """As SB3's PPO: vectors as they are, ``NatureCNN`` for images that are large enough for it."""
        if Reads.VECTOR not in core.reads:
            return default_torso(observation_space, core)
        if isinstance(observation_space, gym.spaces.Dict):
            return CombinedExtractor
        shape = observation_space.shape or ()
        if len(shape) == 3 and is_image_space(observation_space, check_channels=False):
            return NatureCNN if min(shape[1:]) >= NATURE_PIXELS else default_torso(observation_space, core)
        return FlattenExtractor

    def build_heads(self) -> None:
        """The distribution over actions, and the head."""
        is_vector = isinstance(self.observation_space, gym.spaces.Box) and len(self.observation_space.shape) == 1
        self._is_plain = is_vector and type(self.features_extractor) is FlattenExtractor and self.norm is None
        self._is_plain = self._is_plain and not self.mixed_precision
        self.distribution = action_distribution(self.action_space, self._log_std_init)
        self.separate = isinstance(self.core, Twin)
        size = self.core.features_dim // 2 if self.separate else self.core.features_dim
        self.head = ActorCriticHead(size, self.distribution.n_parameters, *self._widths, self._activation_fn, self._ortho_init)

    def extract(self, observations: Observations) -> Tensor:
        """As :meth:`CorePolicy.extract`, past a torso that leaves vectors as they are, which takes as long as a small layer."""
        if self._is_plain and isinstance(observations, Tensor) and observations.dtype == self.dtype:
            torso = self.features_extractor
            if not (torso._forward_pre_hooks or torso._forward_hooks or torso._backward_hooks):
                return observations
        return super().extract(observations)

    def encode(
        self,
        observations: Observations,
        state: State,
        episode_starts: Bool[Tensor, "T B"],
        replay: Float[Tensor, "T B K"] | None = None,
        deterministic: bool = False,
    ) -> CoreOutput:
        """As :meth:`CorePolicy.encode`, past a core that does nothing, which takes as long as a small network."""
        if type(self.core) is not FeedForward:
            return super().encode(observations, state, episode_starts, replay, deterministic)
        return CoreOutput(self.extract_steps(observations, episode_starts), state)

    def read(self, features: Float[Tensor, "*batch D"]) -> ActorCriticOutput:
        """The head's outputs for core features ``[..., D]``."""
        both = features.unflatten(-1, (2, -1)).movedim(-2, 0) if self.separate else features.expand(2, *features.shape)
        return cast("ActorCriticOutput", self.head(both))

    def value(self, features: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch"]:
        """State values from core features."""
        flat = features.reshape(-1, features.shape[-1])
        return self.head.critic(flat.chunk(2, dim=-1)[1] if self.separate else flat).reshape(features.shape[:-1])

    def outputs(self, features: Float[Tensor, "*batch D"]) -> dict[str, Tensor]:
        """``value`` ``[..., 1]``, and ``policy``: the parameters of the distribution over actions, ``[..., P]``."""
        read = self.read(features)
        return {"value": read.value.unsqueeze(-1), "policy": read.parameters}

    def forward(
        self,
        observations: Observations,
        state: State,
        episode_starts: Bool[Tensor, "T B"],
        replay: Float[Tensor, "T B K"] | None = None,
        deterministic: bool = False,
    ) -> tuple[ActorCriticOutput, CoreOutput]:
        """Head and core outputs for every step of ``[T, B, ...]``; arguments as in ``Core.forward``."""
        core = self.encode(observations, state, episode_starts, replay, deterministic)
        return self.read(core.features), core

    def score(
        self, parameters: Float[Tensor, "*batch P"], actions: Tensor, masks: Bool[Tensor, "*batch M"] | None = None
    ) -> Scores:
        """Log-probability of actions and entropy, among the choices that ``masks`` allow."""
        return self.distribution.score(self.masked(parameters, masks), actions)

    def masked(self, parameters: Tensor, masks: Tensor | None) -> Tensor:
        """Parameters of the distribution over the allowed choices."""
        return parameters if masks is None else self.distribution.mask(parameters, masks)

    def choose(self, core: CoreOutput, deterministic: bool, masks: Tensor | None = None) -> Tensor:
        """The most likely action, or one drawn at random; inside the bounds of a ``Box``."""
        parameters = self.masked(self.read(core.features).parameters, masks)
        actions = self.distribution.mode(parameters) if deterministic else self.distribution.sample(parameters).actions
        return self.bounded(actions)

    def bounded(self, actions: Tensor) -> Tensor:
        """Actions clipped to the bounds of a ``Box``, as the environment gets them; others as they are."""
        space = self.action_space
        if not isinstance(space, gym.spaces.Box):
            return actions
        return actions.clamp(*(torch.as_tensor(bound, device=actions.device) for bound in (space.low, space.high)))
