"""Playing an episode to look at: what is recorded, and what is left alone."""

import random
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import VecEnvWrapper

from saccade.envs import Catch, ProbeMemory, TaskVecEnv
from saccade.policies import LSTM, ActorCriticPolicy, FeedForward, QPolicy, RandomGaze, RecurrentGlimpse, Retina, TapKind
from saccade.saliency import episode_jacobian, gaze_film, play_episode
from saccade.saliency.episode import TIMED

GLIMPSE = {"retina": partial(Retina, 3, 2), "hidden_size": 17, "glimpse_size": 19, "pathway_size": 5}
HEIGHT, WIDTH = 7, 5


def catch(lanes: int = 1, seed: int = 0) -> TaskVecEnv:
    env = TaskVecEnv(Catch(lanes, height=HEIGHT, width=WIDTH))
    env.seed(seed)
    return env


KINDS = [QPolicy, ActorCriticPolicy]


def make_policy(env: Any, core_class: Any, kind: Any = QPolicy, **core_kwargs: Any) -> Any:
    return kind(env.observation_space, env.action_space, lambda _: 1e-3, core_class=core_class, core_kwargs=core_kwargs)


@pytest.mark.parametrize("kind", KINDS)
def test_an_episode_is_what_the_policy_saw_and_did(kind: Any) -> None:
    env = catch()
    policy = make_policy(env, RecurrentGlimpse, kind, **GLIMPSE)
    episode = play_episode(policy, env)
    assert len(episode) == HEIGHT - 1 and episode.finished
    assert episode.episode_starts.tolist() == [True] + [False] * (len(episode) - 1)
    assert episode.frames is not None and episode.frames_are_observations
    assert (episode.frames == episode.observations.transpose(0, 2, 3, 1)).all()
    for t in range(len(episode)):  # the ball falls a row each step
        assert episode.observations[t, 0, t].any()

    lanes = torch.as_tensor(episode.observations)[:, None]
    starts = torch.as_tensor(episode.episode_starts)[:, None]
    assert episode.decisions is not None
    core = policy.encode(lanes, policy.initial_state(1), starts, torch.as_tensor(episode.decisions)[:, None])
    said = policy.outputs(core.features)
    assert episode.outputs.keys() == said.keys()
    for name, output in episode.outputs.items():
        np.testing.assert_allclose(said[name][:, 0].detach(), output, atol=1e-5)
    acts = episode.outputs["advantage" if kind is QPolicy else "policy"]
    assert (acts.argmax(axis=1) == episode.actions).all()
    assert episode.masks is None

    gaze = episode.taps["gaze"]
    assert gaze.kind is TapKind.GAZE
    assert not gaze.values[0].any()
    np.testing.assert_array_equal(gaze.values[1:], episode.decisions[:-1].clip(-1, 1))


def test_the_same_seed_gives_the_same_episode() -> None:
    policy = make_policy(catch(), LSTM, hidden_size=13)
    episodes = [play_episode(policy, catch(seed=seed)) for seed in (3, 3, 4, 5, 6)]
    assert (episodes[0].observations == episodes[1].observations).all()
    assert any((episodes[0].observations != other.observations).any() for other in episodes[2:])


def test_lane_0_of_many_is_recorded() -> None:
    env = catch(lanes=3)
    policy = make_policy(env, LSTM, hidden_size=13)
    first = env.reset()[0]
    env.seed(0)
    episode = play_episode(policy, env)
    assert (episode.observations[0] == first).all()
    assert len(episode) == HEIGHT - 1


def test_an_episode_is_left_at_the_cap() -> None:
    env = catch()
    episode = play_episode(make_policy(env, FeedForward), env, max_steps=3)
    assert len(episode) == 3 and not episode.finished
    with pytest.raises(ValueError, match="max_steps must be at least 1; got 0"):
        play_episode(make_policy(env, FeedForward), env, max_steps=0)


class GlobalNoise(VecEnvWrapper):
    """Draws from every global generator, as environments do."""

    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> Any:
        random.random()
        np.random.random()  # noqa: NPY002
        torch.rand(1)
        return self.venv.step_wait()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [True, False])
def test_leaves_the_policy_and_the_generators_alone(kind: Any, training: bool) -> None:
    env = GlobalNoise(catch())
    policy = make_policy(env, RecurrentGlimpse, kind, gaze=RandomGaze, **GLIMPSE)
    policy.set_training_mode(training)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    weights = {name: parameter.clone() for name, parameter in policy.state_dict().items()}
    episode = play_episode(policy, env)
    episode_jacobian(policy, episode)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    assert before == after
    assert {module.training for module in policy.modules()} == {training}
    assert all(parameter.grad is None for parameter in policy.parameters())
    assert all(torch.equal(parameter, weights[name]) for name, parameter in policy.state_dict().items())


def test_the_jacobian_of_an_episode_is_at_the_gazes_that_were_taken() -> None:
    """A random gaze chosen again would see, and so depend on, other pixels."""
    env = TaskVecEnv(Catch(1, height=19, width=17))
    policy = make_policy(env, RecurrentGlimpse, gaze=RandomGaze, **GLIMPSE)
    episode = play_episode(policy, env)
    maps = episode_jacobian(policy, episode)
    value = maps["value"]
    assert isinstance(value, torch.Tensor)
    assert value.shape == episode.observations.shape
    for gaze, picture in zip(episode.taps["gaze"].values, value[:, 0], strict=True):
        rows, columns = (axis.float() for axis in picture.nonzero(as_tuple=True))
        assert len(rows)
        place = (gaze + 1) / 2 * np.array([17, 19])  # the wider field has 6 pixels
        assert (columns - place[0]).abs().max() <= 4 and (rows - place[1]).abs().max() <= 4


class OneAllowed(VecEnvWrapper):
    """Allows one action a step, each in turn, and says so by a method, or in its infos."""

    def __init__(self, by_method: bool) -> None:
        super().__init__(catch())
        self.turn = 0
        self.wanted: list[int] = []
        if by_method:
            self.action_masks = self.row

    def row(self) -> np.ndarray:
        return np.arange(3) == self.turn % 3

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> Any:
        return [getattr(self, method_name)()]

    def reset(self) -> Any:
        observations = self.venv.reset()
        self.turn = 0
        self.unwrapped.reset_infos = [{"action_mask": self.row()}]
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        self.wanted.append(int(actions[0]))
        super().step_async(actions)

    def step_wait(self) -> Any:
        observations, rewards, dones, infos = self.venv.step_wait()
        self.turn += 1
        return observations, rewards, dones, [{**info, "action_mask": self.row()} for info in infos]


@pytest.mark.parametrize("by_method", [True, False])
def test_an_actor_critic_acts_among_the_allowed_actions(by_method: bool) -> None:
    env = OneAllowed(by_method)
    policy = make_policy(env, LSTM, ActorCriticPolicy, hidden_size=13)
    episode = play_episode(policy, env)
    assert episode.actions.tolist() == env.wanted == [0, 1, 2, 0, 1, 2]
    assert episode.masks is not None
    assert episode.masks.tolist() == [[a == t % 3 for a in range(3)] for t in range(6)]
    maps = episode_jacobian(policy, episode)
    assert isinstance(maps["value"], torch.Tensor) and isinstance(maps["policy"], torch.Tensor)
    assert maps["value"].any() and not maps["policy"].any()  # no choice, no preference


def test_vectors_are_shown_by_what_the_environment_renders() -> None:
    env = TaskVecEnv(ProbeMemory(1))
    episode = play_episode(make_policy(env, LSTM, hidden_size=13), env)
    assert episode.frames is not None and not episode.frames_are_observations
    assert episode.frames.shape[0] == len(episode)
    assert len(gaze_film(episode)) == len(episode)


def test_vectors_without_a_renderer_have_no_frames() -> None:
    env = TaskVecEnv(ProbeMemory(1), render_mode=None)
    episode = play_episode(make_policy(env, FeedForward), env)
    assert episode.frames is None and len(episode) >= 1


def test_the_first_steps_of_an_episode_are_all_of_it_that_they_need() -> None:
    env = catch()
    episode = play_episode(make_policy(env, RecurrentGlimpse, **GLIMPSE), env)
    first = episode.first(3)
    assert len(first) == 3 and not first.finished and episode.first(len(episode)) is episode
    for name in TIMED:
        whole, part = getattr(episode, name), getattr(first, name)
        for key in whole if isinstance(whole, dict) else [...] if whole is not None else []:
            np.testing.assert_array_equal(part[key], whole[key][:3])
    np.testing.assert_array_equal(first.taps["gaze"].values, episode.taps["gaze"].values[:3])
    timed = {field.name for field in fields(episode)} - {"taps", "frames_are_observations", "finished"}
    assert timed == set(TIMED)
