"""What cannot be learned from is refused before any weight changes, and named: environment, step, key."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import CombinedExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper, VecNormalize
from torch import Tensor

from saccade.agents import PQN, InvalidExperienceError
from saccade.agents.guard import check_experience, check_shape
from saccade.envs import Catch, ProbeMemory, TaskVecEnv

N, T = 5, 7
Spoil = Callable[[Any, np.ndarray, list[dict[str, Any]]], tuple[Any, np.ndarray]]


class Spoils(VecEnvWrapper):
    """An environment that goes wrong at its ``at``-th step, or, at step 0, when it is reset."""

    def __init__(self, venv: VecEnv, at: int, spoil: Spoil) -> None:
        super().__init__(venv)
        self.at, self.spoil, self.steps = at, spoil, 0

    def reset(self) -> Any:
        observations = self.venv.reset()
        return self.spoil(observations, np.zeros(N), [{}] * N)[0] if self.at == 0 else observations

    def step_wait(self) -> Any:
        observations, rewards, dones, infos = self.venv.step_wait()
        self.steps += 1
        if self.steps == self.at:
            observations, rewards = self.spoil(observations, rewards.copy(), infos)
        return observations, rewards, dones, infos


def set_observation(value: float, lane: int = 3) -> Spoil:
    def spoil(observations: Any, rewards: np.ndarray, infos: list[dict[str, Any]]) -> tuple[Any, np.ndarray]:
        observations = observations.copy()
        observations[lane].flat[-1] = value
        return observations, rewards

    return spoil


def set_reward(value: float, lane: int = 3) -> Spoil:
    def spoil(observations: Any, rewards: np.ndarray, infos: list[dict[str, Any]]) -> tuple[Any, np.ndarray]:
        rewards[lane] = value
        return observations, rewards

    return spoil


def lstm_agent(env: VecEnv) -> PQN:
    kwargs = {"features_extractor_kwargs": {"net_arch": (13,)}, "core_kwargs": {"hidden_size": 11}}
    return PQN("LstmPolicy", env, n_steps=T, policy_kwargs=kwargs, device="cpu")


def memory() -> TaskVecEnv:
    return TaskVecEnv(ProbeMemory(N, seed=0))


def everything(model: PQN) -> list[Tensor]:
    state = model.policy.optimizer.state_dict()["state"]
    held = [value for entry in state.values() for value in entry.values() if isinstance(value, Tensor)]
    return [tensor.detach().clone() for tensor in [*model.policy.state_dict().values(), *held]]


def learn_until_refused(env: VecEnv, rollouts_before: int = 1, **how: Any) -> str:
    """Learn from a few good rollouts, then from what is wrong; returns the message. Nothing may have been learned since."""
    model = how["make"](env) if "make" in how else lstm_agent(env)
    kept: list[list[Tensor]] = [everything(model)]
    train = model.train

    def watched() -> None:
        train()
        kept.append(everything(model))

    model.train = watched  # type: ignore[method-assign]
    with pytest.raises(InvalidExperienceError) as error:
        model.learn(10 * T * N)
    assert len(kept) == rollouts_before + 1
    assert all(torch.equal(a, b) for a, b in zip(kept[-1], everything(model), strict=True))
    assert all(tensor.isfinite().all() for tensor in everything(model))
    return str(error.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("key", "spoil"), [("observation", set_observation), ("reward", set_reward)])
def test_a_number_that_is_none_stops_training_before_the_update(value: float, key: str, spoil: Any) -> None:
    message = learn_until_refused(Spoils(memory(), T + 3, spoil(value)))
    assert f"{key} of environment 3 is not finite at step {(T + 2) * N}" in message
    assert str(value) in message


@pytest.mark.parametrize("at", [1, T])
def test_the_first_and_the_last_step_of_a_rollout_are_looked_at(at: int) -> None:
    assert "environment 0" in learn_until_refused(Spoils(memory(), at, set_observation(np.nan, lane=0)), rollouts_before=0)


def test_the_observation_of_a_reset_is_looked_at() -> None:
    message = learn_until_refused(Spoils(memory(), 0, set_observation(np.nan)), rollouts_before=0)
    assert "observation of environment 3 is not finite at step 0" in message


def test_the_final_observation_of_a_cut_episode_is_looked_at() -> None:
    def spoil(observations: Any, rewards: np.ndarray, infos: list[dict[str, Any]]) -> tuple[Any, np.ndarray]:
        infos[3]["TimeLimit.truncated"] = True
        infos[3]["terminal_observation"] = np.full(2, np.nan, np.float32)
        return observations, rewards

    # An episode of the memory probe ends at every third step.
    message = learn_until_refused(Spoils(memory(), 3, spoil), rollouts_before=0)
    assert "environment 3" in message
    assert "observation" in message


@pytest.mark.parametrize("shape", [(N, 1), (1,), (), (N + 1,), (2, N)])
def test_rewards_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    def spoil(observations: Any, rewards: np.ndarray, infos: list[dict[str, Any]]) -> tuple[Any, np.ndarray]:
        return observations, np.ones(shape, np.float32)

    message = learn_until_refused(Spoils(memory(), T + 2, spoil))
    assert f"reward has shape {list(shape)} at step {(T + 1) * N}; expected [{N}]" in message


@pytest.mark.parametrize("shape", [(N, 1), (1, 2), (N, 3), (2,), (N - 1, 2), (N, 2, 1)])
def test_observations_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    """Numpy and torch would broadcast some of these without a word."""

    def spoil(observations: Any, rewards: np.ndarray, infos: list[dict[str, Any]]) -> tuple[Any, np.ndarray]:
        return np.ones(shape, np.float32), rewards

    message = learn_until_refused(Spoils(memory(), T + 2, spoil))
    assert "observation" in message
    assert str(list(shape)) in message
    assert f"step {(T + 1) * N}" in message


class Pairs(gym.Env[dict[str, np.ndarray], np.int64]):
    observation_space = spaces.Dict(
        {"place": spaces.Box(-1, 1, (2,), np.float32), "speed": spaces.Box(-1, 1, (3,), np.float32)}
    )
    action_space = spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return self.observation_space.sample(), {}

    def step(self, action: np.int64) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 0.0, False, False, {}


def test_the_key_of_a_dictionary_is_named() -> None:
    def spoil(observations: Any, rewards: np.ndarray, infos: list[dict[str, Any]]) -> tuple[Any, np.ndarray]:
        observations["speed"][2, 1] = np.nan
        return observations, rewards

    def make(env: VecEnv) -> PQN:
        return PQN("LstmPolicy", env, n_steps=T, policy_kwargs={"features_extractor_class": CombinedExtractor}, device="cpu")

    env = Spoils(DummyVecEnv([Pairs] * N), T + 1, spoil)
    assert "speed of environment 2 is not finite at step 35" in learn_until_refused(env, make=make)


def test_the_first_of_several_is_named() -> None:
    observations = np.zeros((N, 2), np.float32)
    observations[[1, 4]] = np.nan
    with pytest.raises(InvalidExperienceError, match="observation of environment 1 .* step 42"):
        check_experience(observations, np.full(N, np.nan), 42)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_large_numbers_are_no_reason_to_stop_or_to_warn(dtype: type) -> None:
    """Their sum overflows, and they are still finite."""
    largest = np.finfo(dtype).max
    check_experience(np.full((N, 3), largest, dtype), np.full(N, 1.0, np.float32), 0)
    check_experience(np.zeros((N, 3), np.float32), np.full(N, largest, dtype), 0)


def test_infinities_that_cancel_are_found_without_a_warning() -> None:
    with pytest.raises(InvalidExperienceError, match="environment 0"):
        check_experience(np.array([[np.inf, -np.inf], [0, 0]], np.float32), np.zeros(2, np.float32), 0)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.bool_])
def test_whole_numbers_are_finite(dtype: type) -> None:
    check_experience(np.ones((N, 3), dtype), np.ones(N, np.int64), 0)


def test_shapes_are_named() -> None:
    check_shape("reward", np.zeros(N), (N,), 0)
    with pytest.raises(InvalidExperienceError, match=r"reward has shape \[5, 1\] at step 9; expected \[5\]"):
        check_shape("reward", np.zeros((N, 1)), (N,), 9)


def test_training_goes_on_after_the_environment_is_mended() -> None:
    env = Spoils(memory(), T + 3, set_reward(np.nan))
    model = lstm_agent(env)
    with pytest.raises(InvalidExperienceError):
        model.learn(10 * T * N)
    before = everything(model)
    model.learn(T * N)
    assert not all(torch.equal(a, b) for a, b in zip(before, everything(model), strict=True))


def test_a_gradient_that_is_not_finite_is_left_out_and_counted() -> None:
    model = lstm_agent(memory()).learn(T * N)
    before = everything(model)
    model.rollout.rewards[2, 1] = float("nan")
    model.train()
    assert all(torch.equal(a, b) for a, b in zip(before, everything(model), strict=True))
    assert model.updater.skipped == 2
    model.rollout.rewards[2, 1] = 0
    model.train()
    assert not all(torch.equal(a, b) for a, b in zip(before, everything(model), strict=True))
    assert model.updater.skipped == 2


def test_normalised_environments_are_looked_at_too() -> None:
    # The running statistics spread the NaN over all environments, so that the one it came from cannot be named.
    assert "reward of environment" in learn_until_refused(VecNormalize(Spoils(memory(), T + 3, set_reward(np.nan))))
    assert "observation of environment 3" in learn_until_refused(
        VecNormalize(Spoils(memory(), T + 3, set_observation(np.nan)), training=False)
    )


def test_pixels_cost_no_look() -> None:
    """Bytes cannot be anything but finite."""
    images = TaskVecEnv(Catch(N)).reset()
    check_experience(images, np.zeros(N, np.float32), 0)
