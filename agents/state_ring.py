"""States of a core, kept only where sequences of a replay start."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from saccade.policies.core import State, map_state


class StateRing:
    """States ``[rows, B, ...]`` of a core, and the example in the place of those that were never stored.

    Args:
        example: a state of one lane, leaves ``[1, ...]``.
        rows: states in each lane.
        n_envs: ``B``.
    """

    def __init__(self, example: State, rows: int, n_envs: int) -> None:
        def ring(leaf: Any) -> Any:
            one = _to_numpy(leaf)
            return np.zeros((rows, n_envs, *one.shape[1:]), one.dtype)

        self.rows = rows
        self.example = map_state(_to_numpy, example)
        self.states = map_state(ring, example)
        self.written = np.zeros(n_envs, dtype=np.int64)

    @staticmethod
    def predicted_bytes(example: State, rows: int, n_envs: int) -> int:
        """Bytes of such a ring before it is made."""
        return rows * n_envs * sum(_to_numpy(leaf)[0].nbytes for leaf in _leaves(example))

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(leaf.nbytes for leaf in _leaves(self.states))

    def append(self, lanes: Int[np.ndarray, " N"], state: State) -> Int[np.ndarray, " N"]:
        """Store some lanes' states out of all lanes' ``[B, ...]``; gives the rows where they stand."""
        rows = self.written[lanes] % self.rows
        self.written[lanes] += 1

        def write(ring: Any, now: Any) -> Any:
            ring[rows, lanes] = _to_numpy(now[torch.from_numpy(lanes).to(now.device)])
            return ring

        map_state(write, self.states, state)
        return rows

    def read(self, rows: Int[np.ndarray, " N"], lanes: Int[np.ndarray, " N"], device: torch.device | str) -> State:
        """States ``[N, ...]``; the example where the row is negative."""

        def pick(ring: Any, example: Any) -> Tensor:
            found = ring[rows, lanes]
            found[rows < 0] = example[0]
            return torch.from_numpy(found).to(device)

        return map_state(pick, self.states, self.example)


def state_rows(slots: int, stride: int) -> int:
    """States that a lane's living sequences can need: those that start within an episode are ``stride`` steps apart."""
    return slots // stride + 2


def _to_numpy(leaf: Tensor) -> Any:
    return leaf.detach().cpu().numpy()


def _leaves(state: State) -> list[Any]:
    return [leaf for child in state for leaf in _leaves(child)] if isinstance(state, tuple) else [state]
