"""Environments reset in mid-episode leave a replay as a time limit would, had it come a step earlier."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from saccade.agents.sequences import SequenceReplay
from saccade.agents.transitions import TransitionReplay

B = 7
SPACE = spaces.Box(-1e9, 1e9, (2,), np.float64)
ACTIONS = spaces.Discrete(5)
EXAMPLE = (torch.zeros(1, 3),)


def transitions(**settings: Any) -> TransitionReplay:
    return TransitionReplay(B * 101, SPACE, ACTIONS, B, np.random.default_rng(0), **settings)


def sequences(length: int, overlap: int) -> SequenceReplay:
    return SequenceReplay(B * 101, length, overlap, SPACE, ACTIONS, B, EXAMPLE, 0, np.random.default_rng(0))


def script(steps: int, seed: int) -> list[dict[str, Any]]:
    """Random episodes, none of which ends with the last step."""
    rng = np.random.default_rng(seed)
    rows = []
    for time in range(steps):
        numbers = 1000 * seed + 10 * time + np.arange(B)
        dones = (rng.random(B) < 0.2) & (time < steps - 1)
        truncated = dones & (rng.random(B) < 0.5)
        rows.append(
            {
                "observations": np.stack([numbers, -numbers], axis=1).astype(np.float64),
                "actions": numbers % 5,
                "rewards": numbers / 8,
                "dones": dones,
                "truncated": truncated,
                "finals": {lane: np.array([numbers[lane], 0.5]) for lane in np.flatnonzero(truncated).tolist()},
            }
        )
    return rows


def cut_earlier(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without the last step, the one before truncated where it did not end the episode anyway."""
    *kept, before, last = rows
    cut = ~before["dones"]
    finals = before["finals"] | {lane: last["observations"][lane] for lane in np.flatnonzero(cut).tolist()}
    return [*kept, before | {"dones": before["dones"] | cut, "truncated": before["truncated"] | cut, "finals": finals}]


def feed(replay: Any, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        if isinstance(replay, SequenceReplay):
            state = (torch.as_tensor(row["observations"][:, :1]).float().expand(B, 3),)
            replay.add(**row, state=state, decisions=torch.zeros(B, 0))
        else:
            replay.add(**row)


def contents(replay: Any) -> dict[bytes, list[Any]]:
    """All that can be drawn, by first observation."""
    found = {}
    for _ in range(30):
        batch = replay.sample(97)
        time_major = isinstance(replay, SequenceReplay)
        for n in range(97):
            fields = [leaf for leaf in batch[:-2] if isinstance(leaf, torch.Tensor)]
            parts = [leaf[:, n] if time_major else leaf[n] for leaf in fields]
            if not time_major and batch.discounts[n] == 0:
                parts.pop()  # what follows a terminal step is any observation
            if time_major:
                parts.append(batch.state[0][n])
            first = batch.observations[0, n] if time_major else batch.observations[n]
            found[first.numpy().tobytes()] = [part.tolist() for part in parts]
    return found


REPLAYS = [
    *((transitions, {"n_steps": n, "alpha": alpha}) for n in (1, 3) for alpha in (0.0, 0.6)),
    *((sequences, {"length": length, "overlap": overlap}) for length, overlap in ((1, 0), (4, 2), (5, 0), (5, 3))),
]


@pytest.mark.parametrize(("make", "settings"), REPLAYS)
@pytest.mark.parametrize("steps", [2, 11, 13])
def test_breaking_off_is_a_time_limit_one_step_earlier(make: Any, settings: dict[str, Any], steps: int) -> None:
    first, second = script(steps, 1), script(13, 2)
    tested, reference = make(**settings), make(**settings)
    feed(tested, first)
    tested.break_off()
    feed(reference, cut_earlier(first))
    for following in ([], second):
        feed(tested, following)
        feed(reference, following)
        assert len(tested) == len(reference) > 0
        kept = contents(tested)
        assert len(kept) == len(tested)
        assert kept == contents(reference)


@pytest.mark.parametrize(("make", "settings"), REPLAYS)
def test_there_may_be_nothing_to_break_off(make: Any, settings: dict[str, Any]) -> None:
    tested = make(**settings)
    tested.break_off()
    assert len(tested) == 0
    feed(tested, script(1, 1))
    tested.break_off()
    tested.break_off()
    assert len(tested) == 0
    feed(tested, script(13, 2))
    assert len(contents(tested)) == len(tested) > 0
