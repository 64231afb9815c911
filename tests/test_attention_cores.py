"""Cores that attend, against their papers' equations written out, and against each other."""

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from saccade.agents import PPO
from saccade.policies import (
    GRU,
    LSTM,
    AssociativeAttention,
    CellGaze,
    ContextNetwork,
    ConvGrid,
    Core,
    Elements,
    HardAttention,
    Introspective,
    LocatedAttention,
    Pixels,
    Ponder,
    RecurrentGlimpse,
    SoftAttention,
    WindowAttention,
    recording,
)
from saccade.policies.gaze import cell_centres, cell_of
from saccade.policies.soft_attention import spatial_basis

GRID = (5, 3, 4)


def set_filters(core: WindowAttention, *numbers: float) -> None:
    """Make the filters what these say, whatever the features are."""
    with torch.no_grad():
        core.set.weight.zero_()
        core.set.bias.copy_(torch.tensor(numbers))


def test_a_window_at_tiny_width_is_a_crop() -> None:
    core = WindowAttention((2, 11, 13), filters=5)
    # A stride of 1: the grid covers 13 pixels at first, 3 apart. In the middle of the image, pixels 3 to 7 down, 4 to 8 across.
    set_filters(core, 0.0, 0.0, -30.0, float(np.log(1 / 3)), 0.0)
    images, read = torch.rand(3, 2, 11, 13), []
    core.glimpse.register_forward_hook(lambda _, inputs, __: read.append(inputs[0]))
    with recording() as taps:
        core(images[None], core.initial_state(3), torch.zeros(1, 3, dtype=torch.bool))
    torch.testing.assert_close(read[0][:, 0], images[:, :, 3:8, 4:9])
    seen = torch.zeros(11, 13)
    seen[3:8, 4:9] = 1 / 25
    torch.testing.assert_close(taps.stacked("attention")[0], seen.expand(3, 11, 13))


def test_a_window_reads_what_gaussians_weigh_with_its_intensity() -> None:
    core = WindowAttention((1, 7, 9), filters=3)
    set_filters(core, 0.25, -0.5, 0.3, -0.7, 0.4)
    filters = core.place(torch.zeros(1, core.features_dim))
    sigma2, delta = filters.variance.item(), filters.stride.item()
    assert delta == pytest.approx(4 * np.exp(-0.7))
    image, read = torch.rand(1, 1, 7, 9), []
    core.glimpse.register_forward_hook(lambda _, inputs, __: read.append(inputs[0]))
    core(image[None], core.initial_state(1), torch.zeros(1, 1, dtype=torch.bool))

    def bank(centre: float, size: int) -> np.ndarray:
        middle = (size - 1) * (centre + 1) / 2
        rows = [np.exp(-((np.arange(size) - middle - delta * (i - 1)) ** 2) / (2 * sigma2)) for i in range(3)]
        return np.array([row / row.sum() for row in rows])

    expected = np.exp(0.4) * bank(-0.5, 7) @ image[0, 0].numpy() @ bank(0.25, 9).T
    np.testing.assert_allclose(read[0][0, 0, 0].detach(), expected, rtol=1e-4)


def test_a_soft_head_of_huge_strength_is_the_hard_one() -> None:
    torch.manual_seed(0)
    hard = HardAttention(GRID, hidden_size=7, n_heads=3)
    soft = SoftAttention(GRID, hidden_size=7, n_heads=3, strength=1e6)
    soft.load_state_dict(hard.state_dict())
    inputs, starts = torch.rand(6, 4, *GRID), torch.rand(6, 4) < 0.2
    with torch.no_grad():
        theirs = hard(inputs, hard.initial_state(4), starts, deterministic=True)
        ours = soft(inputs, soft.initial_state(4), starts)
    torch.testing.assert_close(ours.features, theirs.features)


def ask(core: SoftAttention, question: torch.Tensor) -> None:
    """Make the core's one head ask this, whatever the features are."""
    last = core.query[-1]
    with torch.no_grad():
        last.weight.zero_()  # type: ignore[union-attr, operator]
        last.bias.copy_(question)  # type: ignore[union-attr, operator]


@pytest.mark.parametrize("place", [0, 6, 9])
def test_a_soft_head_finds_a_place_by_where_it_is_and_by_what_it_holds(place: int) -> None:
    torch.manual_seed(0)
    core = SoftAttention(GRID, hidden_size=7, n_heads=1, key_size=2, strength=4.0)
    grid = torch.zeros(1, 5, 12)
    grid[0, 0, place] = 1
    scene = core.prepare(grid.view(1, *GRID))
    held = scene[0][0, place, :2] - scene[0][0, 1, :2]
    for question in (torch.cat([torch.zeros(2), core.where[place]]), torch.cat([held * 30, torch.zeros(64)])):
        ask(core, question)
        with torch.no_grad(), recording() as taps:
            core.attend(scene, torch.zeros(1, 7), (), None, False)
        weights = taps.stacked("attention").flatten()
        assert weights.argmax() == place
        assert weights[place] > 0.8


@pytest.mark.parametrize("score", ["additive", "dot"])
def test_what_is_looked_up_fits_the_question_best(score: str) -> None:
    torch.manual_seed(0)
    core = AssociativeAttention((6, 4), hidden_size=3, key_size=5, value_size=2, score=score)
    elements, features = torch.rand(1, 6, 4), torch.rand(1, 3)
    with torch.no_grad(), recording() as taps:
        read = core.attend(core.prepare(elements), features, (), None, False).read
        asked, held = core.query(features)[0], core.key(elements)[0]
        fits = [asked @ key / 5**0.5 if core.align is None else core.align.weight[0] @ torch.tanh(asked + key) for key in held]
        weights = torch.stack(fits).softmax(0)
        torch.testing.assert_close(taps.stacked("attention")[0, 0], weights)
        torch.testing.assert_close(read[0], weights @ core.value(elements)[0])


def test_associative_attention_does_not_care_where_things_are() -> None:
    core = AssociativeAttention((6, 4), hidden_size=3)
    elements, starts, order = torch.rand(5, 2, 6, 4), torch.zeros(5, 2, dtype=torch.bool), torch.randperm(6)
    with torch.no_grad():
        features = core(elements, core.initial_state(2), starts).features
        torch.testing.assert_close(core(elements[:, :, order], core.initial_state(2), starts).features, features)


def test_a_located_window_reads_a_mixture_of_gaussians_and_moves_on() -> None:
    torch.manual_seed(0)
    core = LocatedAttention((7, 2), hidden_size=3, mixtures=2)
    elements, kappa = torch.rand(1, 7, 2), np.zeros(2)
    state = core.initial_state(1)
    with torch.no_grad():
        for _ in range(3):
            alpha, beta, moved = np.exp(core.window(state.features)[0].numpy().reshape(3, 2))
            kappa = kappa + moved
            phi = sum(alpha[k] * np.exp(-beta[k] * (kappa[k] - np.arange(1, 8)) ** 2) for k in range(2))
            with recording() as taps:
                reading = core.attend(core.prepare(elements), state.features, state.focus, None, False)
            np.testing.assert_allclose(reading.read[0], phi @ elements[0].numpy(), rtol=1e-4)
            np.testing.assert_allclose(taps.stacked("attention")[0, 0], phi / phi.sum(), rtol=1e-4)
            state = core.step(elements, state).state
            np.testing.assert_allclose(state.focus.kappa[0], kappa, rtol=1e-5)


def test_a_located_window_begins_at_the_first_element_and_leaves_behind_the_last() -> None:
    core = LocatedAttention((3, 2), hidden_size=3, mixtures=1).double()
    with torch.no_grad():
        core.window.weight.zero_()
        core.window.bias.copy_(torch.tensor([0.0, 5.0, 0.0]))  # moves one element a step, and is narrow
        with recording() as taps:
            core(torch.rand(9, 1, 3, 2).double(), core.initial_state(1), torch.zeros(9, 1, dtype=torch.bool))
    assert taps.stacked("attention")[:, 0].argmax(-1).tolist() == [0, 1, 2, *[2] * 6]


def test_introspection_is_a_softmax_over_the_cores_own_past() -> None:
    torch.manual_seed(0)
    core, window = Introspective((3,), hidden_size=5, n_heads=2, window=3, memory=GRU), 3
    inputs, starts = torch.rand(8, 1, 3), torch.zeros(8, 1, dtype=torch.bool)
    starts[5] = True
    with torch.no_grad(), recording() as taps:
        output = core(inputs, core.initial_state(1), starts)
        states = core.memory(inputs, core.memory.initial_state(1), starts).features[:, 0]
        for t in range(8):
            first = max(t - window, 5 if t >= 5 else 0)
            seen, found = states[first : t + 1], []
            for head, query in enumerate(core.query(states[t]).view(2, 5)):
                weights = (seen @ query / 5**0.5).softmax(0)
                found.append(weights @ seen)
                shown = taps.stacked("attention")[t, 0, head]
                torch.testing.assert_close(shown[-len(seen) :], weights)
                assert not shown[: -len(seen)].any()
            expected = torch.tanh(core.join(torch.cat([*found, states[t]])))
            torch.testing.assert_close(output.features[t, 0], expected)


AT_ONCE = {
    "hard": (HardAttention, GRID, {"hidden_size": 7, "n_heads": 2}),
    "two looks": (RecurrentGlimpse, (1, 11, 13), {"hidden_size": 7, "n_glimpses": 2}),
}


@pytest.mark.parametrize("kind", AT_ONCE)
def test_the_context_of_a_decision_does_not_know_what_the_decision_shows(kind: str) -> None:
    make, shape, sizes = AT_ONCE[kind]
    core: Core = make(shape, **sizes)  # type: ignore[operator]
    inputs, state, starts = torch.rand(1, 5, *shape), core.initial_state(5), torch.zeros(1, 5, dtype=torch.bool)
    with torch.no_grad():
        one, other = (core(inputs, state, starts, torch.full((1, 5, 4), place)) for place in (-0.7, 0.7))
    assert core.acts_at_once
    assert one.decision is not None
    assert other.decision is not None
    torch.testing.assert_close(one.decision.context, other.decision.context)
    assert not torch.isclose(one.features, other.features).all(-1).any()


def pondering(input_shape: tuple[int, ...], hidden_size: int) -> Core:
    """An LSTM that ponders, as the memory of another core."""
    return Ponder(input_shape, core=partial(LSTM, hidden_size=hidden_size))


def test_a_second_core_that_ponders_pays_for_it() -> None:
    core = RecurrentGlimpse((1, 11, 13), hidden_size=7, memory=pondering, context=ContextNetwork)
    inputs, starts = torch.rand(4, 2, 1, 11, 13), torch.zeros(4, 2, dtype=torch.bool)
    for replay in (None, torch.zeros(4, 2, 2)):
        core.zero_grad()
        cost = core(inputs, core.initial_state(2), starts, replay).cost
        assert cost is not None
        cost.sum().backward()
        for part in (core.memory, core.guide):
            assert part is not None
            assert any(p.grad is not None and p.grad.any() for n, p in part.named_parameters() if n.startswith("halting"))


def test_cells_are_chosen_as_often_as_their_probability_says() -> None:
    torch.manual_seed(0)
    gaze, features = CellGaze(3, rows=2, columns=3), torch.full((20_000, 3), 4.0)
    with torch.no_grad():
        gaze.scores.weight.mul_(5)
        taken = gaze(features, None, False)
        shares = torch.bincount(cell_of(taken.value, 2, 3), minlength=6) / 20_000
        torch.testing.assert_close(shares, gaze.scores(features[0]).softmax(-1), rtol=0, atol=0.015)
        assert shares.max() < 0.95
        torch.testing.assert_close(gaze(features, taken.value, False).log_prob, taken.log_prob)


def test_where_a_place_is_are_waves_down_times_waves_across() -> None:
    basis = spatial_basis(2, 3, 1).view(2, 3, 2, 2)
    for row, y in enumerate((0.25, 0.75)):
        for column, x in enumerate((1 / 6, 1 / 2, 5 / 6)):
            down, across = ([np.cos(np.pi * at), np.sin(np.pi * at)] for at in (y, x))
            np.testing.assert_allclose(basis[row, column], np.outer(down, across), atol=1e-6)


def test_filters_stay_finite_however_far_they_are_pushed() -> None:
    core = WindowAttention((1, 9, 9), filters=3)
    set_filters(core, 1e3, -1e3, 90.0, 90.0, 90.0)
    with torch.no_grad():
        features = core(torch.rand(2, 3, 1, 9, 9), core.initial_state(3), torch.zeros(2, 3, dtype=torch.bool)).features
    assert features.isfinite().all()


def test_a_grid_core_reads_bytes_as_they_are_seen() -> None:
    kwargs = {"features_extractor_class": Pixels, "core_kwargs": {"hidden_size": 8}}
    model = PPO("SoftPolicy", "saccade/Spotlight-v0", n_steps=8, batch_size=8, policy_kwargs=kwargs, device="cpu")
    model.learn(8)
    pixels = torch.randint(0, 256, (5, *model.observation_space.shape), dtype=torch.uint8)
    features = model.policy.extract(pixels)
    torch.testing.assert_close(features.float() / (255 if features.dtype == torch.uint8 else 1), pixels / 255)


def test_every_gaze_lies_in_the_cell_whose_middle_it_is() -> None:
    centres = cell_centres(3, 5)
    assert cell_of(centres, 3, 5).tolist() == list(range(15))
    assert centres[0].tolist() == pytest.approx([-0.8, -2 / 3])
    assert cell_of(torch.tensor([[-9.0, 9.0], [1.0, 1.0], [-1.0, -1.0]]), 3, 5).tolist() == [10, 14, 0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(SoftAttention, GRID, strength=0.0), "strength of SoftAttention must be positive; got 0.0"),
        (partial(SoftAttention, GRID, n_heads=0), "n_heads must be at least 1"),
        (partial(HardAttention, GRID, memory=partial(HardAttention)), "a grid"),
        (partial(AssociativeAttention, GRID, score="cosine"), "score is 'cosine'; it must be one of additive, dot"),
        (partial(LocatedAttention, (7, 2), stride=-1.0), "stride of LocatedAttention must be positive"),
        (partial(WindowAttention, (1, 9, 9), filters=1), "filters of WindowAttention must be at least 2"),
        (partial(Introspective, (3,), window=0), "window must be at least 1"),
        (partial(ConvGrid, spaces.Box(0, 1, (4,))), "ConvGrid needs an image observation"),
        (partial(ConvGrid, spaces.Box(0, 1, (1, 8, 8)), layers=[(4, 3)]), r"a layer of ConvGrid is \[channels, kernel"),
        (partial(ConvGrid, spaces.Box(0, 1, (1, 5, 5)), layers=[(4, 8, 4)], padding=False), "image of 5x5 is too small"),
        (partial(Elements, spaces.Box(0, 1, (4,))), "Elements needs a sequence"),
    ],
)
def test_what_cannot_be_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_policy_names_what_it_cannot_attend_to() -> None:
    for name, env in (("SoftPolicy", gym.make("CartPole-v1")), ("LocatedPolicy", gym.make("CartPole-v1"))):
        with pytest.raises(ValueError, match=r"ConvGrid needs an image|Elements needs a sequence"):
            PPO(name, env)
