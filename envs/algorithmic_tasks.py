"""Tasks that take computing: a sequence in reverse, the sum of two numbers, the parity of a vector.

Sources: Dehghani et al. 2019, "Universal Transformers" (arXiv:1807.03819), section 3.3, for reversing and adding (copying is
:class:`~saccade.envs.ntm_tasks.Copy`); Graves 2016, "Adaptive Computation Time for Recurrent Neural Networks"
(arXiv:1603.08983), section 3.1, for parity. Shapes: ``T`` steps, ``B`` episodes, ``L`` vectors or digits.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from jaxtyping import Integer

from saccade.envs.curriculum import draw_between, make_curriculum
from saccade.envs.ntm_tasks import ShownThenAsked, require_range
from saccade.envs.sequence_task import CurriculumTask, Lesson, SequenceTask, told
from saccade.envs.task import require_at_least


class Reverse(ShownThenAsked):
    """Reverse: a sequence of random bit vectors is shown, and then asked for from its end.

    As :class:`~saccade.envs.ntm_tasks.Copy`, with the answers the other way round. An episode of length ``L``, drawn from
    ``min_length`` to ``max_length``, all equally likely, takes ``2 L + 1`` steps:

    ========================= =================================== ==========================
    step                      observation, ``bits + 1`` numbers   answer, ``bits`` bits
    ========================= =================================== ==========================
    0 to ``L - 1``            a random vector; 0                  none (any action will do)
    ``L``                     zeros; 1, the delimiter             none
    ``L + 1`` to ``2 L``      zeros                               the vectors, the last first
    ========================= =================================== ==========================

    The best return is 1 with no wrong bits (:attr:`optimal_return`). A coin for each bit has ``bits L / 2`` wrong bits an
    episode, and a return of ``2 ** -bits`` in the mean.

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

    def order(self, answer: Integer[np.ndarray, "T B"], lengths: Integer[np.ndarray, " B"]) -> Integer[np.ndarray, "T B"]:
        """The last first."""
        return lengths - 1 - answer


class Addition(CurriculumTask):
    """Addition: two numbers are shown digit by digit, and the digits of their sum are asked for, all from the ones upwards.

    An episode of ``L`` digits a number, drawn from ``min_digits`` to ``max_digits``, all equally likely, takes ``3 L + 3``
    steps. Each observation is one of ``base + 2`` symbols, or nothing at all:

    ============================= =================================== ==============================
    step                          observation, ``base + 2`` numbers   answer, one of ``base`` digits
    ============================= =================================== ==============================
    0 to ``L - 1``                a digit of the first number         none (any action will do)
    ``L``                         the sign ``+``                      none
    ``L + 1`` to ``2 L``          a digit of the second number        none
    ``2 L + 1``                   the sign ``=``                      none
    ``2 L + 2`` to ``3 L + 2``    zeros                               a digit of the sum
    ============================= =================================== ==============================

    The best return is 1 with no wrong digits (:attr:`optimal_return`). Whoever answers at random has
    ``(base - 1) / base`` of the ``L + 1`` digits wrong in the mean; the last digit of the sum is 0 or 1.

    Args:
        num_envs: the number of lanes.
        min_digits: the fewest digits of a number.
        max_digits: the most.
        base: of the digits; 10 in the paper.
        teacher_forcing: show the right answer in the step after it, in place of zeros, if another is asked then.
        curriculum: settings of :class:`~saccade.envs.curriculum.Curriculum`, ``lessons`` (ranges of ``digits``) among them;
            ``None`` for one lesson from ``min_digits`` to ``max_digits``.
        seed: the seed of all lanes together.

    Raises:
        ValueError: ``min_digits`` is below 1, ``max_digits`` below ``min_digits``, or ``base`` below 2; a lesson has digits
            beyond those; or as :func:`~saccade.envs.curriculum.make_curriculum`.
    """

    def __init__(
        self,
        num_envs: int = 1,
        min_digits: int = 1,
        max_digits: int = 20,
        base: int = 10,
        teacher_forcing: bool = False,
        curriculum: Mapping[str, Any] | None = None,
        seed: int | None = None,
    ) -> None:
        require_range("digits", min_digits, max_digits)
        require_at_least("base", base, 2)
        self.curriculum = make_curriculum({"lessons": [{"digits": (min_digits, max_digits)}]}, curriculum)
        fewest, most = self.curriculum.span("digits")
        if fewest < min_digits or most > max_digits:
            raise ValueError(f"lessons have {fewest} to {most} digits; they must be within {min_digits} to {max_digits}")
        seen = spaces.Box(0.0, 1.0, (base + 2,), np.float32)
        super().__init__(num_envs, 3 * max_digits + 3, seen, spaces.Discrete(base), seed)
        self.min_digits, self.max_digits, self.base = min_digits, max_digits, base
        self.teacher_forcing = teacher_forcing
        self.reset(np.ones(num_envs, np.bool_))

    def generate(self, episodes: int) -> Lesson:
        """Draw lengths, then digits."""
        digits = draw_between(self.rng, self.curriculum.ranges("digits", self.curriculum.draw(self.rng, episodes)))
        most, lanes = int(digits.max()), np.arange(episodes)
        numbers = self.rng.integers(self.base, size=(2, most, episodes))
        numbers[:, np.arange(most)[:, None] >= digits] = 0
        inputs = np.zeros((3 * most + 3, episodes, self.base + 2), np.float32)
        targets = np.zeros((3 * most + 3, episodes), np.int64)
        answers = np.zeros((3 * most + 3, episodes), np.bool_)
        carry = np.zeros(episodes, np.int64)
        for place in range(most + 1):
            shown, asked = lanes[place < digits], lanes[place <= digits]
            total = carry if place == most else numbers[:, place].sum(axis=0) + carry
            if place < most:
                inputs[place, shown, numbers[0, place, shown]] = 1
                inputs[digits[shown] + 1 + place, shown, numbers[1, place, shown]] = 1
            answer = 2 * digits[asked] + 2 + place
            targets[answer, asked], answers[answer, asked] = total[asked] % self.base, True
            carry = total // self.base
        inputs[digits, lanes, self.base] = 1
        inputs[2 * digits + 1, lanes, self.base + 1] = 1
        if self.teacher_forcing:
            inputs[..., : self.base] += told(np.eye(self.base, dtype=np.float32)[targets], answers)
        return Lesson(inputs, targets, answers, 3 * digits + 3)


class Parity(SequenceTask):
    """Parity: whether a vector holds an odd number of ones, said at once.

    An episode is a single step. Of the vector's ``size`` numbers, ``n``, drawn from ``min_set`` to ``max_set``, all equally
    likely, are 1 or -1 by a coin each, in places drawn at random, and the rest are 0. The right action is 1 where the number of
    ones is odd, else 0. The more numbers are set, the more there is to compute.

    The best return is 1 (:attr:`optimal_return`); a guess has 1/2 in the mean, and so has whoever overlooks one of the numbers.

    Args:
        num_envs: the number of lanes.
        size: of the vector; 64 in the paper.
        min_set: the fewest numbers that are not 0.
        max_set: the most; ``None`` for all of them.
        seed: the seed of all lanes together.

    Raises:
        ValueError: ``size`` or ``min_set`` is below 1, or ``max_set`` is below ``min_set`` or above ``size``.
    """

    def __init__(
        self, num_envs: int = 1, size: int = 64, min_set: int = 1, max_set: int | None = None, seed: int | None = None
    ) -> None:
        require_at_least("size", size, 1)
        most = size if max_set is None else max_set
        require_range("set", min_set, most)
        if most > size:
            raise ValueError(f"max_set is {most}; it must be at most size, {size}")
        super().__init__(num_envs, 1, spaces.Box(-1.0, 1.0, (size,), np.float32), spaces.Discrete(2), seed)
        self.size, self.min_set, self.max_set = size, min_set, most
        self.reset(np.ones(num_envs, np.bool_))

    def generate(self, episodes: int) -> Lesson:
        """Draw how many numbers are set, then which, then each."""
        counts = self.rng.integers(self.min_set, self.max_set, size=episodes, endpoint=True)
        is_set = self.rng.random((episodes, self.size)).argsort(axis=1).argsort(axis=1) < counts[:, None]
        signs = self.rng.integers(2, size=(episodes, self.size)) * 2 - 1
        vectors = np.where(is_set, signs, 0)
        odd = (vectors == 1).sum(axis=1) % 2
        once = np.ones((1, episodes), np.bool_)
        return Lesson(vectors[None].astype(np.float32), odd[None], once, np.ones(episodes, np.int64))
