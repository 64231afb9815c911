"""SB3 policies around a torso, a core and heads."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, cast

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Bool, Float
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import is_image_space, preprocess_obs
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor

from saccade.policies.core import Core, CoreOutput, State, map_state
from saccade.policies.heads import DuelingHead, DuelingOutput, stream
from saccade.policies.recurrent import FeedForward
from saccade.policies.torso import Pixels, default_torso

Observations: TypeAlias = Tensor | dict[str, Tensor]


def map_observations(function: Callable[[Any], Any], observations: Any) -> Any:
    """Apply ``function`` to an array or tensor observation, or to every entry of a dictionary of them."""
    if isinstance(observations, dict):
        return {key: function(value) for key, value in observations.items()}
    return function(observations)


class CorePolicy(BasePolicy):
    """Torso and core; subclasses add heads and say how to act.

    Args:
        observation_space: what is seen.
        action_space: what can be done.
        lr_schedule: learning rate as a function of the remaining progress (SB3).
        core_class: the core; ``core_kwargs`` are its arguments after ``input_shape``.
        features_extractor_class: the torso; chosen by observation space and core if ``None``.
        features_extractor_kwargs: its arguments after the observation space.
        optimizer_class: a torch optimiser; ``optimizer_kwargs`` are its arguments after ``lr``.
        normalize_images: scale bytes to 0 to 1 before the torso (SB3); an image core always does.

    Raises:
        ValueError: the core cannot read what the torso gives for this observation space.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        lr_schedule: Callable[[float], float],
        core_class: type[Core] = FeedForward,
        core_kwargs: dict[str, Any] | None = None,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        features_extractor_kwargs: dict[str, Any] | None = None,
        optimizer_class: Callable[..., torch.optim.Optimizer] = torch.optim.RAdam,
        optimizer_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
    ) -> None:
        torso_class = features_extractor_class or default_torso(observation_space, core_class.reads_image)
        super().__init__(
            observation_space,
            action_space,
            torso_class,
            features_extractor_kwargs,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
            normalize_images=normalize_images,
        )
        self.features_extractor = self.make_features_extractor()
        torso_shape = getattr(self.features_extractor, "output_shape", (self.features_extractor.features_dim,))
        self.core = core_class(torso_shape, **(core_kwargs or {}))
        # The learned baseline of REINFORCE, E[return | features], for cores that take latent decisions.
        self.baseline = stream(self.core.features_dim, 64, 1) if self.core.trains_decisions else None
        self.build_heads()
        self.optimizer = optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def build_heads(self) -> None:
        """Make the heads; called once, before the optimiser is made, so that it trains them."""
        raise NotImplementedError(f"{type(self).__name__} has no heads")

    def save(self, path: str) -> None:
        """A policy is saved with its agent: SB3's own way of saving one alone is a pickle.

        Raises:
            NotImplementedError: always; names the way.
        """
        raise NotImplementedError(f"save the agent (agent.save({path!r})), or use torch or safetensors on policy.state_dict()")

    def initial_state(self, batch_size: int) -> State:
        """The core's initial state for ``batch_size`` lanes."""
        return self.core.initial_state(batch_size)

    def extract(self, observations: Observations) -> Tensor:
        """Torso features of raw observations ``[B, ...]``; an image core gets bytes untouched, and scales what it looks at."""
        if isinstance(self.features_extractor, Pixels) and self.observes_bytes:
            return cast("Tensor", observations)
        inputs = self.preprocess(observations)
        dtype = next(self.parameters()).dtype
        return cast("Tensor", self.features_extractor(map_observations(lambda part: part.to(dtype), inputs)))

    @property
    def observes_bytes(self) -> bool:
        """Whether observations are images of whole numbers from 0 to 255."""
        return is_image_space(self.observation_space, check_channels=False)

    def preprocess(self, observations: Observations) -> Observations:
        """Raw observations ``[B, ...]`` as the floats that the network computes with: what a gradient is taken with respect to.

        ``features_extractor`` reads the result, whichever it is. Bytes are scaled to 0 to 1, as the retina does; other numbers
        are taken as they are.
        """
        if isinstance(self.features_extractor, Pixels):
            pixels = cast("Tensor", observations)
            return pixels.float() / 255 if self.observes_bytes else pixels if pixels.is_floating_point() else pixels.float()
        return preprocess_obs(observations, self.observation_space, normalize_images=self.normalize_images)

    def encode(
        self,
        observations: Observations,
        state: State,
        episode_starts: Bool[Tensor, "T B"],
        replay: Float[Tensor, "T B K"] | None = None,
        deterministic: bool = False,
    ) -> CoreOutput:
        """Observations ``[T, B, ...]`` to core features ``[T, B, D]``; arguments as in ``Core.forward``."""
        steps, lanes = episode_starts.shape
        features = self.extract(map_observations(lambda part: part.flatten(0, 1), observations))
        return self.core(features.unflatten(0, (steps, lanes)), state, episode_starts, replay, deterministic)

    def choose(self, core: CoreOutput, deterministic: bool) -> Tensor:
        """Actions ``[T, B]`` from a core's output."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to act")

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        """SB3's stateless hook: the action at an episode's first step, ``[B]``."""
        lanes = len(next(iter(observation.values())) if isinstance(observation, dict) else observation)
        starts = torch.ones(1, lanes, dtype=torch.bool, device=self.device)
        one_step = map_observations(lambda part: part[None], observation)
        core = self.encode(one_step, self.initial_state(lanes), starts, deterministic=deterministic)
        return self.choose(core, deterministic)[0]

    def predict(
        self,
        observation: Any,
        state: State | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, State]:
        """SB3's ``predict``, with memory.

        Args:
            observation: one observation, or a batch of ``B``.
            state: what the last call returned; ``None`` for the initial state.
            episode_start: ``[B]``, true where the observation is an episode's first; those lanes start from the initial state.
            deterministic: the greedy action and the mean gaze.

        Returns:
            actions (``[B]``, or one action for one observation), and the next state: NamedTuples of arrays ``[B, ...]``.
        """
        self.set_training_mode(False)
        tensor, vectorized = self.obs_to_tensor(observation)
        one_step = map_observations(lambda part: part[None], tensor)
        lanes = len(next(iter(tensor.values())) if isinstance(tensor, dict) else tensor)
        with torch.inference_mode():
            if state is None:
                memory = self.initial_state(lanes)
                episode_start = None
            else:
                memory = map_state(lambda leaf: torch.as_tensor(leaf, device=self.device), state)
            starts = np.zeros(lanes, dtype=bool) if episode_start is None else np.asarray(episode_start, dtype=bool)
            starts_t = torch.as_tensor(starts, device=self.device).reshape(1, lanes)
            core = self.encode(one_step, memory, starts_t, deterministic=deterministic)
            actions = self.choose(core, deterministic)[0].cpu().numpy()
        if not vectorized:
            actions = actions.squeeze(axis=0)
        return actions, map_state(lambda leaf: leaf.cpu().numpy(), core.state)


class QOutput(NamedTuple):
    """Everything a Q policy computes for ``[T, B]``: the dueling head's outputs and the core's."""

    head: DuelingOutput
    core: CoreOutput


class QPolicy(CorePolicy):
    """Torso, core and dueling head, over discrete actions.

    Args:
        head_hidden_size: width of each of the head's streams; the other arguments are :class:`CorePolicy`'s.
    """

    head: DuelingHead

    def __init__(self, *args: Any, head_hidden_size: int = 128, **kwargs: Any) -> None:
        self._head_hidden_size = head_hidden_size
        super().__init__(*args, **kwargs)

    def build_heads(self) -> None:
        """The dueling head."""
        if not isinstance(self.action_space, gym.spaces.Discrete):
            raise ValueError(f"Q-learning needs a Discrete action space; got {self.action_space}")
        if self.action_space.start != 0:
            raise ValueError(f"actions must start at 0; got {self.action_space}")
        self.head = DuelingHead(self.core.features_dim, int(self.action_space.n), self._head_hidden_size)

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

    def choose(self, core: CoreOutput, deterministic: bool) -> Tensor:
        """The greedy action; exploration is the agent's."""
        return self.head(core.features).q.argmax(dim=-1)
