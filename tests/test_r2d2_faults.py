"""R2D2 with one part broken at a time: the check that is meant to notice does, and those before it do not."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from replay_agents import r2d2_probe, surprising
from saccade.agents import R2D2
from saccade.agents.algorithm import Shown
from saccade.agents.replay import Experience, Lesson
from saccade.agents.sequences import Sequences
from saccade.envs import Probe, ProbeAction, ProbeConstant, ProbeDiscount, ProbeMemory, ProbePolicy
from saccade.policies.core import map_state
from sequence_properties import burn_in_gradients, example, replayed_error, slow_lesson


class ForgetsToDiscount(R2D2):
    def targets(self, batch: Sequences, q: Tensor) -> Tensor:
        return super().targets(batch._replace(discounts=(batch.discounts > 0).float()), q)


class BootstrapsBeyondTheEnd(R2D2):
    def targets(self, batch: Sequences, q: Tensor) -> Tensor:
        return super().targets(batch._replace(discounts=self.gamma * batch.mask), q)


class NeverUpdatesItsTarget(R2D2):
    def update_target(self) -> None:
        pass


class TrainsTheWrongAction(R2D2):
    def judge(self, batch: Sequences, returns: Tensor | None) -> Lesson:
        return super().judge(batch._replace(actions=1 - batch.actions), returns)


class WipesItsMemory(R2D2):
    """At every step, when learning."""

    def show(self, batch: Sequences) -> Shown:
        return super().show(batch)._replace(episode_starts=torch.ones_like(batch.episode_starts))

    def unroll(self, policy: Any, batch: Sequences) -> Any:
        return policy(batch.observations, batch.state, torch.ones_like(batch.episode_starts))


class IgnoresTheWeights(R2D2):
    def judge(self, batch: Sequences, returns: Tensor | None) -> Lesson:
        return super().judge(batch._replace(weights=torch.ones_like(batch.weights)), returns)


FAULTS: list[tuple[type[R2D2], type[Probe], list[type[Probe]]]] = [
    (ForgetsToDiscount, ProbeDiscount, [ProbeConstant]),
    (BootstrapsBeyondTheEnd, ProbeConstant, []),
    (NeverUpdatesItsTarget, ProbeDiscount, [ProbeConstant]),
    (TrainsTheWrongAction, ProbeAction, []),
    (WipesItsMemory, ProbeMemory, [ProbePolicy]),
]


@pytest.mark.slow  # seconds each: the probes themselves are among the quick tests
@pytest.mark.parametrize(("broken", "probe", "passes"), FAULTS)
def test_a_broken_part_is_named_by_its_probe(broken: type[R2D2], probe: type[Probe], passes: list[type[Probe]]) -> None:
    assert r2d2_probe(probe, agent_class=broken, updates=60) > 0.3
    for other in passes:
        assert r2d2_probe(other, agent_class=broken, updates=60) < 0.1


def test_without_its_weights_a_surprise_weighs_too_much() -> None:
    assert surprising(IgnoresTheWeights) > 0.2


# Where states come from.


class StoresTheStateAfterTheStep(R2D2):
    def store(self, step: Experience) -> None:
        super().store(step._replace(state=self._last_state))


class StoresNoState(R2D2):
    def store(self, step: Experience) -> None:
        super().store(step._replace(state=map_state(torch.zeros_like, step.state)))


class IgnoresStoredStates(R2D2):
    def show(self, batch: Sequences) -> Shown:
        return super().show(batch)._replace(state=self.policy.initial_state(len(batch.weights)))


class StartsEverySequenceAnew(R2D2):
    def unroll(self, policy: Any, batch: Sequences) -> Any:
        starts = batch.episode_starts.clone()
        starts[0] = True
        return super().unroll(policy, batch._replace(episode_starts=starts))


class ForgetsItsGaze(R2D2):
    def show(self, batch: Sequences) -> Shown:
        return super().show(batch._replace(decisions=torch.zeros_like(batch.decisions)))


@pytest.mark.parametrize(
    ("broken", "policy"),
    [
        (StoresTheStateAfterTheStep, "LstmPolicy"),
        (StoresNoState, "LstmPolicy"),
        (IgnoresStoredStates, "GruPolicy"),
        (StartsEverySequenceAnew, "GruPolicy"),
        (WipesItsMemory, "LstmPolicy"),
        (ForgetsItsGaze, "GlimpsePolicy"),
    ],
)
def test_features_that_acted_do_not_come_back_from_a_wrong_state(broken: type[R2D2], policy: str) -> None:
    assert replayed_error(policy, 0, 3, broken) > 1e-3


def test_the_memory_probe_misses_stored_states_where_sequences_are_shorter_than_the_delay() -> None:
    assert (
        r2d2_probe(ProbeMemory, agent_class=StartsEverySequenceAnew, updates=300, sequence_length=2, rescale_epsilon=None) > 0.5
    )


# What the slow loop sees.


class LearnsFromTheBurnIn(R2D2):
    def learned(self, batch: Sequences) -> Tensor:
        return batch.mask


class NeverLearnsFromFirstSteps(R2D2):
    def learned(self, batch: Sequences) -> Tensor:
        return super().learned(batch._replace(episode_starts=torch.zeros_like(batch.episode_starts)))


class LetsGradientsIntoTheBurnIn(R2D2):
    @staticmethod
    def stop(fresh: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda leaf: leaf


class CountsOneStepTooMany(R2D2):
    def targets(self, batch: Sequences, q: Tensor) -> Tensor:
        kept, self.n_steps = self.n_steps, self.n_steps + 1
        try:
            return super().targets(batch, q)
        finally:
            self.n_steps = kept


class SwapsSelectorAndValuer(R2D2):
    def targets(self, batch: Sequences, q: Tensor) -> Tensor:
        kept, self.target = self.target, self.policy
        with torch.no_grad():
            selector = self.unroll(kept, batch).head.q
        try:
            return super().targets(batch, selector)
        finally:
            self.target = kept


class NeverRescales(R2D2):
    def scaled(self, values: Tensor) -> Tensor:
        return values


class BootstrapsFromPadding(R2D2):
    def targets(self, batch: Sequences, q: Tensor) -> Tensor:
        return super().targets(batch._replace(mask=torch.ones_like(batch.mask)), q)


@pytest.mark.parametrize(
    "broken",
    [
        LearnsFromTheBurnIn,
        NeverLearnsFromFirstSteps,
        CountsOneStepTooMany,
        SwapsSelectorAndValuer,
        NeverRescales,
        BootstrapsFromPadding,
        IgnoresTheWeights,
        ForgetsToDiscount,
        BootstrapsBeyondTheEnd,
    ],
)
def test_the_slow_loop_disagrees_with_what_is_broken(broken: type[R2D2]) -> None:
    model, batch = example("LstmPolicy", 3, 2, 1e-3, broken)
    expected = slow_lesson(model, batch)[0]
    assert abs(model.judge(batch, None).terms.loss - expected).item() > 1e-3


def test_gradients_into_the_burn_in_are_seen() -> None:
    model, batch = example("LstmPolicy", 3, 2, 1e-3, LetsGradientsIntoTheBurnIn)
    assert burn_in_gradients(model, batch).all()
