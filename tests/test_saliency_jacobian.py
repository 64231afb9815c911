"""The Jacobians of value and advantage: against differences, where they must be zero, and what they leave alone."""

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
    ConvTorso,
    FeedForward,
    LearnedGaze,
    QPolicy,
    RandomGaze,
    RecurrentGlimpse,
    Retina,
)
from saccade.policies.policy import map_observations
from saccade.saliency.draw import field_boxes
from saccade.saliency.jacobian import difference, dueling_jacobian, unroll_steps

T, B, ACTIONS = 5, 2, 3
VECTOR = spaces.Box(-1, 1, (7,), np.float32)
IMAGE = spaces.Box(0, 1, (2, 11, 13), np.float32)
GLIMPSE = {"retina": partial(Retina, 3, 2), "hidden_size": 17, "glimpse_size": 19, "pathway_size": 5}
WIDE_GAZE = partial(LearnedGaze, sigma=0.6)


def make_policy(space: gym.Space[Any], core_class: Any, core_kwargs: dict[str, Any], **kwargs: Any) -> QPolicy:
    policy = QPolicy(
        space,
        spaces.Discrete(ACTIONS),
        lambda _: 1e-3,
        core_class=core_class,
        core_kwargs=core_kwargs,
        head_hidden_size=11,
        **kwargs,
    )
    policy.set_training_mode(False)
    return policy


POLICIES: dict[str, tuple[gym.Space[Any], Any, dict[str, Any], dict[str, Any]]] = {
    "mlp": (VECTOR, FeedForward, {}, {}),
    "lstm": (VECTOR, LSTM, {"hidden_size": 13}, {}),
    "conv": (IMAGE, FeedForward, {}, {"features_extractor_class": ConvTorso}),
    "conv-gru": (IMAGE, GRU, {"hidden_size": 13}, {"features_extractor_class": ConvTorso}),
    "glimpse": (IMAGE, RecurrentGlimpse, {**GLIMPSE, "gaze": WIDE_GAZE}, {}),
    "glimpse-mean": (IMAGE, RecurrentGlimpse, {**GLIMPSE, "retina": partial(Retina, 3, 2, pooling="mean")}, {}),
    "dict": (
        spaces.Dict({"a": VECTOR, "b": spaces.Box(-1, 1, (3,), np.float32)}),
        LSTM,
        {"hidden_size": 13},
        {"features_extractor_class": CombinedExtractor},
    ),
}


def sequence(policy: QPolicy) -> tuple[Any, Tensor, Tensor, Tensor | None]:
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
    taken = torch.randint(ACTIONS, (T, B))
    return map_observations(lambda part: part.unflatten(0, (T, B)), observations), starts, taken, replay


@pytest.mark.parametrize("name", POLICIES)
def test_agrees_with_differences(name: str) -> None:
    space, core_class, core_kwargs, kwargs = POLICIES[name]
    policy = make_policy(space, core_class, core_kwargs, **kwargs).double()
    observations, starts, taken, replay = sequence(policy)
    replay = None if replay is None else replay.double()
    maps = dueling_jacobian(policy, observations, starts, taken, replay)
    expected = difference(policy, unroll_steps(policy, observations, starts, taken, replay))
    for found, wanted in zip(maps, expected, strict=True):
        for key in found if isinstance(found, dict) else [...]:
            assert found[key].abs().max() > 1e-4
            torch.testing.assert_close(found[key].flatten(0, 1), wanted[key], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", POLICIES)
def test_the_two_maps_add_up_to_the_gradient_of_q_along_the_sequence(name: str) -> None:
    """Against an ordinary backward pass through the whole sequence, of which the present step's own share is taken."""
    space, core_class, core_kwargs, kwargs = POLICIES[name]
    policy = make_policy(space, core_class, core_kwargs, **kwargs)
    observations, starts, taken, replay = sequence(policy)
    maps = dueling_jacobian(policy, observations, starts, taken, replay)
    keys = list(observations) if isinstance(observations, dict) else [...]
    leaves = [observations[key].clone().requires_grad_() for key in keys]
    seen = dict(zip(keys, leaves, strict=True)) if isinstance(observations, dict) else leaves[0]
    q = policy(seen, policy.initial_state(B), starts, replay).head.q.gather(-1, taken[..., None])
    for t in range(T):
        gradients = torch.autograd.grad(q[t].sum(), leaves, retain_graph=True)
        for key, gradient in zip(keys, gradients, strict=True):
            torch.testing.assert_close(maps.value[key][t] + maps.advantage[key][t], gradient[t], rtol=1e-4, atol=1e-6)


def test_outside_the_fields_of_a_glimpse_the_derivative_is_exactly_zero() -> None:
    policy = make_policy(IMAGE, RecurrentGlimpse, GLIMPSE)
    observations, starts, taken, replay = sequence(policy)
    assert replay is not None
    maps = dueling_jacobian(policy, observations, starts, taken, replay)
    gazes = torch.cat([torch.zeros(1, B, 2), replay[:-1]]).where(~starts[..., None], 0).clamp(-1, 1)
    height, width = IMAGE.shape[1:]
    fields = [(2 * field / width, 2 * field / height) for field in policy.core.retina.fields]
    for t, lane in np.ndindex(T, B):
        seen = np.zeros((height, width), dtype=np.bool_)
        for left, top, right, bottom in field_boxes(gazes[t, lane].numpy(), fields, height, width):
            seen[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = True
        assert 0 < seen.sum() < seen.size
        for found in maps:
            assert isinstance(found, Tensor)
            assert not found[t, lane][:, ~torch.as_tensor(seen)].any()
            assert found[t, lane][:, torch.as_tensor(seen)].any()


@pytest.mark.parametrize("core_class", [FeedForward, RecurrentGlimpse])
def test_bytes_are_differentiated_as_floats_from_zero_to_one(core_class: Any) -> None:
    space = spaces.Box(0, 255, (1, 11, 13), np.uint8)
    policy = make_policy(space, core_class, GLIMPSE if core_class is RecurrentGlimpse else {})
    pixels = torch.randperm(256)[:143].to(torch.uint8).reshape(1, 1, 1, 11, 13)
    starts, taken = torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1, dtype=torch.long)
    maps = dueling_jacobian(policy, pixels, starts, taken)
    steps = unroll_steps(policy, pixels, starts, taken)
    assert isinstance(steps.inputs, Tensor)
    torch.testing.assert_close(steps.inputs, pixels[0] / 255)
    value = steps.outputs(policy, steps.inputs)[0]
    torch.testing.assert_close(value, policy(pixels, policy.initial_state(1), starts).head.value[0, :, 0])
    assert isinstance(maps.value, Tensor)
    assert maps.value.shape == pixels.shape


def test_many_steps_are_differentiated_in_parts_with_the_same_result() -> None:
    policy = make_policy(IMAGE, RecurrentGlimpse, GLIMPSE)
    arguments = sequence(policy)
    whole = dueling_jacobian(policy, *arguments)
    parts = dueling_jacobian(policy, *arguments, lanes_at_once=3)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


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
        dueling_jacobian(policy, observations, starts, taken)
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
        inside = dueling_jacobian(policy, *arguments)
    assert isinstance(inside.value, Tensor)
    assert inside.value.abs().max() > 0
