from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from saccade.agents import memory_limit
from saccade.agents.sequences import SequenceReplay, Sequences

B, K = 3, 2
GAMMA = 0.9
SPACE = spaces.Box(-1e9, 1e9, (2,), np.float64)
IMAGES = spaces.Box(0, 255, (2, 36, 37), np.uint8)
ACTIONS = spaces.Box(-1, 1, (1,), np.float32)


class Inner(NamedTuple):
    count: Tensor


class Memory(NamedTuple):
    vector: Tensor
    inner: Inner


EXAMPLE = Memory(torch.full((1, 5), -1.0), Inner(torch.full((1,), -1, dtype=torch.int64)))


class Source:
    """Random episodes in ``B`` lanes; the number of an observation is in everything that belongs to its step."""

    def __init__(self, seed: int, end_chance: float, space: spaces.Box = SPACE) -> None:
        self.rng = np.random.default_rng(seed)
        self.end_chance, self.space = end_chance, space
        self.count = 0
        self.lanes: list[list[dict[str, Any]]] = [[] for _ in range(B)]
        self.last = [0] * B

    def observe(self, number: int, before: int) -> np.ndarray:
        if self.space is SPACE:
            return np.array([number, -number], np.float64)
        return np.stack([np.full((36, 37), n % 256, np.uint8) for n in (before, number)])

    def step(self) -> dict[str, Any]:
        rows: list[dict[str, Any]] = []
        for lane in range(B):
            steps = self.lanes[lane]
            first = not steps or steps[-1]["done"]
            self.count += 1
            done = self.rng.random() < self.end_chance
            step = {
                "number": self.count,
                "observation": self.observe(self.count, 0 if first else self.last[lane]),
                "time": 0 if first else steps[-1]["time"] + 1,
                "slot": 0 if not steps else steps[-1]["slot"] + 1 + steps[-1]["cut"],
                "done": bool(done),
                "cut": bool(done and self.rng.random() < 0.5),
            }
            self.last[lane] = self.count
            if step["cut"]:
                self.count += 1
                step["final"] = self.observe(self.count, step["number"])
            steps.append(step)
            rows.append(step)
        numbers = torch.tensor([row["number"] for row in rows])
        return {
            "observations": np.stack([row["observation"] for row in rows]),
            "state": Memory(numbers[:, None].float().expand(B, 5), Inner(numbers)),
            "actions": (numbers[:, None] / 1000).float().numpy(),
            "rewards": numbers.numpy() / 8,
            "dones": np.array([row["done"] for row in rows]),
            "truncated": np.array([row["cut"] for row in rows]),
            "finals": {lane: row["final"] for lane, row in enumerate(rows) if row["cut"]},
            "decisions": torch.stack([numbers, -numbers], dim=1).float(),
        }

    def expected(self, slots: int, length: int, overlap: int) -> dict[bytes, tuple[list[dict[str, Any]], Any]]:
        """Complete living sequences and what followed them, by the bytes of their first observations."""
        table: dict[bytes, tuple[list[dict[str, Any]], Any]] = {}
        for steps in self.lanes:
            head = steps[-1]["slot"] + 1 + steps[-1]["cut"]
            for i, first in enumerate(steps):
                if first["slot"] < head - slots or first["time"] % (length - overlap):
                    continue
                sequence = []
                for step in steps[i : i + length]:
                    sequence.append(step)
                    if step["done"]:
                        break
                ended = sequence[-1]["done"]
                if ended:
                    following = sequence[-1].get("final", sequence[-1]["observation"])
                elif i + length < len(steps):
                    following = steps[i + length]["observation"]
                else:
                    continue
                if ended and first["time"] > 0 and len(sequence) <= overlap:
                    continue  # the sequence before holds these steps too
                table[first["observation"].tobytes()] = (sequence, following)
        return table


def replay(length: int, overlap: int, size: int = 3 * 43, space: spaces.Box = SPACE, **settings: Any) -> SequenceReplay:
    rng = np.random.default_rng(0)
    return SequenceReplay(size, length, overlap, space, ACTIONS, B, EXAMPLE, K, rng, **({"gamma": GAMMA} | settings))


def check(batch: Sequences, table: dict[bytes, tuple[list[dict[str, Any]], Any]], length: int) -> set[bytes]:
    """Every sequence is the reference's; gives which were drawn."""
    drawn = set()
    assert isinstance(batch.observations, Tensor)
    assert batch.observations.shape[0] == batch.episode_starts.shape[0] == length + 1
    for n in range(len(batch.indices)):
        key = batch.observations[0, n].numpy().tobytes()
        steps, following = table[key]
        drawn.add(key)
        size = len(steps)
        seen = [step["observation"] for step in steps] + [following] * (length + 1 - size)
        np.testing.assert_array_equal(batch.observations[:, n].numpy(), np.stack(seen))
        numbers = np.array([step["number"] for step in steps], np.float32)
        padding = (0, length - size)
        np.testing.assert_array_equal(batch.mask[:, n], np.pad(np.ones(size), padding))
        np.testing.assert_array_equal(batch.rewards[:, n], np.pad(numbers / 8, padding))
        np.testing.assert_allclose(batch.actions[:, n, 0], np.pad(numbers / 1000, padding, mode="edge"), rtol=1e-6)
        np.testing.assert_array_equal(batch.decisions[:, n, 1], np.pad(-numbers, padding))
        discounts = [0.0 if step["done"] and not step["cut"] else GAMMA for step in steps]
        np.testing.assert_allclose(batch.discounts[:, n], np.pad(discounts, padding), rtol=1e-6)
        first = steps[0]["time"] == 0
        assert batch.episode_starts[:, n].tolist() == [first] + [False] * length
        remembered = -1 if first else steps[0]["number"]
        assert isinstance(batch.state, Memory) and batch.state.inner.count[n] == remembered
        assert batch.state.vector[n].tolist() == [remembered] * 5
    return drawn


@pytest.mark.parametrize(("length", "overlap"), [(1, 0), (5, 0), (6, 3), (7, 5), (11, 2)])
@pytest.mark.parametrize("end_chance", [0.0, 0.05, 0.4, 1.0])
def test_draws_all_complete_sequences_and_no_others_as_a_slow_replay_has_them(
    length: int, overlap: int, end_chance: float
) -> None:
    source, tested = Source(length, end_chance), replay(length, overlap)
    for time in range(130):
        tested.add(**source.step())
        table = source.expected(43, length, overlap)
        assert len(tested) == len(table)
        if not table:
            with pytest.raises(ValueError, match="no complete sequence"):
                tested.sample(5)
        elif time % 4 == 0:
            batch = tested.sample(17, 0.4)
            check(batch, table, length)
            tested.update_priorities(batch.indices, torch.rand(17))
    tested.update_priorities(np.arange(3 * 43), torch.ones(3 * 43))
    drawn: set[bytes] = set()
    for _ in range(12):
        drawn |= check(tested.sample(83), table, length)
    assert drawn == set(table)


def test_stacked_frames_come_back_the_same() -> None:
    source, tested = Source(3, 0.1, IMAGES), replay(6, 3, space=IMAGES, size=3 * 23)
    for _ in range(79):
        tested.add(**source.step())
        table = source.expected(23, 6, 3)
        if len(tested):
            check(tested.sample(7), table, 6)
    assert len(tested) > 10


def test_sequences_cover_every_step_that_could_be_learned_from() -> None:
    source, tested = Source(5, 0.06), replay(8, 4, size=3 * 211)
    for _ in range(199):
        tested.add(**source.step())
    seen = set()
    for _ in range(60):
        batch = tested.sample(61)
        seen |= set(batch.rewards[batch.mask > 0].mul(8).long().tolist())
    ended = [max(i for i, step in enumerate(steps) if step["done"]) for steps in source.lanes]
    expected = {step["number"] for steps, last in zip(source.lanes, ended, strict=True) for step in steps[: last + 1]}
    assert expected <= seen


def test_state_is_read_only_where_a_sequence_starts_within_an_episode() -> None:
    source, tested = Source(5, 0.0), replay(6, 3)
    for time in range(31):
        step = source.step()
        if time % 3 or time == 0:
            step["state"] = None
        tested.add(**step)
    batch = tested.sample(7)
    assert len(batch.indices) == 7
    check(batch, source.expected(43, 6, 3), 6)


def test_priorities_decide_how_often_and_weights_make_up_for_it() -> None:
    source, tested = Source(5, 0.1), replay(6, 3, alpha=0.5, epsilon=0.01)
    for _ in range(31):
        tested.add(**source.step())
    first = tested.sample(1).indices
    tested.update_priorities(np.arange(3 * 43), torch.full((3 * 43,), 0.99))
    tested.update_priorities(first, torch.tensor([8.99]))
    batches = [tested.sample(53, 0.7) for _ in range(50)]
    share = np.mean(np.concatenate([batch.indices for batch in batches]) == first)
    assert share == pytest.approx(3 / (len(tested) + 2), abs=0.02)
    expected = np.where(batches[0].indices == first, 3**-0.7, 1)
    np.testing.assert_allclose(batches[0].weights.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("space", [SPACE, IMAGES])
def test_bytes_are_predicted_and_refused_before_they_are_taken(monkeypatch: pytest.MonkeyPatch, space: spaces.Box) -> None:
    predicted = SequenceReplay.predicted_bytes(3 * 43, 7, 3, space, ACTIONS, B, EXAMPLE, K)
    assert replay(7, 3, space=space).nbytes == predicted
    monkeypatch.setattr(memory_limit, "available_memory", lambda: predicted)
    with pytest.raises(ValueError, match=r"largest buffer_size that fits is 131"):
        replay(7, 3, size=10**9, space=space)


def test_refuses_bad_input() -> None:
    for overlap in (-1, 7):
        with pytest.raises(ValueError, match="overlap must be at least 0 and less than sequence_length=7"):
            replay(7, overlap)
    with pytest.raises(ValueError, match="buffer_size must be at least 27"):
        replay(7, 3, size=26)
    with pytest.raises(ValueError, match="gamma"):
        replay(7, 3, gamma=1.5)


@pytest.mark.filterwarnings("ignore:observations .* seldom")
@pytest.mark.parametrize(("slots", "alive"), [(13, 9), (31, 18)])
def test_sequences_that_lose_their_frames_early_are_never_drawn(slots: int, alive: int) -> None:
    tested = replay(11, 10, B * slots, IMAGES)
    no = np.zeros(B, dtype=np.bool_)
    state = Memory(torch.zeros(B, 5), Inner(torch.zeros(B, dtype=torch.int64)))
    for time in range(101):
        # No stack follows from another one.
        seen = np.broadcast_to(np.array([time, 255 - time], np.uint8)[:, None, None], (B, 2, 36, 37))
        tested.add(seen, state, np.zeros((B, 1), np.float32), np.full(B, time), no, no, {}, torch.zeros(B, K))
        assert len(tested) == B * max(0, min(alive, time + 1) - 11)
        if len(tested):
            batch = tested.sample(7)
            assert isinstance(batch.observations, Tensor)
            np.testing.assert_array_equal(batch.observations[:11, :, 0, 0, 0], batch.rewards)
