"""Lessons that grow harder, as in Graves et al. 2016 (Nature 538), Methods, "Curriculum learning".

Shapes: ``E`` episodes.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
from jaxtyping import Integer

from saccade.envs.task import require_at_least

SETTINGS = ("lessons", "threshold", "review", "window", "first")


class Curriculum:
    """A row of lessons, of which the next begins once the present one is mastered.

    A lesson gives a range to every parameter of a task. A share of the episodes is drawn from earlier lessons, so that
    these are not forgotten; the paper found this to be needed, and took a tenth.

    Attributes:
        level: the present lesson, counted from 0.

    Args:
        lessons: from easy to hard; each maps the same parameters to their lowest and highest value, both included.
        threshold: the mean of the last ``window`` grades of a lesson from which on the next one begins.
        review: the share of episodes of earlier lessons, all of these equally likely.
        window: how many grades of a lesson there must be, and how many are averaged; 0 stays at ``first`` for ever, to
            evaluate on one lesson.
        first: the lesson to begin with; negative numbers count from the end, -1 is the last one.

    Raises:
        ValueError: there is no lesson; two lessons differ in their parameters, or a range is not two whole numbers from
            1 up, the lower first; or a number is out of its range.
    """

    def __init__(
        self,
        lessons: Sequence[Mapping[str, Sequence[int]]],
        threshold: float = 0.9,
        review: float = 0.1,
        window: int = 10,
        first: int = 0,
    ) -> None:
        if not lessons:
            raise ValueError("lessons is empty; a curriculum needs one lesson at least")
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold is {threshold!r}; it must be above 0 and at most 1")
        if not 0 <= review < 1:
            raise ValueError(f"review is {review!r}; it must be at least 0 and below 1")
        require_at_least("window", window, 0)
        if not -len(lessons) <= first < len(lessons):
            raise ValueError(f"first is {first!r}; there are {len(lessons)} lessons, 0 to {len(lessons) - 1}")
        self.parameters = tuple(lessons[0])
        self._ranges = np.array([_ranges(number, lesson, self.parameters) for number, lesson in enumerate(lessons)])
        self.threshold, self.review, self.window = threshold, review, window
        self.level = first % len(lessons)
        self._grades: list[float] = []

    def __len__(self) -> int:
        """How many lessons there are."""
        return len(self._ranges)

    def draw(self, rng: np.random.Generator, episodes: int) -> Integer[np.ndarray, " E"]:
        """The lesson of each of so many episodes."""
        drawn = np.full(episodes, self.level)
        if self.level and self.review:
            earlier = rng.random(episodes) < self.review
            drawn[earlier] = rng.integers(self.level, size=int(earlier.sum()))
        return drawn

    def ranges(self, parameter: str, lessons: Integer[np.ndarray, " E"]) -> Integer[np.ndarray, "E 2"]:
        """The lowest and the highest value of a parameter in each of these lessons."""
        ranges: np.ndarray = self._ranges[lessons, self.parameters.index(parameter)]
        return ranges

    def span(self, parameter: str) -> tuple[int, int]:
        """The lowest and the highest value of a parameter in all lessons."""
        ranges = self._ranges[:, self.parameters.index(parameter)]
        return int(ranges[:, 0].min()), int(ranges[:, 1].max())

    def grade(self, grade: float) -> None:
        """Be told how well the present lesson goes, from 0 to 1, and move on if it is mastered."""
        if not self.window:
            return
        self._grades = [*self._grades, float(grade)][-self.window :]
        # Ten times 0.9 must reach 0.9, whatever rounding does to the sum.
        mastered = sum(self._grades) >= self.threshold * self.window - 1e-9
        if len(self._grades) == self.window and mastered and self.level < len(self) - 1:
            self.level += 1
            self._grades = []

    def get_state(self) -> dict[str, Any]:
        """The level and the grades that count, as plain data."""
        return {"level": self.level, "grades": list(self._grades)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a state that :meth:`get_state` returned.

        Raises:
            ValueError: the state is of a lesson that is not here.
        """
        level = int(state["level"])
        if level >= len(self):
            raise ValueError(f"this state is of lesson {level}; this curriculum has {len(self)} lessons, from 0 on")
        self.level, self._grades = level, list(state["grades"])


def make_curriculum(defaults: Mapping[str, Any], settings: Mapping[str, Any] | None) -> Curriculum:
    """A curriculum from a task's own settings and those that a user gives in their place.

    Args:
        defaults: arguments of :class:`Curriculum`, the lessons among them.
        settings: those to replace, by name.

    Raises:
        ValueError: there is no such setting, or the lessons have other parameters than the task's; and as
            :class:`Curriculum`.
    """
    given = settings or {}
    for name in given:
        if name not in SETTINGS:
            near = get_close_matches(name, SETTINGS, 1)
            hint = f"the nearest is {near[0]!r}; " if near else ""
            raise ValueError(f"curriculum takes no setting {name!r}: {hint}it takes {', '.join(SETTINGS)}")
    curriculum = Curriculum(**{**defaults, **given})
    wanted = set(defaults["lessons"][0])
    if set(curriculum.parameters) != wanted:
        raise ValueError(f"a lesson has {', '.join(curriculum.parameters)}; it must have {', '.join(sorted(wanted))}")
    return curriculum


def draw_between(
    rng: np.random.Generator, ranges: Integer[np.ndarray, "E 2"], size: tuple[int, ...] | None = None
) -> Integer[np.ndarray, "E ..."]:
    """Whole numbers, each equally likely, from the lowest to the highest of each range; ``size`` begins with ``E``."""
    shape = (len(ranges),) if size is None else size
    low, high = (bound.reshape(-1, *[1] * (len(shape) - 1)) for bound in ranges.T)
    return rng.integers(low, high + 1, size=shape)


def _ranges(number: int, lesson: Mapping[str, Sequence[int]], parameters: tuple[str, ...]) -> list[tuple[int, int]]:
    if set(lesson) != set(parameters):
        raise ValueError(f"lesson {number} has {', '.join(lesson)}; lesson 0 has {', '.join(parameters)}")
    ranges = []
    for name in parameters:
        values = list(lesson[name])
        if len(values) != 2 or values[0] > values[1]:
            raise ValueError(f"lesson {number}: {name} is {values}; it must be the lowest and the highest value")
        require_at_least(f"lesson {number}: {name}", values[0], 1)
        require_at_least(f"lesson {number}: {name}", values[1], 1)
        ranges.append((int(values[0]), int(values[1])))
    return ranges
