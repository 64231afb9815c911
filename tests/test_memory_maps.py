"""Pictures of external memories: the right cells in the right places and colours, and which agents get them."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from memory_pictures import ALL, DIAGONAL, NONE, NUMBER, ROW, SLOT, SLOTS, STEP, STEPS, WIDTH, make_episode, places, record
from saccade.policies import TapKind
from saccade.saliency.draw import BACKGROUND, PATH
from saccade.saliency.film import FilmError
from saccade.saliency.memory_maps import TIMES_EVEN, at_the_end, gates, memory_map, memory_records, over_time
from saccade.saliency.panel import MOST_PIXELS, UNSIGNED, Axis, Scale
from saccade.saliency.sheet import arranged, done, seen


def drawn(cells: list[tuple[int, int]]) -> np.ndarray:
    """A panel of slots that is dark but for these slots and steps, painted by hand."""
    plot = np.full((SLOTS * SLOT, STEPS * STEP, 3), NONE, np.uint8)
    for row, step in cells:
        plot[row * SLOT : (row + 1) * SLOT, step * STEP : (step + 1) * STEP] = ALL
    return plot


# --- The whole picture --------------------------------------------------------------------------------------------------------


def test_a_diagonal_of_weights_is_a_diagonal_and_every_head_has_its_own_panel() -> None:
    written = np.stack([DIAGONAL, DIAGONAL[:, ::-1]], axis=1)
    read = DIAGONAL[::-1]
    taps = {"write_weights": record(TapKind.MEMORY, written), "read_weights": record(TapKind.MEMORY, read)}
    picture = memory_map(make_episode(taps))
    down = list(places(picture, drawn([(i, i) for i in range(SLOTS)])))
    up = list(places(picture, drawn([(SLOTS - 1 - i, i) for i in range(SLOTS)])))
    late = list(places(picture, drawn([(i, STEPS - 1 - i) for i in range(SLOTS)])))
    assert len(down) == len(up) == len(late) == 1


def test_what_was_seen_and_done_is_above_every_column_step_above_step() -> None:
    observations = np.zeros((STEPS, 2), np.float32)
    observations[4, 1] = 1
    actions = np.array([0, 2, 1, 0, 0, 2, 2])
    rewards = np.zeros(STEPS, np.float32)
    rewards[6] = 1
    taps = {name: record(TapKind.MEMORY, DIAGONAL) for name in ("write_weights", "read_weights")}
    picture = memory_map(make_episode(taps, observations=observations, actions=actions, rewards=rewards))
    weights = list(places(picture, drawn([(i, i) for i in range(SLOTS)])))
    columns = {x for _, x in weights}
    top = min(y for y, _ in weights)
    above = []
    for panel in (
        *seen(make_episode({}, observations=observations)),
        *done(make_episode({}, actions=actions, rewards=rewards)),
    ):
        assert panel.plot.shape[1] == STEPS * STEP
        found = list(places(picture, panel.plot))
        assert {x for _, x in found} == columns and len(found) == len(columns)
        above.append(found[0][0])
    assert above == sorted(above) and above[-1] < top


def test_the_strips_hold_what_was_seen_and_done() -> None:
    episode = make_episode({}, observations=np.eye(STEPS, dtype=np.float32)[:, :4], actions=np.array([0, 2, 1, 0, 0, 2, 2]))
    (observation,), (action, reward) = list(seen(episode)), list(done(episode))
    assert [panel.title for panel in (observation, action, reward)] == ["observation", "action", "reward"]
    assert (cells_of(observation.plot, 4) == np.eye(4, STEPS)).all()
    assert (cells_of(action.plot, 3) == (episode.actions == np.arange(3)[:, None])).all()
    assert not cells_of(reward.plot, 1).any()


def cells_of(plot: np.ndarray, rows: int) -> np.ndarray:
    """Whether each cell of a panel is bright, by the middle of it."""
    height = len(plot) // rows
    return (plot[height // 2 :: height, STEP // 2 :: STEP] == ALL).all(axis=-1)


def test_columns_are_as_many_as_make_the_picture_about_as_wide_as_high() -> None:
    top, block = Image.new("RGB", (100, 10), (1, 2, 3)), Image.new("RGB", (90, 90), (4, 5, 6))
    picture = arranged(top, [block] * 9)
    pixels = np.asarray(picture)
    tops, blocks = (list(places(pixels, np.asarray(one))) for one in (top, block))
    assert len(blocks) == 9
    assert [x for y, x in tops] == sorted({x for _, x in blocks})
    assert 0.8 < picture.width / picture.height < 1.7
    assert len(arranged(top, [block]).getcolors() or []) == 3  # one column, and the background


# --- Each kind of tap ---------------------------------------------------------------------------------------------------------


def test_the_heads_of_a_tap_have_one_scale_and_even_weights_are_dark() -> None:
    strong = np.full((STEPS, 2, 100), 0.01)
    strong[0, 0, 0] = 0.5
    panels = list(over_time({"weights": record(TapKind.MEMORY, strong), "even": record(TapKind.MEMORY, strong[:, 1])}))
    assert [panel.title for panel in panels] == ["weights, head 0", "weights, head 1", "even"]
    assert [panel.scale for panel in panels] == [Scale(0, 0.5), Scale(0, 0.5), Scale(0, TIMES_EVEN / 100)]
    assert panels[2].plot.max() < 60
    nothing = next(over_time({"w": record(TapKind.MEMORY, np.zeros((STEPS, SLOTS)))}))
    assert nothing.scale == Scale(0, 1) and (nothing.plot == NONE).all()


def test_usage_is_on_a_scale_from_0_to_1() -> None:
    (panel,) = over_time({"usage": record(TapKind.USAGE, DIAGONAL / 2)})
    assert panel.title == "usage" and panel.scale == Scale(0, 1)
    assert tuple(panel.plot[0, 0]) == UNSIGNED[2] and tuple(panel.plot[0, STEP]) == NONE


def test_gates_are_rows_with_names() -> None:
    modes = np.zeros((STEPS, 2, 3))
    modes[2, 1, 0] = 1
    heads, kinds = ["read 0", "read 1"], ["backward", "content", "forward"]
    taps = {
        "modes": record(TapKind.GATE, modes, names=[heads, kinds]),
        "unnamed": record(TapKind.GATE, modes),
        "write_gate": record(TapKind.GATE, np.ones(STEPS)),
        "many": record(TapKind.GATE, np.zeros((STEPS, 5, 17))),
    }
    named, unnamed, single, many = gates(taps)
    assert named.rows.names == [f"{head} {kind}" for head in heads for kind in kinds]
    assert unnamed.rows.names == ["head 0 0", "head 0 1", "head 0 2", "head 1 0", "head 1 1", "head 1 2"]
    bright = (named.plot[ROW // 2 :: ROW, STEP // 2 :: STEP] == ALL).all(axis=-1)
    assert np.argwhere(bright).tolist() == [[3, 2]]
    assert single.plot.shape[:2] == (ROW, STEPS * STEP) and (single.plot == ALL).all()
    assert not many.rows.names and many.rows.count == 85 and len(many.plot) < 85 * ROW
    assert [panel.columns.word for panel in (named, unnamed, single, many)] == ["", "", "", "step"]


def test_links_and_contents_are_those_after_the_last_step() -> None:
    links = np.zeros((STEPS, SLOTS, SLOTS))
    links[0, 1, 2] = links[-1, 3, 1] = 1
    contents = np.zeros((STEPS, SLOTS, WIDTH))
    contents[0], contents[-1, 4, 2], contents[-1, 0, 0] = 9, 2, -1
    link, content = at_the_end({"link": record(TapKind.LINK, links), "memory": record(TapKind.CONTENT, contents)})
    assert np.argwhere((link.plot[6::12, 6::12] == ALL).all(axis=-1)).tolist() == [[3, 1]]
    assert (link.rows.word, link.columns.word) == ("slot", "slot")
    assert content.scale == Scale(-2, 2) and content.plot.shape == (SLOTS * SLOT, WIDTH * NUMBER, 3)
    assert tuple(content.plot[-1, -1]) == PATH
    half = content.plot[0, 0]
    assert half[2] > half[0] > 0  # blue: below zero
    assert not content.plot[SLOT:-SLOT].any()
    assert (content.rows.word, content.columns.word) == ("slot", "number")


def test_many_slots_and_steps_share_pixels_and_none_is_lost() -> None:
    weights = np.zeros((1100, 700), np.float32)
    weights[np.arange(700), np.arange(700)] = 1
    (panel,) = over_time({"w": record(TapKind.MEMORY, weights)})
    assert max(panel.plot.shape) <= MOST_PIXELS
    bright = (panel.plot == ALL).all(axis=-1)
    assert bright.any(axis=1).all()  # every slot's weight can still be seen
    assert panel.columns.title == "step, 3 a pixel" and panel.rows.title == "slot, 2 a pixel"
    # The numbers stand where the cells are.
    assert {words: x for x, words in panel.columns.ticks()}["600"] == pytest.approx(600.5 / 3)
    signed = Axis("slot", 1100, 1, 1).pool(np.array([0.0, 1, -2] + [0.0] * 1097), 0)
    assert signed[0] == -2 and not signed[1:].any()


def test_128_slots_by_41_steps_are_legible() -> None:
    (panel,) = over_time({"w": record(TapKind.MEMORY, np.zeros((41, 128)))})
    assert panel.plot.shape[:2] == (3 * 128, 8 * 41)


# --- What is seen -------------------------------------------------------------------------------------------------------------


def titles(**changes: Any) -> list[str]:
    return [panel.title for panel in (*seen(make_episode({}, **changes)), *done(make_episode({}, **changes)))]


def test_observations_and_actions_of_every_kind() -> None:
    vectors = {"sign": np.zeros(STEPS, np.int64), "place": np.zeros((STEPS, 2, 2), np.float32)}
    assert titles(observations=vectors) == ["sign", "place", "action", "reward"]
    for actions in (np.ones((STEPS, 4), np.int8), np.full((STEPS, 2, 3), -0.5, np.float32), np.full(STEPS, 1000)):
        action = next(done(make_episode({}, actions=actions, outputs={})))
        assert action.rows.count == actions[0].size and action.plot.shape[1] == STEPS * STEP
    discrete = next(seen(make_episode({}, observations=np.array([0, 3, 0, 0, 0, 0, 0]))))
    assert np.argwhere(cells_of(discrete.plot, 4)).tolist() == [[0, 0], *([0, t] for t in range(2, STEPS)), [3, 1]]
    large = {"observations": np.zeros((STEPS, 1, 30, 30), np.uint8)}
    assert titles(**large) == ["action", "reward"]
    assert titles(**large, frames=np.zeros((STEPS, 30, 30, 3), np.uint8))[0] == "seen, every 3 steps"


def test_frames_stand_at_their_steps() -> None:
    frames = np.arange(1, STEPS + 1, dtype=np.uint8)[:, None, None, None] * np.full((1, 10, 20, 3), 20, np.uint8)
    (panel,) = seen(make_episode({}, frames=frames, frames_are_observations=True))
    assert panel.plot.shape == (48, STEPS * STEP, 3)
    for t in (0, 3, 6):
        assert (panel.plot[:24, t * STEP : min(t * STEP + 48, STEPS * STEP)] == 20 * (t + 1)).all()
    assert (panel.plot[24:] == BACKGROUND).all() and (panel.plot[:, 2 * STEP : 3 * STEP] == BACKGROUND).all()


# --- What cannot be drawn -----------------------------------------------------------------------------------------------------


def test_what_cannot_be_drawn_says_why() -> None:
    with pytest.raises(FilmError, match=r"no tap of this episode is of an external memory; it holds \['gaze'\]"):
        memory_map(make_episode({"gaze": record(TapKind.GAZE, np.zeros((STEPS, 2)))}))
    with pytest.raises(FilmError, match="it holds none"):
        memory_map(make_episode({}))
    wrong = DIAGONAL.copy()
    wrong[4, 0] = np.nan
    with pytest.raises(FilmError, match="the tap w is not finite at step 4"):
        memory_map(make_episode({"w": record(TapKind.MEMORY, wrong)}))


@pytest.mark.parametrize(
    ("kind", "shape", "wanted"),
    [
        (TapKind.MEMORY, (STEPS,), r"\[T, ..., N\]; got \[7\]"),
        (TapKind.USAGE, (STEPS, 2, SLOTS), r"\[T, N\]"),
        (TapKind.CONTENT, (STEPS, SLOTS), r"\[T, N, W\]"),
        (TapKind.LINK, (STEPS, SLOTS, SLOTS + 1), r"\[T, N, N\]; got \[7, 5, 6\]"),
    ],
)
def test_a_tap_that_is_not_what_its_kind_says_is_named(kind: TapKind, shape: tuple[int, ...], wanted: str) -> None:
    with pytest.raises(FilmError, match=f"the tap odd, of kind {kind}, needs axes {wanted}"):
        memory_map(make_episode({"odd": record(kind, np.zeros(shape))}))


def test_gates_alone_are_no_memory() -> None:
    gate = record(TapKind.GATE, np.zeros((STEPS, 2)))
    assert not memory_records(make_episode({"forget_gate": gate}))
    assert len(memory_records(make_episode({"gate": gate, "w": record(TapKind.MEMORY, DIAGONAL)}))) == 2
