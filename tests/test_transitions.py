from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from gymnasium import spaces

from saccade.agents import memory_limit
from saccade.agents.transitions import TransitionReplay, Transitions

B = 3
GAMMA = 0.9
VECTOR = spaces.Box(-1e9, 1e9, (2,), np.float64)
IMAGES = spaces.Box(0, 255, (4, 36, 37), np.uint8)
ACTIONS = spaces.Discrete(5)


class Step(NamedTuple):
    observation: Any
    action: int
    reward: float
    end: str  # "", "terminated" or "truncated"
    final: Any


class Source:
    """Random episodes in ``B`` lanes, whose every observation is another, and all that happened as plain lists."""

    def __init__(self, space: spaces.Box, seed: int, end_chance: float) -> None:
        self.space, self.end_chance = space, end_chance
        self.rng = np.random.default_rng(seed)
        self.count = 0
        self.lanes: list[list[Step]] = [[] for _ in range(B)]
        self.frames = [self.start() for _ in range(B)]

    def new(self) -> np.ndarray:
        self.count += 1
        if self.space is VECTOR:
            return np.array([self.count, -self.count], np.float64)
        return np.full((1, *self.space.shape[1:]), self.count % 256, np.uint8)

    def start(self) -> list[np.ndarray]:
        first = self.new()
        return [np.zeros_like(first), np.zeros_like(first), np.zeros_like(first), first]

    def observe(self, lane: int) -> np.ndarray:
        return self.frames[lane][-1] if self.space is VECTOR else np.concatenate(self.frames[lane])

    def step(self) -> dict[str, Any]:
        seen = np.stack([self.observe(lane) for lane in range(B)])
        actions, rewards = self.rng.integers(5, size=B), self.rng.normal(size=B).astype(np.float32)
        dones = self.rng.random(B) < self.end_chance
        truncated = dones & (self.rng.random(B) < 0.5)
        finals = {}
        for lane in range(B):
            self.frames[lane] = [*self.frames[lane][1:], self.new()]
            end = "truncated" if truncated[lane] else "terminated" if dones[lane] else ""
            if truncated[lane]:
                finals[lane] = self.observe(lane)
            self.lanes[lane].append(Step(seen[lane], int(actions[lane]), float(rewards[lane]), end, finals.get(lane)))
            if dones[lane]:
                self.frames[lane] = self.start()
        return {
            "observations": seen,
            "actions": actions,
            "rewards": rewards,
            "dones": dones,
            "truncated": truncated,
            "finals": finals,
        }

    def transition(self, lane: int, time: int, n_steps: int) -> tuple[float, float, Any] | None:
        """Return, discount and next observation from a step on; ``None`` while that cannot be known."""
        total, discount = 0.0, 1.0
        for later in range(time, time + n_steps):
            if later >= len(self.lanes[lane]):
                return None
            step = self.lanes[lane][later]
            total += discount * step.reward
            discount *= GAMMA
            if step.end == "terminated":
                return total, 0.0, None
            if step.end == "truncated":
                return total, discount, step.final
        if time + n_steps >= len(self.lanes[lane]):
            return None
        return total, discount, self.lanes[lane][time + n_steps].observation

    def expected(self, slots: int, n_steps: int) -> dict[bytes, tuple[Step, Any]]:
        """Transitions by the bytes of their observations: of what fits into the slots, all that is complete."""
        table = {}
        for lane in range(B):
            room, time = slots, len(self.lanes[lane])
            while time > 0:
                step = self.lanes[lane][time - 1]
                room -= 1 + (step.end == "truncated")
                if room < 0:
                    break
                time -= 1
                if (known := self.transition(lane, time, n_steps)) is not None:
                    table[step.observation.tobytes()] = (step, known)
        return table


def replay(space: spaces.Space[Any] = VECTOR, size: int = 3 * 23, seed: int = 0, **settings: Any) -> TransitionReplay:
    return TransitionReplay(size, space, ACTIONS, B, np.random.default_rng(seed), gamma=GAMMA, **settings)


def check(batch: Transitions, table: dict[bytes, tuple[Step, Any]]) -> set[bytes]:
    """Every transition is the reference's; gives which were drawn."""
    drawn = set()
    assert isinstance(batch.observations, torch.Tensor) and isinstance(batch.next_observations, torch.Tensor)
    for i, observation in enumerate(batch.observations.numpy()):
        key = observation.tobytes()
        step, (total, discount, following) = table[key]
        drawn.add(key)
        assert batch.actions[i] == step.action
        assert batch.rewards[i].item() == pytest.approx(total, abs=1e-6)
        assert batch.discounts[i].item() == pytest.approx(discount, abs=1e-7)
        if following is not None:
            np.testing.assert_array_equal(batch.next_observations[i].numpy(), following)
    return drawn


@pytest.mark.parametrize("n_steps", [1, 3, 5])
@pytest.mark.parametrize("alpha", [0.0, 0.6])
@pytest.mark.parametrize("end_chance", [0.02, 0.3, 1.0])
def test_draws_all_complete_transitions_and_no_others_as_a_slow_replay_has_them(
    n_steps: int, alpha: float, end_chance: float
) -> None:
    source = Source(VECTOR, seed=n_steps, end_chance=end_chance)
    tested = replay(n_steps=n_steps, alpha=alpha)
    for time in range(100):
        tested.add(**source.step())
        table = source.expected(23, n_steps)
        assert len(tested) == len(table)
        if not table:
            with pytest.raises(ValueError, match="no complete transition"):
                tested.sample(5)
            continue
        batch = tested.sample(29, 0.4)
        check(batch, table)
        tested.update_priorities(batch.indices, torch.rand(29))
        if time % 33 == 32:
            drawn: set[bytes] = set()
            for _ in range(20):
                drawn |= check(tested.sample(101), table)
            assert len(drawn) > 0.9 * len(table)


@pytest.mark.parametrize("n_steps", [1, 3])
@pytest.mark.parametrize("frames", [None, 1])
def test_stacked_frames_come_back_the_same(n_steps: int, frames: int | None) -> None:
    source = Source(IMAGES, seed=7, end_chance=0.05)
    tested = replay(IMAGES, n_steps=n_steps, frames=frames)
    for _ in range(83):
        tested.add(**source.step())
        table = source.expected(23, n_steps)
        if len(tested):
            check(tested.sample(31), table)
    assert len(tested) > 40


def test_dictionaries_of_observations() -> None:
    space = spaces.Dict({"a": VECTOR, "b": spaces.Discrete(1000)})
    tested = replay(space, size=3 * 11)
    no = np.zeros(B, dtype=np.bool_)
    for time in range(29):
        cut = np.array([time % 7 == 6, False, False])
        seen = {"a": np.full((B, 2), time, np.float64), "b": np.full(B, time)}
        finals = {0: {"a": np.full(2, time + 0.5), "b": np.int64(time + 500)}} if cut[0] else {}
        tested.add(seen, np.zeros(B, np.int64), np.ones(B), cut | no, cut, finals)
    batch = tested.sample(67)
    assert isinstance(batch.observations, dict) and isinstance(batch.next_observations, dict)
    times, following = batch.observations["b"].double(), batch.next_observations["a"][:, 0]
    cut_here = (batch.indices % B == 0) & (times.numpy() % 7 == 6)
    assert cut_here.any()
    np.testing.assert_array_equal(following.numpy(), times.numpy() + np.where(cut_here, 0.5, 1))


def test_uniform_draws_are_uniform_over_lanes_of_different_fill() -> None:
    source = Source(VECTOR, seed=1, end_chance=0.4)
    tested = replay(n_steps=3)
    for _ in range(60):
        tested.add(**source.step())
    indices = np.concatenate([tested.sample(97).indices for _ in range(300)])
    counts = np.unique(indices, return_counts=True)[1]
    assert len(counts) == len(tested)
    expected = len(indices) / len(tested)
    assert ((counts - expected) ** 2 / expected).sum() < 2 * len(tested)


def test_priorities_decide_how_often_and_weights_make_up_for_it() -> None:
    source = Source(VECTOR, seed=1, end_chance=0.1)
    tested = replay(alpha=0.5, epsilon=0.01)
    for _ in range(20):
        tested.add(**source.step())
    first = tested.sample(1, 1.0)
    everyone = np.unique(np.concatenate([tested.sample(97).indices for _ in range(30)]))
    tested.update_priorities(everyone, torch.full((len(everyone),), -0.99))
    tested.update_priorities(first.indices, torch.tensor([-8.99]))
    batches = [tested.sample(97, 0.7) for _ in range(50)]
    indices = np.concatenate([batch.indices for batch in batches])
    assert np.mean(indices == first.indices) == pytest.approx(3 / (len(tested) + 2), abs=0.01)
    chosen = batches[0].indices == first.indices
    assert 0 < chosen.sum() < 97
    np.testing.assert_allclose(batches[0].weights.numpy(), np.where(chosen, 3**-0.7, 1), rtol=1e-6)
    with pytest.raises(ValueError, match="finite"):
        tested.update_priorities(first.indices, torch.tensor([float("nan")]))


def test_an_index_that_has_died_since_it_was_drawn_stays_dead() -> None:
    source = Source(VECTOR, seed=3, end_chance=0.0)
    tested = replay(size=3 * 7, n_steps=3, alpha=0.5)
    for _ in range(7):
        tested.add(**source.step())
    old = tested.sample(31).indices
    for _ in range(2):
        tested.add(**source.step())
    tested.update_priorities(old, torch.full((31,), 1e6))
    alive = {int(index) for index in tested.sample(997).indices}
    assert not set(old.tolist()) <= alive, "some of those drawn before have died"
    for _ in range(20):
        check(tested.sample(31), source.expected(7, 3))


def test_equal_generators_draw_equal_batches() -> None:
    batches = []
    for seed in (5, 5, 6):
        source, tested = Source(VECTOR, seed=1, end_chance=0.1), replay(seed=seed, alpha=0.6)
        for _ in range(40):
            tested.add(**source.step())
        batches.append(tested.sample(53).indices.tolist())
    assert batches[0] == batches[1] != batches[2]


def test_batches_do_not_change_when_steps_are_added() -> None:
    source, tested = Source(VECTOR, seed=1, end_chance=0.1), replay(size=3 * 7)
    for _ in range(11):
        tested.add(**source.step())
    batch = tested.sample(17)
    assert isinstance(batch.observations, torch.Tensor)
    before = batch.observations.clone(), batch.actions.clone(), batch.rewards.clone()
    for _ in range(11):
        tested.add(**source.step())
    for now, then in zip((batch.observations, batch.actions, batch.rewards), before, strict=True):
        assert torch.equal(now, then)


@pytest.mark.parametrize(("space", "frames"), [(VECTOR, None), (IMAGES, None), (IMAGES, 1)])
@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_bytes_are_predicted_and_refused_before_they_are_taken(
    monkeypatch: pytest.MonkeyPatch, space: spaces.Box, frames: int | None, alpha: float
) -> None:
    for size in (3 * 23, 3 * 23 + 2):
        predicted = TransitionReplay.predicted_bytes(size, space, ACTIONS, B, alpha=alpha, frames=frames)
        assert replay(space, size, alpha=alpha, frames=frames).nbytes == predicted
    monkeypatch.setattr(memory_limit, "available_memory", lambda: predicted)
    replay(space, 3 * 23 + 2, alpha=alpha, frames=frames)
    with pytest.raises(ValueError, match=r"largest buffer_size that fits is 71"):
        replay(space, 10**9, alpha=alpha, frames=frames)


def test_refuses_bad_input() -> None:
    with pytest.raises(ValueError, match="n_steps"):
        replay(n_steps=0)
    with pytest.raises(ValueError, match="buffer_size must be at least 21"):
        replay(size=20, n_steps=5)
    with pytest.raises(ValueError, match="gamma"):
        TransitionReplay(99, VECTOR, ACTIONS, B, np.random.default_rng(0), gamma=1.5)
    source, tested = Source(VECTOR, seed=1, end_chance=0.0), replay()
    yes = np.ones(B, dtype=np.bool_)
    with pytest.raises(ValueError, match="truncated but not done"):
        tested.add(**(source.step() | {"truncated": yes}))
    with pytest.raises(ValueError, match=r"lacks .* \[0, 2\]; it has \[1\]"):
        tested.add(**(source.step() | {"truncated": yes, "dones": yes, "finals": {1: np.zeros(2)}}))
    with pytest.raises(ValueError, match="actions of shape"):
        tested.add(**(source.step() | {"actions": np.zeros((B, 1), np.int64)}))


@pytest.mark.filterwarnings("ignore:observations .* seldom")
@pytest.mark.parametrize(("slots", "alive"), [(7, 3), (31, 10)])
@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_steps_that_lose_their_frames_early_are_never_drawn(slots: int, alive: int, alpha: float) -> None:
    tested = replay(IMAGES, B * slots, n_steps=5, alpha=alpha)
    no = np.zeros(B, dtype=np.bool_)
    for time in range(101):
        # No stack follows from another one.
        seen = np.broadcast_to(np.array([time, 255 - time, time, 7], np.uint8)[:, None, None], (B, 4, 36, 37))
        tested.add(seen, np.full(B, time % 5), np.full(B, time), no, no, {})
        assert len(tested) == B * max(0, min(alive, time + 1) - 5)
        if len(tested):
            batch = tested.sample(11)
            assert isinstance(batch.observations, torch.Tensor) and isinstance(batch.next_observations, torch.Tensor)
            times = batch.observations[:, 0, 0, 0].long()
            assert torch.equal(times % 5, batch.actions)
            assert torch.equal(batch.next_observations[:, 2, 5, 3].long(), times + 5)
