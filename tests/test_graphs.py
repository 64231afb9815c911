"""Random graphs in arrays against slow loops and networkx."""

from itertools import pairwise

import networkx as nx
import numpy as np
import pytest

from saccade.envs.curriculum import draw_between
from saccade.envs.graphs import (
    BLANK,
    Graphs,
    GraphSizes,
    adjacency,
    describe,
    draw_distinct,
    draw_graphs,
    follow,
    random_walk,
    shortest_path,
    shortest_paths,
    triples_along,
)

E, N, K = 101, 7, 3


def some_graphs(seed: int = 0, edge_labels: int | None = None, nodes: tuple[int, int] = (2, N)) -> Graphs:
    rng = np.random.default_rng(seed)
    ranges = (np.tile(part, (E, 1)) for part in (nodes, (1, K)))
    return draw_graphs(rng, *ranges, GraphSizes(N, K, 23, edge_labels))


def as_networkx(graphs: Graphs, number: int) -> nx.DiGraph:
    """One graph, its nodes by number; edges know their label."""
    graph = nx.DiGraph()
    graph.add_nodes_from(range(graphs.sizes[number]))
    for node in range(graphs.sizes[number]):
        for slot in np.flatnonzero(graphs.edges[number, node]):
            label = int(graphs.edge_labels[number, node, slot])
            graph.add_edge(node, int(graphs.neighbours[number, node, slot]), label=label)
    return graph


def test_edges_lead_to_the_nearest_neighbours() -> None:
    graphs = some_graphs()
    degrees = graphs.edges.sum(axis=-1)
    for number in range(E):
        size = int(graphs.sizes[number])
        points = graphs.points[number]
        assert not graphs.edges[number, size:].any(), "no edge leaves a node that is not there"
        for node in range(size):
            others = sorted((float(np.hypot(*(points[other] - points[node]))), other) for other in range(size) if other != node)
            degree = int(degrees[number, node])
            assert 1 <= degree <= min(K, size - 1)
            assert graphs.edges[number, node, :degree].all()
            assert graphs.neighbours[number, node, :degree].tolist() == [other for _, other in others[:degree]]


def test_sizes_and_degrees_take_all_values_of_their_ranges_and_points_fill_the_square() -> None:
    graphs = some_graphs()
    assert set(graphs.sizes.tolist()) == set(range(2, N + 1))
    assert graphs.neighbours.shape == (E, N, K)
    large = graphs.sizes == N
    assert set(graphs.edges[large].sum(axis=-1).ravel().tolist()) == {1, 2, 3}
    assert graphs.points.min() < 0.01
    assert graphs.points.max() > 0.99


def test_every_graph_has_its_own_range() -> None:
    rng = np.random.default_rng(0)
    nodes, degrees = np.array([[3, 3], [5, 5], [6, 6]]), np.array([[1, 1], [2, 2], [4, 4]])
    graphs = draw_graphs(rng, nodes, degrees, GraphSizes(6, 4, 10))
    assert graphs.sizes.tolist() == [3, 5, 6]
    assert graphs.edges.sum(axis=-1).tolist() == [[1] * 3 + [0] * 3, [2] * 5 + [0], [4] * 6]


def test_labels_of_nodes_are_unique_and_all_equally_likely() -> None:
    labels = np.concatenate([some_graphs(seed).labels for seed in range(30)])
    assert all(len(set(row)) == N for row in labels.tolist())
    share = np.bincount(labels[:, 0], minlength=23) / len(labels)
    assert len(share) == 23
    np.testing.assert_allclose(share, 1 / 23, atol=0.016)  # 4 standard deviations


def test_labels_of_edges_are_unique_at_a_node_and_come_from_a_pool_of_as_many_as_nodes() -> None:
    graphs = some_graphs()
    shared = 0
    for number in range(E):
        labels = [graphs.edge_labels[number, node][graphs.edges[number, node]].tolist() for node in range(N)]
        assert all(len(set(row)) == len(row) for row in labels)
        seen = {label for row in labels for label in row}
        assert len(seen) <= graphs.sizes[number]
        assert all(0 <= label < 23 for label in seen)
        shared += len(seen) < sum(map(len, labels))
    assert shared > E / 2, "different nodes use the same labels"
    fixed = some_graphs(edge_labels=4)
    assert set(fixed.edge_labels[fixed.edges].tolist()) == {0, 1, 2, 3}
    assert all(len(set(row)) == K for row in fixed.edge_labels.reshape(-1, K).tolist())


@pytest.mark.parametrize("longest", [1, 3, 6])
def test_shortest_paths_are_those_of_networkx(longest: int) -> None:
    graphs = some_graphs()
    distance, unique = shortest_paths(adjacency(graphs), longest)
    for number in range(E):
        graph = as_networkx(graphs, number)
        lengths = dict(nx.all_pairs_shortest_path_length(graph))
        for start in range(N):
            for end in range(N):
                true = lengths.get(start, {}).get(end, longest + 1) if start != end else 0
                assert distance[number, start, end] == min(true, longest + 1)
                paths = list(nx.all_shortest_paths(graph, start, end)) if 0 < true <= longest else [[start]] * (start == end)
                assert unique[number, start, end] == (len(paths) == 1)


def test_counting_paths_does_not_overflow() -> None:
    # Rungs of two nodes each: the shortest paths from one end to the other number 2 ** 199.
    rungs = 200
    adjacent = np.zeros((1, 2 * rungs, 2 * rungs), np.bool_)
    for rung in range(rungs - 1):
        adjacent[0, 2 * rung : 2 * rung + 2, 2 * rung + 2 : 2 * rung + 4] = True
    distance, unique = shortest_paths(adjacent, rungs)
    assert distance[0, 0, -1] == rungs - 1
    assert not unique[0, 0, 4:].any()
    assert unique[0, 0, :4].tolist() == [True, False, True, True]


def test_a_shortest_path_is_one() -> None:
    graphs = some_graphs(seed=1)
    distance, _ = shortest_paths(adjacency(graphs), 5)
    rng = np.random.default_rng(0)
    start, end = np.zeros((2, E), np.int64)
    for number in range(E):
        pairs = np.argwhere(distance[number] <= 5)
        start[number], end[number] = pairs[rng.integers(len(pairs))]
    nodes, slots = shortest_path(graphs, distance, start, end, 5)
    triples = triples_along(graphs, nodes, slots)
    assert nodes.shape == (E, 6)
    for number in range(E):
        graph, length = as_networkx(graphs, number), int(distance[number, start[number], end[number]])
        path = nodes[number, : length + 1].tolist()
        assert path[0] == start[number]
        assert nodes[number, length:].tolist() == [end[number]] * (6 - length)
        for step, (here, there) in enumerate(pairwise(path)):
            wanted = [graphs.labels[number, here], graph.edges[here, there]["label"], graphs.labels[number, there]]
            assert triples[number, step].tolist() == wanted


def test_a_random_walk_takes_every_edge_of_a_node_equally_often() -> None:
    one = draw_graphs(np.random.default_rng(3), np.array([[6, 6]]), np.array([[1, 3]]), GraphSizes(6, 3, 10))
    walks = 6000
    graphs = Graphs(*(np.repeat(array, walks, axis=0) for array in one))
    nodes, slots = random_walk(np.random.default_rng(0), graphs, np.full(walks, 2), 4)
    assert (nodes[:, 0] == 2).all()
    for step in range(4):
        here = nodes[:, step]
        assert graphs.edges[np.arange(walks), here, slots[:, step]].all()
        assert (graphs.neighbours[np.arange(walks), here, slots[:, step]] == nodes[:, step + 1]).all()
    degree = int(one.edges[0, 2].sum())
    np.testing.assert_allclose(np.bincount(slots[:, 0], minlength=3)[:degree] / walks, 1 / degree, atol=0.03)


def test_a_description_has_every_edge_once_and_in_random_order() -> None:
    graphs = some_graphs()
    triples, counts = describe(np.random.default_rng(0), graphs)
    again, _ = describe(np.random.default_rng(1), graphs)
    for number in range(E):
        wanted = sorted(
            (int(graphs.labels[number, here]), edge["label"], int(graphs.labels[number, there]))
            for here, there, edge in as_networkx(graphs, number).edges(data=True)
        )
        told = [tuple(triple) for triple in triples[number, : counts[number]].tolist()]
        assert sorted(told) == wanted
        assert sorted(tuple(triple) for triple in again[number, : counts[number]].tolist()) == wanted
    assert (triples[:, 0] != again[:, 0]).any(axis=1).mean() > 0.6


def test_relations_lead_where_their_edges_lead_one_after_another() -> None:
    graphs = some_graphs(edge_labels=4)
    relations = np.array([[0, 1, BLANK], [3, 3, 3], [2, 0, 1], [1, 2, BLANK], [2, BLANK, BLANK]])
    reached = follow(graphs, relations, 4)
    found = 0
    for number in range(E):
        leads = {(here, edge["label"]): there for here, there, edge in as_networkx(graphs, number).edges(data=True)}
        for start in range(N):
            for relation, sequence in enumerate(relations.tolist()):
                here: int | None = start
                for label in sequence:
                    here = here if label == BLANK or here is None else leads.get((here, label))
                assert reached[number, start, relation] == (BLANK if here is None else here)
                found += here is not None
    assert found > 100


def test_distinct_numbers_are_refused_where_there_are_too_few() -> None:
    rows = draw_distinct(np.random.default_rng(0), 1000, 5, 5)
    assert (np.sort(rows, axis=1) == np.arange(5)).all()
    np.testing.assert_allclose(rows.mean(axis=0), 2, atol=0.2)
    with pytest.raises(ValueError, match="6 different labels are needed, and there are 5"):
        draw_distinct(np.random.default_rng(0), 1, 6, 5)


def test_numbers_between_are_each_equally_likely() -> None:
    ranges = np.array([[3, 3], [1, 4], [7, 8]])
    drawn = draw_between(np.random.default_rng(0), ranges, (3, 4000))
    for row, (low, high) in zip(drawn, ranges.tolist(), strict=True):
        values, counts = np.unique(row, return_counts=True)
        assert values.tolist() == list(range(low, high + 1))
        np.testing.assert_allclose(counts / 4000, 1 / len(values), atol=0.03)
    assert draw_between(np.random.default_rng(0), ranges).shape == (3,)


def test_equal_seeds_agree_and_others_differ() -> None:
    first, again, other = some_graphs(5), some_graphs(5), some_graphs(6)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert all((a != b).any() for a, b in zip(first, other, strict=True))
