"""Adam in one kernel: torch's own to the bit, whatever happens in between."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from saccade.agents.manifest import allowed_classes, decode, encode
from saccade.policies import FusedAdam

SHAPES = ((2, 5, 7), (2, 1, 7), (3, 7), (3,))


class Pair:
    """Our optimiser and torch's on equal parameters."""

    def __init__(self, **arguments: Any) -> None:
        self.ours = [nn.Parameter(torch.randn(shape)) for shape in SHAPES]
        self.torchs = [nn.Parameter(one.detach().clone()) for one in self.ours]
        self.optimizer: torch.optim.Optimizer = FusedAdam(self.ours, **arguments)
        self.reference: torch.optim.Optimizer = torch.optim.Adam(self.torchs, fused=True, **arguments)

    def step(self, leave_out: int | None = None) -> None:
        for index, (one, other) in enumerate(zip(self.ours, self.torchs, strict=True)):
            one.grad = None if index == leave_out else torch.randn_like(one)
            other.grad = None if one.grad is None else one.grad.clone()
        self.optimizer.step()
        self.reference.step()

    def agree(self) -> bool:
        ours, torchs = self.optimizer.state_dict(), self.reference.state_dict()
        assert ours["param_groups"] == torchs["param_groups"]
        assert ours["state"].keys() == torchs["state"].keys()
        for index, state in torchs["state"].items():
            assert all(torch.equal(ours["state"][index][name], value) for name, value in state.items())
        return all(torch.equal(one, other) for one, other in zip(self.ours, self.torchs, strict=True))


@pytest.mark.parametrize("arguments", [{}, {"eps": 1e-5}, {"lr": 0.1, "betas": (0.5, 0.7)}, {"weight_decay": 0.3}])
def test_a_step_is_torchs(arguments: dict[str, Any]) -> None:
    pair = Pair(**arguments)
    for _ in range(7):
        pair.step()
        assert pair.agree()


def test_a_missing_gradient_leaves_its_parameter_and_its_count_alone() -> None:
    pair = Pair()
    for leave_out in (2, None, None, 1, None, 3, None, None):
        pair.step(leave_out)
        assert pair.agree()


def change_rate(pair: Pair) -> None:
    for optimizer in (pair.optimizer, pair.reference):
        optimizer.param_groups[0]["lr"] = 0.3


def reload(pair: Pair) -> None:
    stored = [copy.deepcopy(one.state_dict()) for one in (pair.optimizer, pair.reference)]
    pair.step()
    for optimizer, state in zip((pair.optimizer, pair.reference), stored[::-1], strict=True):  # each reads the other's
        optimizer.load_state_dict(state)


def load_amsgrad(pair: Pair) -> None:
    other = torch.optim.Adam([nn.Parameter(torch.zeros(shape)) for shape in SHAPES], fused=True, amsgrad=True)
    for parameter in other.param_groups[0]["params"]:
        parameter.grad = torch.randn_like(parameter)
    other.step()
    for optimizer in (pair.optimizer, pair.reference):
        optimizer.load_state_dict(copy.deepcopy(other.state_dict()))


def forget(pair: Pair) -> None:
    for optimizer in (pair.optimizer, pair.reference):
        optimizer.state.clear()


def add_group(pair: Pair) -> None:
    pair.ours.append(nn.Parameter(torch.ones(11)))
    pair.torchs.append(nn.Parameter(torch.ones(11)))
    pair.optimizer.add_param_group({"params": [pair.ours[-1]], "lr": 0.5})
    pair.reference.add_param_group({"params": [pair.torchs[-1]], "lr": 0.5})


def copy_all(pair: Pair) -> None:
    pair.ours, pair.optimizer = copy.deepcopy((pair.ours, pair.optimizer))


@pytest.mark.parametrize("event", [change_rate, reload, load_amsgrad, forget, add_group, copy_all])
def test_what_happens_between_steps_is_respected(event: Callable[[Pair], None]) -> None:
    pair = Pair()
    for _ in range(3):
        pair.step()
    event(pair)
    for _ in range(3):
        pair.step()
        assert pair.agree()


def test_a_closure_is_called_with_gradients_and_its_value_returned() -> None:
    pair = Pair()
    pair.step()

    def closure() -> float:
        assert torch.is_grad_enabled()
        return 7.0

    assert pair.optimizer.step(closure) == 7.0


def test_hooks_are_called_once_a_step() -> None:
    calls: list[None] = []
    pair = Pair()
    pair.optimizer.register_step_post_hook(lambda *_: calls.append(None))
    for _ in range(3):
        pair.step()
    assert len(calls) == 3


def test_a_manifest_may_name_it() -> None:
    stored = encode({"optimizer_class": FusedAdam})
    assert stored == {"optimizer_class": {"_class_": "saccade.policies.FusedAdam"}}
    assert decode(stored, allowed_classes())["optimizer_class"] is FusedAdam
