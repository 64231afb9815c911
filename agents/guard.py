"""Refuse numbers that would ruin the weights, before any update uses them."""

from typing import Any

import numpy as np


class InvalidExperienceError(ValueError):
    """An environment returned something that cannot be learned from."""


def check_experience(observations: Any, rewards: np.ndarray, num_timesteps: int) -> None:
    """Check one step of a vectorised environment.

    Args:
        observations: ``[N, ...]``, or a dictionary of such arrays.
        rewards: ``[N]``.
        num_timesteps: steps so far, for the message.

    Raises:
        InvalidExperienceError: a number is not finite; names the environment's index, the step and the key.
    """
    parts = observations if isinstance(observations, dict) else {"observation": observations}
    for key, value in {**parts, "reward": rewards}.items():
        # A sum is finite where every term is, and costs a tenth of looking at each; a sum that is not leads to a closer look.
        if value.dtype.kind == "f" and not np.isfinite(value.sum()):
            finite = np.isfinite(value).reshape(len(value), -1).all(axis=1)
            if not finite.all():
                index = int(np.flatnonzero(~finite)[0])
                raise InvalidExperienceError(
                    f"{key} of environment {index} is not finite at step {num_timesteps}: {np.asarray(value[index])}"
                )


def check_shape(key: str, value: np.ndarray, expected: tuple[int, ...], num_timesteps: int) -> None:
    """Check the shape of one array of a vectorised environment.

    Raises:
        InvalidExperienceError: it differs; names the key, the step, both shapes.
    """
    if value.shape != expected:
        raise InvalidExperienceError(
            f"{key} has shape {list(value.shape)} at step {num_timesteps}; expected {list(expected)} (environments first)"
        )
