"""Random graphs in arrays, many at a time, as in Graves et al. 2016 (Nature 538), Methods, "Random graph generation".

Shapes: ``E`` graphs (one an episode), ``N`` the most nodes, ``K`` the most outbound edges of a node, ``L`` steps of a path,
``M`` edges of a graph in a list, ``V`` edge labels, ``R`` relations. Graphs are of different sizes: what is beyond a
graph's own is masked.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Integer

from saccade.envs.curriculum import draw_between

BLANK = -1
"""Stands for a label that is not told, and for a node that does not exist."""


class Graphs(NamedTuple):
    """Directed graphs whose nodes and edges have labels.

    Attributes:
        sizes: how many nodes each graph has: the first ones.
        points: where the nodes are, in the unit square.
        labels: a node's label, no two alike in a graph.
        edges: which outbound edges of a node there are: the first ones.
        neighbours: the node that an edge leads to, the nearest first.
        edge_labels: an edge's label, no two alike among a node's edges.
    """

    sizes: Integer[np.ndarray, " E"]
    points: Float[np.ndarray, "E N 2"]
    labels: Integer[np.ndarray, "E N"]
    edges: Bool[np.ndarray, "E N K"]
    neighbours: Integer[np.ndarray, "E N K"]
    edge_labels: Integer[np.ndarray, "E N K"]


class GraphSizes(NamedTuple):
    """What graphs may be like.

    Attributes:
        most_nodes: ``N``.
        most_edges: ``K``.
        labels: labels of nodes are below this number.
        edge_labels: labels of edges are below this number; ``None`` draws, for a graph of n nodes, n numbers below
            ``labels``, and the labels of all its edges from these, as the paper does for traversal and shortest path.
    """

    most_nodes: int
    most_edges: int
    labels: int
    edge_labels: int | None = None


def draw_graphs(
    rng: np.random.Generator,
    nodes: Integer[np.ndarray, "E 2"],
    degrees: Integer[np.ndarray, "E 2"],
    sizes: GraphSizes,
) -> Graphs:
    """Draw graphs: random points of the unit square, each with an edge to its nearest neighbours.

    Args:
        rng: where the numbers come from.
        nodes: the range of each graph's number of nodes, at least 2.
        degrees: the range of the number of neighbours, drawn for every node; where a graph has fewer other nodes, all of
            these.
        sizes: the sizes of the arrays, and the labels.
    """
    N, K = sizes.most_nodes, min(sizes.most_edges, sizes.most_nodes - 1)
    count = draw_between(rng, nodes)
    exists = np.arange(N) < count[:, None]
    points = rng.random((len(count), N, 2))
    offsets = points[:, :, None] - points[:, None]
    distances = (offsets**2).sum(axis=-1)
    distances[:, np.arange(N), np.arange(N)] = np.inf
    distances[~exists[:, None] & np.ones((N, 1), np.bool_)] = np.inf
    neighbours = distances.argsort(axis=-1)[..., :K]
    degree = np.minimum(draw_between(rng, degrees, exists.shape), count[:, None] - 1) * exists
    edges = np.arange(K) < degree[..., None]
    labels = draw_distinct(rng, len(count), N, sizes.labels)
    return Graphs(count, points, labels, edges, neighbours, _edge_labels(rng, exists, K, sizes))


def _edge_labels(
    rng: np.random.Generator, exists: Bool[np.ndarray, "E N"], K: int, sizes: GraphSizes
) -> Integer[np.ndarray, "E N K"]:
    """Labels for every node's edges: distinct ones of the pool that the graph's edges share."""
    E, N = exists.shape
    if sizes.edge_labels is not None:
        keys = rng.random((E, N, sizes.edge_labels))
        labels: np.ndarray = keys.argsort(axis=-1)[..., :K]
        return labels
    pool = draw_distinct(rng, E, N, sizes.labels)
    # A graph of n nodes has a pool of n labels: the others sort behind them, and a node has n - 1 edges at the most.
    keys = rng.random((E, N, N)) + ~exists[:, None]
    chosen = keys.argsort(axis=-1)[..., :K]
    return np.take_along_axis(pool[:, None], chosen, axis=-1)


def draw_distinct(rng: np.random.Generator, rows: int, count: int, below: int) -> Integer[np.ndarray, "rows count"]:
    """Rows of whole numbers from 0 up, no two alike in a row.

    Raises:
        ValueError: there are not so many numbers.
    """
    if count > below:
        raise ValueError(f"{count} different labels are needed, and there are {below}")
    numbers = np.tile(np.arange(below), (rows, 1))
    return rng.permuted(numbers, axis=1, out=numbers)[:, :count]


def adjacency(graphs: Graphs) -> Bool[np.ndarray, "E N N"]:
    """Whether an edge leads from a node to another."""
    E, N, _ = graphs.edges.shape
    adjacent = np.zeros((E, N, N), np.bool_)
    np.put_along_axis(adjacent, graphs.neighbours, graphs.edges, axis=-1)
    return adjacent


def shortest_paths(
    adjacent: Bool[np.ndarray, "E N N"], longest: int
) -> tuple[Integer[np.ndarray, "E N N"], Bool[np.ndarray, "E N N"]]:
    """How many steps the shortest path from a node to another takes, and whether it is the only one of that length.

    Args:
        adjacent: whether an edge leads from a node to another.
        longest: longer paths are not looked for: ``longest + 1`` stands for all of these, and for none.
    """
    E, N, _ = adjacent.shape
    distance = np.full((E, N, N), longest + 1)
    distance[:, np.arange(N), np.arange(N)] = 0
    unique = distance == 0
    step = adjacent.astype(np.float32)
    walks = np.broadcast_to(np.eye(N, dtype=np.float32), adjacent.shape)
    for length in range(1, longest + 1):
        # The number of walks of this length; beyond 2 it does not matter, and would overflow.
        walks = np.minimum(walks @ step, 2)
        new = (walks > 0) & (distance > longest)
        distance[new] = length
        unique[new] = walks[new] == 1
    return distance, unique


def shortest_path(
    graphs: Graphs,
    distance: Integer[np.ndarray, "E N N"],
    start: Integer[np.ndarray, " E"],
    end: Integer[np.ndarray, " E"],
    longest: int,
) -> tuple[Integer[np.ndarray, "E L1"], Integer[np.ndarray, "E L"]]:
    """The nodes of a shortest path, and which edge is taken at each of its ``L = longest`` steps.

    Where several are shortest, at every step the edge to the nearest neighbour is taken that is on one of them. Beyond
    the end, the path stays there, and its edges mean nothing.
    """
    rows = np.arange(len(start))
    nodes, slots = [start], []
    for _ in range(longest):
        here = nodes[-1]
        neighbours = graphs.neighbours[rows, here]
        nearer = distance[rows[:, None], neighbours, end[:, None]] == (distance[rows, here, end] - 1)[:, None]
        slots.append((nearer & graphs.edges[rows, here]).argmax(axis=1))
        nodes.append(np.where(here == end, end, neighbours[rows, slots[-1]]))
    return np.stack(nodes, axis=1), np.stack(slots, axis=1)


def random_walk(
    rng: np.random.Generator, graphs: Graphs, start: Integer[np.ndarray, " E"], steps: int
) -> tuple[Integer[np.ndarray, "E L1"], Integer[np.ndarray, "E L"]]:
    """The nodes of a random walk, and which edge it takes at each of its ``L = steps`` steps; every node has an edge."""
    rows, degree = np.arange(len(start)), graphs.edges.sum(axis=-1)
    nodes, slots = [start], []
    for _ in range(steps):
        here = nodes[-1]
        slots.append(rng.integers(degree[rows, here]))
        nodes.append(graphs.neighbours[rows, here, slots[-1]])
    return np.stack(nodes, axis=1), np.stack(slots, axis=1)


def triples_along(
    graphs: Graphs, nodes: Integer[np.ndarray, "E L1"], slots: Integer[np.ndarray, "E L"]
) -> Integer[np.ndarray, "E L 3"]:
    """The labels of source, edge and destination at every step of a path."""
    rows = np.arange(len(nodes))[:, None]
    labels = graphs.labels[rows, nodes]
    edges = graphs.edge_labels[rows, nodes[:, :-1], slots]
    return np.stack([labels[:, :-1], edges, labels[:, 1:]], axis=-1)


def describe(rng: np.random.Generator, graphs: Graphs) -> tuple[Integer[np.ndarray, "E M 3"], Integer[np.ndarray, " E"]]:
    """The labels of source, edge and destination of every edge, in random order, and how many edges there are."""
    E, N, K = graphs.edges.shape
    rows = np.arange(E)[:, None]
    source = np.repeat(graphs.labels, K, axis=1)
    destination = graphs.labels[rows, graphs.neighbours.reshape(E, N * K)]
    triples = np.stack([source, graphs.edge_labels.reshape(E, N * K), destination], axis=-1)
    absent = ~graphs.edges.reshape(E, N * K)
    counts = (~absent).sum(axis=1)
    order = (rng.random((E, N * K)) + absent).argsort(axis=1)[:, : int(counts.max())]
    return triples[rows, order], counts


def follow(graphs: Graphs, relations: Integer[np.ndarray, "R L"], edge_labels: int) -> Integer[np.ndarray, "E N R"]:
    """The node that each relation leads to from each node, ``BLANK`` where an edge on the way is missing.

    Args:
        graphs: the graphs.
        relations: sequences of edge labels, each filled up with ``BLANK``.
        edge_labels: ``V``, the number of edge labels.
    """
    E, N, _ = graphs.edges.shape
    # One column more than labels, so that BLANK stays where it is; one row more than nodes, for the node that is none.
    leads_to = np.full((E, N + 1, edge_labels + 1), BLANK)
    leads_to[:, :N, BLANK] = np.arange(N)
    episode, node, slot = graphs.edges.nonzero()
    leads_to[episode, node, graphs.edge_labels[episode, node, slot]] = graphs.neighbours[episode, node, slot]
    here = np.broadcast_to(np.arange(N)[:, None], (E, N, len(relations)))
    for label in relations.T:
        here = leads_to[np.arange(E)[:, None, None], here, label]
    return here
