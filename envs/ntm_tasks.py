"""The tasks of the Neural Turing Machine that ask for what was shown: copied, copied repeatedly, sorted.

Source: Graves, Wayne & Danihelka 2014, "Neural Turing Machines" (arXiv:1410.5401), section 4. The two others, which ask for
what comes next, are in :mod:`saccade.envs.recall`. Shapes: ``T`` steps, ``B`` episodes, ``L`` vectors of ``K`` bits.
"""

from abc import abstractmethod
from math import sqrt

import numpy as np
from gymnasium import spaces
from jaxtyping import Bool, Float32, Int8, Integer

from saccade.envs.sequence_task import Lesson, SequenceTask, told
from saccade.envs.task import require_at_least

REPEATS_BEYOND = 10
"""RepeatCopy's observation space has room for counts up to so many times those that the normalisation is made for."""


class ShownThenAsked(SequenceTask):
    """Random bit vectors are shown, then a delimiter, and then all of them are asked for, in an order that a subclass gives.

    Args:
        num_envs: the number of lanes.
        min_length: the fewest vectors in an episode.
        max_length: the most.
        bits: the size of a vector.
        teacher_forcing: show the right answer in the step after it, in place of zeros, if another is asked then.
        seed: the seed of all lanes together.

    Raises:
        ValueError: ``min_length`` or ``bits`` is below 1, or ``max_length`` below ``min_length``.
    """

    def __init__(
        self,
        num_envs: int = 1,
        min_length: int = 1,
        max_length: int = 20,
        bits: int = 8,
        teacher_forcing: bool = False,
        seed: int | None = None,
    ) -> None:
        require_range("length", min_length, max_length)
        require_at_least("bits", bits, 1)
        seen = spaces.Box(0.0, 1.0, (bits + 1,), np.float32)
        super().__init__(num_envs, 2 * max_length + 1, seen, spaces.MultiBinary(bits), seed)
        self.min_length, self.max_length, self.bits = min_length, max_length, bits
        self.teacher_forcing = teacher_forcing
        self.reset(np.ones(num_envs, np.bool_))

    @abstractmethod
    def order(self, answer: Integer[np.ndarray, "T B"], lengths: Integer[np.ndarray, " B"]) -> Integer[np.ndarray, "T B"]:
        """Which vector each answer of an episode is, counted from 0; ``answer`` is the answer's own number."""

    def generate(self, episodes: int) -> Lesson:
        """Draw lengths, then vectors."""
        lengths = self.rng.integers(self.min_length, self.max_length, size=episodes, endpoint=True)
        vectors = random_vectors(self.rng, lengths, self.bits)
        step = np.arange(2 * lengths.max() + 1)[:, None]
        inputs = np.zeros((len(step), episodes, self.bits + 1), np.float32)
        inputs[: len(vectors), :, : self.bits] = vectors
        inputs[lengths, np.arange(episodes), self.bits] = 1
        answers = (step > lengths) & (step <= 2 * lengths)
        targets = recalled(vectors, self.order(step - lengths - 1, lengths), answers)
        if self.teacher_forcing:
            inputs[..., : self.bits] += told(targets.astype(np.float32), answers)
        return Lesson(inputs, targets, answers, 2 * lengths + 1)


class Copy(ShownThenAsked):
    """Copy: a sequence of random bit vectors is shown, and then asked for.

    Section 4.1. An episode of length ``L``, drawn from ``min_length`` to ``max_length``, all equally likely, takes
    ``2 L + 1`` steps:

    ========================= =================================== ==========================
    step                      observation, ``bits + 1`` numbers   answer, ``bits`` bits
    ========================= =================================== ==========================
    0 to ``L - 1``            a random vector; 0                  none (any action will do)
    ``L``                     zeros; 1, the delimiter             none
    ``L + 1`` to ``2 L``      zeros                               the vectors, in their order
    ========================= =================================== ==========================

    The best return is 1 with no wrong bits (:attr:`optimal_return`). A coin for each bit has ``bits L / 2`` wrong bits an
    episode, and a return of ``2 ** -bits`` in the mean.

    Args:
        num_envs: the number of lanes.
        min_length: the fewest vectors in an episode.
        max_length: the most; the paper trains with 1 to 20, and tests with 10 to 120.
        bits: the size of a vector.
        teacher_forcing: show the right answer in the step after it, in place of zeros, if another is asked then.
        seed: the seed of all lanes together.

    Raises:
        ValueError: ``min_length`` or ``bits`` is below 1, or ``max_length`` below ``min_length``.
    """

    def order(self, answer: Integer[np.ndarray, "T B"], lengths: Integer[np.ndarray, " B"]) -> Integer[np.ndarray, "T B"]:
        """As they were shown."""
        return answer


class RepeatCopy(SequenceTask):
    """Repeat copy: a sequence of random bit vectors has to be written out so many times, then an end marker.

    Section 4.2. An episode of length ``L`` and ``R`` repeats, each drawn from its range, all equally likely, takes
    ``L + R L + 2`` steps:

    ================================= ===================================== ================================
    step                              observation, ``bits + 2`` numbers     answer, ``bits + 1`` bits
    ================================= ===================================== ================================
    0 to ``L - 1``                    a random vector; 0; 0                 none (any action will do)
    ``L``                             zeros; 1, the delimiter; the count    none
    ``L + 1`` to ``L + R L``          zeros                                 the vectors, again and again; 0
    ``L + R L + 1``                   zeros                                 zeros; 1, the end marker
    ================================= ===================================== ================================

    The count is ``R``, normalised: mean 0 and variance 1 over 1 to ``repeat_scale``, whatever is drawn, so that an agent can
    be tried with more repeats than it was trained with. The delimiter is ours: a normalised count may be 0.

    The best return is 1 with no wrong bits (:attr:`optimal_return`). A coin for each bit has ``(bits + 1) (R L + 1) / 2`` wrong
    bits an episode, and a return of ``2 ** -(bits + 1)`` in the mean.

    Args:
        num_envs: the number of lanes.
        min_length: the fewest vectors in an episode.
        max_length: the most.
        min_repeats: the fewest times they are asked for.
        max_repeats: the most. The paper trains with lengths and repeats of 1 to 10, and tests with twice as many of either.
        bits: the size of a vector.
        repeat_scale: the count is normalised for 1 to so many repeats; at least 2, and a tenth of ``max_repeats``.
        seed: the seed of all lanes together.

    Raises:
        ValueError: a number is too small, or ``max_length``, ``max_repeats`` or ``repeat_scale`` does not fit the others.
    """

    def __init__(
        self,
        num_envs: int = 1,
        min_length: int = 1,
        max_length: int = 10,
        min_repeats: int = 1,
        max_repeats: int = 10,
        bits: int = 8,
        repeat_scale: int = 10,
        seed: int | None = None,
    ) -> None:
        require_range("length", min_length, max_length)
        require_range("repeats", min_repeats, max_repeats)
        require_at_least("bits", bits, 1)
        require_at_least("repeat_scale", repeat_scale, max(2, -(-max_repeats // REPEATS_BEYOND)))
        self.min_length, self.max_length, self.bits = min_length, max_length, bits
        self.min_repeats, self.max_repeats, self.repeat_scale = min_repeats, max_repeats, repeat_scale
        low, high = np.zeros(bits + 2, np.float32), np.ones(bits + 2, np.float32)
        low[-1], high[-1] = self.normalised(np.array([1, REPEATS_BEYOND * repeat_scale]))
        horizon = max_length * (max_repeats + 1) + 2
        super().__init__(num_envs, horizon, spaces.Box(low, high), spaces.MultiBinary(bits + 1), seed)
        self.reset(np.ones(num_envs, np.bool_))

    def normalised(self, repeats: Integer[np.ndarray, " B"]) -> Float32[np.ndarray, " B"]:
        """Counts as they are shown: less the mean, by the standard deviation of 1 to ``repeat_scale``."""
        mean, spread = (self.repeat_scale + 1) / 2, sqrt((self.repeat_scale**2 - 1) / 12)
        return ((repeats - mean) / spread).astype(np.float32)

    def generate(self, episodes: int) -> Lesson:
        """Draw lengths and counts, then vectors."""
        lengths = self.rng.integers(self.min_length, self.max_length, size=episodes, endpoint=True)
        repeats = self.rng.integers(self.min_repeats, self.max_repeats, size=episodes, endpoint=True)
        vectors = random_vectors(self.rng, lengths, self.bits)
        steps = lengths + repeats * lengths + 2
        step, lanes = np.arange(steps.max())[:, None], np.arange(episodes)
        inputs = np.zeros((len(step), episodes, self.bits + 2), np.float32)
        inputs[: len(vectors), :, : self.bits] = vectors
        inputs[lengths, lanes, self.bits] = 1
        inputs[lengths, lanes, self.bits + 1] = self.normalised(repeats)
        targets = np.zeros((len(step), episodes, self.bits + 1), np.int8)
        answers = (step > lengths) & (step < steps)
        copying = answers & (step < steps - 1)
        targets[..., : self.bits] = recalled(vectors, (step - lengths - 1) % lengths, copying)
        targets[steps - 1, lanes, self.bits] = 1
        return Lesson(inputs, targets, answers, steps)


class PrioritySort(SequenceTask):
    """Priority sort: random bit vectors come with priorities, and the highest are asked for, in order.

    Section 4.5. Every episode takes ``items + 1 + sorted_items`` steps:

    ===================================== =========================================== =====================================
    step                                  observation, ``bits + 2`` numbers           answer, ``bits`` bits
    ===================================== =========================================== =====================================
    0 to ``items - 1``                    a random vector; its priority, drawn from   none (any action will do)
                                          [-1, 1), all equally likely; 0
    ``items``                             zeros; 0; 1, the delimiter                  none
    then, ``sorted_items`` steps          zeros                                       the vectors, highest priority first
    ===================================== =========================================== =====================================

    The paper names no delimiter; here one says, as in its other tasks, that the answers begin.

    The best return is 1 with no wrong bits (:attr:`optimal_return`). A coin for each bit has ``bits sorted_items / 2`` wrong
    bits an episode, and a return of ``2 ** -bits`` in the mean.

    Args:
        num_envs: the number of lanes.
        items: how many vectors are shown; 20 in the paper.
        sorted_items: how many are asked for; 16 in the paper.
        bits: the size of a vector.
        seed: the seed of all lanes together.

    Raises:
        ValueError: ``sorted_items`` or ``bits`` is below 1, or ``items`` below ``sorted_items``.
    """

    def __init__(
        self, num_envs: int = 1, items: int = 20, sorted_items: int = 16, bits: int = 8, seed: int | None = None
    ) -> None:
        require_at_least("items", items, 1)
        require_at_least("sorted_items", sorted_items, 1)
        require_at_least("bits", bits, 1)
        if items < sorted_items:
            raise ValueError(f"items is {items}; it must be at least sorted_items, {sorted_items}")
        low, high = np.zeros(bits + 2, np.float32), np.ones(bits + 2, np.float32)
        low[bits] = -1
        super().__init__(num_envs, items + 1 + sorted_items, spaces.Box(low, high), spaces.MultiBinary(bits), seed)
        self.items, self.sorted_items, self.bits = items, sorted_items, bits
        self.reset(np.ones(num_envs, np.bool_))

    def generate(self, episodes: int) -> Lesson:
        """Draw vectors, then priorities."""
        lengths = np.full(episodes, self.items)
        vectors = random_vectors(self.rng, lengths, self.bits)
        priorities = self.rng.uniform(-1, 1, size=(self.items, episodes)).astype(np.float32)
        inputs = np.zeros((self.horizon, episodes, self.bits + 2), np.float32)
        inputs[: self.items, :, : self.bits] = vectors
        inputs[: self.items, :, self.bits] = priorities
        inputs[self.items, :, self.bits + 1] = 1
        targets = np.zeros((self.horizon, episodes, self.bits), np.int8)
        order = np.argsort(-priorities, axis=0, kind="stable")[: self.sorted_items]
        targets[self.items + 1 :] = np.take_along_axis(vectors, order[:, :, None], axis=0)
        answers = np.zeros((self.horizon, episodes), np.bool_)
        answers[self.items + 1 :] = True
        return Lesson(inputs, targets, answers, np.full(episodes, self.horizon))


def random_vectors(rng: np.random.Generator, lengths: Integer[np.ndarray, " B"], bits: int) -> Int8[np.ndarray, "L B K"]:
    """Vectors of ``bits`` coins; zeros after an episode's own length."""
    longest = int(lengths.max())
    vectors = rng.integers(2, size=(longest, len(lengths), bits), dtype=np.int8)
    vectors[np.arange(longest)[:, None] >= lengths] = 0
    return vectors


def recalled(
    vectors: Int8[np.ndarray, "L B K"], place: Integer[np.ndarray, "T B"], answers: Bool[np.ndarray, "T B"]
) -> Int8[np.ndarray, "T B K"]:
    """The vector at the ``place`` that a step asks for; zeros where no answer is asked."""
    found = vectors[np.where(answers, place, 0), np.arange(vectors.shape[1])]
    return np.where(answers[..., None], found, np.int8(0))


def require_range(what: str, least: object, most: object) -> None:
    """Refuse a range that does not run from 1 or more up, with a ``ValueError`` that names its two ends."""
    require_at_least(f"min_{what}", least, 1)
    require_at_least(f"max_{what}", most, 1)
    if most < least:  # type: ignore[operator]
        raise ValueError(f"max_{what} is {most}; it must be at least min_{what}, {least}")
