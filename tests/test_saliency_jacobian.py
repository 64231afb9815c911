"""The Jacobians of all heads: against differences, where they must be zero, and what they leave alone."""

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import CombinedExtractor
from torch import Tensor

from saccade.policies import (
    GRU,
    LSTM,
    ActorCriticPolicy,
    ConvTorso,
    FeedForward,
    LearnedGaze,
    QPolicy,
    RandomGaze,
    RecurrentGlimpse,
    Retina,
)
from saccade.policies.policy import map_observations
from saccade.policies.twin import Twin
from saccade.saliency.draw import field_boxes
from saccade.saliency.jacobian import difference, head_jacobian, unroll_steps

T, B, ACTIONS = 5, 2, 3
VECTOR = spaces.Box(-1, 1, (7,), np.float32)
IMAGE = spaces.Box(0, 1, (2, 11, 13), np.float32)
GLIMPSE = {"retina": partial(Retina, 3, 2), "hidden_size": 17, "glimpse_size": 19, "pathway_size": 5}
WIDE_GAZE = partial(LearnedGaze, sigma=0.6)


KINDS = {"q": QPolicy, "actor-critic": ActorCriticPolicy}
MASK_SIZE = 7


def make_policy(
    space: gym.Space[Any], core_class: Any, core_kwargs: dict[str, Any], kind: str = "q", actions: Any = None, **kwargs: Any
) -> Any:
    head = {"net_arch": (11,)} if kind == "actor-critic" else {"head_hidden_size": 11}
    policy = KINDS[kind](
        space,
        actions or spaces.Discrete(ACTIONS),
        lambda _: 1e-3,
        core_class=core_class,
        core_kwargs=core_kwargs,
        **(head | kwargs),
    )
    if isinstance(policy, ActorCriticPolicy):
        with torch.no_grad():  # it starts out with no preference to speak of
            policy.head.action.weight *= 100
    policy.set_training_mode(False)
    return policy


POLICIES: dict[str, tuple[gym.Space[Any], Any, dict[str, Any], dict[str, Any]]] = {
    "mlp": (VECTOR, FeedForward, {}, {}),
    "lstm": (VECTOR, LSTM, {"hidden_size": 13}, {}),
    "conv": (IMAGE, FeedForward, {}, {"features_extractor_class": ConvTorso}),
    "conv-gru": (IMAGE, GRU, {"hidden_size": 13}, {"features_extractor_class": ConvTorso}),
    "glimpse": (IMAGE, RecurrentGlimpse, {**GLIMPSE, "gaze": WIDE_GAZE}, {}),
    "glimpse-mean": (IMAGE, RecurrentGlimpse, {**GLIMPSE, "retina": partial(Retina, 3, 2, pooling="mean")}, {}),
    "twin": (VECTOR, Twin, {"core": partial(GRU, hidden_size=13)}, {}),
    "dict": (
        spaces.Dict({"a": VECTOR, "b": spaces.Box(-1, 1, (3,), np.float32)}),
        LSTM,
        {"hidden_size": 13},
        {"features_extractor_class": CombinedExtractor},
    ),
}


def sequence(policy: Any) -> tuple[Any, Tensor, Tensor, Tensor | None]:
    """Random observations, episode starts (one in mid-sequence), actions and latent decisions."""
    policy.observation_space.seed(0)
    samples = [policy.observation_space.sample() for _ in range(T * B)]
    observations: Any
    if isinstance(samples[0], dict):
        observations = {key: torch.as_tensor(np.stack([sample[key] for sample in samples])) for key in samples[0]}
    else:
        observations = torch.as_tensor(np.stack(samples))
    starts = torch.zeros(T, B, dtype=torch.bool)
    starts[0] = True
    starts[2, 1] = True
    size = policy.core.decision_size
    replay = torch.rand(T, B, size) * 2.4 - 1.2 if size else None
    policy.action_space.seed(0)
    taken = torch.as_tensor(np.stack([policy.action_space.sample() for _ in range(T * B)])).unflatten(0, (T, B))
    return map_observations(lambda part: part.unflatten(0, (T, B)), observations), starts, taken, replay


def assert_agrees_with_differences(policy: Any, masks: Tensor | None = None) -> None:
    policy.double()
    observations, starts, taken, replay = sequence(policy)
    replay = None if replay is None else replay.double()
    maps = head_jacobian(policy, observations, starts, taken, replay, masks=masks)
    expected = difference(policy, unroll_steps(policy, observations, starts, taken, replay, masks=masks))
    assert maps.keys() == expected.keys() and len(maps) == 2
    for name, found in maps.items():
        for key in found if isinstance(found, dict) else [...]:
            assert found[key].abs().max() > 1e-4
            torch.testing.assert_close(found[key].flatten(0, 1), expected[name][key], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", POLICIES)
def test_agrees_with_differences(name: str, kind: str) -> None:
    space, core_class, core_kwargs, kwargs = POLICIES[name]
    assert_agrees_with_differences(make_policy(space, core_class, core_kwargs, kind, **kwargs))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("core_class", [FeedForward, LSTM])
def test_readouts_of_what_was_seen_are_what_the_policy_said(core_class: Any, normalize: bool, kind: str) -> None:
    policy = make_policy(VECTOR, core_class, {}, kind, normalize_observations=normalize)
    policy.note(3 * torch.rand(23, 7) + 5)
    observations, starts, taken, replay = sequence(policy)
    with torch.no_grad():
        core = policy.encode(observations, policy.initial_state(B), starts, replay, deterministic=True)
        said = policy.outputs(core.features)["value"].flatten(0, 1)
        steps = unroll_steps(policy, observations, starts, taken, replay)
        torch.testing.assert_close(steps.readouts(policy, steps.inputs)["value"], said, rtol=0, atol=1e-5)


ACTION_SPACES = {
    "discrete": spaces.Discrete(MASK_SIZE),
    "multi-discrete": spaces.MultiDiscrete([2, 5]),
    "multi-binary": spaces.MultiBinary(5),
    "box": spaces.Box(-1, 1, (2, 3), np.float32),
    "number": spaces.Box(-1, 1, (1,), np.float32),
}


@pytest.mark.parametrize("name", ACTION_SPACES)
def test_every_kind_of_action_agrees_with_differences(name: str) -> None:
    policy = make_policy(VECTOR, LSTM, {"hidden_size": 13}, "actor-critic", ACTION_SPACES[name])
    assert_agrees_with_differences(policy)


@pytest.mark.parametrize("name", ["discrete", "multi-discrete", "multi-binary"])
def test_with_some_choices_masked_it_agrees_with_differences(name: str) -> None:
    policy = make_policy(VECTOR, LSTM, {"hidden_size": 13}, "actor-critic", ACTION_SPACES[name])
    masks = torch.rand(T, B, policy.distribution.mask_size) < 0.8
    masks[..., -2:] = masks[..., :2] = True
    assert not masks.all()
    assert_agrees_with_differences(policy, masks)


def test_the_map_of_numbers_squared_is_twice_the_divergence_of_a_small_step() -> None:
    policy = make_policy(VECTOR, FeedForward, {}, "actor-critic", ACTION_SPACES["box"], log_std_init=-1.3).double()
    observations, starts, taken, _ = sequence(policy)
    maps = head_jacobian(policy, observations, starts, taken)
    small = 1e-4
    for i in range(VECTOR.shape[0]):
        moved = observations.clone()
        moved[..., i] += small
        before, after = (
            torch.distributions.Normal(policy(x, (), starts)[0].parameters, policy.distribution.log_std.exp())
            for x in (observations, moved)
        )
        divergence = torch.distributions.kl_divergence(before, after).sum(dim=-1)
        torch.testing.assert_close(maps["policy"][..., i].square(), 2 * divergence / small**2, rtol=0.01, atol=1e-4)


def test_with_a_memory_each_the_value_does_not_depend_on_the_actors() -> None:
    policy = make_policy(VECTOR, Twin, {"core": partial(LSTM, hidden_size=13)}, "actor-critic", net_arch={"pi": [5], "vf": [7]})
    arguments = sequence(policy)
    before = head_jacobian(policy, *arguments)
    with torch.no_grad():
        for parameter in policy.core.actor.parameters():
            parameter *= 2
    after = head_jacobian(policy, *arguments)
    assert torch.equal(before["value"], after["value"])
    assert not torch.allclose(before["policy"], after["policy"])


@pytest.mark.parametrize("name", POLICIES)
def test_the_two_maps_add_up_to_the_gradient_of_q_along_the_sequence(name: str) -> None:
    """Against an ordinary backward pass through the whole sequence, of which the present step's own share is taken."""
    space, core_class, core_kwargs, kwargs = POLICIES[name]
    policy = make_policy(space, core_class, core_kwargs, **kwargs)
    observations, starts, taken, replay = sequence(policy)
    maps = head_jacobian(policy, observations, starts, taken, replay)
    keys = list(observations) if isinstance(observations, dict) else [...]
    leaves = [observations[key].clone().requires_grad_() for key in keys]
    seen = dict(zip(keys, leaves, strict=True)) if isinstance(observations, dict) else leaves[0]
    q = policy(seen, policy.initial_state(B), starts, replay).head.q.gather(-1, taken[..., None])
    for t in range(T):
        gradients = torch.autograd.grad(q[t].sum(), leaves, retain_graph=True)
        for key, gradient in zip(keys, gradients, strict=True):
            found = maps["value"][key][t] + maps["advantage"][key][t]
            torch.testing.assert_close(found, gradient[t], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_outside_the_fields_of_a_glimpse_the_derivative_is_exactly_zero(kind: str) -> None:
    policy = make_policy(IMAGE, RecurrentGlimpse, GLIMPSE, kind)
    observations, starts, taken, replay = sequence(policy)
    assert replay is not None
    maps = head_jacobian(policy, observations, starts, taken, replay)
    gazes = torch.cat([torch.zeros(1, B, 2), replay[:-1]]).where(~starts[..., None], 0).clamp(-1, 1)
    height, width = IMAGE.shape[1:]
    fields = [(2 * field / width, 2 * field / height) for field in policy.core.retina.fields]
    for t, lane in np.ndindex(T, B):
        seen = np.zeros((height, width), dtype=np.bool_)
        for left, top, right, bottom in field_boxes(gazes[t, lane].numpy(), fields, height, width):
            seen[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = True
        assert 0 < seen.sum() < seen.size
        for found in maps.values():
            assert isinstance(found, Tensor)
            assert not found[t, lane][:, ~torch.as_tensor(seen)].any()
            assert found[t, lane][:, torch.as_tensor(seen)].any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("core_class", [FeedForward, RecurrentGlimpse])
def test_bytes_are_differentiated_as_floats_from_zero_to_one(core_class: Any, kind: str) -> None:
    space = spaces.Box(0, 255, (1, 11, 13), np.uint8)
    policy = make_policy(space, core_class, GLIMPSE if core_class is RecurrentGlimpse else {}, kind)
    pixels = torch.randperm(256)[:143].to(torch.uint8).reshape(1, 1, 1, 11, 13)
    starts, taken = torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1, dtype=torch.long)
    maps = head_jacobian(policy, pixels, starts, taken)
    steps = unroll_steps(policy, pixels, starts, taken)
    assert isinstance(steps.inputs, Tensor)
    torch.testing.assert_close(steps.inputs, pixels[0] / 255)
    value = steps.readouts(policy, steps.inputs)["value"]
    features = policy.encode(pixels, policy.initial_state(1), starts).features
    torch.testing.assert_close(value, policy.outputs(features)["value"][0])
    for found in maps.values():
        assert isinstance(found, Tensor)
        assert found.shape == pixels.shape


@pytest.mark.parametrize("kind", KINDS)
def test_many_steps_are_differentiated_in_parts_with_the_same_result(kind: str) -> None:
    policy = make_policy(IMAGE, RecurrentGlimpse, GLIMPSE, kind)
    arguments = sequence(policy)
    whole = head_jacobian(policy, *arguments)
    parts = head_jacobian(policy, *arguments, lanes_at_once=3)
    for name, one in whole.items():
        torch.testing.assert_close(one, parts[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("gaze", [LearnedGaze, RandomGaze])
def test_leaves_the_policy_and_the_generators_alone(gaze: Any) -> None:
    policy = make_policy(IMAGE, RecurrentGlimpse, {**GLIMPSE, "gaze": gaze})
    policy.set_training_mode(True)
    policy.core.glimpse.eval()  # a mixture of modes, which must come back as it was
    observations, starts, taken, _ = sequence(policy)
    policy.head.value[0].weight.grad = torch.ones_like(policy.head.value[0].weight)
    weights = {name: parameter.clone() for name, parameter in policy.state_dict().items()}
    modes = [module.training for module in policy.modules()]
    generator = torch.get_rng_state()
    with torch.no_grad():  # wherever it is called from
        head_jacobian(policy, observations, starts, taken)
    assert torch.equal(generator, torch.get_rng_state())
    assert modes == [module.training for module in policy.modules()]
    for name, parameter in policy.state_dict().items():
        assert torch.equal(parameter, weights[name])
    gradients = [name for name, parameter in policy.named_parameters() if parameter.grad is not None]
    assert gradients == ["head.value.0.weight"]
    assert torch.equal(policy.head.value[0].weight.grad, torch.ones_like(policy.head.value[0].weight))


def test_works_from_within_inference_mode() -> None:
    policy = make_policy(VECTOR, LSTM, {"hidden_size": 13})
    arguments = sequence(policy)
    with torch.inference_mode():
        inside = head_jacobian(policy, *arguments)
    assert isinstance(inside["value"], Tensor)
    assert inside["value"].abs().max() > 0
