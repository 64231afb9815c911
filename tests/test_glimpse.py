"""Gaze policies and the recurrent glimpse: what is looked at, when, and what trains it."""

import math
from functools import partial

import pytest
import torch
from torch.distributions import Normal

from saccade.policies import (
    CentreGaze,
    GlimpseNetwork,
    GlimpseState,
    LearnedGaze,
    RandomGaze,
    RecurrentGlimpse,
    Retina,
    recording,
)

SHAPE = (3, 23, 29)


def make(**arguments: object) -> RecurrentGlimpse:
    sizes = {"hidden_size": 13, "glimpse_size": 17, "pathway_size": 19, "retina": partial(Retina, 5, 2)}
    return RecurrentGlimpse(SHAPE, **(sizes | arguments))  # type: ignore[arg-type]


def no_starts(steps: int, lanes: int) -> torch.Tensor:
    return torch.zeros(steps, lanes, dtype=torch.bool)


# The gaze policy.


@pytest.mark.parametrize("learn_sigma", [False, True])
def test_log_probability_and_entropy_are_the_normal_distributions(learn_sigma: bool) -> None:
    gaze, features = LearnedGaze(11, sigma=0.3, learn_sigma=learn_sigma), torch.randn(7, 5, 11)
    chance = Normal(torch.tanh(gaze.mean(features)), torch.tensor(0.3))
    sampled = gaze(features, None, False)
    replayed = gaze(features, torch.randn(7, 5, 2), False)
    for decision in (sampled, replayed):
        torch.testing.assert_close(decision.log_prob, chance.log_prob(decision.value).sum(-1))
        torch.testing.assert_close(decision.entropy, chance.entropy().sum(-1))
    torch.testing.assert_close(gaze(features, None, True).value, chance.mean)


def test_samples_have_the_mean_and_spread_they_say() -> None:
    gaze = LearnedGaze(3, sigma=0.2)
    value = gaze(torch.ones(20_000, 3), None, False).value
    mean = torch.tanh(gaze.mean(torch.ones(3)))
    torch.testing.assert_close(value.mean(0), mean, rtol=0, atol=0.01)
    torch.testing.assert_close(value.std(0), torch.full((2,), 0.2), rtol=0.02, atol=0)
    assert abs(torch.corrcoef(value.T)[0, 1]) < 0.03


def test_the_first_gazes_of_a_new_policy_are_near_the_middle() -> None:
    mean = LearnedGaze(128)(torch.randn(1000, 128), None, True).value
    assert mean.abs().max() < 0.5


def test_neither_sample_nor_replay_carries_a_gradient_but_the_score_does() -> None:
    gaze, features = LearnedGaze(11, learn_sigma=True), torch.randn(5, 11, requires_grad=True)
    for deterministic in (False, True):
        decision = gaze(features, None, deterministic)
        assert not decision.value.requires_grad
        assert decision.log_prob.requires_grad
    names = {name for name, _ in gaze.named_parameters()}
    assert names == {"mean.weight", "mean.bias", "log_sigma"}
    gradients = torch.autograd.grad(gaze(features, torch.randn(5, 2), False).log_prob.sum(), [*gaze.parameters(), features])
    assert all(gradient.any() for gradient in gradients)
    (by_sigma,) = torch.autograd.grad(gaze(features, None, False).entropy.mean(), gaze.log_sigma)
    assert by_sigma.tolist() == pytest.approx([1, 1])


def test_the_gradient_of_the_score_points_from_the_mean_to_the_choice() -> None:
    gaze = LearnedGaze(3, sigma=0.5)
    features, choice = torch.zeros(1, 3), torch.tensor([[0.4, -0.2]])
    (by_bias,) = torch.autograd.grad(gaze(features, choice, False).log_prob.sum(), gaze.mean.bias)
    torch.testing.assert_close(by_bias, choice[0] / 0.25)


def test_detach_keeps_the_score_out_of_the_features() -> None:
    features = torch.randn(5, 11, requires_grad=True)
    gaze = LearnedGaze(11, detach=True)
    score = gaze(features, torch.randn(5, 2), False).log_prob.sum()
    assert torch.autograd.grad(score, [features], allow_unused=True) == (None,)


def test_a_fixed_sigma_is_saved_and_not_trained() -> None:
    gaze = LearnedGaze(3, sigma=0.7)
    assert "log_sigma" not in dict(gaze.named_parameters())
    other = LearnedGaze(3, sigma=0.1)
    other.load_state_dict(gaze.state_dict())
    assert other.log_sigma.exp().tolist() == pytest.approx([0.7, 0.7])


@pytest.mark.parametrize("sigma", [0.0, -0.1])
def test_sigma_must_be_positive(sigma: float) -> None:
    with pytest.raises(ValueError, match=f"sigma must be positive.*{sigma}"):
        LearnedGaze(3, sigma=sigma)


def test_the_untrained_gazes() -> None:
    features = torch.randn(2000, 3)
    centre, random = CentreGaze(3)(features, None, False), RandomGaze(3)(features, None, True)
    assert not centre.value.any()
    assert random.value.abs().max() <= 1
    torch.testing.assert_close(random.value.std(0), torch.full((2,), 1 / math.sqrt(3)), rtol=0.05, atol=0)
    for decision in (centre, random):
        assert not decision.log_prob.any()
        assert not decision.entropy.any()
    replay = torch.rand(2000, 2)
    assert (RandomGaze(3)(features, replay, False).value == replay).all()
    assert not list(RandomGaze(3).parameters())


# The glimpse.


def test_what_and_where_both_matter() -> None:
    network = GlimpseNetwork((2, 3, 5, 5), hidden_size=19, glimpse_size=17)
    patches, gaze = torch.rand(7, 2, 3, 5, 5, requires_grad=True), torch.rand(7, 2, requires_grad=True)
    features = network(patches, gaze)
    assert features.shape == (7, 17)
    by_patches, by_gaze = torch.autograd.grad(features.square().sum(), [patches, gaze])
    assert by_patches.any()
    assert by_gaze.any()


def test_an_episodes_first_look_is_at_the_middle_and_later_ones_where_it_was_decided() -> None:
    core = make(gaze=partial(LearnedGaze, sigma=0.5))
    images, starts = torch.rand(7, 5, *SHAPE), no_starts(7, 5)
    starts[3, 1] = starts[0, 2] = starts[5, 1] = True
    first = torch.full((5, 2), 0.25)
    with recording() as taps:
        output = core(images, GlimpseState(first, core.memory.initial_state(5)), starts)
    assert output.decision is not None
    looked = taps.stacked("gaze")
    expected = torch.cat([first[None], output.decision.value[:-1]]).clamp(-1, 1)
    expected[starts] = 0
    assert (looked == expected).all()
    assert (output.state.gaze == output.decision.value[-1]).all()


def test_a_decision_changes_the_next_step_and_none_before_it() -> None:
    core, images = make(), torch.rand(7, 5, *SHAPE)
    replay = torch.rand(7, 5, 2) - 0.5
    other = replay.clone()
    other[3] += 0.4
    one, two = (core(images, core.initial_state(5), no_starts(7, 5), gazes).features for gazes in (replay, other))
    changed = (one != two).any(-1).any(-1)
    assert changed.tolist() == [False] * 4 + [True] * 3


def test_pixels_beyond_the_fields_change_nothing() -> None:
    core = make()
    images = torch.rand(1, 1, *SHAPE, requires_grad=True)
    features = core(images, core.initial_state(1), no_starts(1, 1)).features
    (gradient,) = torch.autograd.grad(features.square().sum(), images)
    seen = gradient[0, 0].any(0)
    # Fields of 5 and 10 pixels around the middle.
    assert not seen[:6].any()
    assert not seen[17:].any()
    assert not seen[:, :9].any()
    assert not seen[:, 20:].any()
    assert seen.sum() > 50


def test_bytes_and_floats_agree() -> None:
    core = make()
    images = torch.randint(0, 256, (7, 5, *SHAPE), dtype=torch.uint8)
    replay = torch.rand(7, 5, 2) * 2 - 1
    for gazes in (replay, None):
        ours, theirs = (core(batch, core.initial_state(5), no_starts(7, 5), gazes, True) for batch in (images, images / 255))
        torch.testing.assert_close(ours.features, theirs.features)


def test_a_gaze_beyond_the_edge_is_scored_as_it_was_sampled_and_looked_at_at_the_edge() -> None:
    core = make()
    images = torch.rand(2, 1, *SHAPE)
    far, edge = torch.tensor([[[5.0, 0.0]], [[0, 0]]]), torch.tensor([[[1.0, 0.0]], [[0, 0]]])
    beyond, at_edge = (core(images, core.initial_state(1), no_starts(2, 1), gazes) for gazes in (far, edge))
    assert (beyond.features == at_edge.features).all()
    assert beyond.decision.log_prob[0] < at_edge.decision.log_prob[0]
    with recording() as taps:
        core(images, core.initial_state(1), no_starts(2, 1), far)
    assert taps.stacked("gaze")[1, 0].tolist() == [1, 0]


def test_the_tap_says_how_large_the_fields_are_in_units_of_half_the_image() -> None:
    with recording() as taps:
        core = make()
        core(torch.rand(1, 1, *SHAPE), core.initial_state(1), no_starts(1, 1))
    assert taps.notes["gaze"]["fields"] == [(2 * 5 / 29, 2 * 5 / 23), (2 * 10 / 29, 2 * 10 / 23)]


def test_a_cheap_gaze_has_nothing_to_train() -> None:
    assert make().trains_decisions
    assert not make(gaze=RandomGaze).trains_decisions
    assert not make(gaze=CentreGaze).trains_decisions


def test_the_cost_of_looking_does_not_grow_with_the_image() -> None:
    for side in (32, 512):
        core = RecurrentGlimpse((1, side, side), retina=partial(Retina, 5, 2))
        assert sum(parameter.numel() for parameter in core.parameters()) == sum(
            parameter.numel() for parameter in RecurrentGlimpse((1, 8, 8), retina=partial(Retina, 5, 2)).parameters()
        )
