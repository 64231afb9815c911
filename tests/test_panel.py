"""Panels: cells in the colours of their scale, axes that tell the truth, and words that are not cut off."""

from typing import Any

import numpy as np

from memory_pictures import ALL, NONE, places
from saccade.saliency.draw import BACKGROUND
from saccade.saliency.panel import UNSIGNED, Axis, Scale, cells_panel, draw_panel, paint, scale_of


def axes(rows: int, columns: int, **names: Any) -> tuple[Axis, Axis]:
    return Axis("slot", rows, 384, 12, **names), Axis("step", columns, 320, 24)


def test_colours_are_of_the_scale() -> None:
    unsigned = paint(np.array([[-1.0, 0.0, 0.5, 1.0, 7.0]]), Scale(0, 1))
    assert [tuple(colour) for colour in unsigned[0]] == [NONE, NONE, UNSIGNED[2], ALL, ALL]
    signed = paint(np.array([[-2.0, 0.0, 2.0]]), Scale(-2, 2))[0]
    assert not signed[1].any() and signed[0][2] > signed[0][0] and signed[2][0] > signed[2][2]
    assert scale_of(np.array([-0.5, 2.0])) == Scale(-2, 2)
    assert scale_of(np.array([0.0, 0.25])) == Scale(0, 0.25)
    assert scale_of(np.zeros(3)) == Scale(0, 1)


def test_a_drawn_panel_has_its_plot_where_it_should_be_and_words_around_it() -> None:
    panel = cells_panel("weights", np.eye(30), *axes(30, 30))
    left = panel.left + 9
    picture = np.asarray(draw_panel(panel, left))
    ((y, x),) = places(picture, panel.plot)
    assert x == left
    height, width = panel.plot.shape[:2]
    for around in (picture[:y], picture[y + height :], picture[y : y + height, :x]):
        assert (around != BACKGROUND).any()
    assert (picture[y : y + height, x + width :] == BACKGROUND).all()
    assert (picture[:, 0] == BACKGROUND).all()


def test_numbers_of_an_axis_are_apart_and_in_the_middle_of_their_cells() -> None:
    slots, steps = axes(128, 41)
    assert [words for _, words in slots.ticks()] == [str(i) for i in range(0, 128, 10)]
    assert [(x, words) for x, words in steps.ticks()][:2] == [(4.0, "0"), (44.0, "5")]
    assert not list(Axis("", 128, 384, 12).ticks())


def test_a_long_name_widens_its_column() -> None:
    name = "write_weights_of_a_name_that_nobody_would_give_to_a_tap_that_is_seven_steps_long"
    panels = [cells_panel(words, np.eye(3), *axes(3, 3)) for words in (name, "w")]
    pictures = [np.asarray(draw_panel(panel, 40)) for panel in panels]
    assert pictures[0].shape[1] > pictures[1].shape[1]
    assert all((picture[:, -4:] == BACKGROUND).all() for picture in pictures)
