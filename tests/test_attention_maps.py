"""Pictures of attention over past steps: the right cells in the right places, and which agents get them."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from memory_pictures import ALL, NONE, STEP, STEPS, make_episode, places, record
from saccade.agents import PPO
from saccade.envs import ProbeMemory, TaskVecEnv
from saccade.policies import LSTM, GTrXL, Ponder, TapKind, Universal
from saccade.saliency import SaliencyCallback, attention_map, play_episode
from saccade.saliency.attention_maps import attention_records, bars, over_steps, squares
from saccade.saliency.film import FilmError

WINDOW = 3


def looking_back(steps: int) -> np.ndarray:
    """Weights ``[T, W + 1]`` of steps that all attend to the one so many steps before them, or else to the first."""
    weights = np.zeros((STEPS, WINDOW + 1), np.float32)
    weights[np.arange(STEPS), WINDOW - np.minimum(steps, np.arange(STEPS))] = 1
    return weights


def drawn(cells: set[tuple[int, int]]) -> np.ndarray:
    """A square that is dark but for these (attended to, attending) steps, painted by hand."""
    plot = np.full((STEPS * STEP, STEPS * STEP, 3), NONE, np.uint8)
    for row, column in cells:
        plot[row * STEP : (row + 1) * STEP, column * STEP : (column + 1) * STEP] = ALL
    return plot


def test_every_head_has_a_square_of_the_steps_that_it_attended_to() -> None:
    weights = np.stack([looking_back(0), looking_back(2)], axis=1)[:, None]
    names = (["layer 1"], ["head 1", "head 2"])
    episode = make_episode({"attention": record(TapKind.TIME, weights, names=names)})
    titles = [panel.title for panel in squares(attention_records(episode))]
    assert titles == ["attention, layer 1 head 1", "attention, layer 1 head 2"]
    picture = attention_map(episode)
    ((_, left),) = places(picture, drawn({(t, t) for t in range(STEPS)}))
    ((_, other),) = places(picture, drawn({(max(t - 2, 0), t) for t in range(STEPS)}))
    assert left >= 0 <= other


def test_weights_of_steps_before_the_episode_are_nowhere() -> None:
    weights = np.random.default_rng(0).random((STEPS, 1, WINDOW + 1))
    whole = over_steps(weights)
    for t in range(STEPS):
        for seen in range(STEPS):
            expected = weights[t, 0, WINDOW - (t - seen)] if 0 <= t - seen <= WINDOW else 0
            assert whole[t, 0, seen] == expected


def test_a_window_longer_than_the_episode() -> None:
    weights = np.arange(2 * 10, dtype=np.float64).reshape(2, 1, 10)
    assert over_steps(weights)[:, 0].tolist() == [[9, 0], [18, 19]]


def test_computations_are_bars_from_the_bottom() -> None:
    taken = [1, 3, 2, 1, 1, 3, 1]
    episode = make_episode({"ponder": record(TapKind.PONDER, taken)})
    (panel,) = bars(attention_records(episode))
    assert panel.rows.names == ["3", "2", "1"]
    plot = np.full((3 * panel.rows.cell, STEPS * STEP, 3), NONE, np.uint8)
    for t, count in enumerate(taken):
        plot[(3 - count) * panel.rows.cell :, t * STEP : (t + 1) * STEP] = ALL
    assert np.array_equal(panel.plot, plot)
    assert len(list(places(attention_map(episode), plot))) == 1


@pytest.mark.parametrize(
    ("tap", "message"),
    [
        (record(TapKind.TIME, np.full((STEPS, 4), np.nan)), "w is not finite at step 0"),
        (record(TapKind.TIME, np.zeros(STEPS)), r"w, of kind time, needs axes \[T, ..., window\]; got \[7\]"),
        (record(TapKind.PONDER, np.zeros((STEPS, 2))), r"w, of kind ponder, needs axes \[T\]; got \[7, 2\]"),
        (record(TapKind.GAZE, np.zeros((STEPS, 2))), "no tap of this episode is of attention over time; it holds"),
    ],
)
def test_taps_that_cannot_be_drawn_are_named(tap: Any, message: str) -> None:
    with pytest.raises(FilmError, match=message):
        attention_map(make_episode({"w": tap}))


@pytest.mark.parametrize(
    ("core", "names"),
    [
        (partial(GTrXL, hidden_size=12, n_layers=2, n_heads=3, window=3, shared_values=True), ["attention", "mean_attention"]),
        (partial(Universal, hidden_size=12, max_steps=2, n_heads=3, window=3), ["attention", "ponder"]),
        (partial(Ponder, core=partial(LSTM, hidden_size=5), max_steps=3), ["ponder"]),
        (partial(LSTM, hidden_size=5), []),
    ],
)
def test_an_agent_that_looks_back_gets_a_picture_in_its_folder(core: Any, names: list[str], tmp_path: Path) -> None:
    def probe(lanes: int = 1) -> TaskVecEnv:
        return TaskVecEnv(ProbeMemory(lanes, seed=0))

    kwargs = {"core_class": core.func, "core_kwargs": core.keywords}
    agent = PPO("CorePolicy", probe(4), n_steps=4, batch_size=16, n_epochs=1, policy_kwargs=kwargs, seed=0, device="cpu")
    agent.learn(16, callback=SaliencyCallback(probe, every=16, folder=tmp_path))
    assert (tmp_path / "attention.png").exists() == bool(names)
    records = attention_records(play_episode(agent.policy, probe()))
    assert sorted(records) == names
    for one in records.values():
        if one.kind is TapKind.TIME:
            torch.testing.assert_close(torch.as_tensor(one.values.sum(-1)), torch.ones(one.values.shape[:-1]))
