"""Action masks, by a method or in the infos, through every kind of environment: no forbidden action is ever tried."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib.common.maskable.evaluation import evaluate_policy
from sb3_contrib.common.wrappers import ActionMasker
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from saccade.agents import PPO
from saccade.agents.masks import ActionMasks
from saccade.agents.policy_batch import Judgement
from saccade.envs import BatchedTask, TaskStep, TaskVecEnv
from small_agents import ppo

B, T, A = 5, 7, 5


def allowed(time: Any) -> np.ndarray:
    """At every time another two of the five actions are allowed: ``time`` and ``time + 1``, modulo 5."""
    return np.isin(np.arange(A) - np.asarray(time)[..., None], [0, 1, -A, 1 - A])


class Guarded(gym.Env[np.ndarray, Any]):
    """Shows the time, refuses what is forbidden, and pays for the first of the two allowed actions; takes 3 to 5 steps."""

    observation_space = spaces.Box(0, A, (1,), np.float32)
    action_space: gym.Space[Any] = spaces.Discrete(A)

    def __init__(self) -> None:
        self.time, self.end = 0, 3

    def mask(self) -> np.ndarray:
        return allowed(self.time)

    def permits(self, action: Any) -> bool:
        return bool(self.mask()[action])

    def info(self) -> dict[str, Any]:
        return {}

    def look(self) -> np.ndarray:
        return np.full(1, self.time, np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.time, self.end = 0, int(self.np_random.integers(3, 6))
        return self.look(), self.info()

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.permits(action), f"action {action} is forbidden at time {self.time}"
        reward = float(np.all(action == self.time))
        self.time += 1
        return self.look(), reward, self.time == self.end, False, self.info()


class WithMethod(Guarded):
    def action_masks(self) -> np.ndarray:
        return self.mask()


class WithInfo(Guarded):
    def info(self) -> dict[str, Any]:
        return {"action_mask": self.mask().astype(np.int8)}


class GuardedTask(BatchedTask):
    """The same as an array program: lane ``i`` takes ``3 + i % 3`` steps."""

    lane_arrays = ("time",)

    def __init__(self, num_envs: int = B, seed: int | None = None) -> None:
        super().__init__(num_envs, Guarded.observation_space, spaces.Discrete(A), seed)
        self.time = np.zeros(num_envs, np.int64)

    def action_masks(self) -> np.ndarray:
        return allowed(self.time)

    def reset(self, lanes: np.ndarray) -> None:
        self.time[lanes] = 0

    def step(self, actions: np.ndarray) -> TaskStep:
        assert self.action_masks()[np.arange(self.num_envs), actions].all(), "a forbidden action"
        rewards = (actions == self.time).astype(np.float32)
        self.time += 1
        over = self.time == 3 + np.arange(self.num_envs) % 3
        return TaskStep(rewards, over, np.zeros_like(over))

    def observe(self) -> np.ndarray:
        return self.time[:, None].astype(np.float32)


def lanes(make: Callable[[], gym.Env[Any, Any]], n: int = B) -> VecEnv:
    return DummyVecEnv([lambda: Monitor(make()) for _ in range(n)])


MAKERS: dict[str, Callable[[], VecEnv]] = {
    "method": lambda: lanes(WithMethod),
    "masker": lambda: lanes(lambda: ActionMasker(Guarded(), lambda env: env.unwrapped.mask())),  # type: ignore[attr-defined]
    "info": lambda: lanes(WithInfo),
    "task": lambda: TaskVecEnv(GuardedTask(B)),
    "wrapped": lambda: VecNormalize(lanes(WithInfo), norm_obs=False),
}
EveryWay = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


class Masks(BaseCallback):
    """Compares the recorded masks with the observations they belong to; stops after some steps."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self.stop_after, self.checked = stop_after, 0

    def _on_step(self) -> bool:
        return self.n_calls != self.stop_after

    def _on_rollout_end(self) -> None:
        model: Any = self.model
        judgement: Judgement = model.judgement
        times = model.rollout.observations[:-1, :, 0].numpy()
        assert (judgement.masks.numpy() == allowed(times)).all()
        assert judgement.masks.gather(-1, model.rollout.actions[..., None]).all()
        assert (judgement.log_probs > -10).all()
        self.checked += 1


@EveryWay
@pytest.mark.parametrize("policy", ["MlpPolicy", "LstmPolicy"])
def test_nothing_forbidden_is_tried_and_masks_belong_to_their_observations(make: Callable[[], VecEnv], policy: str) -> None:
    masks = Masks()
    model = ppo(policy, make(), n_steps=T, batch_size=2 * T, n_epochs=1)
    assert model.learn(3 * T * B, callback=masks).action_masks.known
    assert masks.checked == 3


@EveryWay
@pytest.mark.parametrize("stop_after", [1, 2, 11])
def test_masks_stay_right_where_training_goes_on_in_mid_episode(make: Callable[[], VecEnv], stop_after: int) -> None:
    masks = Masks()
    model = ppo("MlpPolicy", make(), n_steps=T, n_epochs=1)
    model.learn(1000, callback=Masks(stop_after))
    model.learn(T * B, callback=masks, reset_num_timesteps=False)
    model.learn(T * B, callback=masks)
    assert masks.checked == 2


@EveryWay
def test_what_is_learned_among_the_allowed(make: Callable[[], VecEnv]) -> None:
    model = ppo("MlpPolicy", make(), n_steps=T, learning_rate=0.02, n_epochs=3)
    model.learn(20 * T * B)
    times = np.arange(3, dtype=np.float32)[:, None]
    assert model.predict(times, deterministic=True, action_masks=allowed(times[:, 0]))[0].tolist() == [0, 1, 2]


def test_without_masks_none_are_kept() -> None:
    model = ppo("MlpPolicy", lanes(lambda: gym.make("CartPole-v1")), n_steps=3).learn(15)
    assert not model.action_masks.known
    assert model.judgement.masks.shape == (3, B, 0)


def test_a_box_cannot_be_masked() -> None:
    class Continuous(WithMethod):
        action_space = spaces.Box(-1, 1, (2,), np.float32)

        def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
            return self.look(), 0.0, False, False, {}

    model = ppo("MlpPolicy", lanes(Continuous), n_steps=3).learn(15)
    assert not model.action_masks.known


# Actions of several parts.


class Parts(WithMethod):
    """Two choices: 0 or 1, and 0 to 2; the first has to be 1 at odd times, the second must not be the time modulo 3."""

    action_space = spaces.MultiDiscrete([2, 3])

    def mask(self) -> np.ndarray:
        return np.concatenate([[self.time % 2 == 0, True], np.arange(3) != self.time % 3])

    def permits(self, action: Any) -> bool:
        return bool(self.mask()[[action[0], 2 + action[1]]].all())


class Bits(WithMethod):
    """Three bits: at time ``t`` bit ``t % 3`` has to be 1 and the one after it 0."""

    action_space = spaces.MultiBinary(3)

    def mask(self) -> np.ndarray:
        mask = np.ones((3, 2), np.bool_)
        mask[self.time % 3, 0] = mask[(self.time + 1) % 3, 1] = False
        return mask

    def permits(self, action: Any) -> bool:
        return bool(self.mask()[np.arange(3), action].all())


@pytest.mark.parametrize("env", [Parts, Bits])
@pytest.mark.parametrize("policy", ["MlpPolicy", "GruPolicy"])
def test_masks_of_several_choices(env: type[Guarded], policy: str) -> None:
    model = ppo(policy, lanes(env), n_steps=T, n_epochs=2, ent_coef=0.01).learn(2 * T * B)
    made = env()
    observation, _ = made.reset(seed=0)
    for _ in range(3):
        action, _ = model.predict(observation, deterministic=True, action_masks=made.mask().reshape(-1))
        assert made.permits(action)
        observation, *_ = made.step(action)


# What is refused, by the number of the environment.


class Forgetful(WithInfo):
    """Says what is allowed at the start only."""

    def info(self) -> dict[str, Any]:
        return {} if self.time else super().info()


def told(env: type[Guarded], lane: int, mask: np.ndarray) -> VecEnv:
    """Environments of which one has this mask."""

    class Odd(env):  # type: ignore[misc, valid-type]
        def mask(self) -> np.ndarray:
            return mask

    return DummyVecEnv([Odd if i == lane else env for i in range(B)])


@pytest.mark.parametrize("env", [WithMethod, WithInfo])
@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones(3, np.bool_), "environment 2 needs 5 entries; there are 3"),
        (np.ones((2, 5), np.bool_), "environment 2 needs 5 entries; there are 10"),
        (np.zeros(5, np.bool_), "environment 2 allows no action at all"),
    ],
    ids=["too short", "too long", "nothing"],
)
def test_an_impossible_mask_is_refused(env: type[Guarded], mask: np.ndarray, message: str) -> None:
    model = ppo("MlpPolicy", told(env, 2, mask))
    with pytest.raises(ValueError, match=message):
        model.learn(T * B)


def test_a_mask_that_goes_missing_is_refused() -> None:
    model = ppo("MlpPolicy", DummyVecEnv([Forgetful if i == 3 else WithInfo for i in range(B)]))
    with pytest.raises(ValueError, match="environment 3 needs 5 entries; there are none"):
        model.learn(T * B)


@pytest.mark.parametrize(
    ("env", "mask", "message"),
    [
        (Parts, [True, True, False, False, False], "environment 1 allows no action for choice 1"),
        (Bits, [True, True, True, False, False, False], "environment 1 allows no action for choice 2"),
    ],
)
def test_a_choice_without_anything_allowed_is_refused(env: type[Guarded], mask: list[bool], message: str) -> None:
    model = ppo("MlpPolicy", told(env, 1, np.array(mask)))
    with pytest.raises(ValueError, match=message):
        model.learn(T * B)


@pytest.mark.parametrize("make", [MAKERS["method"], MAKERS["masker"], MAKERS["task"]], ids=["method", "masker", "task"])
def test_sb3_contribs_evaluation_takes_our_agent(make: Callable[[], VecEnv]) -> None:
    model: Any = ppo("MlpPolicy", make(), n_steps=T)
    rewards, lengths = evaluate_policy(model, make(), n_eval_episodes=7, return_episode_rewards=True)
    assert len(rewards) == 7  # type: ignore[arg-type]
    assert set(lengths) <= {3, 4, 5}  # type: ignore[arg-type]


def test_a_task_gives_each_lane_its_own_mask() -> None:
    env = TaskVecEnv(GuardedTask(B))
    env.reset()
    env.task.time[:] = np.arange(B)
    assert (np.stack(env.env_method("action_masks")) == allowed(np.arange(B))).all()
    assert (np.stack(env.env_method("action_masks", indices=[3, 1])) == allowed([3, 1])).all()
    assert (ActionMasks(env, A).now() == allowed(np.arange(B))).all()


def test_a_saved_agent_goes_on_with_masks(tmp_path: Any) -> None:
    model = ppo("LstmPolicy", MAKERS["info"](), n_steps=T).learn(T * B)
    model.save(tmp_path / "agent")
    masks = Masks()
    PPO.load(tmp_path / "agent", env=MAKERS["info"](), device="cpu").learn(T * B, callback=masks)
    assert masks.checked == 1
    assert torch.isfinite(model.judgement.values).all()
