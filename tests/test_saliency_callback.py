"""Films while training: in TensorBoard, in a folder, and without a trace in what is learned."""

import io
import logging
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3
import torch
from PIL import Image
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper, VecFrameStack, VecNormalize
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from saccade.agents import PPO, PQN
from saccade.envs import Catch, ProbeMemory, TaskVecEnv
from saccade.policies import LSTM, RandomGaze, Retina
from saccade.policies.twin import Twin
from saccade.saliency import SaliencyCallback

GLIMPSE = {"retina": partial(Retina, 3, 2), "hidden_size": 17, "glimpse_size": 19, "pathway_size": 5}
STEPS_OF_AN_EPISODE = 6


def catch(lanes: int = 1) -> TaskVecEnv:
    return TaskVecEnv(Catch(lanes, height=STEPS_OF_AN_EPISODE + 1, width=5, seed=0))


AGENTS = [PQN, PPO]
HEADS = {PQN: {"value", "advantage"}, PPO: {"value", "policy"}}


def make_agent(
    env: Any, policy: str = "GlimpsePolicy", log: Path | None = None, agent: Any = PQN, **core_kwargs: Any
) -> PQN | PPO:
    kwargs = {"core_kwargs": core_kwargs} if core_kwargs else {}
    arguments = {"n_steps": 4, "n_epochs": 1, "policy_kwargs": kwargs, "seed": 0, "device": "cpu"}
    if agent is PPO:
        arguments["batch_size"] = 8
    return agent(policy, env, tensorboard_log=log and str(log), **arguments)


FILMS = ("film", "heads")


def read(log: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(log / "run_1"), size_guidance={"images": 0, "scalars": 0})
    return accumulator.Reload()


@pytest.mark.parametrize("kind", AGENTS)
def test_films_and_strips_are_in_tensorboard_and_in_the_folder(kind: Any, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "films"
    agent = make_agent(catch(4), log=tmp_path, agent=kind, **GLIMPSE)
    agent.learn(64, callback=SaliencyCallback(catch, every=32, folder=folder))
    events = read(tmp_path)
    names = {"film", "film_strip", "heads", "heads_strip", "time"}
    assert set(events.Tags()["images"]) == {f"saliency/{name}" for name in names}
    for name in names:
        images = events.Images(f"saliency/{name}")
        assert [image.step for image in images] == [0, 32, 64]
        for event in images:
            with Image.open(io.BytesIO(event.encoded_image_string)) as image:
                assert image.format == ("GIF" if name in FILMS else "PNG")
                assert image.size == (event.width, event.height)
                assert getattr(image, "n_frames", 1) == (STEPS_OF_AN_EPISODE if name in FILMS else 1)
        kept = folder / f"{name}.{'gif' if name in FILMS else 'png'}"
        assert kept.read_bytes() == images[-1].encoded_image_string
    jacobians = {f"{head}_jacobian" for head in HEADS[kind]}
    lags = {f"{head}_lag" for head in HEADS[kind]}
    found = {tag for tag in events.Tags()["scalars"] if tag.endswith("_jacobian")}
    assert found == {f"saliency/{name}" for name in jacobians}
    for scalar in (*jacobians, *lags, "gaze_move", "gaze_outside"):
        points = events.Scalars(f"saliency/{scalar}")
        assert [point.step for point in points][-1] == 64
        assert all(np.isfinite(point.value) for point in points)


@pytest.mark.parametrize("kind", AGENTS)
@pytest.mark.parametrize(
    ("policy", "core_kwargs"),
    [
        ("CnnPolicy", {}),
        ("LstmPolicy", {"hidden_size": 13}),
        ("GruPolicy", {"hidden_size": 13}),
        ("GlimpsePolicy", GLIMPSE),
        ("GlimpsePolicy", {**GLIMPSE, "gaze": RandomGaze}),
    ],
)
def test_training_is_the_same_to_the_last_bit(kind: Any, policy: str, core_kwargs: dict[str, Any]) -> None:
    weights = []
    for callback in (None, SaliencyCallback(catch, every=1)):
        agent = make_agent(catch(4), policy, agent=kind, **core_kwargs)
        agent.learn(96, callback=callback)
        weights.append(agent.policy.state_dict())
    for name, parameter in weights[0].items():
        assert torch.equal(parameter, weights[1][name]), name


def test_films_show_the_same_start() -> None:
    firsts: list[np.ndarray] = []

    class Spy(VecEnvWrapper):
        def reset(self) -> Any:
            firsts.append(self.venv.reset())
            return firsts[-1]

        def step_wait(self) -> Any:
            return self.venv.step_wait()

    make_agent(catch(4), **GLIMPSE).learn(96, callback=SaliencyCallback(lambda: Spy(catch()), every=16))
    assert len(firsts) == 7
    assert all((first == firsts[0]).all() for first in firsts)


def test_an_agent_without_gaze_gets_films_of_its_frames(tmp_path: Path) -> None:
    agent = make_agent(catch(4), "LstmPolicy", tmp_path, hidden_size=13)
    agent.learn(16, callback=SaliencyCallback(catch, every=1000))
    tags = read(tmp_path).Tags()
    assert "saliency/heads" in tags["images"]
    assert "saliency/gaze_move" not in tags["scalars"]


class Sizes(gym.Env[np.ndarray, Any]):
    """Wants its actions to be large, whatever they are; an image, six steps an episode."""

    metadata = {"render_modes": []}  # noqa: RUF012 - Gymnasium's way

    def __init__(self, action_space: gym.Space[Any]) -> None:
        self.observation_space = gym.spaces.Box(0, 255, (1, 11, 13), np.uint8)
        self.action_space = action_space
        self.steps = 0

    def see(self) -> np.ndarray:
        return self.np_random.integers(0, 256, self.observation_space.shape).astype(np.uint8)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return self.see(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(np.asarray(action, dtype=self.action_space.dtype))
        self.steps += 1
        return self.see(), float(np.sum(action)), self.steps == STEPS_OF_AN_EPISODE, False, {}


@pytest.mark.parametrize(
    "space",
    [
        gym.spaces.Box(-0.5, 0.5, (2, 3), np.float32),
        gym.spaces.Box(-0.5, 0.5, (1,), np.float32),
        gym.spaces.MultiDiscrete([2, 5]),
        gym.spaces.MultiBinary(7),
    ],
)
def test_every_kind_of_action_with_a_memory_each(space: gym.Space[Any], tmp_path: Path) -> None:
    def make(lanes: int = 1) -> DummyVecEnv:
        return DummyVecEnv([partial(Sizes, space)] * lanes)

    weights = []
    for callback in (None, SaliencyCallback(make, every=8, folder=tmp_path)):
        agent = PPO(
            "CorePolicy",
            make(2),
            n_steps=4,
            batch_size=8,
            policy_kwargs={"core_class": Twin, "core_kwargs": {"core": partial(LSTM, hidden_size=5)}},
            seed=0,
            device="cpu",
        )
        agent.learn(24, callback=callback)
        weights.append(agent.policy.state_dict())
    assert all(torch.equal(parameter, weights[1][name]) for name, parameter in weights[0].items())
    with Image.open(tmp_path / "heads.gif") as film:
        assert film.n_frames == STEPS_OF_AN_EPISODE


def test_stacked_frames(tmp_path: Path) -> None:
    agent = make_agent(VecFrameStack(catch(4), 3), **GLIMPSE)
    agent.learn(16, callback=SaliencyCallback(lambda: VecFrameStack(catch(), 3), every=1000, folder=tmp_path))
    with Image.open(tmp_path / "heads.gif") as film:
        assert film.n_frames == STEPS_OF_AN_EPISODE


def test_vectors_get_films_of_what_is_rendered_and_one_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def make() -> TaskVecEnv:
        return TaskVecEnv(ProbeMemory(1))

    agent = make_agent(TaskVecEnv(ProbeMemory(4)), "LstmPolicy", tmp_path, hidden_size=13)
    with caplog.at_level(logging.INFO):
        agent.learn(64, callback=SaliencyCallback(make, every=1))
    tags = read(tmp_path).Tags()
    assert set(tags["images"]) == {"saliency/film", "saliency/film_strip", "saliency/time"}
    assert "saliency/value_jacobian" in tags["scalars"]
    assert [record.message for record in caplog.records if "saliency" in record.name] == [
        "no films of the heads: their maps need image observations to lie over"
    ]


def test_nothing_to_show_is_one_line_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    agent = make_agent(TaskVecEnv(ProbeMemory(4)), "MlpPolicy", tmp_path)
    agent.learn(64, callback=SaliencyCallback(lambda: TaskVecEnv(ProbeMemory(1), render_mode=None), every=1))
    assert not read(tmp_path).Tags()["images"]
    messages = [record.message for record in caplog.records if "saliency" in record.name]
    assert messages == ["no saliency films: observations are no images and the environment renders none"]


class Broken(VecEnvWrapper):
    """An environment whose renderer raises."""

    def __init__(self, error: Exception) -> None:
        super().__init__(TaskVecEnv(ProbeMemory(1)))
        self.error = error

    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> Any:
        return self.venv.step_wait()

    def get_images(self) -> Any:
        raise self.error


def test_a_missing_renderer_is_a_warning_and_training_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    agent = make_agent(TaskVecEnv(ProbeMemory(4)), "MlpPolicy")
    missing = gym.error.DependencyNotInstalled("pygame is not installed")
    agent.learn(64, callback=SaliencyCallback(lambda: Broken(missing), every=1))
    assert agent.num_timesteps == 64
    messages = [record.message for record in caplog.records if "saliency" in record.name]
    assert messages == ["no saliency film: DependencyNotInstalled: pygame is not installed"]


def test_a_bug_is_not_swallowed() -> None:
    agent = make_agent(TaskVecEnv(ProbeMemory(4)), "MlpPolicy")
    with pytest.raises(ZeroDivisionError):
        agent.learn(64, callback=SaliencyCallback(lambda: Broken(ZeroDivisionError()), every=1))


def test_a_folder_that_cannot_be_made_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    agent = make_agent(catch(4), **GLIMPSE)
    agent.learn(16, callback=SaliencyCallback(catch, every=1, folder=tmp_path / "file" / "films"))
    messages = [record.message for record in caplog.records if "saliency" in record.name]
    assert len(messages) == 1 and "file" in messages[0]


def test_a_policy_of_another_library_is_refused() -> None:
    agent = stable_baselines3.PPO("MlpPolicy", catch(4), n_steps=4, batch_size=8, device="cpu")
    with pytest.raises(ValueError, match=r"need a policy with a core \(CorePolicy\); got ActorCriticPolicy"):
        agent.learn(16, callback=SaliencyCallback(catch, every=1))


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="every must be at least 1 timestep; got 0"):
        SaliencyCallback(catch, every=0)
    with pytest.raises(ValueError, match="max_steps must be at least 1; got 0"):
        SaliencyCallback(catch, every=1, max_steps=0)
    other = SaliencyCallback(lambda: TaskVecEnv(Catch(1)), every=1)
    with pytest.raises(ValueError, match="spaces do not match"):
        make_agent(catch(4), **GLIMPSE).learn(16, callback=other)


def test_normalisation_comes_from_the_training() -> None:
    made = []

    def make() -> VecNormalize:
        made.append(VecNormalize(TaskVecEnv(ProbeMemory(1))))
        return made[-1]

    training = VecNormalize(TaskVecEnv(ProbeMemory(4)))
    make_agent(training, "MlpPolicy").learn(64, callback=SaliencyCallback(make, every=1))
    np.testing.assert_array_equal(made[0].obs_rms.mean, training.obs_rms.mean)
    assert not made[0].training
    forgotten = SaliencyCallback(lambda: TaskVecEnv(ProbeMemory(1)), every=1)
    with pytest.raises(ValueError, match="VecNormalize"):
        make_agent(training, "MlpPolicy").learn(64, callback=forgotten)
