"""A batched task as an ordinary ``gymnasium.Env``."""

from importlib import import_module
from typing import Any

import gymnasium as gym
import numpy as np
from jaxtyping import Shaped, UInt8

from saccade.envs.task import BatchedTask


class TaskEnv(gym.Env[Shaped[np.ndarray, "..."], Any]):
    """One lane of a task. At the end of an episode ``info`` holds ``is_success`` and ``measures``, where the task has them.

    Args:
        task: the class of the task, or where to find it: ``"package.module:Class"``.
        render_mode: ``"rgb_array"`` or ``None``.
        kwargs: the task's own parameters.

    Raises:
        ValueError: the render mode is unknown, or the task refuses a parameter.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012, Gymnasium's type forbids ClassVar

    def __init__(self, task: type[BatchedTask] | str, render_mode: str | None = None, **kwargs: Any) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode is {render_mode!r}; it must be 'rgb_array' or None")
        self.render_mode = render_mode
        task_class = load_task(task) if isinstance(task, str) else task
        self.task = task_class(num_envs=1, **kwargs)
        self.observation_space = self.task.observation_space
        self.action_space = self.task.action_space
        self._lane = np.ones(1, np.bool_)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Shaped[np.ndarray, "..."], dict[str, Any]]:
        """Start an episode; there are no options."""
        super().reset(seed=seed)
        self.task.rng = self.np_random
        self.task.reset(self._lane)
        return self.task.observe()[0], {}

    def step(self, action: Any) -> tuple[Shaped[np.ndarray, "..."], float, bool, bool, dict[str, Any]]:
        """Take one action, checked against the action space (``ValueError``)."""
        step = self.task.step(self.task.check_actions([action]))
        terminated, truncated = bool(step.terminated[0]), bool(step.truncated[0])
        info: dict[str, Any] = {}
        if terminated or truncated:
            if step.success is not None:
                info["is_success"] = bool(step.success[0])
            if step.measures is not None:
                info["measures"] = {name: float(values[0]) for name, values in step.measures.items()}
        return self.task.observe()[0], float(step.rewards[0]), terminated, truncated, info

    def render(self) -> UInt8[np.ndarray, "H W 3"] | None:
        """The picture, or ``None`` if the render mode is ``None``."""
        return None if self.render_mode is None else self.task.render()[0]


def load_task(where: str) -> type[BatchedTask]:
    """The class that ``"package.module:Class"`` names.

    Raises:
        ValueError: it is not a :class:`BatchedTask`.
    """
    module, _, name = where.partition(":")
    task_class = getattr(import_module(module), name, None)
    if not (isinstance(task_class, type) and issubclass(task_class, BatchedTask)):
        raise ValueError(f"{where} is not a BatchedTask")
    return task_class
