"""What users of stable-baselines3 do with an agent, done with ours."""

from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    StopTrainingOnMaxEpisodes,
)
from stable_baselines3.common.logger import configure
from stable_baselines3.common.utils import LinearSchedule
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from examples import assert_equal
from saccade.agents import PQN
from small_agents import SMALL_GLIMPSE, SMALL_LSTM, catch, lstm_agent, memory, same, weights


class Steps(BaseCallback):
    """Counts everything that SB3 calls."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self.stop_after = stop_after
        self.counts = dict.fromkeys(("training_start", "rollout_start", "step", "rollout_end", "training_end"), 0)

    def _on_training_start(self) -> None:
        self.counts["training_start"] += 1

    def _on_rollout_start(self) -> None:
        self.counts["rollout_start"] += 1

    def _on_step(self) -> bool:
        self.counts["step"] += 1
        assert {"infos", "dones", "rewards", "new_obs"} <= self.locals.keys()
        return self.counts["step"] != self.stop_after

    def _on_rollout_end(self) -> None:
        self.counts["rollout_end"] += 1

    def _on_training_end(self) -> None:
        self.counts["training_end"] += 1


# learn


def test_learn_gives_back_the_agent_and_counts_every_step() -> None:
    model, steps = lstm_agent(), Steps()
    before = weights(model)
    assert model.learn(70, callback=steps) is model
    assert model.num_timesteps == 70
    assert steps.counts == {"training_start": 1, "rollout_start": 2, "step": 14, "rollout_end": 2, "training_end": 1}
    assert not same(before, weights(model))


def test_every_parameter_is_trained() -> None:
    for model in (lstm_agent(), PQN("GlimpsePolicy", catch(), n_steps=7, policy_kwargs=SMALL_GLIMPSE, device="cpu")):
        before = dict(model.policy.named_parameters())
        kept = {name: parameter.detach().clone() for name, parameter in before.items()}
        model.learn(7 * 5 * 4)
        unmoved = [name for name, parameter in model.policy.named_parameters() if torch.equal(parameter, kept[name])]
        assert not unmoved
        held = {id(parameter) for group in model.policy.optimizer.param_groups for parameter in group["params"]}
        assert held == {id(parameter) for parameter in model.policy.parameters()}


def test_a_callback_can_be_a_function_or_a_list() -> None:
    called = []
    lstm_agent().learn(35, callback=lambda local, global_: called.append(1) is None)
    assert len(called) == 7
    first, second = Steps(), Steps()
    lstm_agent().learn(35, callback=[first, CallbackList([second])])
    assert first.counts["step"] == second.counts["step"] == 7


def test_a_callback_stops_training() -> None:
    model, steps = lstm_agent(), Steps(stop_after=3)
    before = weights(model)
    model.learn(1000, callback=steps)
    assert steps.counts["step"] == 3
    assert steps.counts["training_end"] == 1
    assert model.num_timesteps == 15
    assert same(before, weights(model)), "half a rollout is not learned from"


@pytest.mark.parametrize("stop_after", [2, 3])
def test_training_goes_on_where_a_callback_stopped_it(stop_after: int) -> None:
    env = memory()
    model = lstm_agent(env)
    model.learn(1000, callback=Steps(stop_after))
    assert (model._last_obs == env.task.observe()).all(), "the next action would answer an old observation"
    assert (model._last_episode_starts == (stop_after == 3)).all(), "the next step would not know that an episode starts"


def test_stop_training_on_max_episodes() -> None:
    model = lstm_agent()
    model.learn(10_000, callback=StopTrainingOnMaxEpisodes(max_episodes=3))
    # An episode of the memory probe takes 3 steps; with 5 environments, max_episodes is 15 in all.
    assert model.num_timesteps == 5 * 3 * 3


@pytest.mark.parametrize("env", ["CartPole-v1", "saccade/ProbeMemory-v0"])
def test_an_environment_by_its_id(env: str) -> None:
    model = PQN("MlpPolicy", env, n_steps=8, device="cpu").learn(16)
    assert model.num_timesteps == 16
    assert model.get_env().num_envs == 1


def test_a_single_gymnasium_environment() -> None:
    assert (
        PQN("LstmPolicy", gym.make("CartPole-v1"), n_steps=8, policy_kwargs=SMALL_LSTM, device="cpu").learn(16).num_timesteps
        == 16
    )


def test_the_progress_bar_shows_steps_and_returns(capfd: pytest.CaptureFixture[str]) -> None:
    lstm_agent().learn(350, progress_bar=True)
    shown = capfd.readouterr().err
    assert "350/350" in shown
    assert "return=" in shown
    assert "success=" in shown
    model = lstm_agent().learn(35)
    model.learn(70, progress_bar=True, reset_num_timesteps=False)
    assert "70.0/70.0" in capfd.readouterr().err.replace("70/70", "70.0/70.0")


def test_tensorboard_gets_every_term(tmp_path: Path) -> None:
    model = PQN("GlimpsePolicy", catch(), n_steps=7, policy_kwargs=SMALL_GLIMPSE, tensorboard_log=str(tmp_path), device="cpu")
    model.learn(7 * 5 * 2, tb_log_name="seen")
    (folder,) = tmp_path.iterdir()
    assert folder.name == "seen_1"
    events = EventAccumulator(str(folder)).Reload()
    tags = set(events.Tags()["scalars"])
    assert {"rollout/ep_rew_mean", "rollout/ep_len_mean", "rollout/success_rate", "rollout/exploration_rate"} <= tags
    assert {"time/fps", "train/loss", "train/td_loss", "train/gaze_loss", "train/gaze_entropy", "train/grad_norm"} <= tags
    for tag in tags:
        assert [event.step for event in events.Scalars(tag)] == [35, 70]
        assert all(np.isfinite(event.value) for event in events.Scalars(tag))


def test_log_interval_and_a_logger_of_ones_own(tmp_path: Path) -> None:
    model = lstm_agent()
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(35 * 6, log_interval=3)
    model.logger.close()
    rows = (tmp_path / "progress.csv").read_text().strip().splitlines()
    assert len(rows) == 3
    assert "train/td_loss" in rows[0]


@pytest.mark.parametrize("schedule", [LinearSchedule(0.01, 0.001, 1.0), lambda progress: 0.01 * progress])
def test_a_learning_rate_can_be_a_schedule(schedule: Callable[[float], float]) -> None:
    model = lstm_agent(learning_rate=schedule).learn(140)
    assert model.policy.optimizer.param_groups[0]["lr"] == pytest.approx(schedule(0.0))


def test_exploration_falls_as_it_is_told() -> None:
    rates: list[float] = []

    class Watch(Steps):
        def _on_rollout_end(self) -> None:
            rates.append(self.model.exploration_rate)

    model = lstm_agent(exploration_fraction=0.5, exploration_initial_eps=1.0, exploration_final_eps=0.2)
    expected = [1, 0.75, 0.5, 0.25, 0, 0, 0, 0]
    for _ in range(2):
        rates.clear()
        model.learn(35 * 8, callback=Watch())
        assert rates == pytest.approx([0.2 + 0.8 * part for part in expected]), "training anew explores anew"


def test_going_on_without_starting_over() -> None:
    model = lstm_agent().learn(70)
    observation, state = model._last_obs.copy(), model._last_state
    steps = Steps()

    class First(Steps):
        def _on_rollout_start(self) -> None:
            if not self.counts["rollout_start"]:
                assert (self.model._last_obs == observation).all()
                assert_equal(self.model._last_state, state)
            super()._on_rollout_start()

    model.learn(70, callback=[First(), steps], reset_num_timesteps=False)
    assert model.num_timesteps == 140
    model.learn(70)
    assert model.num_timesteps == 70


# seeds


def run(seed: int | None, policy: str = "LstmPolicy") -> list[Tensor]:
    glimpse = policy == "GlimpsePolicy"
    env = catch() if glimpse else memory()
    kwargs = SMALL_GLIMPSE if glimpse else SMALL_LSTM
    return weights(PQN(policy, env, n_steps=7, seed=seed, policy_kwargs=kwargs, device="cpu").learn(70))


@pytest.mark.parametrize("policy", ["LstmPolicy", "GlimpsePolicy"])
def test_the_same_seed_gives_the_same_weights_and_another_gives_others(policy: str) -> None:
    first = run(3, policy)
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002 - SB3 draws from numpy's global generator
    assert same(first, run(3, policy))
    assert not same(first, run(4, policy))


def test_set_random_seed_starts_over() -> None:
    model = lstm_agent(seed=None)
    drawn = []
    for _ in range(2):
        model.set_random_seed(5)
        drawn.append([model.predict(np.zeros((5, 2), np.float32))[0].tolist() for _ in range(5)])
    assert drawn[0] == drawn[1]


# environments and parameters from outside


def test_set_env() -> None:
    model, other = lstm_agent().learn(35), memory(5, seed=1)
    model.set_env(other)
    assert model.get_env() is other
    model.learn(35, reset_num_timesteps=False)
    with pytest.raises(AssertionError, match="number of environments"):
        model.set_env(memory(3))
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        model.set_env(catch())


def test_load_then_set_env_then_learn(tmp_path: Path) -> None:
    lstm_agent().learn(35).save(tmp_path / "agent")
    model = PQN.load(tmp_path / "agent", device="cpu")
    model.set_env(memory())
    assert model.learn(35, reset_num_timesteps=False).num_timesteps == 70


def test_load_for_another_number_of_environments(tmp_path: Path) -> None:
    lstm_agent().learn(35).save(tmp_path / "agent")
    model = PQN.load(tmp_path / "agent", env=memory(3), device="cpu")
    assert model.n_envs == 3
    assert model.learn(21, reset_num_timesteps=False).num_timesteps == 35 + 21
    assert model.predict(np.zeros((2, 2), np.float32))[0].shape == (2,)


def test_parameters_out_and_in() -> None:
    model, other = lstm_agent(seed=0).learn(35), lstm_agent(seed=1)
    parameters = model.get_parameters()
    assert parameters.keys() == {"policy", "policy.optimizer"}
    other.set_parameters(parameters)
    assert same(weights(model), weights(other))
    broken = {"policy": {"nothing": torch.zeros(1)}, "policy.optimizer": {}}
    with pytest.raises((RuntimeError, ValueError, KeyError)):
        other.set_parameters(broken)


def test_set_parameters_takes_our_files(tmp_path: Path) -> None:
    model, other = lstm_agent(seed=0).learn(35), lstm_agent(seed=1)
    model.save(tmp_path / "agent")
    other.set_parameters(str(tmp_path / "agent"))
    assert same(weights(model), weights(other))
