"""The lecture's habits: each planted fault is found, and named in words."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from saccade.agents import PQN
from saccade.agents.diagnose import Finding, diagnose
from saccade.envs import BatchedTask, ProbeConstant, ProbeMemory, ProbePolicy, TaskStep, TaskVecEnv
from saccade.policies import GRU, Core, CoreOutput, FeedForward


class Paid(BatchedTask):
    """Pays a fixed wage for a step, or shows what is not a number."""

    lane_arrays = ()

    def __init__(self, num_envs: int = 1, wage: float = 1.0, shown: float = 0.5, seed: int | None = None) -> None:
        super().__init__(num_envs, spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(2), seed)
        self.wage, self.shown = wage, shown

    def reset(self, lanes: np.ndarray) -> None:
        pass

    def step(self, actions: np.ndarray) -> TaskStep:
        never = np.zeros(self.num_envs, np.bool_)
        return TaskStep(np.full(self.num_envs, self.wage, np.float32), never, never)

    def observe(self) -> np.ndarray:
        return np.full((self.num_envs, 3), self.shown, np.float32)


class Idle(FeedForward):
    """Has a parameter that nothing uses."""

    def __init__(self, input_shape: Any) -> None:
        super().__init__(input_shape)
        self.idle = nn.Parameter(torch.zeros(3))


class Disagreeing(GRU):
    """Learns from something else than it acted by."""

    def unroll(self, inputs: Tensor, *arguments: Any, **keywords: Any) -> CoreOutput:
        return super().unroll(inputs + 0.1, *arguments, **keywords)


def findings(task: BatchedTask, core: type[Core] = FeedForward) -> dict[str, Finding]:
    agent = PQN("CorePolicy", TaskVecEnv(task), n_steps=8, policy_kwargs={"core_class": core}, seed=0, device="cpu")
    return {finding.name: finding for finding in diagnose(agent)}


def test_nothing_is_wrong_with_a_task_that_can_be_learned() -> None:
    found = findings(ProbePolicy(4))
    assert [name for name, finding in found.items() if not finding.ok] == []
    assert list(found) == ["experience", "shapes", "memory", "first loss", "gradients", "overfit"]


@pytest.mark.parametrize(
    ("make", "core", "name", "says"),
    [
        (lambda: Paid(4, shown=float("nan")), FeedForward, "experience", "not finite"),
        (lambda: Paid(4, wage=1000.0), FeedForward, "first loss", "scale rewards"),
        (lambda: ProbePolicy(4), Idle, "gradients", "none reaches core.idle"),
        (lambda: ProbePolicy(4), Disagreeing, "memory", "unroll and step disagree"),
        (lambda: ProbeMemory(4), FeedForward, "overfit", "not remember"),
    ],
)
def test_each_fault_is_found(make: Callable[[], BatchedTask], core: type[Core], name: str, says: str) -> None:
    found = findings(make(), core)
    assert not found[name].ok
    assert says in found[name].message


def test_a_gradient_of_zero_is_no_fault() -> None:
    found = findings(ProbeConstant(4))
    assert found["gradients"].ok
    assert "zero for this batch in" in found["gradients"].message
