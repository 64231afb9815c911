"""The tasks of the Neural Turing Machine that ask for what comes next: after an item, and after some bits.

Source: Graves, Wayne & Danihelka 2014, "Neural Turing Machines" (arXiv:1410.5401), section 4. The others are in
:mod:`saccade.envs.ntm_tasks`. Shapes: ``T`` steps, ``B`` episodes, ``K`` bits.
"""

from functools import cached_property
from typing import NamedTuple

import numpy as np
from gymnasium import spaces
from jaxtyping import Float, Int8, Integer

from saccade.envs.ntm_tasks import recalled, require_range
from saccade.envs.sequence_task import Lesson, SequenceTask
from saccade.envs.task import require_at_least

EPISODES = 4096
"""Episodes over which the best mean return of :class:`DynamicNGrams` is estimated."""


class AssociativeRecall(SequenceTask):
    """Associative recall: some items are shown, then one of them again, and the one after it is asked for.

    Section 4.3. An item is ``item_length`` random bit vectors. An episode of ``n`` items, drawn from ``min_items`` to
    ``max_items``, all equally likely, takes ``n (item_length + 1) + 2 item_length + 2`` steps:

    =========================== ============================================== ===================================
    steps                       observation, ``bits + 2`` numbers              answer, ``bits`` bits
    =========================== ============================================== ===================================
    for each item: 1            zeros; 1, the item's delimiter; 0              none (any action will do)
    and then ``item_length``    its vectors; 0; 0                              none
    1                           zeros; 0; 1, the query's delimiter             none
    ``item_length``             the query: any item but the last, again        none
    1                           zeros; 0; 1, the query's delimiter             none
    ``item_length``             zeros                                          the vectors of the item after it
    =========================== ============================================== ===================================

    No two items of an episode are the same. The best return is 1 with no wrong bits (:attr:`optimal_return`). A coin for each
    bit has ``bits item_length / 2`` wrong bits an episode, 9 by default, and a return of ``2 ** -bits`` in the mean. With no
    use of the query, a guess among the items that may follow is right in one of ``n - 1`` episodes.

    Args:
        num_envs: the number of lanes.
        min_items: the fewest items in an episode, at least 2.
        max_items: the most; the paper trains with 2 to 6, and tests with up to 20.
        item_length: vectors in an item; 3 in the paper.
        bits: the size of a vector; 6 in the paper.
        seed: the seed of all lanes together.

    Raises:
        ValueError: a number is too small, ``max_items`` is below ``min_items``, or there are not so many different items.
    """

    def __init__(
        self,
        num_envs: int = 1,
        min_items: int = 2,
        max_items: int = 6,
        item_length: int = 3,
        bits: int = 6,
        seed: int | None = None,
    ) -> None:
        require_range("items", min_items, max_items)
        require_at_least("min_items", min_items, 2)
        require_at_least("item_length", item_length, 1)
        require_at_least("bits", bits, 1)
        different = 2 ** (item_length * bits)
        if max_items > different:
            raise ValueError(
                f"max_items is {max_items}; there are only {different} different items of {item_length} x {bits} bits"
            )
        horizon = max_items * (item_length + 1) + 2 * item_length + 2
        seen = spaces.Box(0.0, 1.0, (bits + 2,), np.float32)
        super().__init__(num_envs, horizon, seen, spaces.MultiBinary(bits), seed)
        self.min_items, self.max_items, self.item_length, self.bits = min_items, max_items, item_length, bits
        self.reset(np.ones(num_envs, np.bool_))

    def generate(self, episodes: int) -> Lesson:
        """Draw the numbers of items, the items, and which of them is the query."""
        size, lanes = self.item_length, np.arange(episodes)
        counts = self.rng.integers(self.min_items, self.max_items, size=episodes, endpoint=True)
        vectors = self._items(int(counts.max()), episodes)
        query = self.rng.integers(counts - 1)
        steps = counts * (size + 1) + 2 * size + 2
        step = np.arange(steps.max())[:, None]

        listed = step < counts * (size + 1)
        delimits = step % (size + 1) == 0
        asking = step - counts * (size + 1)  # 0 is the query's first delimiter
        queried = (asking > 0) & (asking <= size)
        answers = (asking > size + 1) & (asking <= 2 * size + 1)
        place = np.where(listed, step - step // (size + 1) - 1, query * size + asking - 1)
        inputs = np.zeros((len(step), episodes, self.bits + 2), np.float32)
        inputs[..., : self.bits] = recalled(vectors, place, (listed & ~delimits) | queried)
        inputs[..., self.bits] = listed & delimits
        for delimiter in (0, size + 1):
            inputs[counts * (size + 1) + delimiter, lanes, self.bits + 1] = 1
        targets = recalled(vectors, (query + 1) * size + asking - size - 2, answers)
        return Lesson(inputs, targets, answers, steps)

    def _items(self, items: int, episodes: int) -> Int8[np.ndarray, "L B K"]:
        """The vectors of all items, one after another, no item twice in an episode."""
        shape = (items, episodes, self.item_length, self.bits)
        drawn = self.rng.integers(2, size=shape, dtype=np.int8)
        for item in range(1, items):
            while (again := (drawn[:item] == drawn[item]).all(axis=(2, 3)).any(axis=0)).any():
                drawn[item, again] = self.rng.integers(2, size=(int(again.sum()), *shape[2:]), dtype=np.int8)
        return drawn.swapaxes(1, 2).reshape(items * self.item_length, episodes, self.bits)


class Optimum(NamedTuple):
    """What the best estimator makes of each episode: its loss in ``bits``, and how many ``errors`` its guesses have."""

    bits: Float[np.ndarray, " B"]
    errors: Integer[np.ndarray, " B"]


class DynamicNGrams(SequenceTask):
    """Dynamic n-grams: predict the next bit of a source that has to be found out in the episode itself.

    Section 4.4. Every episode has a table of its own, drawn from Beta(1/2, 1/2): how likely a 1 is after each of the
    ``2 ** (n - 1)`` contexts of ``n - 1`` bits. The first ``n - 1`` bits are coins, the others are drawn from the table. An
    episode takes ``bits - 1`` steps:

    ================================= ================================ ==========================
    step                              observation, 1 number            answer, 0 or 1
    ================================= ================================ ==========================
    0 to ``n - 3``                    the bit of that number           none (any action will do)
    ``n - 2`` to ``bits - 2``         the bit of that number           the next bit
    ================================= ================================ ==========================

    So ``bits - n + 1`` bits are asked for, 195 by default. They cannot all be known: :meth:`optimum` is what the best
    estimator makes of a lesson, and :attr:`optimal_return` its mean return. A coin has half of the bits wrong, a return of
    1/2 in the mean, and a loss of one bit each.

    Args:
        num_envs: the number of lanes.
        n: bits in an n-gram, at least 2; 6 in the paper.
        bits: bits in an episode, at least ``n``; 200 in the paper.
        seed: the seed of all lanes together.

    Raises:
        ValueError: ``n`` is below 2, or ``bits`` below ``n``.
    """

    def __init__(self, num_envs: int = 1, n: int = 6, bits: int = 200, seed: int | None = None) -> None:
        require_at_least("n", n, 2)
        require_at_least("bits", bits, 1)
        if bits < n:
            raise ValueError(f"bits is {bits}; it must be at least n, {n}")
        super().__init__(num_envs, bits - 1, spaces.Box(0.0, 1.0, (1,), np.float32), spaces.Discrete(2), seed)
        self.n, self.bits = n, bits
        self.reset(np.ones(num_envs, np.bool_))

    @cached_property
    def optimal_return(self) -> float:
        """The best mean return, estimated from 4096 episodes: to 0.002 by default."""
        task = DynamicNGrams(1, self.n, self.bits, seed=0)
        return 1 - float(task.optimum(task.generate(EPISODES)).errors.mean()) / (self.bits - self.n + 1)

    def generate(self, episodes: int) -> Lesson:
        """Draw tables, then bits from them."""
        contexts = 2 ** (self.n - 1)
        table = self.rng.beta(0.5, 0.5, size=(episodes, contexts))
        uniform = self.rng.random((self.bits, episodes))
        sequence = np.zeros((self.bits, episodes), np.int64)
        context, lanes = np.zeros(episodes, np.int64), np.arange(episodes)
        for time in range(self.bits):
            chance = table[lanes, context] if time >= self.n - 1 else 0.5
            sequence[time] = uniform[time] < chance
            context = (2 * context + sequence[time]) % contexts
        inputs = sequence[:-1, :, None].astype(np.float32)
        answers = np.repeat(np.arange(self.bits - 1)[:, None] >= self.n - 2, episodes, axis=1)
        return Lesson(inputs, sequence[1:] * answers, answers, np.full(episodes, self.bits - 1))

    def optimum(self, lesson: Lesson) -> Optimum:
        """What the Bayesian estimator makes of a lesson of this task.

        After a context that was followed by a 0 ``N0`` times and by a 1 ``N1`` times so far, the next bit is a 1 with
        probability ``(N1 + 1/2) / (N0 + N1 + 1)`` (eq. 10). No estimator has a lower mean loss, or more bits right.
        """
        contexts, lanes = 2 ** (self.n - 1), np.arange(len(lesson.lengths))
        counts = np.zeros((len(lanes), contexts, 2), np.int64)
        loss, errors = np.zeros(len(lanes)), np.zeros(len(lanes), np.int64)
        context = np.zeros(len(lanes), np.int64)
        for seen, bit, asked in zip(lesson.inputs[..., 0].astype(np.int64), lesson.targets, lesson.answers, strict=True):
            context = (2 * context + seen) % contexts
            zeros, ones = counts[lanes, context].T
            chance = (ones + 0.5) / (zeros + ones + 1)
            loss -= asked * np.log2(np.where(bit == 1, chance, 1 - chance))
            errors += asked & ((chance > 0.5) != (bit == 1))
            counts[lanes, context, bit] += asked
        return Optimum(loss, errors)
