"""Finding, making and listing environments; and what is said when that fails."""

from collections.abc import Iterator
from importlib import import_module
from inspect import signature
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.utils.env_checker import check_env as gymnasium_check
from hydra.utils import instantiate
from omegaconf import OmegaConf
from stable_baselines3.common.env_checker import check_env as sb3_check
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from repository import ROOT
from saccade.envs import (
    TASKS,
    BadEnvironmentArguments,
    CannotMakeEnvironment,
    Catch,
    TaskEnv,
    TaskVecEnv,
    UnknownEnvironment,
    list_environments,
    make_vec_env,
    register_task,
    registry,
)
from saccade.envs.registry import PROVIDERS

CONFIGS = sorted((ROOT / "conf/env").glob("*.yaml"))
CATCH = "saccade/Catch-v0"
PACKAGE = """
import gymnasium
gymnasium.register("zoo/Parrot-v3", "gymnasium.envs.classic_control:CartPoleEnv", max_episode_steps=11)
"""


@pytest.fixture(autouse=True)
def untouched_registry() -> Iterator[None]:
    for provider in set(PROVIDERS.values()):
        import_module(provider)  # once: a second import would register nothing
    before = dict(gym.registry)
    yield
    gym.registry.clear()
    gym.registry.update(before)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that registers an environment when it is imported."""
    (tmp_path / "saccade_test_zoo.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "saccade_test_zoo", raising=False)
    return "saccade_test_zoo"


@pytest.mark.filterwarnings("ignore:The minimal resolution for an image is 36x36")
@pytest.mark.parametrize("env_id", TASKS)
def test_each_task_is_a_proper_gymnasium_environment(env_id: str) -> None:
    gymnasium_check(gym.make(env_id, render_mode="rgb_array").unwrapped)
    env = gym.make(f"saccade.envs:{env_id}", render_mode="rgb_array")
    sb3_check(env)
    assert env.observation_space.contains(env.reset(seed=0)[0])


def test_one_lane_plays_an_episode() -> None:
    env = gym.make(CATCH, height=5, width=7, render_mode="rgb_array")
    observation, info = env.reset(seed=0)
    assert observation.shape == (1, 5, 7)
    assert info == {}
    outcomes = [env.step(1) for _ in range(4)]
    assert [terminated for _, _, terminated, _, _ in outcomes] == [False, False, False, True]
    assert [info.keys() for *_, info in outcomes] == [set(), set(), set(), {"is_success"}]
    assert outcomes[-1][4]["is_success"] == (outcomes[-1][1] == 1)
    picture = env.render()
    assert isinstance(picture, np.ndarray)
    assert picture.shape == (70, 98, 3)
    with pytest.raises(ValueError, match="action 3 is not one of 0 to 2"):
        env.unwrapped.step(3)
    with pytest.raises(ValueError, match="render_mode is 'ansi'"):
        TaskEnv(Catch, render_mode="ansi")


def test_our_tasks_come_as_one_array_program() -> None:
    for env_id in (CATCH, f"saccade.envs:{CATCH}"):
        venv = make_vec_env(env_id, 5, seed=3, kwargs={"height": 11, "paddle_width": 3})
        assert isinstance(venv, TaskVecEnv)
        assert venv.reset().shape == (5, 1, 11, 24)
        assert venv.get_attr("paddle_width") == [3] * 5
        assert venv.render_mode == "rgb_array"
    assert make_vec_env(CATCH, kwargs={"render_mode": None}).render_mode is None


def test_a_seed_decides_the_episodes() -> None:
    first, again, other = (make_vec_env(CATCH, 50, seed=seed).reset() for seed in (3, 3, 4))
    assert (first == again).all()
    assert (first != other).any()
    first, again, other = (make_vec_env("CartPole-v1", 2, seed=seed).reset() for seed in (3, 3, 4))
    assert (first == again).all()
    assert (first != other).any()


def test_any_other_environment_comes_monitored() -> None:
    venv = make_vec_env("CartPole-v1", 3, seed=0, kwargs={"sutton_barto_reward": True, "max_episode_steps": 5})
    assert isinstance(venv, DummyVecEnv)
    assert venv.env_is_wrapped(Monitor) == [True] * 3
    assert venv.render_mode == "rgb_array"
    venv.reset()
    for _ in range(5):
        _, rewards, dones, infos = venv.step(np.array([0, 1, 0]))
    assert dones.all()
    assert infos[0]["TimeLimit.truncated"]
    assert infos[0]["episode"]["l"] == 5
    assert (rewards == 0).all()


def test_a_module_is_imported_to_find_an_id(package: str) -> None:
    assert make_vec_env(f"{package}:zoo/Parrot-v3", 2).reset().shape == (2, 4)


def test_a_well_known_module_is_imported_unasked(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownEnvironment):
        make_vec_env("zoo/Parrot-v3")
    monkeypatch.setitem(registry.PROVIDERS, "zoo", package)
    assert make_vec_env("zoo/Parrot-v3", 2).reset().shape == (2, 4)


def test_a_registered_task_of_someone_else_comes_as_an_array_program() -> None:
    register_task("someone/Fall-v7", Catch)
    assert isinstance(make_vec_env("someone/Fall-v7", 3), TaskVecEnv)


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("CartPole-v5", "unknown environment 'CartPole-v5': the nearest are CartPole-v1, CartPole-v0"),
        ("CartPole", "the nearest are CartPole-v1"),
        ("cathc", "the nearest are saccade/Catch-v0"),
        ("saccade/Catch", "the nearest are saccade/Catch-v0"),
        ("Qwxyz-v0", "none of the registered ones resembles it"),
        ("Hopper-v3", "unknown environment 'Hopper-v3': the nearest are Hopper-v5, Hopper-v4"),
        ("saccade_no_such_module:Foo-v0", "needs the module 'saccade_no_such_module', which cannot be imported"),
    ],
)
def test_an_unknown_id_names_the_nearest(env_id: str, message: str) -> None:
    with pytest.raises(UnknownEnvironment, match=message):
        make_vec_env(env_id)


@pytest.mark.parametrize(
    ("env_id", "kwargs", "message"),
    [
        (CATCH, {"paddle": 3}, "takes no argument 'paddle': .*it takes height, width, paddle_width"),
        (CATCH, {"heigth": 3}, "the nearest is 'height'"),
        (CATCH, {"seed": 3}, "takes no argument 'seed'"),
        (CATCH, {"num_envs": 3}, "takes no argument 'num_envs'"),
        ("saccade/ProbePolicy-v0", {"x": 3}, "takes no argument 'x': it takes none"),
        ("CartPole-v1", {"sutton_barto": 1}, "the nearest is 'sutton_barto_reward'; it takes sutton_barto_reward"),
    ],
)
def test_wrong_arguments_are_named_with_the_right_ones(env_id: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(BadEnvironmentArguments, match=message):
        make_vec_env(env_id, kwargs=kwargs)


def test_an_environment_that_lacks_an_argument_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Needy(gym.Env[Any, Any]):
        def __init__(self, food: str) -> None:
            raise AssertionError("made without food")

    gym.register("zoo/Needy-v0", Needy)
    with pytest.raises(BadEnvironmentArguments, match=r"cannot be made with {}: .*'food'"):
        make_vec_env("zoo/Needy-v0")


def test_a_missing_package_is_named() -> None:
    gym.register("zoo/Heavy-v0", "saccade_no_such_module:Env")
    with pytest.raises(CannotMakeEnvironment, match=r"needs a package that is not installed: .*saccade_no_such_module"):
        make_vec_env("zoo/Heavy-v0")


def test_bad_numbers_are_named() -> None:
    with pytest.raises(ValueError, match="n_envs is 0; it must be a whole number, 1 or more"):
        make_vec_env("CartPole-v1", 0)
    with pytest.raises(ValueError, match="height is 1"):
        make_vec_env(CATCH, kwargs={"height": 1})


def test_something_else_than_a_task_is_refused() -> None:
    with pytest.raises(ValueError, match=r"saccade\.envs:TaskVecEnv is not a BatchedTask"):
        TaskEnv("saccade.envs:TaskVecEnv")


def test_the_list_has_ours_first_and_everything_that_can_be_made() -> None:
    rows = list_environments()
    assert [row.id for row in rows[: len(TASKS)]] == list(TASKS)
    catch = rows[0]
    assert catch.group == "saccade"
    assert catch.summary.startswith("Catch: ")
    assert (catch.observations, catch.actions) == ("uint8 [1, 24, 24]", "3 choices")
    groups = {row.id: row.group for row in rows}
    assert groups["CartPole-v1"] == "gymnasium[classic_control]"
    assert groups["LunarLander-v3"] == "gymnasium[box2d]"
    assert "Hopper-v3" not in groups, "a retired id, which can only raise"
    order = [row.group for row in rows]
    assert sum(a != b for a, b in pairwise(order)) == len(set(order)) - 1


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_every_config_names_an_environment_that_can_be_made(path: Path) -> None:
    config = OmegaConf.load(path)
    assert {"id", "n_envs", "kwargs"} <= config.keys() <= {"id", "n_envs", "kwargs", "wrappers", "game"}
    wrappers = [instantiate(part, _convert_="all") for part in config.get("wrappers", ())]
    venv = make_vec_env(config.id, config.n_envs, 0, OmegaConf.to_container(config.kwargs), wrappers)
    venv.reset()
    venv.step(np.array([venv.action_space.sample() for _ in range(venv.num_envs)]))


def test_the_config_of_the_papers_catch_shows_every_parameter_at_its_default() -> None:
    config = yaml.safe_load((ROOT / "conf/env/catch_paper.yaml").read_text())
    parameters = signature(Catch).parameters.values()
    assert config["kwargs"] == {p.name: p.default for p in parameters if p.name not in ("num_envs", "seed")}


def test_a_class_or_a_function_makes_environments_too() -> None:
    made = make_vec_env(CartPoleEnv, 3, seed=0, env_kwargs={"sutton_barto_reward": True})
    assert made.reset().shape == (3, 4)
    assert (made.step(np.zeros(3, np.int64))[1] == 0).all()
    assert make_vec_env(lambda: CartPoleEnv(), 2).num_envs == 2
