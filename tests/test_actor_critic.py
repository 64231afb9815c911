"""The actor-critic policy: its layers, what it reads and where gradients go, and what it does."""

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, NatureCNN
from torch import Tensor, nn

from saccade.policies import GRU, LSTM, ActorCriticHead, ActorCriticPolicy, FeedForward, Pixels, RecurrentGlimpse, Twin
from saccade.policies.actor_critic import StackedMLP
from saccade.policies.torso import ConvTorso

T, B, D, P = 7, 5, 11, 3
VECTOR = spaces.Box(-1, 1, (D,), np.float32)
IMAGE = spaces.Box(0, 255, (3, 17, 19), np.uint8)


def policy(observations: gym.Space[Any] = VECTOR, actions: gym.Space[Any] | None = None, **arguments: Any) -> ActorCriticPolicy:
    arguments = {"net_arch": (13, 17)} | arguments
    return ActorCriticPolicy(observations, actions or spaces.Discrete(P), lambda _: 0.1, **arguments)


# Layers.


def test_stacked_networks_are_networks_side_by_side() -> None:
    stack = StackedMLP(2, D, (13, 17), nn.Tanh, gain=1.0)
    for bias in stack.biases:
        bias.data.normal_()
    inputs = torch.randn(2, B, D)
    together = stack(inputs)
    for copy in range(2):
        x = inputs[copy]
        for weight, bias in zip(stack.weights, stack.biases, strict=True):
            x = torch.tanh(x @ weight[copy] + bias[copy])
        torch.testing.assert_close(together[copy], x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gain", [1.0, 2**0.5])
def test_stacked_weights_start_orthogonal_and_different(gain: float) -> None:
    stack = StackedMLP(2, D, (17, 5), nn.ReLU, gain)
    for weight, bias in zip(stack.weights, stack.biases, strict=True):
        for one in weight:
            torch.testing.assert_close(torch.linalg.svdvals(one), torch.full((min(one.shape),), gain), rtol=1e-4, atol=1e-5)
        assert not torch.equal(weight[0], weight[1])
        assert not bias.any()


@pytest.mark.parametrize(("pi", "vf"), [((13, 17), (13, 17)), ((13,), (17, 7)), ((), ()), ((), (7,)), ((5,), ())])
def test_actions_and_value_share_nothing_in_the_head(pi: tuple[int, ...], vf: tuple[int, ...]) -> None:
    head = ActorCriticHead(D, P, pi, vf, nn.Tanh)
    both = torch.randn(2, B, D, requires_grad=True)
    output = head(both)
    assert output.parameters.shape == (B, P)
    assert output.value.shape == (B,)
    torch.testing.assert_close(head.critic(both[1]), output.value, rtol=1e-5, atol=1e-6)
    (by_actions,) = torch.autograd.grad(output.parameters.sum(), both, retain_graph=True)
    (by_value,) = torch.autograd.grad(output.value.sum(), both)
    assert not by_actions[1].any()
    assert not by_value[0].any()
    assert by_actions[0].any()
    assert by_value[1].any()


@pytest.mark.parametrize("net_arch", [{"pi": [3]}, {"pi": [3], "vf": [3], "q": [3]}])
def test_other_networks_than_two_are_refused(net_arch: dict[str, list[int]]) -> None:
    with pytest.raises(ValueError, match="'pi' and 'vf'"):
        policy(net_arch=net_arch)


def test_widths_and_activation_are_the_users_choice() -> None:
    model = policy(net_arch={"pi": [7], "vf": [5, 3]}, activation_fn=nn.ReLU)
    assert [[weight.shape[-1] for weight in network.weights] for network in model.head.hidden] == [[7], [5, 3]]
    assert all(isinstance(network.activation, nn.ReLU) for network in model.head.hidden)


# Torso and core.


@pytest.mark.parametrize(
    ("space", "arguments", "torso"),
    [
        (VECTOR, {}, FlattenExtractor),
        (spaces.Discrete(7), {}, FlattenExtractor),
        (spaces.Box(0, 255, (3, 41, 37), np.uint8), {}, NatureCNN),
        (IMAGE, {}, ConvTorso),
        (IMAGE, {"core_class": RecurrentGlimpse}, Pixels),
        (spaces.Dict({"vector": VECTOR, "other": VECTOR}), {}, CombinedExtractor),
        (IMAGE, {"features_extractor_class": FlattenExtractor}, FlattenExtractor),
    ],
    ids=["vector", "discrete", "large image", "small image", "glimpse", "dictionary", "named"],
)
def test_the_torso_where_none_is_named_is_sb3s(
    space: gym.Space[Any], arguments: dict[str, Any], torso: type[nn.Module]
) -> None:
    assert type(policy(space, **arguments).features_extractor) is torso


def test_a_glimpse_at_a_dictionary_is_refused() -> None:
    with pytest.raises(ValueError, match="image"):
        policy(spaces.Dict({"vector": VECTOR}), core_class=RecurrentGlimpse)


CORES: list[dict[str, Any]] = [
    {"core_class": FeedForward},
    {"core_class": LSTM, "core_kwargs": {"hidden_size": 13}},
    {"core_class": GRU, "core_kwargs": {"hidden_size": 13}},
    {"core_class": Twin, "core_kwargs": {"core": partial(LSTM, hidden_size=13)}},
]
EveryCore = pytest.mark.parametrize("core", CORES, ids=lambda core: core["core_class"].__name__)


def sequence() -> tuple[Tensor, Tensor]:
    starts = torch.zeros(T, B, dtype=torch.bool)
    starts[0] = starts[3, 2] = True
    return torch.randn(T, B, D), starts


@EveryCore
def test_all_ways_to_the_same_numbers(core: dict[str, Any]) -> None:
    model = policy(**core)
    observations, starts = sequence()
    output, seen = model(observations, model.initial_state(B), starts)
    assert output.parameters.shape == (T, B, P)
    assert output.value.shape == (T, B)
    torch.testing.assert_close(model.value(seen.features), output.value, rtol=1e-5, atol=1e-6)
    again = model.read(seen.features[2, 3])
    torch.testing.assert_close(again.parameters, output.parameters[2, 3], rtol=1e-5, atol=1e-6)
    named = model.outputs(seen.features)
    assert torch.equal(named["value"][..., 0], output.value)
    assert torch.equal(named["policy"], output.parameters)


@EveryCore
def test_every_parameter_is_reached_and_in_the_optimiser(core: dict[str, Any]) -> None:
    model = policy(actions=spaces.Box(-1, 1, (3,), np.float32), **core)
    observations, starts = sequence()
    output, _ = model(observations, model.initial_state(B), starts)
    scores = model.score(output.parameters, torch.randn(T, B, 3))
    (scores.log_prob.sum() + output.value.sum()).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()] == []
    held = {id(parameter) for group in model.optimizer.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in model.parameters()}


def test_with_twin_cores_actions_and_value_have_a_memory_each() -> None:
    model = policy(**CORES[3])
    observations, starts = sequence()
    output, _ = model(observations, model.initial_state(B), starts)
    assert isinstance(model.core, Twin)
    actor, critic = list(model.core.actor.parameters()), list(model.core.critic.parameters())
    by_value = torch.autograd.grad(output.value.sum(), [*actor, *critic], allow_unused=True, retain_graph=True)
    by_actions = torch.autograd.grad(output.parameters.sum(), [*actor, *critic], allow_unused=True)
    n = len(actor)
    assert all(one is None or not one.any() for one in (*by_value[:n], *by_actions[n:]))
    assert all(one is not None and one.any() for one in (*by_value[n:], *by_actions[:n]))


# Optimiser.


def test_the_optimiser_is_sb3s_unless_named() -> None:
    optimizer = policy().optimizer
    assert isinstance(optimizer, torch.optim.Adam)
    assert optimizer.param_groups[0]["eps"] == 1e-5
    named = policy(optimizer_class=torch.optim.SGD, optimizer_kwargs={"momentum": 0.3}).optimizer
    assert isinstance(named, torch.optim.SGD)
    assert named.param_groups[0]["momentum"] == 0.3
    assert policy(optimizer_kwargs={"eps": 0.1}).optimizer.param_groups[0]["eps"] == 0.1


# Acting.


def decided(model: ActorCriticPolicy, parameters: Tensor) -> ActorCriticPolicy:
    """The policy, whatever it sees, with these parameters of its distribution."""
    model.head.action.weight.data.zero_()
    model.head.action.bias.data.copy_(parameters)
    return model


@pytest.mark.parametrize(
    ("actions", "parameters", "expected"),
    [
        (spaces.Discrete(3), [0, 2, 1], 1),
        (spaces.MultiDiscrete([2, 3]), [1, 0, 0, 0, 1], [0, 2]),
        (spaces.MultiBinary(3), [-1, 1, 0.5], [0, 1, 1]),
        (spaces.Box(-1, 2, (3,), np.float32), [-3, 0.5, 3], [-1, 0.5, 2]),
        (spaces.Box(np.float32([-1, 0]), np.float32([5, 1])), [3, 3], [3, 1]),
        (spaces.Box(-1, 1, (2, 2), np.float32), [0, 2, -2, 0.5], [[0, 1], [-1, 0.5]]),
    ],
    ids=str,
)
def test_the_likeliest_action(actions: gym.Space[Any], parameters: list[float], expected: Any) -> None:
    model = decided(policy(actions=actions), torch.tensor(parameters, dtype=torch.float32))
    action, _ = model.predict(np.zeros(D, np.float32), deterministic=True)
    assert actions.contains(action if action.shape else int(action))
    assert action.tolist() == expected
    batch, _ = model.predict(np.zeros((B, D), np.float32), deterministic=True)
    assert batch.tolist() == [expected] * B
    for _ in range(5):
        drawn, _ = model.predict(np.zeros((B, D), np.float32))
        assert all(actions.contains(one if one.shape else int(one)) for one in drawn)


@pytest.mark.parametrize("deterministic", [True, False])
def test_predict_takes_only_what_is_allowed(deterministic: bool) -> None:
    model = decided(policy(), torch.tensor([0.0, 2.0, 1.0]))
    observations = np.zeros((B, D), np.float32)
    masks = np.array([[True, False, True]] * 3 + [[True, False, False]] * 2)
    for _ in range(10):
        actions, _ = model.predict(observations, deterministic=deterministic, action_masks=masks)
        assert masks[np.arange(B), actions].all()
    one, _ = model.predict(observations[0], deterministic=True, action_masks=masks[0])
    assert one.shape == ()
    assert one == 2


def test_without_bounds_nothing_is_clipped() -> None:
    model = policy(actions=spaces.Box(-np.inf, np.inf, (3,), np.float32))
    assert model.bounded(torch.tensor([-1e9, 0, 1e9])).tolist() == [-1e9, 0, 1e9]
