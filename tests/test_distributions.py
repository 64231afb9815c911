"""Distributions over actions: torch's and sb3-contrib's numbers, and what is never drawn."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib.common.maskable.distributions import make_masked_proba_distribution
from stable_baselines3.common.distributions import make_proba_distribution
from torch import Tensor
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Distribution, Independent, Normal

from saccade.policies.distributions import MASKED, ActionDistribution, action_distribution

T, B = 5, 3
DISCRETE, MULTI, BITS = spaces.Discrete(7), spaces.MultiDiscrete([2, 3, 5]), spaces.MultiBinary(3)
BOX, GRID = spaces.Box(-1, 1, (3,), np.float32), spaces.Box(-1, 1, (2, 3), np.float32)
SPACES = [DISCRETE, MULTI, BITS, BOX, GRID]
MASKABLE = [DISCRETE, MULTI, BITS]
EverySpace = pytest.mark.parametrize("space", SPACES, ids=str)
Maskable = pytest.mark.parametrize("space", MASKABLE, ids=str)


def made(space: gym.Space[Any], *shape: int) -> tuple[ActionDistribution, Tensor]:
    """The distribution of a space, with parameters of some shape, in float64."""
    distribution = action_distribution(space).double()
    for parameter in distribution.parameters():
        parameter.data.normal_(std=0.3)
    return distribution, 2 * torch.randn(*shape, distribution.n_parameters, dtype=torch.float64)


def torchs(space: gym.Space[Any], distribution: ActionDistribution, parameters: Tensor) -> list[Distribution]:
    """The same by torch: independent parts, of which each scores its part of the action."""
    match space:
        case spaces.Discrete():
            return [TorchCategorical(logits=parameters)]
        case spaces.MultiDiscrete():
            return [TorchCategorical(logits=part) for part in parameters.split(space.nvec.tolist(), dim=-1)]
        case spaces.MultiBinary():
            return [TorchBernoulli(logits=part) for part in parameters.unbind(-1)]
    spread = dict(distribution.named_parameters())["log_std"].exp()
    return [Independent(Normal(parameters, spread.expand_as(parameters)), 1)]


def parts(space: gym.Space[Any], actions: Tensor) -> list[Tensor]:
    """What each of torch's distributions scores."""
    if isinstance(space, spaces.Box):
        return [actions.flatten(-len(space.shape))]
    return [actions] if isinstance(space, spaces.Discrete) else list(actions.unbind(-1))


@EverySpace
def test_scores_are_torchs(space: gym.Space[Any]) -> None:
    distribution, parameters = made(space, T, B)
    draw = distribution.sample(parameters)
    assert draw.actions.shape == (T, B, *(space.shape or ()))
    scores = distribution.score(parameters, draw.actions)
    theirs = torchs(space, distribution, parameters)
    expected = [one.log_prob(part.double()) for one, part in zip(theirs, parts(space, draw.actions), strict=True)]
    torch.testing.assert_close(scores.log_prob, torch.stack(expected).sum(0))
    torch.testing.assert_close(scores.entropy, torch.stack([one.entropy() for one in theirs]).sum(0))
    torch.testing.assert_close(draw.log_prob, scores.log_prob)


@EverySpace
def test_scores_are_sb3s(space: gym.Space[Any]) -> None:
    distribution, parameters = made(space, B)
    actions = distribution.sample(parameters).actions
    theirs: Any = make_proba_distribution(space)
    if isinstance(space, spaces.Box):
        theirs = theirs.proba_distribution(parameters, dict(distribution.named_parameters())["log_std"])
        actions = actions.flatten(1)
    else:
        theirs = theirs.proba_distribution(parameters)
    scores = distribution.score(parameters, actions.unflatten(1, space.shape) if isinstance(space, spaces.Box) else actions)
    torch.testing.assert_close(scores.log_prob, theirs.log_prob(actions.double()))
    torch.testing.assert_close(scores.entropy, theirs.entropy())
    torch.testing.assert_close(distribution.mode(parameters).double().reshape(B, -1), theirs.mode().double().reshape(B, -1))


@pytest.mark.parametrize("space", MASKABLE, ids=str)
def test_actions_are_drawn_as_often_as_they_should(space: gym.Space[Any]) -> None:
    n = 20_011
    distribution, parameters = made(space)
    actions = distribution.sample(parameters.expand(n, -1)).actions
    for theirs, part in zip(torchs(space, distribution, parameters), parts(space, actions), strict=True):
        choices = getattr(theirs, "_num_events", 2)
        for choice in range(choices):
            probability = theirs.log_prob(torch.tensor(float(choice))).exp().item()
            spread = (probability * (1 - probability) / n) ** 0.5
            assert (part == choice).double().mean().item() == pytest.approx(probability, abs=4.5 * spread + 1e-9)


def test_a_box_is_drawn_around_its_mean_with_its_spread() -> None:
    n = 20_011
    distribution, parameters = made(GRID)
    actions = distribution.sample(parameters.expand(n, -1)).actions.flatten(1)
    spread = dict(distribution.named_parameters())["log_std"].detach().exp()
    assert ((actions.mean(0) - parameters).abs() < 5 * spread / n**0.5).all()
    torch.testing.assert_close(actions.std(0), spread, rtol=0.03, atol=0)
    assert not torch.corrcoef(actions.T).fill_diagonal_(0).abs().gt(0.05).any()


@EverySpace
def test_gradients_are_those_of_the_scores_and_draws_carry_none(space: gym.Space[Any]) -> None:
    distribution, parameters = made(space, B)
    actions = distribution.sample(parameters.requires_grad_()).actions
    assert not actions.requires_grad
    variables = [parameters, *distribution.parameters()]
    assert torch.autograd.gradcheck(lambda *_: distribution.score(parameters, actions).log_prob, variables)
    assert torch.autograd.gradcheck(lambda *_: distribution.score(parameters, actions).entropy, variables) or isinstance(
        space, spaces.Box
    )


def test_the_spread_starts_where_it_is_told() -> None:
    distribution = action_distribution(BOX, log_std_init=-1.5)
    assert [parameter.tolist() for parameter in distribution.parameters()] == [[-1.5] * 3]
    assert not list(action_distribution(DISCRETE, log_std_init=-1.5).parameters())


# Masks.


def masks_for(distribution: ActionDistribution, *shape: int) -> Tensor:
    """Random masks that leave at least one entry of every choice."""
    pieces = []
    for size in distribution.choices:
        mask = torch.rand(*shape, size) < 0.5
        mask.scatter_(-1, torch.randint(size, (*shape, 1)), True)
        pieces.append(mask)
    return torch.cat(pieces, dim=-1)


def as_choices(space: gym.Space[Any], parameters: Tensor) -> Tensor:
    """A bit as sb3-contrib sees it: a choice of two."""
    if not isinstance(space, spaces.MultiBinary):
        return parameters
    return torch.stack([torch.zeros_like(parameters), parameters], dim=-1).flatten(-2)


@Maskable
def test_masked_scores_are_sb3_contribs(space: gym.Space[Any]) -> None:
    n = 53
    distribution, parameters = made(space, n)
    masks = masks_for(distribution, n)
    assert masks.shape[-1] == distribution.mask_size
    theirs: Any = make_masked_proba_distribution(space)
    theirs.proba_distribution(as_choices(space, parameters))
    theirs.apply_masking(masks)
    masked = distribution.mask(parameters, masks)
    actions = distribution.sample(masked).actions
    scores = distribution.score(masked, actions)
    torch.testing.assert_close(scores.log_prob, theirs.log_prob(actions))
    torch.testing.assert_close(scores.entropy, theirs.entropy())
    assert torch.equal(distribution.mode(masked).long(), theirs.mode())


@Maskable
def test_what_is_masked_is_never_drawn_and_its_probability_is_zero(space: gym.Space[Any]) -> None:
    n = 2003
    distribution, parameters = made(space, n)
    parameters = parameters.float()
    masks = masks_for(distribution, n)
    masked = distribution.mask(parameters, masks)
    starts = np.cumsum([0, *distribution.choices])[:-1].tolist()
    for actions in (distribution.sample(masked).actions, distribution.mode(masked)):
        for start, part in zip(starts, parts(space, actions), strict=True):
            assert masks.gather(-1, start + part.long()[:, None]).all()
    for start, size, one in zip(starts, distribution.choices, torchs(space, distribution, masked), strict=True):
        for choice in range(size):
            probability = one.log_prob(torch.full((n,), float(choice))).exp()
            assert (probability[~masks[:, start + choice]] == 0).all()
            assert (probability[masks[:, start + choice]] > 0).all()


@Maskable
def test_gradients_under_a_mask_are_finite_and_none_reaches_what_is_masked(space: gym.Space[Any]) -> None:
    distribution, parameters = made(space, B)
    parameters = parameters.float().requires_grad_()
    masks = masks_for(distribution, B)
    actions = distribution.sample(distribution.mask(parameters, masks)).actions
    scores = distribution.score(distribution.mask(parameters, masks), actions)
    assert scores.log_prob.isfinite().all()
    (gradient,) = torch.autograd.grad((scores.log_prob + scores.entropy).sum(), parameters)
    assert gradient.isfinite().all()
    if not isinstance(space, spaces.MultiBinary):
        assert not gradient[~masks].any()
    assert gradient.any()


def test_where_one_choice_is_left_nothing_is_uncertain() -> None:
    distribution, parameters = made(DISCRETE, B)
    only = torch.nn.functional.one_hot(torch.tensor([2, 6, 0]), 7).bool()
    masked = distribution.mask(parameters, only)
    scores = distribution.score(masked, torch.tensor([2, 6, 0]))
    assert scores.log_prob.tolist() == [0, 0, 0]
    assert scores.entropy.tolist() == [0, 0, 0]


def test_even_very_unlikely_choices_are_taken_where_they_alone_are_allowed() -> None:
    distribution = action_distribution(spaces.Discrete(3))
    parameters = torch.tensor([[-1e4, 1e4, 1e4]])
    masked = distribution.mask(parameters, torch.tensor([[True, False, False]]))
    assert MASKED < -1e4
    assert distribution.sample(masked).actions.tolist() == [0]


@pytest.mark.parametrize("first", [True, False])
def test_a_bits_mask_says_whether_it_may_be_zero_then_whether_it_may_be_one(first: bool) -> None:
    distribution, parameters = made(BITS, B)
    mask = torch.tensor([first, not first] * 3).expand(B, -1)
    drawn = distribution.sample(distribution.mask(parameters, mask)).actions
    assert (drawn == int(not first)).all()


# What is refused.


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.MultiDiscrete(np.array([[2, 3], [3, 2]])), "vector"),
        (spaces.MultiBinary([2, 3]), "vector"),
        (spaces.Discrete(3, start=1), "start at 0"),
        (spaces.MultiDiscrete([2, 3], start=[0, 1]), "start at 0"),
        (spaces.Text(5), "Discrete, MultiDiscrete, MultiBinary or Box"),
        (spaces.Tuple([spaces.Discrete(2)]), "Discrete, MultiDiscrete, MultiBinary or Box"),
    ],
    ids=str,
)
def test_other_spaces_are_refused_in_words(space: gym.Space[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        action_distribution(space)


def test_a_single_number_is_a_box_too() -> None:
    distribution = action_distribution(spaces.Box(-1, 1, (), np.float32))
    parameters = torch.randn(4, 5, 1)
    assert distribution.sample(parameters).actions.shape == (4, 5)
    assert torch.equal(distribution.mode(parameters), parameters[..., 0])
