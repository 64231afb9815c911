"""Proportional prioritised sampling (Schaul et al. 2016, section 3.3 and appendix B.2.1), a batch at a time."""

import numpy as np
from jaxtyping import Float, Int

FANOUT = 16
"""Children of a node: a million leaves are five levels deep, and a level costs the same few array operations for 2 or 16."""


class SumTree:
    """Priorities with sums over them, so that an index is drawn in proportion to its priority in O(log n).

    Every inner node is the last of its children's running sums, never a sum kept up to date by differences: so nothing drifts,
    and the tree is a function of its leaves alone. Priorities start at 0.

    Args:
        capacity: number of indices.

    Raises:
        ValueError: the capacity is not positive.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1; got {capacity}")
        self.capacity = capacity
        # levels[0] are the leaves; each array is a whole number of nodes' children.
        self.levels = [np.zeros(size) for size in level_sizes(capacity)]

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(level.nbytes for level in self.levels)

    @property
    def total(self) -> float:
        """The sum of all priorities."""
        return float(self.levels[-1].cumsum()[-1])

    def __getitem__(self, indices: Int[np.ndarray, "*batch"]) -> Float[np.ndarray, "*batch"]:
        return self.levels[0][indices]

    def update(self, indices: Int[np.ndarray, " N"], priorities: Float[np.ndarray, " N"]) -> None:
        """Set priorities; where an index comes twice, the last one counts.

        Raises:
            ValueError: a priority is negative or not finite.
            IndexError: an index is outside the capacity.
        """
        if len(indices) == 0:
            return
        if not (priorities.min() >= 0 and np.isfinite(priorities).all()):
            raise ValueError(f"priorities must be finite and at least 0; got {priorities}")
        if indices.min() < 0 or indices.max() >= self.capacity:
            raise IndexError(f"indices must be in [0, {self.capacity}); got {indices.min()} to {indices.max()}")
        self.levels[0][indices] = priorities
        for children, parents in zip(self.levels, self.levels[1:], strict=False):
            indices = indices // FANOUT
            parents[indices] = children.reshape(-1, FANOUT)[indices].cumsum(axis=1)[:, -1]

    def find(self, values: Float[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
        """The index whose segment of ``[0, total)`` holds each value; never one of priority 0.

        Raises:
            ValueError: all priorities are 0.
        """
        total = self.total
        if total <= 0:
            raise ValueError("nothing to sample: every priority is 0")
        index = np.zeros(len(values), dtype=np.int64)
        rows = np.arange(len(values))
        limit = np.full(len(values), total)
        rest = np.maximum(values, 0)
        for level in reversed(self.levels):
            # Rounding may carry a value to the end of its segment or past it. Kept strictly below the node's sum, which is
            # exactly its children's last running sum, it falls to a child whose running sum rises: one of priority above 0.
            rest = np.minimum(rest, np.nextafter(limit, 0))
            children = level.reshape(-1, FANOUT)[index]
            sums = children.cumsum(axis=1)
            child = (sums <= rest[:, None]).sum(axis=1)
            before = np.where(child > 0, sums[rows, child - 1], 0)
            rest = rest - before
            limit = children[rows, child]
            index = index * FANOUT + child
        return index

    def sample(self, size: int, rng: np.random.Generator) -> Int[np.ndarray, " N"]:
        """``size`` indices, one from each of as many equal parts of ``[0, total)``.

        Raises:
            ValueError: all priorities are 0.
        """
        return self.find((np.arange(size) + rng.random(size)) * (self.total / size))


class Priorities:
    """What a prioritised replay knows of its members: priorities ``(|δ| + ε)^α``, and the largest of them so far.

    Args:
        capacity: number of indices.
        alpha: ``α``; 0 gives every member the same chance.
        epsilon: ``ε``, which keeps a member without error from never being seen again.

    Raises:
        ValueError: ``alpha`` is negative, or ``epsilon`` not positive.
    """

    def __init__(self, capacity: int, alpha: float, epsilon: float) -> None:
        if not alpha >= 0:
            raise ValueError(f"alpha must be at least 0; got {alpha}")
        if not epsilon > 0:
            raise ValueError(f"epsilon must be above 0; got {epsilon}")
        self.alpha = alpha
        self.epsilon = epsilon
        self.largest = 1.0
        self.tree = SumTree(capacity)

    def replace(self, gone: Int[np.ndarray, " G"], new: Int[np.ndarray, " N"]) -> None:
        """Forget some members, and then take in others at the largest priority so far."""
        indices = np.concatenate([gone, new])
        priorities = np.zeros(len(indices))
        priorities[len(gone) :] = self.largest
        self.tree.update(indices, priorities)

    def update(self, indices: Int[np.ndarray, " N"], errors: Float[np.ndarray, " N"]) -> None:
        """Priorities after learning; errors of members that have been forgotten since they were drawn are dropped."""
        priorities = (np.abs(errors.astype(np.float64)) + self.epsilon) ** self.alpha
        present = self.tree[indices] > 0
        if present.any():
            self.tree.update(indices[present], priorities[present])
            self.largest = max(self.largest, float(priorities[present].max()))

    def sample(self, size: int, beta: float, rng: np.random.Generator) -> tuple[Int[np.ndarray, " N"], Float[np.ndarray, " N"]]:
        """Members, and their importance weights ``(N P(i))^-β / max`` (section 3.4), the maximum being the batch's."""
        indices = self.tree.sample(size, rng)
        priorities = self.tree[indices]
        # N and the total cancel in the division by the largest weight.
        return indices, (priorities.min() / priorities) ** beta


def level_sizes(capacity: int) -> list[int]:
    """Entries of each level of a tree, leaves first."""
    sizes = [-(-capacity // FANOUT) * FANOUT]
    while sizes[-1] > FANOUT:
        sizes.append(-(-(sizes[-1] // FANOUT) // FANOUT) * FANOUT)
    return sizes


def predicted_tree_bytes(capacity: int) -> int:
    """Bytes of a tree before it is made."""
    return 8 * sum(level_sizes(capacity))
