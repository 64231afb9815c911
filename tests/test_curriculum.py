"""Curricula: when they move on, what they draw, and what they refuse."""

from typing import Any

import numpy as np
import pytest

from saccade.envs.curriculum import Curriculum, make_curriculum


def curriculum(count: int = 3, **settings: Any) -> Curriculum:
    return Curriculum([{"size": (1, 2 + number), "depth": (number + 1, number + 1)} for number in range(count)], **settings)


@pytest.mark.parametrize("threshold", [0.9, 0.85, 1.0, 0.7])
@pytest.mark.parametrize("window", [1, 3, 10])
def test_a_curriculum_moves_on_exactly_at_its_threshold(threshold: float, window: int) -> None:
    below, at = curriculum(threshold=threshold, window=window), curriculum(threshold=threshold, window=window)
    for number in range(window):
        assert at.level == 0, "not before there are enough grades"
        at.grade(threshold)
        below.grade(threshold - (0.001 if number == window // 2 else 0))
    assert (at.level, below.level) == (1, 0)
    for _ in range(2 * window):
        at.grade(1.0)
    assert at.level == 2, "the last lesson stays"


def test_only_the_latest_grades_of_a_lesson_count() -> None:
    lessons = curriculum(threshold=0.8, window=3)
    for grade in (0.0, 0.0, 0.0, 1.0, 1.0):
        lessons.grade(grade)
        assert lessons.level == 0
    lessons.grade(0.5)
    assert lessons.level == 1, "1, 1 and 0.5"
    lessons.grade(1.0)
    lessons.grade(1.0)
    assert lessons.level == 1, "a new lesson begins without grades"
    lessons.grade(0.5)
    assert lessons.level == 2


def test_a_curriculum_without_a_window_stays() -> None:
    lessons = curriculum(window=0, first=-2)
    for _ in range(20):
        lessons.grade(1.0)
    assert lessons.level == 1


def test_earlier_lessons_are_drawn_equally_often() -> None:
    lessons = curriculum(4, first=3, review=0.3)
    drawn = np.bincount(lessons.draw(np.random.default_rng(0), 20_000)) / 20_000
    np.testing.assert_allclose(drawn, [0.1, 0.1, 0.1, 0.7], atol=0.01)
    assert (curriculum(4, first=3, review=0.0).draw(np.random.default_rng(0), 100) == 3).all()
    assert (curriculum(4, review=0.3).draw(np.random.default_rng(0), 100) == 0).all()
    assert lessons.ranges("size", np.array([0, 3])).tolist() == [[1, 2], [1, 5]]
    assert (lessons.span("size"), lessons.span("depth")) == ((1, 5), (1, 4))


def test_a_curriculum_goes_on_from_its_state() -> None:
    lessons, other = curriculum(window=2), curriculum(window=2)
    for grade in (1.0, 1.0, 0.9):
        lessons.grade(grade)
    other.set_state(lessons.get_state())
    lessons.grade(0.0)
    other.grade(0.9)
    assert (lessons.level, other.level) == (1, 2), "the grades were copied, not shared"
    with pytest.raises(ValueError, match="this state is of lesson 2; this curriculum has 2 lessons"):
        curriculum(2).set_state(other.get_state())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lessons": []}, "lessons is empty"),
        ({"threshold": 0.0}, "threshold is 0.0; it must be above 0 and at most 1"),
        ({"threshold": 1.1}, "threshold is 1.1"),
        ({"review": 1.0}, "review is 1.0; it must be at least 0 and below 1"),
        ({"window": -1}, "window is -1"),
        ({"first": 1}, "first is 1; there are 1 lessons, 0 to 0"),
        ({"treshold": 0.5}, "takes no setting 'treshold': the nearest is 'threshold'; it takes lessons, threshold"),
        ({"lessons": [{"size": (1, 2)}, {"sise": (1, 2)}]}, "lesson 1 has sise; lesson 0 has size"),
        ({"lessons": [{"sise": (1, 2)}]}, "a lesson has sise; it must have size"),
        ({"lessons": [{"size": (2, 1)}]}, r"lesson 0: size is \[2, 1\]; it must be the lowest and the highest"),
        ({"lessons": [{"size": (2,)}]}, r"size is \[2\]"),
        ({"lessons": [{"size": (0, 1)}]}, "lesson 0: size is 0; it must be a whole number, 1 or more"),
        ({"lessons": [{"size": (1, True)}]}, "size is True"),
    ],
)
def test_bad_settings_of_a_curriculum_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_curriculum({"lessons": [{"size": (1, 2)}]}, settings)
