"""Atari games, held against SB3's own stack of wrappers frame by frame."""

import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, VecTransposeImage

from saccade.envs import AtariVecEnv, CannotMakeEnvironment, UnknownEnvironment, make_vec_env

ale_py = pytest.importorskip("ale_py")
pytest.importorskip("cv2")


def sb3(game: str, seed: int, **wrapper: Any) -> VecEnv:
    gym.register_envs(ale_py)
    venv = make_atari_env(f"{game}NoFrameskip-v4", 1, seed=seed, wrapper_kwargs={"noop_max": 0, **wrapper})
    return VecTransposeImage(VecFrameStack(venv, 4))


def difference(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype == np.uint8
    return np.abs(ours.astype(np.int64) - theirs)


# Grey is computed from the palette by ale-py and from colours by OpenCV, which rounds otherwise for some of Pong's colours.
@pytest.mark.parametrize(
    ("rom", "game", "steps", "largest", "mean", "ends"),
    [("pong", "Pong", 331, 16, 0.05, 0), ("breakout", "Breakout", 331, 0, 0, 5), ("freeway", "Freeway", 53, 20, 0.1, 0)],
)
def test_every_frame_reward_and_end_is_sb3s(rom: str, game: str, steps: int, largest: int, mean: float, ends: int) -> None:
    ours, theirs = AtariVecEnv(rom, 1, noop_max=0), sb3(game, 3)
    ours.seed(3)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    differences = [difference(ours.reset(), theirs.reset())]
    lives, games = 0, 0
    rng = np.random.default_rng(1)
    for action in rng.integers(theirs.action_space.n, size=(steps, 1)):  # type: ignore[attr-defined]
        (obs, rewards, dones, infos), (obs2, rewards2, dones2, infos2) = ours.step(action), theirs.step(action)
        differences.append(difference(obs, obs2))
        assert rewards == rewards2
        assert rewards.dtype == rewards2.dtype
        assert dones == dones2
        if not dones[0]:
            assert infos == [{}]
            continue
        lives += 1
        assert infos[0]["TimeLimit.truncated"] == infos2[0]["TimeLimit.truncated"]
        assert difference(infos[0]["terminal_observation"], infos2[0]["terminal_observation"]).max() <= largest
        assert ("episode" in infos[0]) == ("episode" in infos2[0])
        if "episode" in infos[0]:
            games += 1
            for key in ("r", "l"):
                assert infos[0]["episode"][key] == infos2[0]["episode"][key]
    assert max(each.max() for each in differences) <= largest
    assert np.mean([each.mean() for each in differences]) <= mean
    assert lives >= ends
    assert games == (ends > 0)


def test_whole_games_and_points_are_sb3s() -> None:
    ours, theirs = (
        AtariVecEnv("breakout", 1, noop_max=0, terminal_on_life_loss=False, clip_reward=False),
        sb3("Breakout", 3, terminal_on_life_loss=False, clip_reward=False),
    )
    assert difference(ours.reset(), theirs.reset()).max() == 0
    ended = 0
    for action in np.random.default_rng(2).integers(4, size=(307, 1)):
        (obs, rewards, dones, infos), (obs2, rewards2, dones2, infos2) = ours.step(action), theirs.step(action)
        assert difference(obs, obs2).max() == 0
        assert rewards == rewards2
        assert dones == dones2
        if dones[0]:
            ended += 1
            assert infos[0]["episode"]["r"] == infos2[0]["episode"]["r"]
    assert ended >= 1


@pytest.mark.parametrize("threads", [1, 2, None])
def test_lanes_are_independent_of_each_other_and_of_the_number_of_threads(threads: int | None) -> None:
    many = make_vec_env("atari/breakout", 3, seed=5, kwargs={"num_threads": threads})
    assert isinstance(many, AtariVecEnv)
    alone = make_vec_env("atari/breakout", 1, seed=7)
    assert (many.reset()[2] == alone.reset()[0]).all()
    for action in np.random.default_rng(0).integers(4, size=(101, 3)):
        (obs, rewards, dones, _), (obs2, rewards2, dones2, _) = many.step(action), alone.step(action[2:])
        assert (obs[2] == obs2[0]).all()
        assert (rewards[2], dones[2]) == (rewards2[0], dones2[0])


def test_an_episode_shows_no_screen_from_before_it() -> None:
    venv = AtariVecEnv("breakout", 1, noop_max=0)
    assert (venv.reset()[0, :3] == 0).all()
    dones = np.zeros(1, np.bool_)
    while not dones[0]:
        obs, _, dones, infos = venv.step(np.zeros(1, np.int64))
    assert (obs[0, :3] == 0).all()
    assert obs[0, 3].any()
    assert infos[0]["terminal_observation"].any(axis=(1, 2)).all()
    obs, *_ = venv.step(np.zeros(1, np.int64))
    assert (obs[0, :2] == 0).all()
    assert obs[0, 2].any()


def test_a_seed_decides_the_game_and_a_reset_starts_one() -> None:
    venv = make_vec_env("atari/breakout", 2, seed=3)
    first = venv.reset()
    for _ in range(11):
        venv.step(np.ones(2, np.int64))
    venv.seed(3)
    assert (venv.reset() == first).all()
    assert venv.env_is_wrapped(Monitor) == [True, True]
    assert [image.shape for image in venv.get_images() if image is not None] == [(84, 84, 3)] * 2
    assert venv.get_attr("game") == ["breakout"] * 2
    venv.close()


@pytest.mark.parametrize("env_id", ["atari/pogn", "atari/Pong", "atari/pong-v5"])
def test_an_unknown_game_names_the_nearest(env_id: str) -> None:
    with pytest.raises(UnknownEnvironment, match=f"unknown Atari game '{env_id[6:]}': the nearest are pong"):
        make_vec_env(env_id)


def test_bad_values_are_named() -> None:
    venv = AtariVecEnv("pong", 2)
    with pytest.raises(ValueError, match="lane 1: action 6 is not one of 0 to 5"):
        venv.step(np.array([0, 6]))
    with pytest.raises(ValueError, match="actions must be 2 whole numbers"):
        venv.step(np.array([0.0, 1.0]))
    for name, value in {
        "noop_max": -1,
        "frame_skip": 0,
        "n_stack": 0,
        "num_threads": 0,
        "action_repeat_probability": 2.0,
    }.items():
        with pytest.raises(ValueError, match=f"{name} is {value}"):
            make_vec_env("atari/pong", kwargs={name: value})
    with pytest.raises(ValueError, match="takes no argument 'n_stacks': the nearest is 'n_stack'"):
        make_vec_env("atari/pong", kwargs={"n_stacks": 4})


@pytest.mark.parametrize("env_id", ["atari/pong", "ALE/Pong-v9"])
def test_without_ale_py_the_extra_is_named(env_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*filter(lambda name: name.startswith("ale_py"), sys.modules), "ale_py", "ale_py.roms"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(CannotMakeEnvironment, match=r"pip install -e '.\[atari\]'"):
        make_vec_env(env_id)
