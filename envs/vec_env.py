"""A batched task as a stable-baselines3 ``VecEnv``."""

import time
from collections.abc import Iterable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from jaxtyping import Bool, Float32, Shaped, UInt8
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv

from saccade.envs.task import BatchedTask, TaskStep

Observations = Shaped[np.ndarray, "N ..."]
Indices = None | int | Iterable[int]

LANE_METHODS = ("action_masks", "moves_needed", "optimal_first_actions")
"""Methods of a task whose result has a row for every lane."""


class TaskVecEnv(VecEnv):
    """All lanes of one task, restarting by themselves; Python touches a lane only where its episode ends.

    As with SB3's ``DummyVecEnv`` over ``Monitor``, the info of a lane whose episode has ended holds
    ``terminal_observation``, ``TimeLimit.truncated`` and ``episode`` (``r`` return, ``l`` steps, ``t`` seconds since
    this object was made), and ``is_success`` and ``measures`` (figures by name) where the task has them; the observation
    is then the next episode's first.
    All other infos are empty. List and dictionaries are new in every step, so wrappers may write into them.

    A seed set by :meth:`seed` is applied by the next :meth:`reset`. One generator serves all lanes: the same seed
    gives the same episodes only for the same number of lanes.

    Args:
        task: the task; this object steps and resets it from now on.
        render_mode: ``"rgb_array"`` or ``None``.
    """

    def __init__(self, task: BatchedTask, render_mode: str | None = "rgb_array") -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode is {render_mode!r}; it must be 'rgb_array' or None")
        self.task = task
        self.render_mode = render_mode
        self._all = np.ones(task.num_envs, np.bool_)
        self._actions = np.zeros((task.num_envs, *task.action_space.shape), np.int64)
        self._returns = np.zeros(task.num_envs, np.float64)
        self._lengths = np.zeros(task.num_envs, np.int64)
        self._start_time = time.perf_counter()
        super().__init__(task.num_envs, task.observation_space, task.action_space)

    def reset(self) -> Observations:
        """Start a new episode in every lane."""
        if self._seeds[0] is not None:
            self.task.seed(self._seeds[0])
        self._reset_seeds()
        self._reset_options()
        self.task.reset(self._all)
        self._returns[:] = 0
        self._lengths[:] = 0
        return self.task.observe()

    def step_async(self, actions: Any) -> None:
        """Take one action a lane, checked against the action space (``ValueError``)."""
        self._actions = self.task.check_actions(actions)

    def step_wait(
        self,
    ) -> tuple[Observations, Float32[np.ndarray, " N"], Bool[np.ndarray, " N"], list[dict[str, Any]]]:
        """Step every lane, and restart those whose episode has ended."""
        step = self.task.step(self._actions)
        self._returns += step.rewards
        self._lengths += 1
        dones = step.terminated | step.truncated
        observations = self.task.observe()
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        ended = dones.nonzero()[0]
        if ended.size:
            self._fill_infos(infos, ended, step, observations)
            self._returns[ended] = 0
            self._lengths[ended] = 0
            self.task.reset(dones)
            observations = self.task.observe()
        return observations, step.rewards, dones, infos

    def _fill_infos(
        self,
        infos: list[dict[str, Any]],
        ended: Shaped[np.ndarray, " E"],
        step: TaskStep,
        observations: Observations,
    ) -> None:
        """Write what SB3 wants to know about the ``E`` episodes that have just ended."""
        now = round(time.perf_counter() - self._start_time, 6)
        cut_off = (step.truncated & ~step.terminated)[ended].tolist()
        returns, lengths = self._returns[ended].round(6).tolist(), self._lengths[ended].tolist()
        lanes = ended.tolist()
        for lane, observation, cut, total, length in zip(lanes, observations[ended], cut_off, returns, lengths, strict=True):
            info = infos[lane]
            info["terminal_observation"] = observation
            info["TimeLimit.truncated"] = cut
            info["episode"] = {"r": total, "l": length, "t": now}
        if step.success is not None:
            for lane, success in zip(lanes, step.success[ended].tolist(), strict=True):
                infos[lane]["is_success"] = success
        if step.measures is not None:
            for lane in lanes:
                infos[lane]["measures"] = {name: float(values[lane]) for name, values in step.measures.items()}

    def get_state(self) -> dict[str, Any]:
        """The task's state and the running episodes' returns and lengths: enough to go on exactly from here."""
        return {"task": self.task.get_state(), "returns": self._returns.copy(), "lengths": self._lengths.copy()}

    def set_state(self, state: dict[str, Any]) -> Observations:
        """Go on from a state that :meth:`get_state` returned; returns the observations to act on."""
        self.task.set_state(state["task"])
        self._returns[:] = state["returns"]
        self._lengths[:] = state["lengths"]
        return self.task.observe()

    def close(self) -> None:
        """Nothing to release."""

    def get_images(self) -> Sequence[UInt8[np.ndarray, "H W 3"] | None]:
        """A picture of every lane, or ``None`` for each where the render mode is ``None``."""
        return [None] * self.num_envs if self.render_mode is None else list(self.task.render())

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """The task's attribute for each lane: its own value if the task keeps one a lane, else the shared one.

        ``task`` is the task itself, as with :class:`TaskEnv`.
        """
        lanes = self._lanes(indices)
        if attr_name in ("render_mode", "task"):
            return [getattr(self, attr_name) for _ in lanes]
        value = getattr(self.task, attr_name)
        return [value[lane] if attr_name in self.task.lane_arrays else value for lane in lanes]

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        """Set a lane's own value, or, for all lanes at once, a shared one.

        Raises:
            ValueError: some lanes only, for an attribute that all lanes share.
        """
        lanes = self._lanes(indices)
        if attr_name in self.task.lane_arrays:
            getattr(self.task, attr_name)[lanes] = value
        elif len(set(lanes)) == self.num_envs:
            setattr(self.task, attr_name, value)
        else:
            raise ValueError(f"{attr_name} is shared by all {self.num_envs} lanes; it cannot be set for {lanes} only")

    def env_method(self, method_name: str, *args: Any, indices: Indices = None, **kwargs: Any) -> list[Any]:
        """Call a method of the task, once for all lanes, and return its result for each lane asked for.

        Of ``action_masks``, which returns ``[N, M]``, each lane gets its own row.
        """
        result = getattr(self.task, method_name)(*args, **kwargs)
        return [result[lane] if method_name in LANE_METHODS else result for lane in self._lanes(indices)]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: Indices = None) -> list[bool]:
        """True for ``Monitor``, whose bookkeeping is built in, and false for every other wrapper."""
        return [issubclass(wrapper_class, Monitor) for _ in self._lanes(indices)]

    def _lanes(self, indices: Indices) -> list[int]:
        return list(self._get_indices(indices))
