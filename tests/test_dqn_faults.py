"""DQN with one part broken at a time: the check that is meant to notice does, and those before it do not."""

from typing import Any

import pytest
import torch
from torch import Tensor

from replay_agents import dqn_probe, surprising
from saccade.agents import DQN
from saccade.agents.replay import Lesson
from saccade.agents.transitions import TransitionReplay, Transitions
from saccade.envs import Probe, ProbeAction, ProbeConstant, ProbeDiscount, ProbeObservation, ProbePolicy
from saccade.policies import DuelingOutput


class ForgetsToDiscount(DQN):
    def targets(self, batch: Transitions) -> Tensor:
        return super().targets(batch._replace(discounts=(batch.discounts > 0).float()))


class BootstrapsBeyondTheEnd(DQN):
    def targets(self, batch: Transitions) -> Tensor:
        return super().targets(batch._replace(discounts=torch.full_like(batch.discounts, self.gamma)))


class NeverUpdatesItsTarget(DQN):
    def update_target(self) -> None:
        pass


class TrainsTheWrongAction(DQN):
    def judge(self, batch: Transitions, targets: Tensor) -> Lesson:
        return super().judge(batch._replace(actions=1 - batch.actions), targets)


class BootstrapsOneStepTooEarly(DQN):
    def targets(self, batch: Transitions) -> Tensor:
        return super().targets(batch._replace(next_observations=batch.observations))


class DiscountsOneStepTooMuch(DQN):
    def make_replay(self) -> TransitionReplay:
        replay = super().make_replay()
        replay._powers = replay._powers * self.gamma
        return replay


class CountsOneRewardTooFew(DQN):
    """The return of ``n`` steps lacks the last one's reward."""

    def make_replay(self) -> TransitionReplay:
        replay = super().make_replay()
        replay._powers[self.n_steps - 1] *= 0 if self.n_steps > 1 else 1
        return replay


class IsBlind(DQN):
    def _setup_model(self) -> None:
        super()._setup_model()
        self.policy.features_extractor.register_forward_pre_hook(lambda module, arguments: (torch.zeros_like(arguments[0]),))


class HasNoAdvantage(DQN):
    def _setup_model(self) -> None:
        super()._setup_model()
        self.policy.head.register_forward_hook(without_advantage)


def without_advantage(module: Any, arguments: Any, output: DuelingOutput) -> DuelingOutput:
    return DuelingOutput(output.value, 0 * output.advantage, output.value.expand_as(output.q))


class IgnoresTheWeights(DQN):
    def judge(self, batch: Transitions, targets: Tensor) -> Lesson:
        return super().judge(batch._replace(weights=torch.ones_like(batch.weights)), targets)


ONE: dict[str, Any] = {"n_steps": 1}
FAULTS: list[tuple[type[DQN], type[Probe], dict[str, Any], list[type[Probe]]]] = [
    (ForgetsToDiscount, ProbeDiscount, ONE, [ProbeConstant]),
    (BootstrapsBeyondTheEnd, ProbeConstant, ONE, []),
    (NeverUpdatesItsTarget, ProbeDiscount, ONE, [ProbeConstant, ProbeObservation]),
    (BootstrapsOneStepTooEarly, ProbeDiscount, ONE, [ProbeConstant, ProbeObservation]),
    (DiscountsOneStepTooMuch, ProbeConstant, {"n_steps": 3}, []),
    (CountsOneRewardTooFew, ProbeDiscount, {"n_steps": 2}, [ProbeConstant]),
    (IsBlind, ProbeObservation, {}, [ProbeConstant]),
    (HasNoAdvantage, ProbeAction, {}, [ProbeConstant, ProbeDiscount]),
    (TrainsTheWrongAction, ProbeAction, {}, []),
    (TrainsTheWrongAction, ProbePolicy, {}, []),
]


@pytest.mark.slow  # seconds each: the probes themselves are among the quick tests
@pytest.mark.parametrize(("broken", "probe", "settings", "passes"), FAULTS)
def test_a_broken_part_is_named_by_its_probe(
    broken: type[DQN], probe: type[Probe], settings: dict[str, Any], passes: list[type[Probe]]
) -> None:
    assert dqn_probe(probe, broken, updates=90, **settings) > 0.2
    for other in passes:
        assert dqn_probe(other, broken, updates=90, **settings) < 0.1


def test_without_its_weights_a_surprise_weighs_too_much() -> None:
    assert surprising(IgnoresTheWeights) > 0.2
    assert surprising(IgnoresTheWeights, priority_exponent=0.0) == pytest.approx(1 / 9, abs=0.03)
