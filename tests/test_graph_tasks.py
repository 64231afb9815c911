"""The graph tasks: what is told and asked, read back from the lessons and answered by slow code; and their curriculum."""

from itertools import pairwise
from typing import Any

import networkx as nx
import numpy as np
import pytest
import yaml

from graph_stories import episodes
from repository import ROOT
from saccade.envs.curriculum import SETTINGS
from saccade.envs.graph_episodes import GraphTask
from saccade.envs.graph_tasks import GraphInference, GraphTraversal, ShortestPath, draw_relations
from saccade.envs.vec_env import TaskVecEnv

TASKS: list[type[GraphTask]] = [GraphTraversal, ShortestPath, GraphInference]
EveryTask = pytest.mark.parametrize("task_class", TASKS)
EveryLabel = pytest.mark.parametrize(("digits", "base"), [(2, 5), (1, 29), (3, 3)])
EDGE_LABELS, PER_LENGTH, PLANNING, QUERIES = 3, 7, 2, 3
LESSONS: dict[type[GraphTask], list[dict[str, tuple[int, int]]]] = {
    GraphTraversal: [{"nodes": (3, 7), "degree": (1, 3), "length": (1, 4)}],
    ShortestPath: [{"nodes": (4, 8), "degree": (1, 3), "length": (1, 3)}],
    GraphInference: [{"nodes": (3, 6), "degree": (1, 3), "length": (2, 4)}],
}
EXTRA: dict[type[GraphTask], dict[str, int]] = {
    GraphTraversal: {},
    ShortestPath: {"planning": PLANNING},
    GraphInference: {"planning": PLANNING, "queries": QUERIES, "edge_labels": EDGE_LABELS, "relations": PER_LENGTH},
}


def make(
    task_class: type[GraphTask], num_envs: int = 1, digits: int = 2, base: int = 5, seed: int = 0, **settings: Any
) -> GraphTask:
    curriculum = {"lessons": LESSONS[task_class], **settings}
    task: Any = task_class
    made: GraphTask = task(num_envs, digits=digits, base=base, curriculum=curriculum, seed=seed, **EXTRA[task_class])
    return made


@EveryTask
@EveryLabel
def test_the_graph_is_told_first(task_class: type[GraphTask], digits: int, base: int) -> None:
    task = make(task_class, digits=digits, base=base)
    assert task.observation_space.shape == (3 * digits * base + 2,)
    assert task.action_space.nvec.tolist() == [base] * (3 * digits)
    low, high = LESSONS[task_class][0]["nodes"]
    sizes = set()
    for episode in episodes(task):
        assert all(None not in triple for triple in episode.triples)
        assert len(set(episode.triples)) == len(episode.triples)
        assert len(episode.leads()) == len(episode.triples), "an edge label is that of one edge of a node only"
        assert not any(episode.asked[: episode.edges])
        sources = {source for source, _, _ in episode.triples}
        assert {destination for *_, destination in episode.triples} <= sources, "an edge leaves every node"
        sizes.add(len(sources))
        assert all(not array.any() for array in episode.padding)
    assert sizes == set(range(low, high + 1))


@EveryLabel
def test_traversal_asks_for_the_edges_of_a_walk(digits: int, base: int) -> None:
    lengths = set()
    for episode in episodes(make(GraphTraversal, digits=digits, base=base)):
        length = (len(episode.told) - episode.edges) // 2
        lengths.add(length)
        query, silence = np.split(np.array(episode.told[episode.edges :], object), [length])
        assert (silence == None).all()  # noqa: E711 - elementwise
        assert (query[1:, 0] == None).all()  # noqa: E711 - elementwise
        assert (query[:, 2] == None).all()  # noqa: E711 - elementwise
        assert episode.asked[episode.edges :] == [0] * length + [1] * length
        assert np.flatnonzero(episode.turns).tolist() == [episode.edges, episode.edges + length]
        here = int(query[0, 0])
        for label, answer in zip(query[:, 1], episode.answers[episode.edges + length :], strict=True):
            there = episode.leads()[here, int(label)]
            assert answer == (here, label, there)
            here = there
    assert lengths == {1, 2, 3, 4}


@EveryLabel
def test_the_shortest_path_is_the_only_one_and_is_shown_an_edge_late(digits: int, base: int) -> None:
    lengths = []
    for episode in episodes(make(ShortestPath, digits=digits, base=base)):
        start, edge, end = episode.told[episode.edges]
        assert edge is None
        first = episode.edges + 1 + PLANNING
        assert episode.told[episode.edges + 1 : first + 1] == [(None, None, None)] * (PLANNING + 1)
        assert np.flatnonzero(episode.turns).tolist() == [episode.edges, episode.edges + 1, first]
        path = episode.answers[first:]
        assert episode.asked == [0] * first + [1] * len(path)
        assert episode.told[first + 1 :] == path[:-1]
        graph = nx.DiGraph([(source, destination) for source, _, destination in episode.triples])
        assert [[start, *(there for *_, there in path)]] == list(nx.all_shortest_paths(graph, start, end))
        assert all(triple in episode.triples for triple in path)
        assert all(one[2] == other[0] for one, other in pairwise(path))
        lengths.append(len(path))
    assert set(lengths) == {1, 2, 3}
    assert min(map(lengths.count, set(lengths))) > 8, "lengths are drawn, not pairs, of which most are near"


def test_a_graph_without_a_long_path_is_drawn_anew() -> None:
    task = ShortestPath(curriculum={"lessons": [{"nodes": (4, 4), "degree": (1, 2), "length": (3, 3)}]}, seed=0)
    assert (task.generate(200).answers.sum(axis=0) == 3).all()


@EveryLabel
def test_inference_asks_for_what_a_relation_leads_to(digits: int, base: int) -> None:
    task = make(GraphInference, digits=digits, base=base)
    relations, labels = draw_relations(EDGE_LABELS, PER_LENGTH, 4)
    meaning = {int(label): [int(edge) for edge in row if edge >= 0] for label, row in zip(labels, relations, strict=True)}
    lengths, starts = [], set()
    for episode in episodes(task, 150):
        rounds = len(episode.told) - episode.edges
        assert rounds == QUERIES * (PLANNING + 2)
        for query in range(episode.edges, len(episode.told), PLANNING + 2):
            start, relation, end = episode.told[query]
            assert end is None and start is not None and relation is not None
            assert episode.told[query + 1 : query + PLANNING + 2] == [(None, None, None)] * (PLANNING + 1)
            assert episode.asked[query : query + PLANNING + 2] == [0] * (PLANNING + 1) + [1]
            assert episode.turns[query : query + PLANNING + 2] == [1, 1, *[0] * (PLANNING - 1), 1]
            here = start
            for edge in meaning[relation]:
                here = episode.leads()[here, edge]
            assert episode.answers[query + PLANNING + 1] == (start, relation, here)
            lengths.append(len(meaning[relation]))
            starts.add((episode.told[query][:2], episode.edges))
    assert set(lengths) == {2, 3, 4}
    assert min(map(lengths.count, set(lengths))) > 120, "lengths are drawn, not pairs, of which most are of short ones"
    assert len(starts) > 2 * 150, "the queries of an episode differ"


def test_relations_are_distinct_and_mean_the_same_whatever_the_seed_and_the_lessons() -> None:
    relations, labels = draw_relations(3, 7, 4)
    assert relations.shape == (7 + 7 + 7, 4)
    assert len(np.unique(relations, axis=0)) == 21
    assert labels.tolist() == list(range(3, 24))
    assert ((relations >= 0).sum(axis=1) == np.repeat([2, 3, 4], 7)).all()
    assert set(np.unique(relations)) == {-1, 0, 1, 2}
    shorter, fewer = draw_relations(3, 7, 3)
    assert (shorter == relations[:14, :3]).all()
    assert (fewer == labels[:14]).all()
    assert (make(GraphInference, seed=1).relations == make(GraphInference, seed=2).relations).all()  # type: ignore[attr-defined]
    every, few = draw_relations(2, 6, 3)
    assert len(every) == 4 + 6, "there are only four rows of two"
    assert few.tolist() == [2, 3, 4, 5, *range(8, 14)]


@EveryTask
def test_right_answers_earn_exactly_one_and_a_wrong_digit_loses_its_answer(task_class: type[GraphTask]) -> None:
    task = make(task_class, 11)
    answers = task.answers.sum(axis=1)
    wrong = np.arange(11) % 2 == 1
    returns = np.zeros(11)
    ended = np.zeros(11, np.bool_)
    for time in range(task.horizon):
        actions = task.targets[:, time].copy()
        first = wrong & (task.answers[:, :time].sum(axis=1) == 0) & task.answers[:, time]
        actions[first, -1] = (actions[first, -1] + 1) % task.base
        assert (task.observe() == task.inputs[:, time]).all()
        step = task.step(actions)
        returns += step.rewards * ~ended
        new = step.terminated & ~ended
        assert step.success is not None and step.measures is not None
        assert (step.success[new] == ~wrong[new]).all()
        assert (step.measures["errors"][new] == wrong[new]).all()
        ended |= step.terminated
    assert ended.all()
    np.testing.assert_allclose(returns, 1 - wrong / answers, rtol=1e-6)


@EveryTask
def test_it_is_played_as_any_vector_environment(task_class: type[GraphTask]) -> None:
    task = make(task_class, 5)
    venv = TaskVecEnv(task)
    venv.seed(3)
    venv.reset()
    ended = 0
    for _ in range(3 * task.horizon):
        right = task.targets[np.arange(5), task.time]
        _, _, dones, infos = venv.step(right)
        for info in np.array(infos)[dones]:
            ended += 1
            assert info["episode"]["r"] == pytest.approx(1)
            assert info["is_success"]
            assert info["measures"] == {"errors": 0, "lesson": 0}
    assert ended > 10


@EveryTask
def test_a_seed_decides_the_lessons(task_class: type[GraphTask]) -> None:
    first, again, other = (make(task_class, seed=seed).generate(31) for seed in (3, 3, 4))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert first.inputs.shape != other.inputs.shape or (first.inputs != other.inputs).any()


@EveryTask
def test_a_state_goes_on_exactly(task_class: type[GraphTask]) -> None:
    lessons = LESSONS[task_class] * 3
    task, other = (make(task_class, 4, seed=seed, lessons=lessons, window=2, review=0.3) for seed in (0, 1))
    for grade in (0.95, 0.95, 0.9):
        task.grade(grade)
    for _ in range(3):
        task.step(task.targets[:, 0])
    other.set_state(task.get_state())
    assert other.curriculum.level == task.curriculum.level == 1
    for number in range(3):
        other.grade(0.9)
        task.grade(0.9)
        assert other.curriculum.level == task.curriculum.level == 2, number
        assert (other.observe() == task.observe()).all()
        for here, there in zip(task.generate(7), other.generate(7), strict=True):
            assert (here == there).all()
        assert all(
            (a == b).all() for a, b in zip(task.step(task.targets[:, 0])[:3], other.step(task.targets[:, 0])[:3], strict=True)
        )


@EveryTask
def test_a_better_grade_brings_the_next_lesson_into_play(task_class: type[GraphTask]) -> None:
    lessons = [{"nodes": (3, 4), "degree": (2, 3), "length": (2, 2)}, {"nodes": (9, 9), "degree": (2, 3), "length": (2, 2)}]
    if task_class is ShortestPath:  # three nodes with two edges each have no path of two
        lessons[0]["nodes"] = (4, 4)
    task = make(task_class, 3, lessons=lessons, threshold=0.9, review=0.25, window=1)

    def edges(count: int) -> np.ndarray:
        told: np.ndarray = task.generate(count).inputs[..., -2].argmax(axis=0)
        return told

    assert edges(100).max() <= 4 * 3
    task.grade(0.89)
    assert task.curriculum.level == 0
    task.grade(0.9)
    assert task.curriculum.level == 1
    assert (edges(2000) < 9 * 2).mean() == pytest.approx(0.25, abs=0.04)
    measures = task.step(task.targets[:, 0]).measures
    assert measures is not None
    assert measures["lesson"].tolist() == [1, 1, 1]


def test_a_task_that_is_played_grades_itself() -> None:
    task = GraphTraversal(40, curriculum={"window": 1, "first": 0}, seed=0)
    lanes = np.ones(40, np.bool_)
    while task.curriculum.level == 0:
        step = task.step(task.targets[np.arange(40), np.minimum(task.time, task.horizon - 1)])
        lanes &= ~step.terminated
        task.reset(step.terminated)
    assert lanes.sum() < 40 - 31
    assert task.curriculum.level == 1


@pytest.mark.parametrize(
    ("task_class", "parameters", "message"),
    [
        (GraphTraversal, {"digits": 0}, "digits is 0"),
        (GraphTraversal, {"base": 1}, "base is 1; it must be a whole number, 2 or more"),
        (GraphTraversal, {"digits": 1}, "1 digits of 5 values are 5 labels; graphs have up to 10 nodes"),
        (GraphTraversal, {"num_envs": 0}, "num_envs is 0"),
        (
            GraphTraversal,
            {"curriculum": {"lessons": [{"nodes": (1, 2), "degree": (1, 1), "length": (1, 1)}]}},
            "nodes of a lesson is 1",
        ),
        (ShortestPath, {"planning": -1}, "planning is -1"),
        (
            ShortestPath,
            {"curriculum": {"lessons": [{"nodes": (3, 3), "degree": (2, 2), "length": (2, 2)}]}},
            "lesson 0: no query could be found in 580 graphs",
        ),
        (GraphInference, {"queries": 0}, "queries is 0"),
        (GraphInference, {"relations": 0}, "relations is 0"),
        (GraphInference, {"edge_labels": 2}, "edge_labels is 2; it must be a whole number, 3 or more"),
        (GraphInference, {"relations": 20}, "25 labels; edges and relations need 44"),
        (
            GraphInference,
            {"curriculum": {"lessons": [{"nodes": (3, 3), "degree": (2, 2), "length": (1, 2)}]}},
            "the shortest relation of a lesson is 1",
        ),
    ],
)
def test_bad_parameters_are_named(task_class: Any, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task_class(**parameters)


@pytest.mark.parametrize(
    ("name", "task_class"),
    [("graph_traversal", GraphTraversal), ("shortest_path", ShortestPath), ("graph_inference", GraphInference)],
)
def test_the_config_shows_every_parameter_at_its_default(name: str, task_class: Any) -> None:
    config = yaml.safe_load((ROOT / f"conf/env/{name}.yaml").read_text())
    shown, task = task_class(**config["kwargs"], seed=0), task_class(seed=0)
    assert set(config["kwargs"]["curriculum"]) == set(SETTINGS)
    for attribute in ("threshold", "review", "window", "level", "parameters", "_ranges"):
        assert np.array_equal(getattr(shown.curriculum, attribute), getattr(task.curriculum, attribute)), attribute
    for ours, theirs in zip(shown.generate(5), task.generate(5), strict=True):
        assert (ours == theirs).all()
