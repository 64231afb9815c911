"""The agent that learns from right answers, as SB3's users know their agents: callbacks, checkpoints, and what is refused."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback, StopTrainingOnMaxEpisodes
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecMonitor, VecNormalize
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from saccade.agents import PPO, DivergedError, InvalidExperienceError, Supervised
from saccade.agents.lessons import teaching_environments
from saccade.agents.supervised import PATIENCE
from saccade.envs import TASKS, Copy, Lesson, SequenceTask, TaskVecEnv
from saccade.policies import FeedForward
from small_agents import same, weights
from supervised_agents import SHORT, STEPS, OneLesson, agent, copying

# As an SB3 algorithm.


class Stops(BaseCallback):
    def _on_step(self) -> bool:
        assert {"lesson", "dones", "infos"} <= self.locals.keys()
        return self.n_calls < 3


def test_timesteps_are_steps_of_episodes_and_callbacks_are_called_once_a_lesson() -> None:
    env = copying()
    model = agent(env).learn(10_000, callback=Stops())
    other = Copy(5, **SHORT)
    other.seed(0)
    other.reset(np.ones(5, np.bool_))  # as the environment's own episodes were drawn before
    assert model.num_timesteps == sum(int(other.generate(16).lengths.sum()) for _ in range(3))
    assert model._n_updates == 2, "what a callback stopped is not learned from"
    assert model.learn(STEPS, reset_num_timesteps=False).num_timesteps >= STEPS


def test_the_same_seed_gives_the_same_weights_and_another_gives_others() -> None:
    first = weights(agent(seed=3).learn(STEPS))
    torch.manual_seed(99)
    assert same(first, weights(agent(seed=3).learn(STEPS)))
    assert not same(first, weights(agent(seed=4).learn(STEPS)))


def test_callbacks_of_sb3(tmp_path: Path) -> None:
    evaluation = EvalCallback(copying(3), eval_freq=2, n_eval_episodes=3, best_model_save_path=str(tmp_path), verbose=0)
    stop = StopTrainingOnMaxEpisodes(64, verbose=0)
    model = agent(copying(1))
    model.learn(100_000, callback=[CheckpointCallback(1, str(tmp_path), name_prefix="agent"), evaluation, stop])
    assert model._n_updates == 3, "four lessons of 16 episodes"
    assert len(list(tmp_path.glob("agent_*_steps.zip"))) == 4
    assert evaluation.n_calls == 4
    assert np.isfinite(evaluation.last_mean_reward)
    best = Supervised.load(tmp_path / "best_model", device="cpu")
    assert best.predict(np.zeros((2, 3), np.float32))[0].shape == (2, 2)


def test_a_checkpoint_gives_back_the_agent_to_learn_on(tmp_path: Path) -> None:
    model = agent(batch_size=7, gradient_clip_value=0.5).learn(STEPS)
    model.save(tmp_path / "agent")
    alone = Supervised.load(tmp_path / "agent", device="cpu")
    assert (alone.batch_size, alone.gradient_clip_value, alone.max_grad_norm) == (7, 0.5, 50.0)
    observations = np.random.default_rng(0).uniform(0, 1, (11, 3)).astype(np.float32)
    ours, theirs = (one.predict(observations, deterministic=True) for one in (model, alone))
    assert (ours[0] == theirs[0]).all()
    assert ours[0].shape == (11, 2)
    loaded = Supervised.load(tmp_path / "agent", env=copying(), device="cpu")
    assert same(weights(model), weights(loaded))
    loaded.learn(STEPS, reset_num_timesteps=False)
    assert loaded.num_timesteps >= 2 * STEPS
    assert not same(weights(model), weights(loaded))


def test_tensorboard_gets_finite_numbers(tmp_path: Path) -> None:
    agent(tensorboard_log=str(tmp_path)).learn(STEPS, tb_log_name="seen")
    events = EventAccumulator(str(tmp_path / "seen_1")).Reload()
    tags = set(events.Tags()["scalars"])
    assert {f"train/{name}" for name in ("loss", "bits", "errors", "right", "value_loss", "skipped_updates")} <= tags
    assert {"rollout/ep_rew_mean", "rollout/ep_len_mean", "rollout/success_rate", "time/fps"} <= tags
    for tag in tags:
        assert all(np.isfinite(event.value) for event in events.Scalars(tag)), tag


def test_ppo_goes_on_from_its_weights() -> None:
    model = agent().learn(STEPS)
    actor = PPO("LstmPolicy", copying(), n_steps=8, batch_size=40, n_epochs=1, policy_kwargs=model.policy_kwargs, device="cpu")
    actor.policy.load_state_dict(model.policy.state_dict())
    actor.learn(80)
    assert not same(weights(model), weights(actor))


def test_observations_can_be_normalised_without_padding() -> None:
    model = agent(TaskVecEnv(OneLesson(1, **SHORT)), policy_kwargs={"normalize_observations": True})
    model.learn(16 * 5)
    batch = model.lesson
    assert not batch.real.all()
    torch.testing.assert_close(model.policy.norm.mean.float(), batch.inputs[batch.real].mean(0), atol=1e-3, rtol=1e-3)  # type: ignore[union-attr]


# What is not finite.


def spoil(model: Supervised, times: list[bool]) -> None:
    """Make the gradients of some updates NaN."""
    it = iter(times)
    model.policy.head.action.bias.register_hook(lambda gradient: gradient * torch.nan if next(it) else gradient)


def test_a_step_that_is_not_finite_is_left_out_and_counted() -> None:
    model = agent(OneUpdateEach())
    spoil(model, [False, True, False])
    seen = [weights(model)]
    for _ in range(3):
        model.learn(1, reset_num_timesteps=False)
        seen.append(weights(model))
    assert model.updater.skipped == 1
    assert [same(before, after) for before, after in pairwise(seen)] == [False, True, False]
    assert all(bool(one.isfinite().all()) for one in seen[-1])


def test_too_many_in_a_row_end_the_training() -> None:
    model = agent(OneUpdateEach())
    before = weights(model)
    spoil(model, [True] * (PATIENCE - 1) + [False] + [True] * PATIENCE)
    with pytest.raises(DivergedError, match=f"the gradients of the last {PATIENCE} updates were not finite"):
        model.learn(1_000_000)
    assert model.updater.skipped == 2 * PATIENCE - 1
    assert not same(before, weights(model))
    assert all(bool(one.isfinite().all()) for one in weights(model))


def OneUpdateEach() -> TaskVecEnv:  # noqa: N802, reads as what it makes
    return TaskVecEnv(OneLesson(1, **SHORT))


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_lesson_that_is_not_finite_is_named(number: float) -> None:
    class Broken(Copy):
        def generate(self, episodes: int) -> Lesson:
            lesson = super().generate(episodes)
            lesson.inputs[1, min(2, episodes - 1), 0] = number
            return lesson

    model = agent(TaskVecEnv(Broken(1, **SHORT)))
    with pytest.raises(InvalidExperienceError, match="inputs of environment 2 is not finite at step 0"):
        model.learn(STEPS)


def test_gradients_are_clipped_number_by_number() -> None:
    model, free = agent(gradient_clip_value=0.01), agent()
    lesson = Copy(1, **SHORT, seed=1).generate(16)
    for one in (model, free):
        one.loss(one.batch(lesson)).loss.backward()
    clipped = False
    for ours, theirs in zip(model.policy.parameters(), free.policy.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad.clamp(-0.01, 0.01))
        clipped |= bool((theirs.grad.abs() > 0.01).any())
    assert clipped
    odd = torch.tensor([torch.inf, torch.nan, -3.0])
    assert model.clipped(odd).isfinite().tolist() == [False, False, True]


# What is refused.


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_an_environment_without_answers_is_refused_before_the_first_step(env: str) -> None:
    with pytest.raises(ValueError, match="this environment does not give; these do: .*saccade/Copy-v0"):
        Supervised("MlpPolicy", gym.make(env), device="cpu")


def test_every_environment_with_answers_is_named() -> None:
    assert teaching_environments() == [env_id for env_id, task in TASKS.items() if issubclass(task, SequenceTask)]


@pytest.mark.parametrize("wrap", [VecNormalize, lambda env: VecFrameStack(env, 2)], ids=["normalised", "frames"])
def test_what_is_shown_otherwise_than_in_a_lesson_is_refused(wrap: Callable[[VecEnv], VecEnv]) -> None:
    with pytest.raises(ValueError, match="observations as the task gives them"):
        agent(wrap(copying()))


@pytest.mark.parametrize(
    "make",
    [
        lambda: VecMonitor(DummyVecEnv([lambda: gym.make("saccade/Copy-v0", **SHORT)])),
        lambda: VecNormalize(copying(), norm_obs=False),
        lambda: DummyVecEnv([lambda: Monitor(gym.make("saccade/Copy-v0", **SHORT))]),
        lambda: gym.make("saccade/Copy-v0", **SHORT),
        lambda: "saccade/Copy-v0",
    ],
    ids=["monitor", "rewards", "dummy", "gymnasium", "id"],
)
def test_the_task_is_found_behind(make: Callable[[], Any]) -> None:
    assert agent(make()).learn(STEPS).num_timesteps >= STEPS


class Decides(FeedForward):
    """Says that it takes latent decisions."""

    def __init__(self, input_shape: Any) -> None:
        super().__init__(input_shape)
        self.decision_size = 2


def test_a_core_that_decides_is_refused() -> None:
    with pytest.raises(ValueError, match="Decides takes latent decisions, which right answers alone do not train"):
        agent(policy_kwargs={"core_class": Decides, "core_kwargs": {}}, policy="TwinPolicy")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
        ({"gradient_clip_value": 0.0}, "gradient_clip_value must be positive; got 0.0"),
        ({"max_grad_norm": -1.0}, "max_grad_norm must be positive; got -1.0"),
    ],
)
def test_bad_numbers_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        agent(**arguments)
