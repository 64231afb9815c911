"""Tasks whose episodes are whole sequences with right answers: to be acted in, step by step, or learned from, as lessons.

Shapes: ``T`` steps, ``B`` episodes, ``I`` numbers seen in a step, ``N`` lanes. A right action is a whole number (``Discrete``)
or a vector of them (``MultiBinary``, ``MultiDiscrete``).
"""

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

import numpy as np
from gymnasium import spaces
from jaxtyping import Bool, Float32, Integer

from saccade.envs.curriculum import Curriculum
from saccade.envs.task import ActionSpace, BatchedTask, TaskStep, require_at_least

GRADED = 32
"""Episodes: a task that is acted in grades itself whenever at least so many have ended since it last did."""


class Lesson(NamedTuple):
    """Whole episodes as sequences, time-major.

    Attributes:
        inputs: what is seen in every step.
        targets: the right action of every step; zeros where no answer is asked.
        answers: where an answer is asked; somewhere in every episode.
        lengths: steps of each episode. ``T`` is the longest; what comes after an episode's last step is padding, all zeros.
    """

    inputs: Float32[np.ndarray, "T B I"]
    targets: Integer[np.ndarray, "T B ..."]
    answers: Bool[np.ndarray, "T B"]
    lengths: Integer[np.ndarray, " B"]


class SequenceTask(BatchedTask):
    """A task that knows the right answers: what is seen does not depend on what is done.

    A subclass draws whole episodes (:meth:`generate`); this class plays them. In a step where an answer is asked, the
    reward is one divided by the number of answers that the episode asks if the action is wholly right (all bits of it),
    and 0 otherwise and in every other step. The episode ends after its last step, with success if every answer was right.
    Its measure ``errors`` is the number of wrong bits (or components, or whole actions where an action is one number) in
    all answers.

    A subclass sets what :meth:`generate` reads, and then ends its constructor with a :meth:`reset` of all lanes.

    Args:
        num_envs: ``N``, the number of lanes.
        horizon: the most steps that an episode can have.
        observation_space: a vector of ``I`` numbers.
        action_space: what an answer is.
        seed: seed of all lanes together; ``None`` draws one from the operating system.

    Raises:
        ValueError: ``num_envs`` or ``horizon`` is below 1.
    """

    lane_arrays: ClassVar[tuple[str, ...]] = ("inputs", "targets", "answers", "lengths", "asked", "time", "errors")

    def __init__(
        self, num_envs: int, horizon: int, observation_space: spaces.Box, action_space: ActionSpace, seed: int | None = None
    ) -> None:
        require_at_least("horizon", horizon, 1)
        super().__init__(num_envs, observation_space, action_space, seed)
        self.horizon = horizon
        self.inputs = np.zeros((num_envs, horizon, *observation_space.shape), np.float32)
        self.targets = np.zeros((num_envs, horizon, *self.action_space.shape), self.action_space.dtype)
        self.answers = np.zeros((num_envs, horizon), np.bool_)
        self.lengths = np.zeros(num_envs, np.int64)
        self.asked = np.zeros(num_envs, np.int64)
        self.time = np.zeros(num_envs, np.int64)
        self.errors = np.zeros(num_envs, np.int64)
        self._lanes = np.arange(num_envs)
        self._ended, self._right = 0, 0  # episodes since the last grade

    @property
    def optimal_return(self) -> float:
        """The best return, undiscounted, of every episode: every answer right."""
        return 1.0

    @abstractmethod
    def generate(self, episodes: int) -> Lesson:
        """Draw that many whole episodes, 1 or more, from :attr:`rng`."""

    def grade(self, right: float) -> None:
        """Be told how well the agent does; a task with a curriculum moves on.

        Whoever learns from lessons calls this after every update. Where the task is acted in, it grades itself, after
        every 32 or more episodes.

        Args:
            right: the share of episodes whose every answer was right.
        """

    def reset(self, lanes: Bool[np.ndarray, " N"]) -> None:
        """Draw new episodes for these lanes."""
        episodes = int(lanes.sum())
        if not episodes:
            return
        lesson = self.generate(episodes)
        steps = len(lesson.inputs)
        for array, sequences in ((self.inputs, lesson.inputs), (self.targets, lesson.targets), (self.answers, lesson.answers)):
            array[lanes] = 0
            array[lanes, :steps] = sequences.swapaxes(0, 1)
        self.lengths[lanes] = lesson.lengths
        self.asked[lanes] = lesson.answers.sum(axis=0)
        self.time[lanes] = self.errors[lanes] = 0

    def step(self, actions: Integer[np.ndarray, "N ..."]) -> TaskStep:
        """Compare every lane's action with the right one, where one is asked."""
        now = np.minimum(self.time, self.horizon - 1)
        asked = self.answers[self._lanes, now]
        wrong = (self.targets[self._lanes, now] != actions).reshape(self.num_envs, -1).sum(axis=1)
        self.errors += asked * wrong
        self.time += 1

        ended = self.time >= self.lengths
        success = self.errors == 0
        self._count(ended, success)
        rewards = (asked & (wrong == 0)) / self.asked
        measures = {"errors": self.errors.astype(np.float32)}
        return TaskStep(rewards.astype(np.float32), ended, np.zeros(self.num_envs, np.bool_), success, measures)

    def observe(self) -> Float32[np.ndarray, "N I"]:
        """What each lane's episode shows in its present step; zeros after its last."""
        now = np.minimum(self.time, self.horizon - 1)
        return self.inputs[self._lanes, now] * (self.time < self.lengths)[:, None].astype(np.float32)

    def get_state(self) -> dict[str, Any]:
        """As every task, and the episodes that are yet to be graded."""
        return {**super().get_state(), "ungraded": (self._ended, self._right)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a state that :meth:`get_state` returned.

        Raises:
            ValueError: the state is of another task, or of another number of lanes or size.
        """
        super().set_state(state)
        self._ended, self._right = state["ungraded"]

    def _count(self, ended: Bool[np.ndarray, " N"], success: Bool[np.ndarray, " N"]) -> None:
        """Note the episodes that have ended, and grade once there are enough of them."""
        self._ended += int(ended.sum())
        self._right += int((ended & success).sum())
        if self._ended >= GRADED:
            share = self._right / self._ended
            self._ended, self._right = 0, 0
            self.grade(share)


class CurriculumTask(SequenceTask):
    """A sequence task whose episodes are of lessons that grow harder.

    As the task is acted in, its measure ``lesson`` is the lesson of the curriculum that new episodes are drawn from.

    Attributes:
        curriculum: the lessons, and where it stands among them; a subclass sets it before it draws an episode.
    """

    curriculum: Curriculum

    def grade(self, right: float) -> None:
        """Move on to the next lesson where the curriculum says so."""
        self.curriculum.grade(right)

    def step(self, actions: Integer[np.ndarray, "N ..."]) -> TaskStep:
        """As every sequence task, with the lesson as a further measure."""
        step = super().step(actions)
        lesson = np.full(self.num_envs, self.curriculum.level, np.float32)
        return step._replace(measures={**(step.measures or {}), "lesson": lesson})

    def get_state(self) -> dict[str, Any]:
        """As every sequence task, and where the curriculum stands."""
        return {**super().get_state(), "curriculum": self.curriculum.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a state that :meth:`get_state` returned.

        Raises:
            ValueError: the state is of another task, or of another number of lanes or size, or curriculum.
        """
        super().set_state(state)
        self.curriculum.set_state(state["curriculum"])


def told(symbols: Float32[np.ndarray, "T B S"], answers: Bool[np.ndarray, "T B"]) -> Float32[np.ndarray, "T B S"]:
    """What to add to the inputs so that every answer is told in the step after it, if another is asked then: teacher forcing.

    Args:
        symbols: the right answers as they are to be seen.
        answers: where an answer is asked.
    """
    shown = np.zeros_like(symbols)
    shown[1:] = symbols[:-1] * (answers[:-1] & answers[1:])[..., None]
    return shown
