"""Episodes that describe a graph and ask about it, as in Graves et al. 2016 (Nature 538), Methods, "Graph task descriptions".

Shapes as in :mod:`saccade.envs.graphs`, and ``S`` the most steps after a graph's description.
"""

from abc import abstractmethod
from typing import NamedTuple

import numpy as np
from gymnasium import spaces
from jaxtyping import Bool, Integer, Shaped

from saccade.envs.curriculum import Curriculum
from saccade.envs.graphs import BLANK, Graphs, GraphSizes, describe, draw_graphs
from saccade.envs.sequence_task import CurriculumTask, Lesson
from saccade.envs.task import require_at_least

TRIED = (4, 64, 512)
"""Graphs drawn in search of a query, first few and then more, before a lesson is held to be impossible."""


class Script(NamedTuple):
    """What follows a graph's description.

    Attributes:
        told: the labels of source, edge and destination shown in every step, ``BLANK`` for what is not.
        asked: the triple to answer, all three ``BLANK`` where none is.
        turns: the first step of every phase.
        lengths: how many steps there are.
        found: whether the graph has a query of this kind at all; what else is said of one that has not means nothing.
    """

    told: Integer[np.ndarray, "E S 3"]
    asked: Integer[np.ndarray, "E S 3"]
    turns: Bool[np.ndarray, "E S"]
    lengths: Integer[np.ndarray, " E"]
    found: Bool[np.ndarray, " E"]


class GraphTask(CurriculumTask):
    """A random graph is described edge by edge, and then asked about.

    Every step shows a triple of labels: source, edge, destination. A label is ``digits`` digits of ``base`` values, each
    one-hot; where one is not told, all its digits are zeros. Two channels follow: 1 in the first step of every phase but
    the first, and 1 where an answer is asked. So ``I = 3 * digits * base + 2``; in the paper 92, three digits of ten. First
    all edges of the graph are told in random order, then what a subclass asks. An answer is a triple, each digit of it one
    component of the action: the log-likelihood is the sum over the digits, the paper's loss.

    Points are uniform in the unit square, and each has an edge to its nearest neighbours, as many as its degree, drawn for
    every node from the lesson's range; where there are fewer other nodes, to all of them. Labels of nodes are drawn without
    repetition; labels of edges differ among the edges of a node only.

    Not as in the paper: no answer is the paper's pattern for the end of an answer, for an episode is over then; and the
    lessons are made for small nets on few cores.

    A subclass sets what :meth:`ask` reads before it calls this class's constructor.

    Args:
        num_envs: the number of lanes.
        digits: of a label.
        base: values of a digit.
        curriculum: the lessons: ranges of ``nodes``, ``degree`` and ``length``.
        steps: ``S``.
        edge_labels: how many labels of edges there are; ``None`` takes them from the labels of nodes.
        seed: the seed of all lanes together.

    Raises:
        ValueError: a parameter is out of its range, there are fewer labels than nodes, a lesson has graphs of a single
            node, or its graphs have no such queries.
    """

    def __init__(
        self,
        num_envs: int,
        digits: int,
        base: int,
        curriculum: Curriculum,
        steps: int,
        edge_labels: int | None,
        seed: int | None,
    ) -> None:
        require_at_least("digits", digits, 1)
        require_at_least("base", base, 2)
        labels = base**digits
        fewest, most = curriculum.span("nodes")
        require_at_least("the lowest number of nodes of a lesson", fewest, 2)
        if most > labels:
            raise ValueError(f"{digits} digits of {base} values are {labels} labels; graphs have up to {most} nodes")
        degree = curriculum.span("degree")[1]
        self.sizes = GraphSizes(most, min(degree, most - 1), labels, edge_labels)
        self.digits, self.base, self.curriculum, self.script_steps = digits, base, curriculum, steps
        space = spaces.Box(0.0, 1.0, (3 * digits * base + 2,), np.float32)
        horizon = most * self.sizes.most_edges + steps
        super().__init__(num_envs, horizon, space, spaces.MultiDiscrete([base] * (3 * digits)), seed)

        places = base ** np.arange(digits - 1, -1, -1)
        numbers = np.arange(labels)[:, None] // places % base
        # The last row is found at index BLANK.
        self._digits = np.concatenate([numbers, np.zeros((1, digits), np.int64)])
        one_hot = np.eye(base, dtype=np.float32)[numbers].reshape(labels, digits * base)
        self._one_hot = np.concatenate([one_hot, np.zeros((1, digits * base), np.float32)])
        # An impossible lesson is to be refused now, and not when it is reached.
        for lesson in range(len(curriculum)):
            if not any(self._draw_once(np.full(graphs, lesson))[1].found.any() for graphs in TRIED):
                raise ValueError(f"lesson {lesson}: no query could be found in {sum(TRIED)} graphs")
        self.seed(seed)
        self.reset(np.ones(num_envs, np.bool_))

    @abstractmethod
    def ask(self, graphs: Graphs, lessons: Integer[np.ndarray, " E"]) -> Script:
        """Draw queries about these graphs, each of its own lesson, and their answers."""

    def blank_script(self, episodes: int) -> Script:
        """A script to fill in: nothing is told or asked, a query is found."""
        told, asked = np.full((2, episodes, self.script_steps, 3), BLANK)
        turns = np.zeros((episodes, self.script_steps), np.bool_)
        return Script(told, asked, turns, np.zeros(episodes, np.int64), np.ones(episodes, np.bool_))

    def generate(self, episodes: int) -> Lesson:
        """Draw graphs and queries."""
        graphs, script = self._draw(self.curriculum.draw(self.rng, episodes))
        triples, edges = describe(self.rng, graphs)
        lengths = edges + script.lengths
        T = int(lengths.max())
        told, asked = np.full((2, episodes, T, 3), BLANK)
        turns = np.zeros((episodes, T), np.bool_)
        place(told, np.zeros_like(edges), triples, edges)
        for whole, part in ((told, script.told), (asked, script.asked), (turns, script.turns)):
            place(whole, edges, part, script.lengths)

        told, asked, turns = told.swapaxes(0, 1), asked.swapaxes(0, 1), turns.T
        answers = asked[..., 0] != BLANK
        shown = self._one_hot[told].reshape(T, episodes, -1)
        inputs = np.concatenate([shown, turns[..., None], answers[..., None]], axis=-1, dtype=np.float32)
        return Lesson(inputs, self._digits[asked].reshape(T, episodes, -1), answers, lengths)

    def _draw(self, lessons: Integer[np.ndarray, " E"]) -> tuple[Graphs, Script]:
        """Graphs and queries for these lessons; a graph without a fitting query is drawn anew."""
        graphs, script = self._draw_once(lessons)
        while (missing := np.flatnonzero(~script.found)).size:
            for arrays, again in zip((graphs, script), self._draw_once(lessons[missing]), strict=True):
                for array, new in zip(arrays, again, strict=True):
                    array[missing] = new
        return graphs, script

    def _draw_once(self, lessons: Integer[np.ndarray, " E"]) -> tuple[Graphs, Script]:
        nodes, degrees = (self.curriculum.ranges(name, lessons) for name in ("nodes", "degree"))
        graphs = draw_graphs(self.rng, nodes, degrees, self.sizes)
        return graphs, self.ask(graphs, lessons)


def place(
    into: Shaped[np.ndarray, "E T ..."],
    starts: Integer[np.ndarray, " E"],
    values: Shaped[np.ndarray, "E L ..."],
    counts: Integer[np.ndarray, " E"],
) -> None:
    """Write the first ``counts`` steps of ``values`` into ``into``, from ``starts`` on, episode by episode."""
    episode, step = (np.arange(values.shape[1]) < counts[:, None]).nonzero()
    into[episode, starts[episode] + step] = values[episode, step]
