"""Looks at the agent while it trains: at intervals, one episode as a film in TensorBoard."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import gymnasium as gym
import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.utils import check_for_correct_spaces
from stable_baselines3.common.vec_env import VecEnv, VecTransposeImage, sync_envs_normalization, unwrap_vec_normalize

from saccade.policies.policy import CorePolicy
from saccade.policies.recurrent import FeedForward
from saccade.policies.tap import TapKind
from saccade.saliency.attention_maps import attention_map, attention_records
from saccade.saliency.episode import Episode, play_episode, undisturbed
from saccade.saliency.film import Film, FilmError, film_strip, gaze_film, heads_film
from saccade.saliency.jacobian import HeadMaps, episode_jacobian, mean_magnitude
from saccade.saliency.memory_maps import memory_map, memory_records
from saccade.saliency.sequential import mean_lag, sequential_jacobian, time_map
from saccade.saliency.tensorboard import Encoded, encode_film, encode_picture, tensorboard_writer, write_image

log = logging.getLogger(__name__)

EXPECTED_FAILURES = (OSError, FilmError, gym.error.Error)
"""What may go wrong without ending the training: a full disk, nothing to draw, a renderer that is not installed."""
MOST_STEPS_BACK = 100
"""How many steps ``saliency/time`` shows: what it costs grows with their square."""


class SaliencyCallback(BaseCallback):
    """Plays an episode at the start, every so many steps and at the end, and writes what the agent looked at.

    TensorBoard gets ``saliency/film`` (the gaze's fields and path over the frames), ``saliency/heads`` (for each head of the
    policy, side by side, how much every pixel moves it), each also as a strip (``saliency/film_strip``,
    ``saliency/heads_strip``); for an external memory ``saliency/memory``, one picture of what was written and read when
    (:func:`~saccade.saliency.memory_maps.memory_map`); for attention over past steps ``saliency/attention``, which step
    attended to which (:func:`~saccade.saliency.attention_maps.attention_map`); for any core with a state ``saliency/time``, how
    much each step that was seen moves what each head says later, in the first 100 steps
    (:func:`~saccade.saliency.sequential.sequential_jacobian`); and scalars: :func:`scalars`, and of ``saliency/time`` the mean
    lag, ``value_lag`` and so on, in steps. Training goes on exactly as it would have without: no random number is drawn, no
    gradient or mode changed.

    Frames are the observation where it is an image, else what the environment renders. Over the latter no maps are
    drawn, and where there is neither no film is; one line in the log says so.

    Args:
        make_env: makes the environment to play in, with the training environment's spaces and normalisation; called
            once.
        every: timesteps from one look to the next, checked after each rollout.
        max_steps: an episode is left there if it has not ended before.
        folder: where the last look is also saved, as ``film.gif``, ``film_strip.png`` and so on; made if missing.
        seed: of the environment before every episode, so that films show the same start; ``None`` for ever new ones,
            from whatever seed ``make_env`` gave.

    Raises:
        ValueError: ``every`` or ``max_steps`` is below 1; or, when training starts, the policy is not one of Saccade's, or
            the environment's spaces or normalisation are not those of the training.
    """

    def __init__(
        self,
        make_env: Callable[[], VecEnv],
        every: int,
        max_steps: int = 256,
        folder: Path | None = None,
        seed: int | None = 0,
    ) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"every must be at least 1 timestep; got {every}")
        if max_steps < 1:
            raise ValueError(f"max_steps must be at least 1; got {max_steps}")
        self.make_env = make_env
        self.every = every
        self.max_steps = max_steps
        self.folder = folder
        self.seed = seed
        self.env: VecEnv | None = None
        self._looked_at: int | None = None
        self._said: set[str] = set()

    def _on_training_start(self) -> None:
        policy = self.model.policy
        if not isinstance(policy, CorePolicy):
            raise ValueError(f"saliency films need a policy with a core (CorePolicy); got {type(policy).__name__}")
        self.policy = policy
        with undisturbed(policy):
            env = self.make_env()
        space = env.observation_space
        if isinstance(space, gym.spaces.Box) and is_image_space(space) and not is_image_space_channels_first(space):
            env = VecTransposeImage(env)
        check_for_correct_spaces(env, self.model.observation_space, self.model.action_space)
        normalized = unwrap_vec_normalize(self.training_env)
        if normalized is not None and normalized.norm_obs and unwrap_vec_normalize(env) is None:
            raise ValueError(
                "the agent trains on normalised observations: make_env must wrap its environment in VecNormalize too"
            )
        self.env = env
        self._looked_at = None
        self.look()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        if self._looked_at is None or self.num_timesteps - self._looked_at >= self.every:
            self.look()

    def _on_training_end(self) -> None:
        if self.env is None:
            return
        if self._looked_at != self.num_timesteps:
            self.look()
        self.env.close()
        self.env = None

    def look(self) -> None:
        """Play, draw and write now; expected failures are logged, once each."""
        assert self.env is not None
        self._looked_at = self.num_timesteps
        normalized = unwrap_vec_normalize(self.env)
        if normalized is not None:
            normalized.training = False
            sync_envs_normalization(self.training_env, self.env)
        try:
            with undisturbed(self.policy):
                if self.seed is not None:
                    self.env.seed(self.seed)
                episode = self.play()
            maps = episode_jacobian(self.policy, episode)
            for name, value in scalars(episode, maps).items():
                self.logger.record(f"saliency/{name}", value)
            if type(self.policy.core) is not FeedForward:
                self.look_back(episode)
            if memory_records(episode):
                self.write("memory.png", encode_picture(memory_map(episode)))
            if attention_records(episode):
                self.write("attention.png", encode_picture(attention_map(episode)))
            for name, film in self.films(episode, maps):
                self.write(f"{name}.gif", encode_film(film))
                self.write(f"{name}_strip.png", encode_picture(film_strip(film)))
        except EXPECTED_FAILURES as error:
            self.say_once(f"no saliency film: {type(error).__name__}: {error}")

    def look_back(self, episode: Episode) -> None:
        """What was seen when, of all that a head depends on; of a long episode, in its first steps."""
        episode = episode.first(MOST_STEPS_BACK)
        times = sequential_jacobian(self.policy, episode).times
        for name, map_ in times.items():
            self.logger.record(f"saliency/{name}_lag", mean_lag(map_))
        self.write("time.png", encode_picture(time_map(episode, times)))

    def play(self) -> Episode:
        """An episode; without pictures where the environment cannot render."""
        assert self.env is not None
        try:
            return play_episode(self.policy, self.env, self.max_steps)
        except gym.error.Error as error:
            self.say_once(f"no saliency film: {type(error).__name__}: {error}")
            return play_episode(self.policy, self.env, self.max_steps, render=False)

    def films(self, episode: Episode, maps: HeadMaps) -> Iterator[tuple[str, Film]]:
        """Every film that can be drawn of an episode, by name."""
        if episode.frames is None and self._said:
            return  # why has been said
        if episode.frames is None:
            self.say_once("no saliency films: observations are no images and the environment renders none")
            return
        yield "film", gaze_film(episode)
        if episode.frames_are_observations:
            yield "heads", heads_film(episode, maps)
        else:
            self.say_once("no films of the heads: their maps need image observations to lie over")

    def write(self, filename: str, image: Encoded) -> None:
        """To TensorBoard and to the folder, as far as there are any."""
        writer = tensorboard_writer(self.logger)
        if writer is not None:
            write_image(writer, f"saliency/{Path(filename).stem}", image, self.num_timesteps)
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / filename).write_bytes(image.data)

    def say_once(self, message: str) -> None:
        """Log a warning the first time only."""
        if message not in self._said:
            self._said.add(message)
            log.warning(message)


def scalars(episode: Episode, maps: HeadMaps) -> dict[str, float]:
    """An episode's saliency in numbers.

    ``value_jacobian``, and ``advantage_jacobian`` or ``policy_jacobian``: for every head the mean of its map's magnitude
    over everything seen. For policies with a gaze, ``gaze_move`` is the mean distance from one gaze to the next, in halves of
    the image, and ``gaze_outside`` the share of decisions beyond the image's edge, where they are clamped.
    """
    numbers = {f"{name}_jacobian": mean_magnitude(leaves) for name, leaves in maps.items()}
    gazes = [record.values for record in episode.taps.values() if record.kind is TapKind.GAZE]
    if gazes and len(episode) > 1:
        numbers["gaze_move"] = float(np.mean([np.linalg.norm(np.diff(gaze, axis=0), axis=1).mean() for gaze in gazes]))
    if gazes and episode.decisions is not None:
        numbers["gaze_outside"] = float((np.abs(episode.decisions) > 1).any(axis=1).mean())
    return numbers
