"""Which actions are allowed now, as environments say it: by a method ``action_masks`` (sb3-contrib), or in their infos."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool
from stable_baselines3.common.vec_env import VecEnv

from saccade.policies import ActorCriticPolicy, CorePolicy

if TYPE_CHECKING:
    from saccade.agents.algorithm import CoreAlgorithm

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
    def of(cls, policy: CorePolicy, env: VecEnv) -> "ActionMasks":
        """For a policy; one without a distribution knows no masks."""
        if not isinstance(policy, ActorCriticPolicy):
            return cls(env, 0)
        return cls(env, policy.distribution.mask_size, policy.distribution.choices)

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


class Masked:
    """An agent that keeps to the allowed actions and to its memory, for SB3's ``evaluate_policy``.

    SB3's own evaluation hands an agent no masks, and sb3-contrib's no memory. ::

        player = Masked(agent, env)
        evaluate_policy(player, env, callback=player.note)

    Args:
        agent: one that has learned, or not.
        env: the environment that is played in.
    """

    def __init__(self, agent: "CoreAlgorithm", env: VecEnv) -> None:
        self.agent, self.env = agent, env
        self.masks: ActionMasks | None = None
        self._told = True

    def predict(
        self, observation: Any, state: Any = None, episode_start: np.ndarray | None = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        """The agent's, among the allowed actions.

        Raises:
            ValueError: masks come in infos, and :meth:`note` was not told of a step.
        """
        if self.masks is None or episode_start is None or episode_start.all():  # reset, perhaps by hand
            self.masks, self._told = ActionMasks.of(self.agent.policy, self.env), True
        if not self._told:
            raise ValueError("masks come in the infos of steps: evaluate_policy(player, env, callback=player.note)")
        self._told = not self.masks.by_info
        masks = self.masks.now() if self.masks.known else None
        return self.agent.policy.predict(observation, state, episode_start, deterministic, masks)

    def note(self, local: dict[str, Any], _: dict[str, Any]) -> None:
        """What ``evaluate_policy`` tells its callback of every lane after each step."""
        assert self.masks is not None
        self.masks.note(local["infos"], local["dones"])
        self._told = True
