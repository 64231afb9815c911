"""Wrappers of single environments, by themselves and as ``make_vec_env`` puts them on."""

from functools import partial
from pydoc import locate
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor

from saccade.envs import (
    WRAPPERS,
    BadEnvironmentArguments,
    CannotMakeEnvironment,
    FlatObservation,
    GridView,
    HideVelocity,
    make_vec_env,
)
from saccade.policies import FeedForward
from saccade.policies.torso import MLPTorso, default_torso

HIDDEN = partial(HideVelocity, keep=[2, 0])


def test_only_the_kept_entries_are_shown() -> None:
    bare, hidden = make_vec_env("CartPole-v1", 3, seed=5), make_vec_env("CartPole-v1", 3, seed=5, wrappers=[HIDDEN])
    whole = bare.observation_space
    assert isinstance(whole, spaces.Box)
    assert hidden.observation_space == spaces.Box(whole.low[[2, 0]], whole.high[[2, 0]], dtype=np.float32)
    assert (hidden.reset() == bare.reset()[:, [2, 0]]).all()
    ended = 0
    for action in np.random.default_rng(0).integers(2, size=(53, 3)):
        (obs, rewards, dones, infos), (obs2, rewards2, dones2, infos2) = hidden.step(action), bare.step(action)
        assert (obs == obs2[:, [2, 0]]).all()
        assert (rewards == rewards2).all()
        assert (dones == dones2).all()
        for lane in dones.nonzero()[0]:
            ended += 1
            assert (infos[lane]["terminal_observation"] == infos2[lane]["terminal_observation"][[2, 0]]).all()
            assert infos[lane]["episode"]["l"] == infos2[lane]["episode"]["l"]
    assert ended > 0
    assert hidden.env_is_wrapped(Monitor) == [True] * 3


@pytest.mark.parametrize("keep", [[], [0, 0], [4], [-1]])
def test_entries_that_are_not_there_are_named(keep: list[int]) -> None:
    with pytest.raises(ValueError, match=r"keep is .*; it must name different entries of the observation, 0 to 3"):
        make_vec_env("CartPole-v1", wrappers=[partial(HideVelocity, keep=keep)])


def test_wrong_wrappers_are_named() -> None:
    with pytest.raises(BadEnvironmentArguments, match=r"wrapper HideVelocity cannot be made: .*'kee?p'"):
        make_vec_env("CartPole-v1", wrappers=[partial(HideVelocity, kep=[0])])
    with pytest.raises(ValueError, match="HideVelocity needs vector observations"):
        make_vec_env("CliffWalking-v1", wrappers=[HIDDEN])
    with pytest.raises(ValueError, match="GridView needs MiniGrid's observations"):
        make_vec_env("CartPole-v1", wrappers=[GridView])
    for env_id in ("saccade/Catch-v0", "atari/pong"):
        with pytest.raises(CannotMakeEnvironment, match="steps all lanes at once, and HideVelocity, GridView wraps single"):
            make_vec_env(env_id, wrappers=[HIDDEN, GridView])


def test_a_grid_view_tells_what_minigrid_tells() -> None:
    pytest.importorskip("minigrid")
    from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX

    venv = make_vec_env("MiniGrid-MemoryS7-v0", 2, seed=3, wrappers=[GridView])
    env = GridView(gym.make("MiniGrid-MemoryS7-v0"))
    assert venv.observation_space == env.observation_space == spaces.Box(0, 1, (20, 7, 7), np.uint8)
    assert default_torso(env.observation_space, FeedForward) is MLPTorso
    kinds, colours = len(OBJECT_TO_IDX), len(COLOR_TO_IDX)
    assert kinds + colours + len(STATE_TO_IDX) == 20
    env.reset(seed=3)
    seen = set()
    for action in np.random.default_rng(0).integers(3, size=31):
        planes, *_ = env.step(action)
        assert env.observation_space.contains(planes)
        codes = env.unwrapped.gen_obs()["image"]  # type: ignore[attr-defined]
        for x in range(7):
            for y in range(7):
                kind, colour, state = codes[x, y]
                assert planes[:, y, x].nonzero()[0].tolist() == [kind, kinds + colour, kinds + colours + state]
                seen.add(int(kind))
    assert {OBJECT_TO_IDX["wall"], OBJECT_TO_IDX["empty"], OBJECT_TO_IDX["key"]} <= seen


class Parts(gym.Env[Any, Any]):
    """A tuple of a choice, two choices and two numbers; the observation says which step it is."""

    observation_space = spaces.Tuple((spaces.Discrete(3), spaces.MultiDiscrete([2, 5]), spaces.Box(-7, 7, (2,), np.float32)))
    action_space: spaces.Space[Any] = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return (2, np.array([1, 3]), np.array([-1.5, 4], np.float32)), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return (0, np.array([0, 4]), np.zeros(2, np.float32)), 0, False, False, {}


def test_a_flat_observation_has_choices_one_hot_and_numbers_as_they_are() -> None:
    env = FlatObservation(Parts())
    assert env.observation_space.shape == (12,)
    assert env.reset()[0].tolist() == [0, 0, 1, 0, 1, 0, 0, 0, 1, 0, -1.5, 4]
    assert env.step(1)[0].tolist() == [1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0]
    assert env.observation_space.contains(env.step(1)[0])


def test_the_previous_action_is_appended_and_forgotten_at_the_start() -> None:
    env = FlatObservation(Parts(), previous_action=True)
    assert env.reset()[0][12:].tolist() == [0, 0, 0]
    assert env.step(2)[0][12:].tolist() == [0, 0, 1]
    assert env.step(1)[0][12:].tolist() == [0, 1, 0]
    start = env.reset()[0]
    assert start[12:].tolist() == [0, 0, 0]
    assert env.observation_space.contains(start)


@pytest.mark.filterwarnings("ignore:.*The infos returned by")  # Gymnasium's checker, of CountRecall
@pytest.mark.parametrize("name", ["AutoencodeEasy", "RepeatPreviousEasy", "CountRecallEasy", "BattleshipEasy"])
@pytest.mark.parametrize("previous_action", [False, True])
def test_popgyms_observations_become_vectors(name: str, previous_action: bool) -> None:
    pytest.importorskip("popgym")
    flat = partial(FlatObservation, previous_action=previous_action)
    venv = make_vec_env(f"popgym-{name}-v0", 3, seed=0, wrappers=[flat])
    observations = venv.reset()
    assert isinstance(observations, np.ndarray)
    assert observations.dtype == np.float32
    for _ in range(5):
        observations, *_ = venv.step(np.array([venv.action_space.sample() for _ in range(3)]))
        assert all(venv.observation_space.contains(each) for each in observations)


def test_without_a_package_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for module, env_id in {"minigrid": "MiniGrid-None-v0", "popgym": "popgym-None-v0"}.items():
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(CannotMakeEnvironment, match=rf"pip install -e '.\[{module}\]'"):
            make_vec_env(env_id)


def test_a_config_names_wrappers_by_where_they_are() -> None:
    for name, wrapper in WRAPPERS.items():
        assert locate(name) is wrapper


def test_a_torque_is_chosen_from_nine() -> None:
    nine = partial(gym.wrappers.DiscretizeAction, bins=9)
    venv = make_vec_env("Pendulum-v1", 2, seed=1, wrappers=[partial(HideVelocity, keep=[0, 1]), nine])
    whole = make_vec_env("Pendulum-v1", 2, seed=1)
    assert venv.action_space == spaces.Discrete(9)
    assert (venv.reset() == whole.reset()[:, :2]).all()
    for action in ([0, 8], [4, 2]):
        torque = (np.array(action, np.float32)[:, None] - 4) * 4 / 9  # the middles of nine equal parts of -2 to 2
        assert np.allclose(venv.step(np.array(action))[0], whole.step(torque)[0][:, :2], atol=1e-6)
