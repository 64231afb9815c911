"""Networks side by side with their gradient written out: the numbers and gradients of plain layers."""

from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from saccade.policies import ActorCriticPolicy
from saccade.policies.distributions import categorical
from saccade.policies.stacked_mlp import ACTIVATIONS, StackedMLP, tanh_

C, T, B, D, P = 2, 3, 5, 7, 11
ACTIVATION_CLASSES = [nn.Tanh, nn.ReLU, nn.ELU]  # the last one is left to autograd


def network(activation: type[nn.Module], widths: tuple[int, ...] = (13, 17)) -> tuple[StackedMLP, list[nn.Linear]]:
    stack = StackedMLP(C, D, widths, activation, gain=1.0).double()
    for bias in stack.biases:
        bias.data.normal_()
    return stack, [nn.Linear(widths[-1] if widths else D, outputs).double() for outputs in (P, 1)]


def layer_by_layer(stack: StackedMLP, layers: list[nn.Linear], inputs: Tensor) -> tuple[Tensor, ...]:
    outputs = []
    for copy, layer in enumerate(layers):
        x = inputs[copy]
        for weight, bias in zip(stack.weights, stack.biases, strict=True):
            x = stack.activation(x @ weight[copy] + bias[copy, 0])
        outputs.append(layer(x))
    return tuple(outputs)


@pytest.mark.parametrize("activation", ACTIVATION_CLASSES)
@pytest.mark.parametrize("widths", [(13, 17), (13,), ()])
@pytest.mark.parametrize("shape", [(C, D), (C, B, D), (C, T, B, D)])
def test_outputs_and_gradients_are_those_of_plain_layers(
    activation: type[nn.Module], widths: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    stack, layers = network(activation, widths)
    inputs = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    leaves = [inputs, *stack.parameters(), *(parameter for layer in layers for parameter in layer.parameters())]
    weights = [torch.randn(*shape[1:-1], outputs, dtype=torch.float64) for outputs in (P, 1)]
    found = []
    for outputs in (stack.read_out(inputs, layers), layer_by_layer(stack, layers, inputs)):
        loss = sum(((weight * output).sum() for weight, output in zip(weights, outputs, strict=True)), torch.zeros(()))
        found.append([*outputs, *torch.autograd.grad(loss, leaves)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
    with torch.no_grad():
        for one, other in zip(stack.read_out(inputs, layers), found[1], strict=False):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU])
def test_gradients_agree_with_finite_differences(activation: type[nn.Module]) -> None:
    stack, layers = network(activation)
    inputs = torch.randn(C, B, D, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(partial(stack.read_out, layers=layers), (inputs,))


def test_shared_inputs_get_the_gradient_of_both() -> None:
    stack, layers = network(nn.Tanh)
    inputs = torch.randn(B, D, dtype=torch.float64, requires_grad=True)
    found = []
    for function in (lambda both: stack.read_out(both, layers), partial(layer_by_layer, stack, layers)):
        actor, critic = function(inputs.expand(C, -1, -1))
        found.append(torch.autograd.grad(actor.square().sum() + critic.sum(), inputs)[0])
    torch.testing.assert_close(*found)


def test_an_output_that_nothing_depends_on() -> None:
    stack, layers = network(nn.Tanh)
    actor, _ = stack.read_out(torch.randn(C, B, D, dtype=torch.float64), layers)
    actor.sum().backward()
    assert all(weight.grad is not None and weight.grad[0].any() and not weight.grad[1].any() for weight in stack.weights)


def test_a_second_derivative_is_refused_where_there_is_none() -> None:
    stack, layers = network(nn.Tanh)
    inputs = torch.randn(C, B, D, dtype=torch.float64, requires_grad=True)
    with pytest.raises(RuntimeError, match="create_graph"):
        torch.autograd.grad(stack.read_out(inputs, layers)[0].sum(), inputs, create_graph=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_tanh_is_torchs_and_in_place(dtype: torch.dtype) -> None:
    x = torch.linspace(-11, 11, 101).to(dtype)
    expected = x.tanh()
    assert tanh_(x) is x
    torch.testing.assert_close(x, expected)
    assert tanh_(torch.tensor([float("nan")])).isnan()


def test_only_activations_without_options_are_known() -> None:
    assert ACTIVATIONS.keys() == {nn.Tanh, nn.ReLU}


def test_categorical_gradients_agree_with_finite_differences() -> None:
    logits = torch.randn(T, B, P, dtype=torch.float64, requires_grad=True)
    actions = torch.randint(P, (T, B))
    assert torch.autograd.gradcheck(lambda x: tuple(categorical(x, actions)), (logits,))
    for index in range(2):
        assert torch.autograd.gradcheck(lambda x, index=index: categorical(x, actions)[index], (logits,))


def test_categorical_scores_of_an_impossible_choice_have_finite_gradients() -> None:
    logits = torch.randn(B, P)
    logits[:, 3] = -1e8
    logits.requires_grad_()
    scores = categorical(logits, torch.zeros(B, dtype=torch.long))
    (scores.log_prob + scores.entropy).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert not logits.grad[:, 3].any()


@pytest.mark.filterwarnings("ignore:.*(TracerWarning|Converting a tensor|deprecated)")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_traced_policy_is_the_policy() -> None:
    policy = ActorCriticPolicy(spaces.Box(-1, 1, (7,), np.float32), spaces.Discrete(3), lambda _: 0.1)

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.policy = policy

        def forward(self, observations: Tensor) -> Tensor:
            return self.policy.read(self.policy.extract(observations)).parameters

    logits = Logits()
    others = 3 * torch.randn(2, 7)
    with torch.no_grad():
        traced = torch.jit.trace(logits, (torch.rand(2, 7),), check_trace=False)
        torch.testing.assert_close(traced(others), logits(others))
