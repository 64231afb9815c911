"""SB3 policies around a torso, a core and heads."""

from collections.abc import Callable
from operator import itemgetter
from typing import Any, TypeAlias, cast

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import is_image_space, preprocess_obs
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor

from saccade.policies.arguments import check_arguments
from saccade.policies.core import Core, CoreOutput, Reads, State, complete, map_state
from saccade.policies.heads import stream
from saccade.policies.normalize import RunningNorm
from saccade.policies.ponder import make_core
from saccade.policies.recurrent import FeedForward
from saccade.policies.tap import is_recording
from saccade.policies.torso import Pixels, check_space, default_torso, put_channels_last

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
        core_class: the core; ``core_kwargs`` are its arguments after ``input_shape``, and ``ponder=True`` among them puts
            adaptive computation time around it (:class:`~saccade.policies.Ponder`, whose arguments can stand for ``True``).
        features_extractor_class: the torso; chosen by observation space and core if ``None``.
        features_extractor_kwargs: its arguments after the observation space.
        optimizer_class: a torch optimiser; ``optimizer_kwargs`` are its arguments after ``lr``.
        normalize_images: scale bytes to 0 to 1 before the torso (SB3); an image core always does.
        normalize_observations: bring vectors to mean 0 and spread 1 by running statistics, which are saved with the weights.
        mixed_precision: compute the torso in bfloat16, which is faster for convolutions where the processor knows it.

    Attributes:
        observes_bytes: whether observations are images of whole numbers from 0 to 255.

    Raises:
        ValueError: torso or core cannot read this observation space, or observations that are no vectors of numbers are to be
            normalised.
        TypeError: neither this class nor one above it has an argument of this name; names the nearest.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> "CorePolicy":
        """Before any class of the family hands arguments on, so that the message can name the class that was asked for."""
        check_arguments(cls, kwargs)
        return super().__new__(cls)

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
        mixed_precision: bool = False,
        normalize_observations: bool = False,
    ) -> None:
        torso_class = features_extractor_class or self.default_torso(observation_space, core_class)
        check_space(observation_space, torso_class, features_extractor_kwargs or {})
        super().__init__(
            observation_space,
            action_space,
            torso_class,
            features_extractor_kwargs,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
            normalize_images=normalize_images,
        )
        self.mixed_precision = mixed_precision
        # Asked once: SB3 looks at the bounds of every pixel to answer. None: not one tensor of numbers.
        self.observes_bytes = is_image_space(observation_space, check_channels=False)
        is_box = isinstance(observation_space, gym.spaces.Box)
        self._scales_bytes = normalize_images and is_image_space(observation_space) if is_box else None
        self.norm = running_norm(observation_space) if normalize_observations else None
        self.features_extractor = self.make_features_extractor()
        self._looks = isinstance(self.features_extractor, Pixels) and Reads.IMAGE in core_class.reads
        put_channels_last(self.features_extractor)
        torso_shape = getattr(self.features_extractor, "output_shape", (self.features_extractor.features_dim,))
        self.core = make_core(core_class, torso_shape, core_kwargs or {})
        # The learned baseline of REINFORCE, E[return | features], for cores that take latent decisions.
        self.baseline = stream(self.core.features_dim, [64], 1) if self.core.trains_decisions else None
        self.build_heads()
        self.optimizer = optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)
        # Which weight, of all that are on one device: looking for the first one at every step takes as long as a small layer.
        self._a_weight = (next(self.parameters()),)

    @classmethod
    def default_torso(cls, observation_space: gym.Space[Any], core: type[Core]) -> type[BaseFeaturesExtractor]:
        """The torso where none is named."""
        return default_torso(observation_space, core)

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
        if self._looks and self.observes_bytes:
            return cast("Tensor", observations)
        return self.see(self.preprocess(observations))

    def see(self, inputs: Observations) -> Tensor:
        """Torso features of preprocessed observations ``[B, ...]``."""
        dtype = self.dtype
        if not isinstance(inputs, Tensor) or inputs.dtype != dtype:
            inputs = map_observations(lambda part: part.to(dtype=dtype), inputs)
        if self.norm is not None:
            inputs = self.norm(inputs)
        if not self.mixed_precision:
            return cast("Tensor", self.features_extractor(inputs))
        with torch.autocast(self.device.type, torch.bfloat16):
            return cast("Tensor", self.features_extractor(inputs)).to(self.dtype)

    def note(self, observations: Observations) -> None:
        """Take observations ``[..., *shape]`` into the running statistics, where there are any."""
        if self.norm is not None:
            assert isinstance(observations, Tensor)
            self.norm.note(observations.reshape(-1, *self.norm.mean.shape))

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self._a_weight[0].dtype

    @property
    def device(self) -> torch.device:
        """Of the weights."""
        return self._a_weight[0].device

    def preprocess(self, observations: Observations) -> Observations:
        """Raw observations ``[B, ...]`` as the floats that the network computes with: what a gradient is taken with respect to.

        ``features_extractor`` reads the result, whichever it is. Bytes are scaled to 0 to 1, as the retina does; other numbers
        are taken as they are.
        """
        if self._looks:
            pixels = cast("Tensor", observations)
            return pixels.float() / 255 if self.observes_bytes else pixels if pixels.is_floating_point() else pixels.float()
        if self._scales_bytes is not None:
            numbers = cast("Tensor", observations)
            if not self._scales_bytes:
                return numbers.float()
            # Bytes are moved before they are four times as many, and become numbers in the pass that scales them.
            return torch.div(numbers.contiguous(memory_format=torch.channels_last), 255)
        return preprocess_obs(observations, self.observation_space, normalize_images=self.normalize_images)

    def encode(
        self,
        observations: Observations,
        state: State,
        episode_starts: Bool[Tensor, "T B"],
        replay: Float[Tensor, "T B K"] | None = None,
        deterministic: bool = False,
    ) -> CoreOutput:
        """Observations ``[T, B, ...]`` to core features ``[T, B, D]``; arguments as in ``Core.forward``.

        ``replay`` is NaN where nobody decided anything.
        """
        features = self.extract_steps(observations, episode_starts)
        if replay is not None:
            replay = complete(self.core, features, state, episode_starts, replay)
        return self.core(features, state, episode_starts, replay, deterministic)

    def extract_steps(self, observations: Observations, episode_starts: Bool[Tensor, "T B"]) -> Shaped[Tensor, "T B ..."]:
        """Torso features of observations ``[T, B, ...]``: of all at once, or, for its taps, step by step in a recording."""
        steps, lanes = episode_starts.shape
        if is_recording() and steps > 1:
            return torch.stack([self.extract(map_observations(itemgetter(t), observations)) for t in range(steps)])
        features = self.extract(map_observations(lambda part: part.flatten(0, 1), observations))
        return features.unflatten(0, (steps, lanes))

    def outputs(self, features: Float[Tensor, "*batch D"]) -> dict[str, Float[Tensor, "*batch _"]]:
        """What the heads read off core features, by name, each ``[..., n]``: what saliency looks at one by one."""
        raise NotImplementedError(f"{type(self).__name__} has no heads")

    def choose(self, core: CoreOutput, deterministic: bool, masks: Bool[Tensor, "*batch M"] | None = None) -> Tensor:
        """Actions from a core's output ``[..., D]``, among those that ``masks`` ``[..., M]`` allow."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to act")

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        """SB3's stateless hook: the action at an episode's first step, ``[B]``."""
        lanes = lanes_of(observation)
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
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, State]:
        """SB3's ``predict``, with memory.

        Args:
            observation: one observation, or a batch of ``B``.
            state: what the last call returned; ``None`` for the initial state.
            episode_start: ``[B]``, true where the observation is an episode's first; those lanes start from the initial state.
            deterministic: the most likely action and gaze.
            action_masks: ``[B, M]``, true where an action is allowed (sb3-contrib), for policies that know masks.

        Returns:
            actions (``[B]``, or one action for one observation), and the next state: NamedTuples of arrays ``[B, ...]``.
        """
        if self.training:
            self.set_training_mode(False)
        with torch.inference_mode():
            tensor, vectorized = self.to_tensors(observation)
            if type(self.core) is FeedForward:  # it does nothing, which takes as long as a small network; so does a time axis
                actions = self._act(CoreOutput(self.extract(tensor), ()), deterministic, action_masks)
                return actions if vectorized else actions.squeeze(axis=0), ()
            lanes = lanes_of(tensor)
            if state is None:
                memory, starts = self.initial_state(lanes), torch.zeros(1, lanes, dtype=torch.bool, device=self.device)
            else:
                memory = map_state(lambda leaf: torch.as_tensor(leaf, device=self.device), state)
                flags = np.zeros(lanes, dtype=bool) if episode_start is None else np.asarray(episode_start, dtype=bool)
                starts = torch.as_tensor(flags, device=self.device).reshape(1, lanes)
            one_step = map_observations(lambda part: part[None], tensor)
            core = self.encode(one_step, memory, starts, deterministic=deterministic)
            actions = self._act(core, deterministic, action_masks)[0]
        return actions if vectorized else actions.squeeze(axis=0), map_state(lambda leaf: leaf.cpu().numpy(), core.state)

    def _act(self, core: CoreOutput, deterministic: bool, action_masks: np.ndarray | None) -> np.ndarray:
        """Actions of one step, ``[B, ...]`` or ``[1, B, ...]`` as the features are."""
        masks = None
        if action_masks is not None:
            masks = torch.as_tensor(np.asarray(action_masks), dtype=torch.bool, device=self.device)
            masks = masks.reshape(*core.features.shape[:-1], -1)
        return self.choose(core, deterministic, masks).cpu().numpy()

    def to_tensors(self, observation: Any) -> tuple[Observations, bool]:
        """Observations as tensors ``[B, ...]``, and whether there was a batch of them; SB3 checks what is not plain."""
        space = self.observation_space
        if isinstance(observation, np.ndarray) and isinstance(space, gym.spaces.Box) and observation.dtype == space.dtype:
            vectorized = observation.shape[1:] == space.shape and observation.ndim == len(space.shape) + 1
            if vectorized or observation.shape == space.shape:
                tensor = torch.from_numpy(observation)  # half the time of `as_tensor` with a device
                tensor = tensor if self.device.type == "cpu" else tensor.to(self.device)
                return tensor if vectorized else tensor[None], vectorized
        return self.obs_to_tensor(observation)


def running_norm(space: gym.Space[Any]) -> RunningNorm:
    """Statistics for a space of vectors.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(space, gym.spaces.Box) or space.dtype == np.uint8:
        raise ValueError(f"normalize_observations is for a Box of numbers, not for {space}")
    return RunningNorm(space.shape)


def lanes_of(observations: Observations) -> int:
    """``B`` of observations ``[B, ...]``."""
    return len(next(iter(observations.values())) if isinstance(observations, dict) else observations)


def leaves(observations: Any) -> list[Any]:
    """The parts of an observation in the order of their keys; the one thing that is not a dictionary."""
    return [observations[key] for key in sorted(observations)] if isinstance(observations, dict) else [observations]
