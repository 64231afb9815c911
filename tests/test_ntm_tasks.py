"""The five tasks of the NTM against slow references, their layout step by step, and the best there is in each."""

from collections.abc import Iterator
from itertools import product
from math import log2
from typing import Any

import numpy as np
import pytest

from saccade.envs import AssociativeRecall, Copy, DynamicNGrams, Lesson, PrioritySort, RepeatCopy, SequenceTask

MANY = 3000
Rows = list[list[float]]


def episodes(lesson: Lesson) -> Iterator[tuple[Rows, Rows, list[bool]]]:
    """Inputs, targets and answers of each episode alone, without its padding."""
    for lane, length in enumerate(lesson.lengths):
        parts = (array[:length, lane].tolist() for array in (lesson.inputs, lesson.targets, lesson.answers))
        yield tuple(parts)  # type: ignore[misc]


def vectors_before_the_delimiter(inputs: Rows, bits: int) -> Rows:
    """The bits shown before the first step whose delimiter is set."""
    delimiter = next(step for step, seen in enumerate(inputs) if seen[bits] == 1)
    return [seen[:bits] for seen in inputs[:delimiter]]


def counts(values: list[Any]) -> dict[Any, int]:
    return {value: values.count(value) for value in set(values)}


# Copy


def test_a_copy_step_by_step() -> None:
    lesson = Copy(min_length=2, max_length=2, bits=3, seed=0).generate(50)
    for inputs, targets, answers in episodes(lesson):
        one, two = inputs[0][:3], inputs[1][:3]
        assert inputs == [[*one, 0], [*two, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
        assert targets == [[0, 0, 0], [0, 0, 0], [0, 0, 0], one, two]
        assert answers == [False, False, False, True, True]
    assert len({str(inputs) for inputs, *_ in episodes(lesson)}) > 20, "all episodes are alike"


def test_copies_of_every_length() -> None:
    task = Copy(min_length=3, max_length=7, bits=5, seed=1)
    lesson = task.generate(MANY)
    lengths = []
    for inputs, targets, answers in episodes(lesson):
        vectors = vectors_before_the_delimiter(inputs, 5)
        length = len(vectors)
        lengths.append(length)
        assert inputs[length + 1 :] == [[0] * 6] * length
        assert targets == [[0] * 5] * (length + 1) + vectors
        assert answers == [False] * (length + 1) + [True] * length
    found = counts(lengths)
    assert found.keys() == {3, 4, 5, 6, 7}
    assert all(abs(count - MANY / 5) < 5 * (MANY / 5) ** 0.5 for count in found.values())
    assert lesson.targets[lesson.answers].mean() == pytest.approx(0.5, abs=0.01)
    assert task.horizon == 15


# Repeat copy


def test_a_repeat_copy_step_by_step() -> None:
    task = RepeatCopy(min_length=2, max_length=2, min_repeats=3, max_repeats=3, bits=2, repeat_scale=3, seed=0)
    spread = (2 / 3) ** 0.5  # of 1, 2, 3
    for inputs, targets, answers in episodes(task.generate(20)):
        one, two = inputs[0][:2], inputs[1][:2]
        assert inputs[:2] == [[*one, 0, 0], [*two, 0, 0]]
        assert inputs[2] == [0, 0, 1, pytest.approx((3 - 2) / spread)]
        assert inputs[3:] == [[0, 0, 0, 0]] * 7
        assert targets == [[0, 0, 0]] * 3 + [[*one, 0], [*two, 0]] * 3 + [[0, 0, 1]]
        assert answers == [False] * 3 + [True] * 7


def test_repeat_copies_of_every_length_and_count() -> None:
    task = RepeatCopy(min_length=2, max_length=4, min_repeats=1, max_repeats=5, bits=3, seed=1)
    found = []
    for inputs, targets, answers in episodes(task.generate(MANY)):
        vectors = vectors_before_the_delimiter(inputs, 3)
        length = len(vectors)
        repeats = round(inputs[length][4] * (99 / 12) ** 0.5 + 5.5)  # mean and variance of 1 to 10
        found.append((length, repeats))
        assert inputs[length + 1 :] == [[0] * 5] * (length * repeats + 1)
        wanted = [[*vector, 0] for vector in vectors] * repeats + [[0, 0, 0, 1]]
        assert targets == [[0] * 4] * (length + 1) + wanted
        assert answers == [False] * (length + 1) + [True] * len(wanted)
    assert set(found) == set(product((2, 3, 4), (1, 2, 3, 4, 5)))
    assert all(abs(count - MANY / 15) < 5 * (MANY / 15) ** 0.5 for count in counts(found).values())


def test_a_repeat_count_is_normalised_for_the_training_whatever_is_drawn() -> None:
    shown = RepeatCopy().normalised(np.arange(1, 11))
    assert shown.mean() == pytest.approx(0, abs=1e-6)
    assert shown.var() == pytest.approx(1, abs=1e-6)
    longer = RepeatCopy(max_repeats=100, min_repeats=100, max_length=1, seed=0)
    assert longer.observation_space == RepeatCopy().observation_space
    assert all(longer.observation_space.contains(seen) for seen in longer.generate(3).inputs[:, 0])


# Associative recall


def test_a_recall_step_by_step() -> None:
    lesson = AssociativeRecall(min_items=2, max_items=2, item_length=2, bits=3, seed=0).generate(20)
    item, query = [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]
    for inputs, targets, answers in episodes(lesson):
        a, b, c, d = (inputs[step][:3] for step in (1, 2, 4, 5))
        shown = [[*vector, 0, 0] for vector in (a, b, c, d)]
        assert inputs[:6] == [item, *shown[:2], item, *shown[2:]]
        assert inputs[6:] == [query, *shown[:2], query, [0] * 5, [0] * 5]
        assert targets == [[0] * 3] * 10 + [c, d]
        assert answers == [False] * 10 + [True, True]


def test_recalls_of_every_item() -> None:
    task = AssociativeRecall(min_items=2, max_items=5, item_length=3, bits=2, seed=1)
    found = []
    for inputs, targets, answers in episodes(task.generate(MANY)):
        start = next(step for step, seen in enumerate(inputs) if seen[3] == 1)
        items = [[seen[:2] for seen in inputs[step + 1 : step + 4]] for step in range(0, start, 4)]
        assert [step for step, seen in enumerate(inputs) if seen[2] == 1] == list(range(0, start, 4))
        assert [step for step, seen in enumerate(inputs) if seen[3] == 1] == [start, start + 4]
        assert all(items.count(one) == 1 for one in items)
        query = [seen[:2] for seen in inputs[start + 1 : start + 4]]
        assert inputs[start + 5 :] == [[0] * 4] * 3
        assert targets == [[0] * 2] * (start + 5) + items[items.index(query) + 1]
        assert answers == [False] * (start + 5) + [True] * 3
        found.append((len(items), items.index(query)))
    assert set(found) == {(n, query) for n in (2, 3, 4, 5) for query in range(n - 1)}
    numbers = counts([n for n, _ in found])
    assert all(abs(count - MANY / 4) < 5 * (MANY / 4) ** 0.5 for count in numbers.values())


def test_items_differ_where_there_are_only_just_enough() -> None:
    lesson = AssociativeRecall(min_items=4, max_items=4, item_length=2, bits=1, seed=0).generate(200)
    orders = []
    for inputs, *_ in episodes(lesson):
        items = [(inputs[step + 1][0], inputs[step + 2][0]) for step in range(0, 12, 3)]
        assert set(items) == set(product((0, 1), (0, 1)))
        orders.append(tuple(items))
    assert len(set(orders)) == 24


# Dynamic n-grams


def slow_optimum(bits: list[int], n: int) -> tuple[float, int]:
    """Loss in bits, and wrong guesses, of the estimator of eq. 10 on one sequence."""
    followed: dict[tuple[int, ...], list[int]] = {}
    loss, errors = 0.0, 0
    for t in range(n - 1, len(bits)):
        seen = followed.setdefault(tuple(bits[t - n + 1 : t]), [0, 0])
        one = (seen[1] + 0.5) / (seen[0] + seen[1] + 1)
        loss -= log2(one if bits[t] else 1 - one)
        errors += int(one > 0.5) != bits[t]
        seen[bits[t]] += 1
    return loss, errors


def sequences(lesson: Lesson) -> list[list[int]]:
    """All bits of every episode: those seen, and the last answer."""
    return [[int(seen[0]) for seen in inputs] + [int(targets[-1])] for inputs, targets, _ in episodes(lesson)]  # type: ignore[call-overload]


@pytest.mark.parametrize(("n", "bits"), [(2, 2), (3, 11), (6, 200)])
def test_n_grams_ask_for_the_next_bit(n: int, bits: int) -> None:
    task = DynamicNGrams(n=n, bits=bits, seed=0)
    lesson = task.generate(13)
    assert task.horizon == bits - 1
    assert (lesson.lengths == bits - 1).all()
    for lane, sequence in enumerate(sequences(lesson)):
        for t in range(bits - 1):
            assert lesson.inputs[t, lane, 0] == sequence[t]
            assert lesson.answers[t, lane] == (t >= n - 2)
            assert lesson.targets[t, lane] == (sequence[t + 1] if t >= n - 2 else 0)
    optimum = task.optimum(lesson)
    slow = [slow_optimum(sequence, n) for sequence in sequences(lesson)]
    np.testing.assert_allclose(optimum.bits, [loss for loss, _ in slow])
    assert optimum.errors.tolist() == [errors for _, errors in slow]


def test_n_grams_are_drawn_from_beta_tables() -> None:
    """After a context, the share of ones in an episode is spread as Beta(1/2, 1/2): mean 1/2, variance 1/8."""
    lesson = DynamicNGrams(n=3, bits=2000, seed=0).generate(400)
    bits = np.array(sequences(lesson))
    before, after = 2 * bits[:, :-2] + bits[:, 1:-1], bits[:, 2:]
    assert bits[:, :2].mean() == pytest.approx(0.5, abs=0.07)
    for context in range(4):
        often = (before == context).sum(axis=1) > 100  # of a rare context the share is not known well
        shares = np.array([after[lane][before[lane] == context].mean() for lane in np.flatnonzero(often)])
        assert often.mean() > 0.5
        assert shares.mean() == pytest.approx(0.5, abs=0.1)
        assert shares.var() == pytest.approx(1 / 8, abs=0.03)


def test_no_other_estimator_of_n_grams_is_better() -> None:
    task = DynamicNGrams(seed=0)
    lesson = task.generate(1000)
    optimum = task.optimum(lesson)
    assert 126 < optimum.bits.mean() < 130
    assert 1 - optimum.errors.mean() / 195 == pytest.approx(task.optimal_return, abs=0.006)
    # The same with other pseudo-counts than the prior's.
    for pseudo in (0.2, 1.0):
        assert pseudo_loss(sequences(lesson)[:300], 6, pseudo) > optimum.bits[:300].mean() + 0.5


def pseudo_loss(bits: list[list[int]], n: int, pseudo: float) -> float:
    total = 0.0
    for sequence in bits:
        followed: dict[tuple[int, ...], list[float]] = {}
        for t in range(n - 1, len(sequence)):
            seen = followed.setdefault(tuple(sequence[t - n + 1 : t]), [pseudo, pseudo])
            total -= log2(seen[sequence[t]] / sum(seen))
            seen[sequence[t]] += 1
    return total / len(bits)


# Priority sort


def test_a_priority_sort_step_by_step() -> None:
    lesson = PrioritySort(items=4, sorted_items=3, bits=2, seed=0).generate(MANY)
    places = []
    for inputs, targets, answers in episodes(lesson):
        shown = [(seen[2], seen[:2]) for seen in inputs[:4]]
        assert all(seen[3] == 0 for seen in inputs[:4])
        assert inputs[4:] == [[0, 0, 0, 1]] + [[0] * 4] * 3
        assert targets == [[0] * 2] * 5 + [bits for _, bits in sorted(shown, reverse=True)[:3]]
        assert answers == [False] * 5 + [True] * 3
        places.append(max(range(4), key=lambda item: shown[item][0]))
    assert all(abs(count - MANY / 4) < 5 * (MANY / 4) ** 0.5 for count in counts(places).values())
    priorities = lesson.inputs[:4, :, 2]
    assert priorities.mean() == pytest.approx(0, abs=0.03)
    assert priorities.var() == pytest.approx(1 / 3, abs=0.02)
    assert -1 <= priorities.min() < -0.99
    assert 0.99 < priorities.max() <= 1
    assert PrioritySort().horizon == 20 + 1 + 16, "the paper's"


# All


@pytest.mark.parametrize(
    ("task", "chance", "errors"),
    [
        (Copy(MANY, min_length=3, max_length=3, bits=2), 1 / 4, 3),
        (RepeatCopy(MANY, min_length=2, max_length=2, min_repeats=2, max_repeats=2, bits=1), 1 / 4, 5),
        (AssociativeRecall(MANY, item_length=3, bits=2), 1 / 4, 3),
        (DynamicNGrams(MANY, n=3, bits=20), 1 / 2, 9),
        (PrioritySort(MANY, items=5, sorted_items=3, bits=2), 1 / 4, 3),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, SequenceTask) else "",
)
def test_what_a_coin_gets_is_what_the_docstring_says(task: SequenceTask, chance: float, errors: float) -> None:
    rng = np.random.default_rng(0)
    task.seed(0)
    task.reset(np.ones(MANY, np.bool_))
    returns, wrong = np.zeros(MANY), np.zeros(MANY)
    ended = np.zeros(MANY, np.bool_)
    while not ended.all():
        step = task.step(rng.integers(2, size=(MANY, *task.action_space.shape)))
        assert step.measures is not None
        returns += np.where(ended, 0, step.rewards)
        last = step.terminated & ~ended
        wrong[last] = step.measures["errors"][last]
        ended |= step.terminated
    assert returns.mean() == pytest.approx(chance, abs=0.03)
    assert wrong.mean() == pytest.approx(errors, abs=0.2)


@pytest.mark.parametrize(
    ("task", "arguments", "message"),
    [
        (Copy, {"min_length": 0}, "min_length is 0; it must be a whole number, 1 or more"),
        (Copy, {"min_length": 5, "max_length": 4}, "max_length is 4; it must be at least min_length, 5"),
        (Copy, {"bits": 0}, "bits is 0"),
        (RepeatCopy, {"min_repeats": 3, "max_repeats": 2}, "max_repeats is 2; it must be at least min_repeats, 3"),
        (RepeatCopy, {"min_repeats": 0}, "min_repeats is 0"),
        (RepeatCopy, {"max_repeats": 101}, "repeat_scale is 10; it must be a whole number, 11 or more"),
        (RepeatCopy, {"repeat_scale": 1, "max_repeats": 2}, "repeat_scale is 1; it must be a whole number, 2 or more"),
        (AssociativeRecall, {"min_items": 1}, "min_items is 1; it must be a whole number, 2 or more"),
        (AssociativeRecall, {"min_items": 7}, "max_items is 6; it must be at least min_items, 7"),
        (AssociativeRecall, {"item_length": 0}, "item_length is 0"),
        (AssociativeRecall, {"item_length": 2, "bits": 1}, "max_items is 6; there are only 4 different items of 2 x 1 bits"),
        (DynamicNGrams, {"n": 1}, "n is 1; it must be a whole number, 2 or more"),
        (DynamicNGrams, {"bits": 5}, "bits is 5; it must be at least n, 6"),
        (PrioritySort, {"items": 15}, "items is 15; it must be at least sorted_items, 16"),
        (PrioritySort, {"sorted_items": 0}, "sorted_items is 0"),
    ],
)
def test_bad_parameters_are_named(task: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task(**arguments)
