import warnings
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from saccade.agents.frames import FrameStore, ObservationStore, PlainStore, observation_store, predicted_bytes, stacked_frames

H, W = 37, 41
B = 3


def stacks(k: int, colours: int = 1) -> spaces.Box:
    return spaces.Box(0, 255, (k * colours, H, W), np.uint8)


class Lane:
    """Stacks as a frame-stacking wrapper gives them; odd episodes start from repeated frames, even ones from black ones."""

    def __init__(self, k: int, colours: int, length: int, rng: np.random.Generator) -> None:
        self.k, self.colours, self.length, self.rng = k, colours, length, rng
        self.time = self.episode = 0

    def frame(self) -> np.ndarray:
        # Few values, so that frames come again.
        return np.full((self.colours, H, W), self.rng.integers(5), np.uint8)

    def next(self) -> np.ndarray:
        new = self.frame()
        if self.time == 0:
            self.frames = [new if self.episode % 2 else np.zeros_like(new)] * (self.k - 1) + [new]
        else:
            self.frames = [*self.frames[1:], new]
        self.time = (self.time + 1) % self.length
        self.episode += self.time == 0
        return np.concatenate(self.frames)


def check(store: ObservationStore, kept: list[list[Any]]) -> None:
    """Every living observation comes back, all in one reading."""
    lanes = np.repeat(np.arange(store.n_envs), store.head - store.tail)
    positions = np.concatenate([np.arange(a, b) for a, b in zip(store.tail, store.head, strict=True)])
    expected = np.stack([kept[lane][position] for lane, position in zip(lanes, positions, strict=True)])
    read = store.read(positions, lanes)
    assert isinstance(read, np.ndarray) and read.dtype == expected.dtype
    np.testing.assert_array_equal(read, expected)


@pytest.mark.parametrize(("k", "colours"), [(2, 1), (4, 1), (5, 3)])
@pytest.mark.parametrize("lengths", [(1, 2, 7), (11, 13, 53)])
def test_every_living_stack_comes_back_exactly_with_lanes_at_their_own_pace(
    k: int, colours: int, lengths: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(2)
    store = FrameStore(stacks(k, colours), 29, B, k)
    sources = [Lane(k, colours, length, rng) for length in lengths]
    kept: list[list[Any]] = [[] for _ in range(B)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for _ in range(150):
            lanes = np.flatnonzero(rng.random(B) < 0.7)
            observations = [sources[lane].next() for lane in lanes]
            if len(lanes):
                store.append(lanes, np.stack(observations))
            for lane, observation in zip(lanes, observations, strict=True):
                kept[lane].append(observation)
            check(store, kept)
    assert store.head.tolist() == [len(lane) for lane in kept]
    assert (store.tail < store.head).all()
    # Nothing dies early where episodes are long enough.
    if lengths[-1] == 53 and k < 5:
        assert store.tail[2] == store.head[2] - 29


def test_stacks_without_any_order_come_back_and_warn_of_the_room_they_take() -> None:
    rng = np.random.default_rng(4)
    store = FrameStore(stacks(4), 47, B, 4)
    kept: list[list[Any]] = [[] for _ in range(B)]

    def fill() -> None:
        for _ in range(101):
            batch = rng.integers(256, size=(B, 4, H, W), dtype=np.uint8)
            store.append(np.arange(B), batch)
            for lane, observation in zip(kept, batch, strict=True):
                lane.append(observation)
            check(store, kept)

    with pytest.warns(UserWarning, match="frames=1 stores them whole"):
        fill()
    assert (store.head - store.tail).tolist() == [(47 + 3 + 8) // 4] * B


@pytest.mark.parametrize("length", [36, 170, 1700])
def test_takes_at_most_a_tenth_more_than_one_frame_a_transition(length: int) -> None:
    space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    assert predicted_bytes(space, 12_500, 8) <= 1.1 * 84 * 84 * 100_000
    rng = np.random.default_rng(5)
    store, source = FrameStore(stacks(4), 431, 1, 4), Lane(4, 1, length, rng)
    for _ in range(1009):
        store.append(np.array([0]), source.next()[None])
    assert store.head[0] - store.tail[0] == 431


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (5, 3), np.float32),
        spaces.Discrete(7),
        spaces.MultiBinary(5),
        spaces.MultiDiscrete([3, 5]),
        spaces.Dict({"b": spaces.Box(0, 255, (3, 11, 5), np.uint8), "a": spaces.Discrete(7)}),
    ],
)
def test_other_spaces_are_stored_as_they_are(space: spaces.Space[Any]) -> None:
    space.seed(3)
    store = observation_store(space, 7, B)
    assert isinstance(store, PlainStore)
    kept: list[Any] = []
    for _ in range(17):
        samples = [space.sample() for _ in range(B)]
        kept.append(samples)
        batch: Any = np.stack(samples)
        if isinstance(space, spaces.Dict):
            batch = {key: np.stack([sample[key] for sample in samples]) for key in space.spaces}
        store.append(np.arange(B), batch)
    assert store.tail.tolist() == [10] * B
    positions, lanes = np.array([[10, 16], [13, 12]]), np.array([[0, 2], [1, 1]])
    read = store.read(positions, lanes)
    for i in np.ndindex(2, 2):
        expected = kept[positions[i]][lanes[i]]
        if isinstance(read, dict):
            assert all(np.array_equal(read[key][i], expected[key]) for key in read)
            assert read["b"].dtype == np.uint8
        else:
            assert read.dtype == space.dtype
            np.testing.assert_array_equal(read[i], expected)


def test_reading_gives_a_copy() -> None:
    for store in (FrameStore(stacks(2), 5, 1, 2), PlainStore(stacks(2), 5, 1)):
        store.append(np.array([0]), np.full((1, 2, H, W), 7, np.uint8))
        one = np.array([0])
        read: Any = store.read(one, one)
        read[:] = 1
        assert np.all(store.read(one, one) == 7)


@pytest.mark.parametrize(
    ("space", "frames", "expected"),
    [
        (stacks(4), None, 4),
        (stacks(2), None, 2),
        (stacks(3), None, 1),  # the colours of one image
        (stacks(3), 3, 3),
        (stacks(4, 3), 4, 4),
        (stacks(4), 1, 1),
        (stacks(1), None, 1),
        (spaces.Box(0, 255, (4, 35, 84), np.uint8), None, 1),
        (spaces.Box(0, 1, (4, 84, 84), np.float32), None, 1),
        (spaces.Box(0, 255, (84, 84), np.uint8), None, 1),
        (spaces.Discrete(5), None, 1),
    ],
)
def test_stacks_are_told_by_their_space(space: spaces.Space[Any], frames: int | None, expected: int) -> None:
    assert stacked_frames(space, frames) == expected
    store = observation_store(space, 11, B, frames)
    assert isinstance(store, PlainStore if expected == 1 else FrameStore)
    assert store.nbytes == predicted_bytes(space, 11, B, frames)


def test_refuses_what_does_not_fit() -> None:
    for space, frames in [(stacks(4), 3), (spaces.Discrete(5), 2), (stacks(4), 0)]:
        with pytest.raises(ValueError, match="frames"):
            observation_store(space, 11, B, frames)
    with pytest.raises(ValueError, match="fixed shape"):
        observation_store(spaces.Sequence(spaces.Discrete(3)), 11, B)
    for store in (FrameStore(stacks(2), 5, 1, 2), PlainStore(stacks(2), 5, 1)):
        with pytest.raises(ValueError, match="shape"):
            store.append(np.array([0]), np.zeros((1, 2, W, H), np.uint8))


@pytest.mark.parametrize(("channels", "expected"), [(1, 1), (2, 2), (3, 1), (4, 4), (6, 2), (12, 4)])
def test_channels_that_three_divides_are_colours(channels: int, expected: int) -> None:
    assert stacked_frames(spaces.Box(0, 255, (channels, 36, 40), np.uint8)) == expected
