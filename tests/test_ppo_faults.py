"""PPO with one part broken at a time: the probe that is meant to notice does, and those before it do not."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from saccade.agents import PPO
from saccade.agents.policy_batch import PolicyBatch
from saccade.agents.update import LossTerms
from saccade.envs import (
    Probe,
    ProbeAction,
    ProbeConstant,
    ProbeDiscount,
    ProbeMemory,
    ProbeObservation,
    ProbePolicy,
)
from saccade.policies import ActorCriticOutput
from small_agents import ppo_probe


class ForgetsToDiscount(PPO):
    def batch(self) -> PolicyBatch:
        kept, self.gamma = self.gamma, 1.0
        try:
            return super().batch()
        finally:
            self.gamma = kept


class BootstrapsBeyondTheEnd(PPO):
    def batch(self) -> PolicyBatch:
        rollout = self.rollout
        self.rollout = copy.copy(rollout)
        self.rollout.continues = lambda: torch.ones_like(rollout.rewards)  # type: ignore[method-assign]
        try:
            return super().batch()
        finally:
            self.rollout = rollout


class TrainsNoValue(PPO):
    def loss(self, batch: PolicyBatch) -> LossTerms:
        return super().loss(replace(batch, returns=batch.values))


class IsBlind(PPO):
    def _setup_model(self) -> None:
        super()._setup_model()
        self.policy.features_extractor.register_forward_pre_hook(lambda module, arguments: (torch.zeros_like(arguments[0]),))


class HasABlindActor(PPO):
    """The value sees everything; the actions, what is seen on average."""

    def _setup_model(self) -> None:
        super()._setup_model()
        self.policy.head.register_forward_hook(without_observation)


def without_observation(module: Any, arguments: Any, output: ActorCriticOutput) -> ActorCriticOutput:
    return output._replace(parameters=output.parameters.mean(dim=0, keepdim=True).expand_as(output.parameters))


class AvoidsWhatIsGood(PPO):
    def advantages(self, advantages: Tensor) -> Tensor:
        return -super().advantages(advantages)


class CreditsTheWrongAction(PPO):
    def batch(self) -> PolicyBatch:
        batch = super().batch()
        return replace(batch, actions=1 - batch.actions)


class CreditsTheStepBefore(PPO):
    """Advantages and log-probabilities one step apart."""

    def advantages(self, advantages: Tensor) -> Tensor:
        return super().advantages(advantages.flatten().roll(1).view_as(advantages))


class ResetsAtEveryStep(PPO):
    """A memory that learning wipes all the time."""

    def batch(self) -> PolicyBatch:
        batch = super().batch()
        return replace(batch, episode_starts=torch.ones_like(batch.episode_starts))


class ActsWithoutMemory(PPO):
    """A memory that is wiped before every action."""

    def collect_rollouts(self, env: VecEnv, callback: BaseCallback) -> bool:
        encode = self.policy.encode

        def forgetful(observations: Any, state: Any, episode_starts: Tensor, *how: Any, **named: Any) -> Any:
            return encode(observations, state, torch.ones_like(episode_starts), *how, **named)

        self.policy.encode = forgetful  # type: ignore[method-assign]
        try:
            return super().collect_rollouts(env, callback)
        finally:
            del self.policy.encode


FAULTS = [
    (TrainsNoValue, ProbeConstant, "MlpPolicy", []),
    (BootstrapsBeyondTheEnd, ProbeConstant, "MlpPolicy", []),
    (IsBlind, ProbeObservation, "MlpPolicy", [ProbeConstant]),
    (ForgetsToDiscount, ProbeDiscount, "MlpPolicy", [ProbeObservation]),
    (AvoidsWhatIsGood, ProbeAction, "MlpPolicy", [ProbeDiscount]),
    (CreditsTheWrongAction, ProbeAction, "MlpPolicy", []),
    (CreditsTheStepBefore, ProbeAction, "MlpPolicy", [ProbeDiscount]),
    (HasABlindActor, ProbePolicy, "MlpPolicy", [ProbeObservation, ProbeAction]),
    (PPO, ProbeMemory, "MlpPolicy", [ProbePolicy]),
    (ResetsAtEveryStep, ProbeMemory, "LstmPolicy", [ProbeObservation]),
    (ActsWithoutMemory, ProbeMemory, "LstmPolicy", [ProbeObservation]),
]


@pytest.mark.slow  # seconds each: the probes themselves are among the quick tests
@pytest.mark.parametrize(("broken", "probe", "policy", "passes"), FAULTS)
def test_a_broken_part_is_named_by_its_probe(
    broken: type[PPO], probe: type[Probe], policy: str, passes: list[type[Probe]]
) -> None:
    learned = ppo_probe(probe, policy, broken)
    assert learned.error > 0.3 or not learned.right
    for other in passes:
        learned = ppo_probe(other, policy, broken)
        assert learned.error < 0.1
        assert learned.right
