"""The graph tasks of Graves et al. 2016, "Hybrid computing using a neural network with dynamic external memory", Nature 538.

Shapes as in :mod:`saccade.envs.graphs`, and ``S`` the most steps after a graph's description, ``Q`` queries.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Integer

from saccade.envs.curriculum import draw_between, make_curriculum
from saccade.envs.graph_episodes import GraphTask, Script, place
from saccade.envs.graphs import BLANK, Graphs, adjacency, follow, random_walk, shortest_path, shortest_paths, triples_along
from saccade.envs.task import require_at_least

RELATIONS_SEED = 538
"""The relations of the inference task are the same for every object, whatever its seed: they are what is to be learned."""

TRAVERSAL = {
    "lessons": [
        {"nodes": (3, 5), "degree": (1, 2), "length": (1, 1)},
        {"nodes": (3, 5), "degree": (1, 2), "length": (1, 2)},
        {"nodes": (4, 6), "degree": (1, 3), "length": (1, 3)},
        {"nodes": (5, 8), "degree": (2, 3), "length": (1, 3)},
        {"nodes": (5, 8), "degree": (2, 3), "length": (1, 4)},
        {"nodes": (6, 10), "degree": (2, 4), "length": (1, 5)},
    ]
}
SHORTEST_PATH = {
    "lessons": [
        {"nodes": (4, 5), "degree": (1, 2), "length": (1, 1)},
        {"nodes": (4, 6), "degree": (1, 2), "length": (1, 2)},
        {"nodes": (5, 8), "degree": (1, 2), "length": (2, 2)},
        {"nodes": (5, 8), "degree": (1, 3), "length": (2, 3)},
        {"nodes": (6, 10), "degree": (2, 3), "length": (2, 3)},
        {"nodes": (6, 10), "degree": (2, 3), "length": (2, 4)},
    ],
    "threshold": 0.8,
    "review": 0.0,
}
INFERENCE = {
    "lessons": [
        {"nodes": (3, 3), "degree": (2, 2), "length": (2, 2)},
        {"nodes": (3, 5), "degree": (2, 2), "length": (2, 2)},
        {"nodes": (4, 6), "degree": (2, 3), "length": (2, 2)},
        {"nodes": (4, 6), "degree": (2, 3), "length": (2, 3)},
        {"nodes": (6, 10), "degree": (2, 3), "length": (2, 3)},
    ]
}


class GraphTraversal(GraphTask):
    """Graph traversal: a graph is told edge by edge, then a walk by its edge labels; name every edge of the walk.

    After the description (see :class:`GraphTask`), the query: the first step shows where the walk starts and the label of
    its first edge, every further step the label of one more edge. Then as many steps show nothing, and the answer to each
    is a whole edge of the walk, source, edge label and destination, in order. Walks are random, and may visit a node again.

    The task is that of the paper's Methods, "Traversal"; the lessons (Extended Data Table 3) are smaller here.

    Args:
        num_envs: the number of lanes.
        digits: of a label; the paper has 3.
        base: values of a digit; the paper has 10.
        curriculum: settings of :class:`~saccade.envs.curriculum.Curriculum` in place of this task's: ``lessons`` (the
            ranges ``nodes``, ``degree``, the edges that leave a node, and ``length`` of the walk), ``threshold``, ``review``,
            ``window``, ``first``.
        seed: the seed of all lanes together.

    Raises:
        ValueError: a parameter is out of its range, there are fewer labels than nodes, or a lesson's graphs have no such
            queries.
    """

    def __init__(
        self,
        num_envs: int = 1,
        digits: int = 2,
        base: int = 5,
        curriculum: Mapping[str, Any] | None = None,
        seed: int | None = None,
    ) -> None:
        lessons = make_curriculum(TRAVERSAL, curriculum)
        self.longest = lessons.span("length")[1]
        super().__init__(num_envs, digits, base, lessons, 2 * self.longest, None, seed)

    def ask(self, graphs: Graphs, lessons: Integer[np.ndarray, " E"]) -> Script:
        """Draw a start and a walk."""
        length = draw_between(self.rng, self.curriculum.ranges("length", lessons))
        nodes, slots = random_walk(self.rng, graphs, self.rng.integers(graphs.sizes), self.longest)
        walk = triples_along(graphs, nodes, slots)
        query = walk.copy()
        query[:, 1:, 0] = query[:, :, 2] = BLANK
        script = self.blank_script(len(lessons))
        place(script.told, np.zeros_like(length), query, length)
        place(script.asked, length, walk, length)
        script.turns[:, 0] = script.turns[np.arange(len(length)), length] = True
        return script._replace(lengths=2 * length)


class ShortestPath(GraphTask):
    """Shortest path: a graph is told edge by edge, then two of its nodes; name every edge of the shortest path.

    After the description (see :class:`GraphTask`), one step shows the query, source and destination. Then come ``planning``
    steps that show nothing. Then the answer, one edge of the path in every step, each a whole triple; from the second on a
    step shows the edge that was right in the step before.

    Queries are drawn so that only one path is shortest, by the number of its edges. So the right answers are known in
    advance, and an episode can be a lesson. Nor does it matter to success that the edge shown is the right one, and not the
    one answered: they differ only after a wrong edge, and that cannot be mended, since another path is longer. In the paper
    several paths may be shortest, and any counts. There the edge shown is the one that the net chose or, in four of five
    steps of its training, a planner's (DAgger, beta 0.8), and the net chooses among the edges that leave the present node
    only; here an answer is right if all its digits are, and later answers of an episode that has failed are still helped.

    For every episode a length is drawn from the lesson's range, and of the pairs at that distance one at random; if the graph
    has none, one at another distance of the range.

    The task is that of the paper's Methods, "Shortest path"; the lessons (Extended Data Table 5) are smaller here.

    Args:
        num_envs: the number of lanes.
        digits: of a label; the paper has 3.
        base: values of a digit; the paper has 10.
        planning: steps between query and answer; the paper has 10.
        curriculum: settings of :class:`~saccade.envs.curriculum.Curriculum` in place of this task's: ``lessons`` (the
            ranges ``nodes``, ``degree``, the edges that leave a node, and ``length`` of the path), ``threshold``, ``review``,
            ``window``, ``first``.
        seed: the seed of all lanes together.

    Raises:
        ValueError: a parameter is out of its range, there are fewer labels than nodes, or a lesson's graphs have no such
            queries.
    """

    def __init__(
        self,
        num_envs: int = 1,
        digits: int = 2,
        base: int = 5,
        planning: int = 4,
        curriculum: Mapping[str, Any] | None = None,
        seed: int | None = None,
    ) -> None:
        require_at_least("planning", planning, 0)
        lessons = make_curriculum(SHORTEST_PATH, curriculum)
        self.planning, self.longest = planning, lessons.span("length")[1]
        super().__init__(num_envs, digits, base, lessons, 1 + planning + self.longest, None, seed)

    def ask(self, graphs: Graphs, lessons: Integer[np.ndarray, " E"]) -> Script:
        """Draw two nodes with a single shortest path between them."""
        rows, (E, N) = np.arange(len(lessons)), graphs.labels.shape
        ranges = self.curriculum.ranges("length", lessons)
        wanted = draw_between(self.rng, ranges)
        distance, unique = shortest_paths(adjacency(graphs), self.longest)
        low, high = ranges.T[..., None, None]
        fits = unique & (distance >= low) & (distance <= high)
        preference = self.rng.random((E, N, N)) + (distance == wanted[:, None, None])
        best = np.where(fits, preference, -1).reshape(E, -1).argmax(axis=1)
        start, end = np.divmod(best, N)
        path = triples_along(graphs, *shortest_path(graphs, distance, start, end, self.longest))

        length, first = distance[rows, start, end], np.full(E, 1 + self.planning)
        script = self.blank_script(E)
        script.told[:, 0, 0], script.told[:, 0, 2] = graphs.labels[rows, start], graphs.labels[rows, end]
        place(script.told, first + 1, path, length - 1)
        place(script.asked, first, path, length)
        script.turns[:, [0, 1, 1 + self.planning]] = True
        return script._replace(lengths=first + length, found=fits.any(axis=(1, 2)))


class GraphInference(GraphTask):
    """Graph inference: a graph is told edge by edge; name the node that a relation leads to, which is never explained.

    A relation stands for a row of edge labels, as uncle stands for mother, mother, son. The labels of edges are 0 to
    ``edge_labels - 1``; those of relations follow: ``relations`` of two edges, ``relations`` of three and so on, each a
    different row of edge labels. What they mean is the same in every episode, and in every object with the same
    ``edge_labels`` and ``relations``, whatever the seed; it has to be learned from right answers.

    After the description (see :class:`GraphTask`) come ``queries`` rounds. In each, one step shows the query, a node and a
    relation, ``planning`` steps show nothing, and one step asks for the whole triple: the node, the relation, and the node
    that it leads to. For every query a length is drawn from the lesson's range, and of the nodes and relations of that length
    for which the graph has all edges, one at random; if there is none, one of another length of the range.

    The task is that of the paper's Methods, "Inference"; the lessons (Extended Data Table 4) and the number of relations are
    smaller here. The paper has ten edge labels, and a hundred relations of each length from 2 to 5.

    Args:
        num_envs: the number of lanes.
        digits: of a label; the paper has 3.
        base: values of a digit; the paper has 10.
        planning: steps between query and answer; the paper has 10.
        queries: ``Q``, the rounds of an episode; the paper has 3.
        edge_labels: ``V``, at least the most edges that leave a node.
        relations: of each length; all there are where there are fewer.
        curriculum: settings of :class:`~saccade.envs.curriculum.Curriculum` in place of this task's: ``lessons`` (the
            ranges ``nodes``, ``degree``, the edges that leave a node, and ``length`` of the relations, 2 or more),
            ``threshold``, ``review``, ``window``, ``first``.
        seed: the seed of all lanes together.

    Raises:
        ValueError: a parameter is out of its range, there are fewer labels than nodes, or than edge labels and relations, or
            a lesson's graphs have no such queries.
    """

    def __init__(
        self,
        num_envs: int = 1,
        digits: int = 2,
        base: int = 5,
        planning: int = 4,
        queries: int = 3,
        edge_labels: int = 4,
        relations: int = 8,
        curriculum: Mapping[str, Any] | None = None,
        seed: int | None = None,
    ) -> None:
        for name, value, least in (("planning", planning, 0), ("queries", queries, 1), ("relations", relations, 1)):
            require_at_least(name, value, least)
        lessons = make_curriculum(INFERENCE, curriculum)
        shortest, longest = lessons.span("length")
        require_at_least("the shortest relation of a lesson", shortest, 2)
        require_at_least("edge_labels", edge_labels, lessons.span("degree")[1])
        self.planning, self.queries = planning, queries
        self.relations, self.relation_labels = draw_relations(edge_labels, relations, longest)
        last = int(self.relation_labels.max())
        if last >= base**digits:
            raise ValueError(f"{digits} digits of {base} values are {base**digits} labels; edges and relations need {last + 1}")
        super().__init__(num_envs, digits, base, lessons, queries * (planning + 2), edge_labels, seed)

    def ask(self, graphs: Graphs, lessons: Integer[np.ndarray, " E"]) -> Script:
        """Draw the queries of each graph."""
        (E, N), Q, R = graphs.labels.shape, self.queries, len(self.relations)
        ranges = self.curriculum.ranges("length", lessons)
        wanted = draw_between(self.rng, ranges, (E, Q))
        reached = follow(graphs, self.relations, self.sizes.edge_labels or 0)
        lengths = (self.relations != BLANK).sum(axis=1)
        fits = (reached != BLANK) & ((lengths >= ranges[:, :1]) & (lengths <= ranges[:, 1:]))[:, None]
        preference = self.rng.random((E, Q, N, R)) + (lengths == wanted[..., None])[:, :, None]
        best = np.where(fits[:, None], preference, -1).reshape(E, Q, -1).argmax(axis=-1)
        start, relation = np.divmod(best, R)

        rows = np.arange(E)[:, None]
        end = reached[rows, start, relation]
        triples = np.stack([graphs.labels[rows, start], self.relation_labels[relation], graphs.labels[rows, end]], axis=-1)
        script = self.blank_script(E)
        query = np.arange(Q) * (self.planning + 2)
        answer = query + self.planning + 1
        script.told[:, query, :2] = triples[..., :2]
        script.asked[:, answer] = triples
        script.turns[:, [*query, *query + 1, *answer]] = True
        return script._replace(lengths=np.full(E, self.script_steps), found=fits.any(axis=(1, 2)))


def draw_relations(edge_labels: int, count: int, longest: int) -> tuple[Integer[np.ndarray, "R L"], Integer[np.ndarray, " R"]]:
    """Relations of 2 to ``longest`` edges, filled up with ``BLANK``, and their labels; the same for the same arguments.

    Relations of a length, and their labels, do not depend on ``longest``.
    """
    rows, labels = [], []
    for length in range(2, longest + 1):
        rng = np.random.default_rng((RELATIONS_SEED, length))
        different = edge_labels**length
        drawn = rng.choice(different, size=min(count, different), replace=False)
        row = np.full((len(drawn), longest), BLANK)
        row[:, :length] = drawn[:, None] // edge_labels ** np.arange(length) % edge_labels
        rows.append(row)
        labels.append(edge_labels + (length - 2) * count + np.arange(len(drawn)))
    return np.concatenate(rows), np.concatenate(labels)
