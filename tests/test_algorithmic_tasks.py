"""Reverse, addition and parity: what is shown and asked, drawn evenly, and refused where it cannot be."""

from typing import Any

import numpy as np
import pytest

from saccade.envs import Addition, Copy, Lesson, Parity, Reverse, SequenceTask


def test_reverse_asks_for_the_last_vector_first() -> None:
    lesson = Reverse(min_length=1, max_length=5, bits=3, seed=0).generate(200)
    assert set(lesson.lengths) == {3, 5, 7, 9, 11}
    for lane, steps in enumerate(lesson.lengths):
        length = steps // 2
        shown, asked = lesson.inputs[:length, lane, :3], lesson.targets[length + 1 : steps, lane]
        assert np.array_equal(asked, shown[::-1])
        assert lesson.inputs[length, lane].tolist() == [0, 0, 0, 1]
        assert not lesson.inputs[length + 1 :, lane].any()
        assert lesson.answers[:, lane].tolist() == [False] * (length + 1) + [True] * length + [False] * (11 - steps)


def number(symbols: np.ndarray) -> int:
    """The number that digits, one-hot, the ones first, stand for."""
    assert (symbols.sum(axis=1) == 1).all()
    return sum(int(digit.argmax()) * (len(digit) - 2) ** place for place, digit in enumerate(symbols))


@pytest.mark.parametrize("base", [2, 10])
def test_addition_asks_for_the_sum(base: int) -> None:
    lesson = Addition(min_digits=1, max_digits=6, base=base, seed=0).generate(300)
    for lane, steps in enumerate(lesson.lengths):
        digits = steps // 3 - 1
        seen, asked = lesson.inputs[:, lane], lesson.targets[2 * digits + 2 : steps, lane]
        first, second = number(seen[:digits]), number(seen[digits + 1 : 2 * digits + 1])
        assert sum(int(digit) * base**place for place, digit in enumerate(asked)) == first + second
        assert seen[digits].argmax() == base
        assert seen[2 * digits + 1].argmax() == base + 1
        assert not seen[2 * digits + 2 :].any()
        assert np.flatnonzero(lesson.answers[:, lane]).tolist() == list(range(2 * digits + 2, steps))


def test_digits_are_even_and_carries_happen() -> None:
    lesson = Addition(min_digits=4, max_digits=4, seed=0).generate(5000)
    shares = lesson.inputs[:4].mean(axis=(0, 1))
    np.testing.assert_allclose(shares[:10], 0.1, atol=0.01)
    assert lesson.targets[14].mean() == pytest.approx(0.5, abs=0.03)  # of two numbers of 4 digits, half carry


def test_parity_is_that_of_the_ones() -> None:
    lesson = Parity(size=7, seed=0).generate(7000)
    (vectors,) = lesson.inputs
    assert set(np.unique(vectors)) == {-1, 0, 1}
    assert np.array_equal(lesson.targets[0], (vectors == 1).sum(axis=1) % 2)
    counts = np.bincount((vectors != 0).sum(axis=1))
    np.testing.assert_allclose(counts[1:] / 7000, 1 / 7, atol=0.02)
    assert counts[0] == 0
    np.testing.assert_allclose((vectors != 0).mean(axis=0), 4 / 7, atol=0.02)  # no place is set more often than another
    assert (vectors[vectors != 0] == 1).mean() == pytest.approx(0.5, abs=0.02)


def test_addition_grows_longer_with_its_curriculum() -> None:
    lessons = [{"digits": (2, 2)}, {"digits": (3, 5)}]
    task = Addition(max_digits=5, curriculum={"lessons": lessons, "threshold": 0.9, "review": 0.25, "window": 1}, seed=0)
    assert set(task.generate(50).lengths) == {9}
    task.grade(1.0)
    lengths = task.generate(2000).lengths
    assert set(lengths) == {9, 12, 15, 18}
    assert (lengths == 9).mean() == pytest.approx(0.25, abs=0.04)


def test_parity_of_so_many_numbers() -> None:
    (vectors,) = Parity(size=7, min_set=2, max_set=3, seed=0).generate(100).inputs
    assert set((vectors != 0).sum(axis=1)) == {2, 3}


@pytest.mark.parametrize("kind", [Reverse, Addition, Parity])
def test_the_same_seed_draws_the_same_lessons(kind: type[SequenceTask]) -> None:
    def lesson(seed: int) -> Lesson:
        return kind(num_envs=3, seed=seed).generate(5)  # type: ignore[call-arg]

    assert all(np.array_equal(a, b) for a, b in zip(lesson(1), lesson(1), strict=True))
    assert not np.array_equal(lesson(1).inputs, lesson(2).inputs)


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (Reverse, {"min_length": 0}, "min_length is 0"),
        (Reverse, {"min_length": 5, "max_length": 4}, "max_length is 4; it must be at least min_length, 5"),
        (Reverse, {"bits": 0}, "bits is 0"),
        (Addition, {"min_digits": 0}, "min_digits is 0"),
        (Addition, {"min_digits": 5, "max_digits": 4}, "max_digits is 4; it must be at least min_digits, 5"),
        (Addition, {"base": 1}, "base is 1; it must be a whole number, 2 or more"),
        (Addition, {"curriculum": {"lessons": [{"digits": (1, 21)}]}}, "1 to 21 digits; they must be within 1 to 20"),
        (Addition, {"curriculum": {"lessons": [{"length": (1, 2)}]}}, "a lesson has length; it must have digits"),
        (Parity, {"size": 0}, "size is 0"),
        (Parity, {"min_set": 0}, "min_set is 0"),
        (Parity, {"size": 5, "max_set": 6}, "max_set is 6; it must be at most size, 5"),
        (Parity, {"min_set": 4, "max_set": 3}, "max_set is 3; it must be at least min_set, 4"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(kind: type[SequenceTask], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [Copy, Reverse])
def test_with_teacher_forcing_each_answer_is_seen_in_the_step_after_it(make: type[Copy | Reverse]) -> None:
    plain, forced = (make(max_length=5, bits=3, teacher_forcing=on, seed=0).generate(50) for on in (False, True))
    assert np.array_equal(forced.targets, plain.targets)
    for lane, steps in enumerate(plain.lengths):
        first = steps // 2 + 1
        assert np.array_equal(forced.inputs[: first + 1, lane], plain.inputs[: first + 1, lane])
        assert np.array_equal(forced.inputs[first + 1 : steps, lane, :3], plain.targets[first : steps - 1, lane])
        assert not forced.inputs[first + 1 :, lane, 3].any()
        assert not forced.inputs[steps:, lane].any()


def test_with_teacher_forcing_each_digit_of_a_sum_is_seen_in_the_step_after_it() -> None:
    plain, forced = (Addition(max_digits=4, base=7, teacher_forcing=on, seed=0).generate(50) for on in (False, True))
    for lane, steps in enumerate(plain.lengths):
        first = 2 * (steps // 3)
        assert np.array_equal(forced.inputs[: first + 1, lane], plain.inputs[: first + 1, lane])
        told = forced.inputs[first + 1 : steps, lane]
        assert np.array_equal(told[:, :7].argmax(axis=1), plain.targets[first : steps - 1, lane])
        assert (told.sum(axis=1) == 1).all()
        assert not forced.inputs[steps:, lane].any()
