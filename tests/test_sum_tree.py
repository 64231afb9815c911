import numpy as np
import pytest

from saccade.agents.sum_tree import Priorities, SumTree, predicted_tree_bytes

CAPACITIES = [1, 2, 7, 16, 17, 101, 256, 257, 4099]


def filled(capacity: int, zeros: float, seed: int = 3) -> tuple[SumTree, np.ndarray]:
    rng = np.random.default_rng(seed)
    priorities = rng.exponential(size=capacity) * (rng.random(capacity) >= zeros)
    priorities[rng.integers(capacity)] = 0.7
    tree = SumTree(capacity)
    tree.update(rng.permutation(capacity), np.zeros(capacity))
    tree.update(np.arange(capacity), priorities)
    return tree, priorities


@pytest.mark.parametrize("capacity", CAPACITIES)
def test_finds_what_a_search_in_the_running_sums_finds(capacity: int) -> None:
    tree, priorities = filled(capacity, zeros=0.3)
    sums = priorities.cumsum()
    assert tree.total == pytest.approx(sums[-1], rel=1e-12)
    values = np.random.default_rng(5).random(499) * tree.total
    # Away from the borders, where the two round differently.
    values = values[np.abs(values[:, None] - sums).min(axis=1) > 1e-6]
    assert len(values) > 400
    np.testing.assert_array_equal(tree.find(values), np.searchsorted(sums, values, side="right"))


@pytest.mark.parametrize("capacity", CAPACITIES)
@pytest.mark.parametrize("scale", [1e-300, 1e-7, 1.0, 1e12])
def test_never_gives_an_index_of_priority_zero_even_at_the_borders_of_segments(capacity: int, scale: float) -> None:
    tree, priorities = filled(capacity, zeros=0.8)
    tree.update(np.arange(capacity), priorities * scale)
    borders = np.concatenate([[0, tree.total], (priorities * scale).cumsum()])
    values = np.concatenate([borders, np.nextafter(borders, 0), np.nextafter(borders, np.inf), 3 * borders])
    found = tree.find(values)
    assert ((found >= 0) & (found < capacity)).all()
    assert (priorities[found] > 0).all()


def test_wildly_different_priorities_do_not_lead_to_a_zero_one() -> None:
    rng = np.random.default_rng(11)
    for _ in range(50):
        priorities = 10.0 ** rng.integers(-18, 18, size=307) * (rng.random(307) < 0.1)
        priorities[rng.integers(307)] = 1.0
        tree = SumTree(307)
        tree.update(np.arange(307), priorities)
        assert (tree[tree.sample(1009, rng)] > 0).all()


def test_draws_each_index_as_often_as_its_priority_says() -> None:
    tree, priorities = filled(23, zeros=0.2)
    rng = np.random.default_rng(7)
    counts = np.zeros(23)
    for _ in range(2000):
        np.add.at(counts, tree.sample(13, rng), 1)
    expected = 2000 * 13 * priorities / priorities.sum()
    some = expected > 0
    assert (counts[~some] == 0).all()
    # Stratified draws vary less than independent ones, for which this has mean 22 and standard deviation 6.6.
    assert ((counts - expected)[some] ** 2 / expected[some]).sum() < 45


def test_takes_one_index_from_each_equal_part() -> None:
    tree = SumTree(64)
    tree.update(np.arange(64), np.ones(64))
    np.testing.assert_array_equal(tree.sample(64, np.random.default_rng(0)), np.arange(64))


@pytest.mark.parametrize("capacity", [5, 97, 1013])
def test_random_updates_leave_the_tree_of_its_leaves(capacity: int) -> None:
    rng = np.random.default_rng(13)
    tree, reference = SumTree(capacity), np.zeros(capacity)
    for _ in range(200):
        indices = rng.integers(capacity, size=rng.integers(1, 31))
        priorities = rng.exponential(size=len(indices)) * (rng.random(len(indices)) < 0.7)
        tree.update(indices, priorities)
        for index, priority in zip(indices, priorities, strict=True):
            reference[index] = priority
        np.testing.assert_array_equal(tree[np.arange(capacity)], reference)
    fresh = SumTree(capacity)
    fresh.update(np.arange(capacity), reference)
    for level, expected in zip(tree.levels, fresh.levels, strict=True):
        np.testing.assert_array_equal(level, expected)


def test_of_an_index_given_twice_the_last_priority_counts() -> None:
    tree = SumTree(11)
    tree.update(np.array([3, 5, 3]), np.array([1.0, 2.0, 4.0]))
    assert tree[np.array([3, 5])].tolist() == [4.0, 2.0]
    assert tree.total == 6


def test_refuses_bad_input() -> None:
    tree = SumTree(7)
    with pytest.raises(ValueError, match="every priority is 0"):
        tree.sample(3, np.random.default_rng(0))
    for bad in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="priorities must be finite"):
            tree.update(np.array([1]), np.array([bad]))
    for outside in (-1, 7):
        with pytest.raises(IndexError, match="7"):
            tree.update(np.array([outside]), np.array([1.0]))
    with pytest.raises(ValueError, match="capacity"):
        SumTree(0)
    with pytest.raises(ValueError, match="alpha"):
        Priorities(7, -0.5, 1e-6)
    with pytest.raises(ValueError, match="epsilon"):
        Priorities(7, 0.5, 0.0)


@pytest.mark.parametrize("capacity", CAPACITIES)
def test_bytes_are_predicted(capacity: int) -> None:
    assert SumTree(capacity).nbytes == predicted_tree_bytes(capacity)


def test_members_start_at_the_largest_priority_and_the_forgotten_stay_so() -> None:
    members = Priorities(19, alpha=0.5, epsilon=0.25)
    members.replace(np.array([], dtype=np.int64), np.array([2, 3, 5]))
    members.update(np.array([3, 7]), np.array([-8.75, 100.0]))
    assert members.tree[np.array([2, 3, 7])].tolist() == [1.0, 3.0, 0.0]
    members.replace(np.array([2, 3]), np.array([3, 11]))
    assert members.tree[np.array([2, 3, 5, 11])].tolist() == [0.0, 3.0, 1.0, 3.0]
    indices, weights = members.sample(29, 0.5, np.random.default_rng(0))
    chance = members.tree[indices] / members.tree.total
    expected = (3 * chance) ** -0.5
    np.testing.assert_allclose(weights, expected / expected.max(), rtol=1e-12)
