"""Any Gymnasium vector environment as a stable-baselines3 ``VecEnv``."""

import time
from collections.abc import Iterable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from jaxtyping import Bool, Float, Shaped
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv

Observations = Shaped[np.ndarray, "N ..."] | dict[str, np.ndarray]
Indices = None | int | Iterable[int]
MASK = "action_mask"


class GymnasiumVecEnv(VecEnv):
    """A ``gymnasium.vector.VectorEnv`` with SB3's ways; Python touches a lane only where its episode ends.

    The info of a lane whose episode has ended holds ``terminal_observation``, ``TimeLimit.truncated``, ``episode``
    (``r`` return, ``l`` steps, ``t`` seconds since this object was made), and whatever the environment says about the
    last step. All other infos are empty, but for an ``action_mask`` where the environment gives one.

    SB3 wants the first observation of the next episode in the very step that ends one. A vector environment that
    restarts within that step (``SAME_STEP``), or by :meth:`reset` with a mask of lanes (``DISABLED``), can give it. One
    that restarts in the step after (``NEXT_STEP``) cannot, as it would have to step one lane alone.

    Args:
        envs: the vector environment; this object steps, resets and closes it from now on.

    Raises:
        ValueError: it restarts in the next step, or its observations are neither arrays nor dictionaries of arrays.
    """

    def __init__(self, envs: VectorEnv[Any, Any, Any]) -> None:
        mode = envs.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        if mode is AutoresetMode.NEXT_STEP:
            raise ValueError(
                f"{envs} starts an episode in the step after the one that ended the last, which SB3 has no place for; "
                "make it with autoreset_mode=AutoresetMode.SAME_STEP or DISABLED"
            )
        space = envs.single_observation_space
        parts = list(space.spaces.values()) if isinstance(space, spaces.Dict) else [space]
        if any(isinstance(part, spaces.Dict | spaces.Tuple) or part.shape is None for part in parts):
            raise ValueError(f"observations must be arrays, or dictionaries of arrays; {envs} has {space}")
        self.envs = envs
        self.render_mode = envs.render_mode
        self._same_step = mode is AutoresetMode.SAME_STEP
        self._actions: Any = None
        self._returns = np.zeros(envs.num_envs, np.float64)
        self._lengths = np.zeros(envs.num_envs, np.int64)
        self._start_time = time.perf_counter()
        super().__init__(envs.num_envs, space, envs.single_action_space)

    def reset(self) -> Observations:
        """Start a new episode in every lane."""
        # One number is all that the vector environments of Gymnasium's own classic control take; the others add the lane to it.
        observations, info = self.envs.reset(seed=self._seeds[0], options=self._options[0] or None)
        self.reset_infos = [{} for _ in range(self.num_envs)]
        self._tell(self.reset_infos, info)
        self._reset_seeds()
        self._reset_options()
        self._returns[:] = 0
        self._lengths[:] = 0
        return own(observations)

    def step_async(self, actions: Any) -> None:
        """Take one action a lane."""
        self._actions = np.asarray(actions)

    def step_wait(
        self,
    ) -> tuple[Observations, Float[np.ndarray, " N"], Bool[np.ndarray, " N"], list[dict[str, Any]]]:
        """Step every lane; those whose episode has ended show the first observation of the next."""
        observations, rewards, terminated, truncated, info = self.envs.step(self._actions)
        self._returns += rewards
        self._lengths += 1
        # SB3's loops and callbacks keep arrays, and some vector environments write into theirs again.
        dones = terminated | truncated
        rewards = rewards.astype(np.float32)
        observations = own(observations)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        self._tell(infos, info)
        if dones.any():
            last, notes = observations, info
            if self._same_step:
                last, notes = info["final_obs"], info.get("final_info", {})
                self._tell(self.reset_infos, info)
            self._fill_infos(infos, dones, truncated & ~terminated, last, notes)
            self._returns[dones] = 0
            self._lengths[dones] = 0
            if not self._same_step:
                observations, info = self.envs.reset(options={"reset_mask": dones})
                observations = own(observations)
                self._tell(self.reset_infos, info)
        return observations, rewards, dones, infos

    def _tell(self, infos: list[dict[str, Any]], notes: dict[str, Any]) -> None:
        """Which actions are allowed, in the lanes of which that is said."""
        if MASK in notes:
            for lane in notes.get(f"_{MASK}", np.ones(self.num_envs, np.bool_)).nonzero()[0].tolist():
                infos[lane][MASK] = notes[MASK][lane]

    def _fill_infos(
        self,
        infos: list[dict[str, Any]],
        dones: Bool[np.ndarray, " N"],
        cut_off: Bool[np.ndarray, " N"],
        last: Any,
        notes: dict[str, Any],
    ) -> None:
        """Write what SB3 wants to know about the episodes that have just ended; ``last`` is what they showed last."""
        now = round(time.perf_counter() - self._start_time, 6)
        for lane in dones.nonzero()[0].tolist():
            info = infos[lane]
            for name, values in notes.items():
                if not name.startswith("_") and notes.get(f"_{name}", dones)[lane] and not isinstance(values, dict):
                    info[name] = values[lane]
            info["terminal_observation"] = (
                {name: values[lane] for name, values in last.items()} if isinstance(last, dict) else last[lane]
            )
            info["TimeLimit.truncated"] = bool(cut_off[lane])
            info["episode"] = {"r": round(float(self._returns[lane]), 6), "l": int(self._lengths[lane]), "t": now}

    def close(self) -> None:
        """Close the vector environment."""
        self.envs.close()

    def get_images(self) -> Sequence[Shaped[np.ndarray, "H W 3"] | None]:
        """A picture of every lane, or ``None`` for each where there is none."""
        pictures: Any = None if self.render_mode is None else self.envs.render()
        return [None] * self.num_envs if pictures is None else list(pictures)

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """An attribute of the vector environment, which all lanes share."""
        value = getattr(self.envs, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        """Set an attribute of the vector environment, for all lanes at once.

        Raises:
            ValueError: some lanes only.
        """
        lanes = set(self._get_indices(indices))
        if len(lanes) < self.num_envs:
            raise ValueError(f"{attr_name} is shared by all {self.num_envs} lanes; it cannot be set for {sorted(lanes)} only")
        setattr(self.envs, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Indices = None, **kwargs: Any) -> list[Any]:
        """Call a method of the vector environment, once for all lanes, and return its result for each lane asked for.

        ``action_masks`` returns a row for every lane.
        """
        result = getattr(self.envs, method_name)(*args, **kwargs)
        return [result[lane] if method_name == "action_masks" else result for lane in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: Indices = None) -> list[bool]:
        """True for ``Monitor``, whose bookkeeping is built in, and false for every other wrapper."""
        return [issubclass(wrapper_class, Monitor) for _ in self._get_indices(indices)]


def own(observations: Observations) -> Observations:
    """Copies that nobody else writes into."""
    return {name: part.copy() for name, part in observations.items()} if isinstance(observations, dict) else observations.copy()
