"""Refuse numbers that would ruin the weights, before any update uses them."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np


class InvalidExperienceError(ValueError):
    """An environment returned something that cannot be learned from."""


def check_experience(observations: Any, rewards: np.ndarray, num_timesteps: int) -> None:
    """Check that one step of a vectorised environment is finite.

    Args:
        observations: ``[N, ...]``, or a dictionary of such arrays.
        rewards: ``[N]``.
        num_timesteps: steps so far, for the message.

    Raises:
        InvalidExperienceError: a number is not finite; names the environment's index, the step and the key.
    """
    check_finite({**by_key(observations), "reward": rewards}, num_timesteps)


def by_key(observations: Any) -> dict[str, np.ndarray]:
    """The arrays of an observation, by key; one that is no dictionary goes by ``observation``."""
    return observations if isinstance(observations, dict) else {"observation": observations}


def check_finite(arrays: Mapping[str, np.ndarray], num_timesteps: int, lanes: Sequence[int] | None = None) -> None:
    """Check arrays whose first axis runs over environments: over those of index ``lanes``, or over all.

    Raises:
        InvalidExperienceError: a number is not finite; names the environment's index, the step and the key.
    """
    for key, value in arrays.items():
        # A sum of squares is finite where every number is, unless it overflows, and is the cheapest look at all of them.
        if value.dtype.kind == "f" and not isfinite(np.vdot(value, value)):
            finite = np.isfinite(value).reshape(len(value), -1).all(axis=1)
            if not finite.all():
                row = int(np.flatnonzero(~finite)[0])
                index = row if lanes is None else lanes[row]
                raise InvalidExperienceError(
                    f"{key} of environment {index} is not finite at step {num_timesteps}: {np.asarray(value[row])}"
                )


def check_observations(observations: Any, space: Any, n_envs: int, num_timesteps: int) -> None:
    """Check shapes against the observation space (:func:`check_shape` for every part)."""
    if isinstance(observations, dict):
        if missing := space.spaces.keys() - observations.keys():
            raise InvalidExperienceError(f"observations lack {', '.join(sorted(missing))} at step {num_timesteps}")
        for key, part in observations.items():
            check_shape(key, part, (n_envs, *space[key].shape), num_timesteps)
    else:
        check_shape("observation", observations, (n_envs, *space.shape), num_timesteps)


def check_shape(key: str, value: np.ndarray, expected: tuple[int, ...], num_timesteps: int) -> None:
    """Check the shape of one array of a vectorised environment.

    Raises:
        InvalidExperienceError: it differs; names the key, the step, both shapes.
    """
    if value.shape != expected:
        raise InvalidExperienceError(
            f"{key} has shape {list(value.shape)} at step {num_timesteps}; expected {list(expected)} (environments first)"
        )
