"""Every task as a ``VecEnv``: what SB3 and its wrappers expect, and what one ordinary environment gives."""

import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecMonitor, VecNormalize, VecTransposeImage

from saccade.envs import (
    TASKS,
    BatchedTask,
    Catch,
    ProbeConstant,
    ProbeMemory,
    ProbePolicy,
    TaskEnv,
    TaskStep,
    TaskVecEnv,
)
from saccade.envs.task import action_bounds

EveryTask = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS.keys())
MakeTask = Callable[..., BatchedTask]


class Cut(BatchedTask):
    """Counts its steps; odd lanes are cut off at 2, and lane 3 ends in the same moment."""

    lane_arrays = ("count",)

    def __init__(self, num_envs: int = 5, seed: int | None = None) -> None:
        super().__init__(num_envs, spaces.Box(0, 9, (1,), np.float32), spaces.Discrete(2, start=1), seed)
        self.count = np.zeros(num_envs, np.int64)

    def reset(self, lanes: np.ndarray) -> None:
        self.count[lanes] = 0

    def step(self, actions: np.ndarray) -> TaskStep:
        self.count += 1
        lanes = np.arange(self.num_envs)
        truncated = (self.count == 2) & (lanes % 2 == 1)
        return TaskStep(np.full(self.num_envs, 0.5, np.float32), truncated & (lanes == 3), truncated)

    def observe(self) -> np.ndarray:
        return self.count[:, None].astype(np.float32)


def random_actions(venv: TaskVecEnv, steps: int, seed: int = 0) -> np.ndarray:
    first, last = action_bounds(venv.task.action_space)
    return np.random.default_rng(seed).integers(first, last, size=(steps, venv.num_envs, *first.shape), endpoint=True)


def roll(venv: TaskVecEnv, actions: np.ndarray) -> list[Any]:
    """Observations, rewards and dones of every step."""
    return [item for action in actions for item in venv.step(action)[:3]]


def same(left: list[Any], right: list[Any]) -> bool:
    return all((a == b).all() for a, b in zip(left, right, strict=True))


@EveryTask
def test_one_lane_equals_sb3s_monitored_dummy_environment(task: MakeTask) -> None:
    ours = TaskVecEnv(task(num_envs=1))
    theirs = DummyVecEnv([lambda: Monitor(TaskEnv(task))])
    for venv in (ours, theirs):
        venv.seed(3)
    assert (ours.reset() == theirs.reset()).all()
    for action in random_actions(ours, 60):
        (obs, rewards, dones, infos), (obs2, rewards2, dones2, infos2) = ours.step(action), theirs.step(action)
        assert (obs == obs2).all()
        assert obs.dtype == obs2.dtype
        assert rewards == rewards2
        assert rewards.dtype == rewards2.dtype
        assert dones == dones2
        if not dones[0]:
            assert infos == [{}]
            continue
        assert infos[0].keys() == infos2[0].keys()
        assert (infos[0].pop("terminal_observation") == infos2[0].pop("terminal_observation")).all()
        assert 0 <= infos[0]["episode"].pop("t") < 60
        del infos2[0]["episode"]["t"]
        assert infos == infos2


def test_lanes_restart_and_report_each_by_itself() -> None:
    venv = TaskVecEnv(Cut())
    assert (venv.reset() == 0).all()
    assert venv.step(np.ones(5, np.int64))[3] == [{}] * 5
    observations, rewards, dones, infos = venv.step(np.ones(5, np.int64))
    assert dones.tolist() == [False, True, False, True, False]
    assert observations[:, 0].tolist() == [2, 0, 2, 0, 2]
    assert rewards.tolist() == [0.5] * 5
    assert [info.get("TimeLimit.truncated") for info in infos] == [None, True, None, False, None]
    assert infos[1]["terminal_observation"].tolist() == [2]
    assert {"r": 1.0, "l": 2}.items() <= infos[1]["episode"].items()
    assert "is_success" not in infos[1]
    venv.step(np.ones(5, np.int64))
    *_, infos = venv.step(np.ones(5, np.int64))
    assert {"r": 1.0, "l": 2}.items() <= infos[1]["episode"].items()
    assert infos[0] == {}


def test_writing_into_what_a_step_returned_changes_nothing_else() -> None:
    venv = TaskVecEnv(Cut())
    venv.reset()
    observations, rewards, dones, infos = venv.step(np.ones(5, np.int64))
    infos[0]["note"] = 1
    infos.pop()
    for array in (observations, rewards, dones):
        array[:] = 1
    observations, rewards, dones, infos = venv.step(np.ones(5, np.int64))
    assert observations[0] == 2
    assert rewards[0] == 0.5
    assert not dones[0]
    assert len(infos) == 5
    assert infos[0] == {}
    assert infos[1]["episode"]["r"] == 1


@EveryTask
def test_a_seed_decides_everything_from_the_next_reset_on(task: MakeTask) -> None:
    venv = TaskVecEnv(task(num_envs=7))
    actions = random_actions(venv, 50)
    runs = []
    for _ in range(2):
        assert venv.seed(5) == list(range(5, 12))
        runs.append([venv.reset(), *roll(venv, actions)])
    assert same(runs[0], runs[1])


def test_seeds_differ_and_each_is_applied_once() -> None:
    venv = TaskVecEnv(Catch(7))
    venv.seed(5)
    first, then = venv.reset(), venv.reset()
    assert (first != then).any()
    venv.seed(6)
    assert (venv.reset() != first).any()
    assert (TaskVecEnv(Catch(7)).reset() != TaskVecEnv(Catch(7)).reset()).any(), "no seed, yet the same episodes"


@EveryTask
def test_a_saved_state_goes_on_exactly(task: MakeTask) -> None:
    venv = TaskVecEnv(task(num_envs=7, seed=0))
    venv.reset()
    actions = random_actions(venv, 40)
    roll(venv, actions[:3])
    state = venv.get_state()
    expected = roll(venv, actions)

    other = TaskVecEnv(task(num_envs=7, seed=99))
    other.reset()
    roll(other, actions[:1])
    observations = other.set_state(state)
    assert (observations == other.task.observe()).all()
    assert same(roll(other, actions), expected)


def test_a_saved_state_knows_the_running_episodes() -> None:
    venv, other = TaskVecEnv(Cut()), TaskVecEnv(Cut())
    venv.reset()
    venv.step(np.ones(5, np.int64))
    other.reset()
    other.set_state(venv.get_state())
    episode = other.step(np.ones(5, np.int64))[3][1]["episode"]
    assert (episode["r"], episode["l"]) == (1.0, 2)


def test_a_state_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"does not fit Catch: it needs ball_row of shape \(3,\)"):
        Catch(3).set_state(Catch(4).get_state())
    with pytest.raises(ValueError, match="does not fit Catch"):
        Catch(3).set_state(ProbePolicy(3).get_state())


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ([0, 1, 2, 3, 0], "lane 3: action 3 is not one of 0 to 2"),
        ([0, -1, 0, 0, 0], "lane 1: action -1 is not one of 0 to 2"),
        ([0, 0, 0, 0], "5 whole numbers"),
        ([[0], [0], [0], [0], [0]], "5 whole numbers"),
        ([0.0, 0.0, 0.0, 0.0, 0.0], "type float64"),
    ],
)
def test_bad_actions_are_refused_before_anything_moves(actions: list[Any], message: str) -> None:
    venv = TaskVecEnv(Catch(5, seed=0))
    before = venv.reset()
    with pytest.raises(ValueError, match=message):
        venv.step(np.array(actions))
    assert (venv.task.observe() == before).all()


def test_actions_count_from_the_spaces_start() -> None:
    venv = TaskVecEnv(Cut())
    venv.reset()
    venv.step(np.array([1, 2, 1, 2, 1]))
    with pytest.raises(ValueError, match="lane 0: action 0 is not one of 1 to 2"):
        venv.step(np.zeros(5, np.int64))


def test_attributes_by_lane_and_shared() -> None:
    venv = TaskVecEnv(Catch(5, seed=0))
    assert venv.get_attr("width") == [24] * 5
    assert venv.get_attr("render_mode", 2) == ["rgb_array"]
    venv.set_attr("paddle_left", 7, indices=[1, 3])
    assert venv.get_attr("paddle_left", [1, 3]) == [7, 7]
    assert venv.get_attr("paddle_left") == venv.task.get_state()["arrays"]["paddle_left"].tolist()
    venv.set_attr("paddle_speed", 3)
    assert venv.get_attr("paddle_speed", 0) == [3]
    with pytest.raises(ValueError, match="paddle_speed is shared by all 5 lanes"):
        venv.set_attr("paddle_speed", 4, indices=[0])
    assert not venv.has_attr("no_such_thing")
    probe = TaskVecEnv(ProbeMemory(3))
    assert [exact.q.shape for exact in probe.env_method("expected_q", 0.5, indices=[0, 2])] == [(3, 2, 2)] * 2


def test_monitor_is_built_in_and_nothing_else() -> None:
    venv = TaskVecEnv(Catch(3))
    assert venv.env_is_wrapped(Monitor) == [True] * 3
    assert venv.env_is_wrapped(gym.wrappers.TimeLimit, [0]) == [False]


@EveryTask
def test_pictures(task: MakeTask) -> None:
    venv = TaskVecEnv(task(num_envs=5, seed=0))
    images = venv.get_images()
    assert len(images) == 5
    assert all(image is not None and image.dtype == np.uint8 and image.shape[2] == 3 for image in images)
    whole = venv.render()
    assert whole is not None
    assert whole.ndim == 3
    assert min(whole.shape[:2]) >= 96


def test_a_catch_picture_is_the_enlarged_screen() -> None:
    task = Catch(3, height=11, width=7, seed=0)
    pictures = task.render()
    factor = pictures.shape[1] // 11
    assert pictures.shape == (3, 11 * factor, 7 * factor, 3)
    assert factor * 11 >= 96
    for channel in range(3):
        assert (pictures[:, factor // 2 :: factor, factor // 2 :: factor, channel] == task.observe()[:, 0]).all()
    assert (pictures > 0).sum() == 3 * factor**2 * (task.observe() > 0).sum()


def test_no_pictures_unless_asked_for() -> None:
    venv = TaskVecEnv(Catch(3), render_mode=None)
    assert venv.get_images() == [None] * 3
    with pytest.raises(ValueError, match="render_mode is 'human'"):
        TaskVecEnv(Catch(3), render_mode="human")


def test_sb3s_wrappers_work_on_it() -> None:
    venv = TaskVecEnv(Catch(3, height=5, width=7, seed=0))
    with pytest.warns(UserWarning, match="already wrapped with a `Monitor`"):
        monitored = VecMonitor(venv)
    stacked = VecFrameStack(monitored, 4, channels_order="first")
    assert stacked.reset().shape == (3, 4, 5, 7)
    for _ in range(4):
        *_, infos = stacked.step(np.ones(3, np.int64))
    assert infos[0]["terminal_observation"].shape == (4, 5, 7)
    assert infos[0]["episode"]["l"] == 4

    normalised = VecNormalize(TaskVecEnv(ProbePolicy(3, seed=0)))
    normalised.reset()
    observations, rewards, _, infos = normalised.step(np.ones(3, np.int64))
    assert np.isfinite(observations).all()
    assert np.isfinite(rewards).all()
    assert abs(infos[0]["episode"]["r"]) == 1

    skipped = VecTransposeImage(TaskVecEnv(Catch(3)), skip=True)
    assert skipped.reset().shape == (3, 1, 24, 24)


def test_sb3_trains_and_evaluates_on_it() -> None:
    venv = TaskVecEnv(ProbeConstant(4))
    model = PPO("MlpPolicy", venv, n_steps=16, batch_size=32, n_epochs=1, seed=0, device="cpu")
    model.learn(64)
    assert [episode["r"] for episode in model.ep_info_buffer or ()] == [1.0] * 64
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert evaluate_policy(model, TaskVecEnv(ProbeConstant(3)), n_eval_episodes=7) == (1.0, 0.0)
