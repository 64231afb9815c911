"""PQN with one part broken at a time: the probe that is meant to notice does, and those before it do not."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from saccade.agents import PQN
from saccade.agents.rollout import Rollout
from saccade.envs import (
    Probe,
    ProbeAction,
    ProbeConstant,
    ProbeDiscount,
    ProbeMemory,
    ProbeObservation,
    ProbePolicy,
)
from saccade.policies import DuelingOutput
from small_agents import learn_probe


class ForgetsToDiscount(PQN):
    def targets(self, batch: Rollout, q: Tensor) -> Tensor:
        kept, self.gamma = self.gamma, 1.0
        try:
            return super().targets(batch, q)
        finally:
            self.gamma = kept


class BootstrapsBeyondTheEnd(PQN):
    def targets(self, batch: Rollout, q: Tensor) -> Tensor:
        endless = copy.copy(batch)
        endless.episode_starts = torch.zeros_like(batch.episode_starts)
        return super().targets(endless, q)


class HasNoAdvantage(PQN):
    def _setup_model(self) -> None:
        super()._setup_model()
        self.policy.head.register_forward_hook(without_advantage)


def without_advantage(module: Any, arguments: Any, output: DuelingOutput) -> DuelingOutput:
    return DuelingOutput(output.value, 0 * output.advantage, output.value.expand_as(output.q))


class HasNoValue(PQN):
    def _setup_model(self) -> None:
        super()._setup_model()
        self.policy.head.register_forward_hook(without_value)


def without_value(module: Any, arguments: Any, output: DuelingOutput) -> DuelingOutput:
    return DuelingOutput(0 * output.value, output.advantage, output.advantage)


class IsBlind(PQN):
    def _setup_model(self) -> None:
        super()._setup_model()
        self.policy.features_extractor.register_forward_pre_hook(lambda module, arguments: (torch.zeros_like(arguments[0]),))


class LearnsFromTheWorstAction(PQN):
    def targets(self, batch: Rollout, q: Tensor) -> Tensor:
        return super().targets(batch, -((-q).amax(-1, keepdim=True).expand_as(q)))


class TrainsTheWrongAction(PQN):
    def targets(self, batch: Rollout, q: Tensor) -> Tensor:
        batch.actions = 1 - batch.actions
        return super().targets(batch, q)


class ResetsAtEveryStep(PQN):
    """A memory that learning wipes all the time."""

    def loss(self, batch: Rollout, targets: Tensor | None = None) -> Any:
        targets = self.targets(batch, self.policy(batch.observations, batch.state, batch.episode_starts).head.q.detach())
        wiped = copy.copy(batch)
        wiped.episode_starts = torch.ones_like(batch.episode_starts)
        return super().loss(wiped, targets)


FAULTS = [
    (ForgetsToDiscount, ProbeDiscount, "MlpPolicy", [ProbeConstant]),
    (BootstrapsBeyondTheEnd, ProbeConstant, "MlpPolicy", []),
    (HasNoValue, ProbeConstant, "MlpPolicy", []),
    (IsBlind, ProbeObservation, "MlpPolicy", [ProbeConstant]),
    (HasNoAdvantage, ProbeAction, "MlpPolicy", [ProbeConstant, ProbeDiscount]),
    (TrainsTheWrongAction, ProbeAction, "MlpPolicy", []),
    (ResetsAtEveryStep, ProbeMemory, "LstmPolicy", []),
    (LearnsFromTheWorstAction, ProbeMemory, "LstmPolicy", [ProbePolicy]),
    (PQN, ProbeMemory, "MlpPolicy", []),
]


@pytest.mark.slow  # seconds each: the probes themselves are among the quick tests
@pytest.mark.parametrize(("broken", "probe", "policy", "passes"), FAULTS)
def test_a_broken_part_is_named_by_its_probe(
    broken: type[PQN], probe: type[Probe], policy: str, passes: list[type[Probe]]
) -> None:
    assert learn_probe(probe, policy, broken) > 0.3
    for other in passes:
        assert learn_probe(other, policy, broken) < 0.1
