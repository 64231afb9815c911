"""Gymnasium's vector environments as ``VecEnv``, held against SB3's loop over the same environments."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.env_util import make_vec_env as sb3_make_vec_env
from stable_baselines3.common.monitor import Monitor

from saccade.envs import CannotMakeEnvironment, GymnasiumVecEnv, HideVelocity, make_vec_env


class Count(gym.Env[dict[str, np.ndarray], int]):
    """Shows its steps in a dictionary; ends at 3 and says so, and is cut off at 2 where the action was 1."""

    observation_space = spaces.Dict({"steps": spaces.Box(0, 9, (1,), np.float32), "twice": spaces.Box(0, 9, (2,), np.float32)})
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        return self.observe(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        ended, cut = self.count == 3, self.count == 2 and action == 1
        return self.observe(), 0.5, ended, cut, {"is_success": ended} if ended else {}

    def observe(self) -> dict[str, np.ndarray]:
        return {"steps": np.full(1, self.count, np.float32), "twice": np.full(2, 2 * self.count, np.float32)}


MODES = pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])


def cartpoles(count: int, mode: AutoresetMode) -> GymnasiumVecEnv:
    return GymnasiumVecEnv(SyncVectorEnv([lambda: gym.make("CartPole-v1", max_episode_steps=17)] * count, autoreset_mode=mode))


@MODES
def test_every_step_is_that_of_sb3s_loop(mode: AutoresetMode) -> None:
    ours = cartpoles(3, mode)
    theirs = sb3_make_vec_env("CartPole-v1", 3, env_kwargs={"max_episode_steps": 17})
    for venv in (ours, theirs):
        venv.seed(5)
    assert (ours.reset() == theirs.reset()).all()
    cut = 0
    for action in np.random.default_rng(0).integers(2, size=(101, 3)):
        (obs, rewards, dones, infos), (obs2, rewards2, dones2, infos2) = ours.step(action), theirs.step(action)
        assert (obs == obs2).all()
        assert obs.dtype == obs2.dtype
        assert (rewards == rewards2).all()
        assert rewards.dtype == rewards2.dtype
        assert (dones == dones2).all()
        for info, info2, done in zip(infos, infos2, dones, strict=True):
            if not done:
                assert info == {}
                continue
            assert (info["terminal_observation"] == info2["terminal_observation"]).all()
            assert info["TimeLimit.truncated"] == info2["TimeLimit.truncated"]
            assert {key: info["episode"][key] for key in "rl"} == {key: info2["episode"][key] for key in "rl"}
            cut += info["TimeLimit.truncated"]
    assert cut > 0


@MODES
def test_dictionaries_and_what_the_environment_says(mode: AutoresetMode) -> None:
    venv = GymnasiumVecEnv(SyncVectorEnv([Count] * 3, autoreset_mode=mode))
    venv.reset()
    assert venv.step(np.array([0, 1, 0]))[3] == [{}] * 3
    observations, _, dones, infos = venv.step(np.array([0, 1, 0]))
    assert dones.tolist() == [False, True, False]
    assert isinstance(observations, dict)
    assert observations["steps"][:, 0].tolist() == [2, 0, 2]
    assert infos[1]["terminal_observation"]["twice"].tolist() == [4, 4]
    assert infos[1]["TimeLimit.truncated"]
    assert infos[1]["episode"].items() >= {"r": 1.0, "l": 2}.items()
    assert infos[0] == infos[2] == {}
    *_, dones, infos = venv.step(np.array([0, 0, 0]))
    assert dones.tolist() == [True, False, True]
    assert infos[0]["is_success"]
    assert not infos[0]["TimeLimit.truncated"]
    assert infos[2]["episode"].items() >= {"r": 1.5, "l": 3}.items()


class Masked(Count):
    """Says what is allowed by its time, and how it was reset."""

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
        self.options = options
        observation, _ = super().reset(seed=seed, options=options)
        return observation, self.mask()

    def step(self, action: Any) -> Any:
        observation, reward, ended, cut, info = super().step(action)
        return observation, reward, ended, cut, {**info, **self.mask()}

    def mask(self) -> dict[str, Any]:
        return {"action_mask": np.array([True, self.count % 2 == 0])}


@MODES
def test_masks_reach_every_lane_with_what_it_shows(mode: AutoresetMode) -> None:
    venv = GymnasiumVecEnv(SyncVectorEnv([Masked] * 3, autoreset_mode=mode))
    seen, infos, dones = venv.reset(), venv.reset_infos, np.ones(3, np.bool_)
    ends = 0
    for t in range(20):
        for lane in range(3):
            info = venv.reset_infos[lane] if dones[lane] else infos[lane]
            assert info["action_mask"].tolist() == [True, seen["steps"][lane, 0] % 2 == 0]  # type: ignore[call-overload]
        seen, _, dones, infos = venv.step(np.array([0, t % 2, 0]))
        ends += int(dones.sum())
    assert ends > 5


@MODES
def test_options_reach_the_environment(mode: AutoresetMode) -> None:
    venv = GymnasiumVecEnv(SyncVectorEnv([Masked] * 2, autoreset_mode=mode))
    venv.set_options({"level": 3})
    venv.reset()
    assert [env.unwrapped.options for env in venv.envs.envs] == [{"level": 3}] * 2  # type: ignore[attr-defined]


@MODES
def test_arrays_that_the_environment_writes_into_again_are_copied(mode: AutoresetMode) -> None:
    def cartpoles_of_one_array() -> GymnasiumVecEnv:
        make = [lambda: gym.make("CartPole-v1", max_episode_steps=7)] * 3
        return GymnasiumVecEnv(SyncVectorEnv(make, copy=False, autoreset_mode=mode))

    ours, theirs = cartpoles_of_one_array(), sb3_make_vec_env("CartPole-v1", 3, env_kwargs={"max_episode_steps": 7})
    for venv in (ours, theirs):
        venv.seed(5)
    kept, expected = [ours.reset()], [theirs.reset()]
    for action in np.random.default_rng(0).integers(2, size=(23, 3)):
        (obs, _, dones, infos), (obs2, _, _, infos2) = ours.step(action), theirs.step(action)
        kept.append(obs)
        expected.append(obs2.copy())
        for lane in dones.nonzero()[0]:
            assert (infos[lane]["terminal_observation"] == infos2[lane]["terminal_observation"]).all()
    assert (np.stack(kept) == np.stack(expected)).all()


def test_a_restart_in_the_next_step_is_refused() -> None:
    with pytest.raises(ValueError, match="starts an episode in the step after"):
        cartpoles(2, AutoresetMode.NEXT_STEP)


def test_a_space_that_is_no_array_is_refused() -> None:
    class Pair(Count):
        observation_space = spaces.Tuple((spaces.Discrete(2), spaces.Discrete(3)))  # type: ignore[assignment]

    with pytest.raises(ValueError, match="observations must be arrays"):
        GymnasiumVecEnv(SyncVectorEnv([Pair], autoreset_mode=AutoresetMode.SAME_STEP))


def test_attributes_are_shared() -> None:
    venv = cartpoles(3, AutoresetMode.SAME_STEP)
    assert venv.env_is_wrapped(Monitor) == [True] * 3
    assert venv.env_is_wrapped(gym.wrappers.TimeLimit, [1]) == [False]
    assert venv.get_attr("num_envs", [0, 2]) == [3, 3]
    venv.set_attr("note", 7)
    assert venv.get_attr("note") == [7] * 3
    with pytest.raises(ValueError, match="note is shared by all 3 lanes; it cannot be set for \\[1\\] only"):
        venv.set_attr("note", 5, [1])
    assert venv.env_method("get_attr", "gravity", indices=[1]) == [(9.8, 9.8, 9.8)]
    assert venv.get_images() == [None] * 3
    venv.close()


def test_what_exists_as_a_vector_environment_only_comes_through_the_adapter() -> None:
    def make(num_envs: int) -> SyncVectorEnv:
        return SyncVectorEnv([Count] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)

    gym.register("zoo/Only-v0", vector_entry_point=make)
    try:
        venv = make_vec_env("zoo/Only-v0", 3, seed=0)
        assert isinstance(venv, GymnasiumVecEnv)
        assert venv.reset()["steps"].shape == (3, 1)
        with pytest.raises(CannotMakeEnvironment, match="HideVelocity wraps single environments"):
            make_vec_env("zoo/Only-v0", 3, wrappers=[HideVelocity])
    finally:
        del gym.registry["zoo/Only-v0"]
