"""Which actions are allowed now, as environments say it: by a method ``action_masks`` (sb3-contrib), or in their infos."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool
from stable_baselines3.common.vec_env import VecEnv

METHOD, KEY = "action_masks", "action_mask"


class ActionMasks:
    """Reads the masks of a vectorised environment, step by step.

    Args:
        env: any ``VecEnv``.
        size: ``M``, entries of a mask: one an action; for ``MultiDiscrete`` one a choice of every part, for ``MultiBinary``
            two a bit (may it be 0, may it be 1).
        choices: how many entries belong to each choice, of which one has to be allowed; all to one choice if empty.

    Attributes:
        known: whether the environment says anything about its actions.
    """

    def __init__(self, env: VecEnv, size: int, choices: Sequence[int] = ()) -> None:
        self.env = env
        self.size = size
        self.starts = np.cumsum([0, *choices])[: max(1, len(choices))]
        self.by_method = size > 0 and env.has_attr(METHOD)
        self.by_info = size > 0 and not self.by_method and all(KEY in info for info in env.unwrapped.reset_infos)
        self.known = self.by_method or self.by_info
        self.infos: Sequence[dict[str, Any]] = env.unwrapped.reset_infos

    def note(self, infos: Sequence[dict[str, Any]], dones: np.ndarray) -> None:
        """What the last step said; where an episode has ended, the next one's reset.

        Raises:
            ValueError: a step says what is allowed, and the reset before it did not.
        """
        if not self.known and self.size and any(KEY in info for info in infos):
            raise ValueError(f"infos of steps have {KEY!r}, and those of reset have none; put it into both")
        if self.by_info:
            fresh = self.env.unwrapped.reset_infos
            self.infos = [fresh[i] if done else infos[i] for i, done in enumerate(dones)]

    @classmethod
    def said_by(cls, env: VecEnv) -> bool:
        """Whether an environment says anything about its actions when it is reset."""
        return env.has_attr(METHOD) or any(KEY in info for info in env.unwrapped.reset_infos)

    def now(self) -> Bool[np.ndarray, "B M"]:
        """The masks of the present observations, true where a choice is allowed.

        Raises:
            ValueError: a mask is missing, has another size, or allows nothing; names the environment.
        """
        rows = self.env.env_method(METHOD) if self.by_method else [info.get(KEY) for info in self.infos]
        for index, row in enumerate(rows):
            if row is None or np.size(row) != self.size:
                found = "none" if row is None else f"{np.size(row)} entries"
                raise ValueError(f"the action mask of environment {index} needs {self.size} entries; there are {found}")
        masks = np.stack([np.asarray(row, dtype=bool).reshape(-1) for row in rows])
        possible = np.logical_or.reduceat(masks, self.starts, axis=1)
        if not possible.all():
            index, choice = np.argwhere(~possible)[0].tolist()
            which = "at all" if len(self.starts) == 1 else f"for choice {choice}"
            raise ValueError(f"the action mask of environment {index} allows no action {which}")
        return masks
