"""What users of stable-baselines3 do with an agent, done with ours."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecMonitor, VecNormalize
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from conformance import assert_equal, leaves, step_by_step
from saccade.agents import PQN
from saccade.envs import Catch, ProbeMemory, TaskVecEnv
from saccade.policies import GRU, FeedForward, LSTMState, QPolicy
from saccade.policies.core import map_state

SMALL = {"features_extractor_kwargs": {"net_arch": (13,)}, "head_hidden_size": 17}
SMALL_LSTM = SMALL | {"core_kwargs": {"hidden_size": 11}}
SMALL_GLIMPSE = {"core_kwargs": {"hidden_size": 11, "glimpse_size": 13, "pathway_size": 7}, "head_hidden_size": 17}


def memory(num_envs: int = 5, seed: int = 0) -> TaskVecEnv:
    return TaskVecEnv(ProbeMemory(num_envs, seed=seed))


def catch(num_envs: int = 5) -> TaskVecEnv:
    return TaskVecEnv(Catch(num_envs, height=7, width=11, seed=0))


def lstm_agent(env: VecEnv | None = None, **arguments: Any) -> PQN:
    defaults = {"n_steps": 7, "policy_kwargs": SMALL_LSTM, "device": "cpu", "seed": 0}
    return PQN("LstmPolicy", env or memory(), **(defaults | arguments))


def weights(model: PQN) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.policy.parameters()]


def same(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


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
    assert PQN("LstmPolicy", gym.make("CartPole-v1"), n_steps=8, policy_kwargs=SMALL_LSTM, device="cpu").learn(16).num_timesteps == 16


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
    model.learn(35 * 8, callback=Watch())
    assert rates == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 0.2, 0.2, 0.2])


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


# predict


def test_a_single_observation_and_a_batch() -> None:
    model = lstm_agent()
    action, state = model.predict(np.zeros(2, np.float32))
    assert np.shape(action) == ()
    assert model.action_space.contains(int(action))
    assert isinstance(state, LSTMState)
    assert all(isinstance(leaf, np.ndarray) and leaf.shape == (1, 1, 11) for leaf in state)
    actions, state = model.predict(np.zeros((3, 2), np.float32), deterministic=True)
    assert actions.shape == (3,)
    assert state.hidden.shape == (3, 1, 11)


def test_one_image_and_a_batch_of_them() -> None:
    model = PQN("GlimpsePolicy", catch(), policy_kwargs=SMALL_GLIMPSE, device="cpu")
    images = catch(3).reset()
    for deterministic in (True, False):
        assert np.shape(model.predict(images[0], deterministic=deterministic)[0]) == ()
        assert model.predict(images, deterministic=deterministic)[0].shape == (3,)


def test_a_memory_is_carried_by_the_caller_and_wiped_where_an_episode_starts() -> None:
    model, observations = lstm_agent(), np.random.default_rng(0).normal(size=(7, 5, 2)).astype(np.float32)
    starts = np.zeros((7, 5), bool)
    starts[0] = starts[3, 1] = starts[3, 4] = starts[5, 1] = True
    state, actions = None, []
    for observation, start in zip(observations, starts, strict=True):
        action, state = model.predict(observation, state, start, deterministic=True)
        actions.append(action)
    with torch.no_grad():
        arguments = torch.as_tensor(observations), model.policy.initial_state(5), torch.as_tensor(starts)
        output = model.policy(*arguments)
    assert (np.array(actions) == output.head.q.argmax(-1).numpy()).all()
    assert_equal(map_state(torch.as_tensor, state), output.core.state, 1e-5)
    # Without a state, an episode starts, whatever is said.
    for said in (None, np.zeros(5, bool), np.ones(5, bool)):
        fresh = model.predict(observations[0], None, said, deterministic=True)[1]
        assert_equal(tuple(map(torch.as_tensor, fresh)), tuple(output_state(model, observations[0])), 1e-6)
    # Without episode starts, it goes on.
    gone_on = model.predict(observations[1], fresh, deterministic=True)[1]
    assert (gone_on.hidden != model.predict(observations[1], None, deterministic=True)[1].hidden).any()


def output_state(model: PQN, observation: np.ndarray) -> Any:
    with torch.no_grad():
        starts = torch.ones(1, len(observation), dtype=torch.bool)
        return model.policy.encode(torch.as_tensor(observation)[None], model.policy.initial_state(len(observation)), starts).state


def test_predict_leaves_the_given_state_alone() -> None:
    model = lstm_agent()
    _, state = model.predict(np.ones((5, 2), np.float32))
    kept = map_state(np.copy, state)
    model.predict(np.ones((5, 2), np.float32), state, np.ones(5, bool))
    assert all((a == b).all() for a, b in zip(state, kept, strict=True))


@pytest.mark.parametrize("policy", ["LstmPolicy", "GlimpsePolicy"])
def test_deterministic_is_deterministic_and_the_rest_explores(policy: str) -> None:
    glimpse = policy == "GlimpsePolicy"
    env, kwargs = (catch(), SMALL_GLIMPSE) if glimpse else (memory(), SMALL_LSTM)
    model = PQN(policy, env, policy_kwargs=kwargs, device="cpu")
    observations = env.reset()
    first = model.predict(observations, deterministic=True)
    for _ in range(5):
        again = model.predict(observations, deterministic=True)
        assert (again[0] == first[0]).all()
        assert all((a == b).all() for a, b in zip(flat(again[1]), flat(first[1]), strict=True))
    # ε is 1 before training.
    drawn = np.array([model.predict(observations)[0] for _ in range(30)])
    assert (drawn.std(0) > 0).all()
    model.exploration_rate = 0.0
    if not glimpse:
        assert (model.predict(observations)[0] == first[0]).all()


def flat(tree: Any) -> list[np.ndarray]:
    return [tree] if isinstance(tree, np.ndarray) else [leaf for part in tree for leaf in flat(part)]


def test_predict_does_not_move_the_training() -> None:
    model = lstm_agent().learn(35)
    before, observation, state = weights(model), model._last_obs.copy(), model._last_state
    model.predict(np.ones((3, 2), np.float32), deterministic=True)
    assert same(before, weights(model))
    assert (model._last_obs == observation).all()
    assert_equal(model._last_state, state)


def test_the_policys_stateless_hook() -> None:
    model = lstm_agent()
    observation = torch.ones(3, 2)
    actions = model.policy._predict(observation, deterministic=True)
    assert actions.tolist() == model.predict(observation.numpy(), deterministic=True)[0].tolist()


@pytest.mark.parametrize(("wrong", "shape"), [(np.zeros(3, np.float32), "(3,)"), (np.zeros((5, 3), np.float32), "(5, 3)")])
def test_an_observation_of_the_wrong_shape_is_refused(wrong: np.ndarray, shape: str) -> None:
    with pytest.raises(ValueError, match="Unexpected observation shape") as error:
        lstm_agent().predict(wrong)
    assert shape in str(error.value)


# evaluation


@pytest.mark.parametrize("n_envs", [1, 3])
def test_evaluate_policy_hands_the_memory_through(n_envs: int) -> None:
    model, seen = lstm_agent(), []

    def record(local: dict[str, Any], _: dict[str, Any]) -> None:
        if local["i"] == 0:
            seen.append((local["observations"].copy(), local["actions"].copy(), local["episode_starts"].copy()))

    mean, std = evaluate_policy(model, memory(n_envs), n_eval_episodes=4 * n_envs, callback=record)
    assert -1 <= mean <= 1
    assert std >= 0
    assert len(seen) >= 4 * 3
    observations, actions, ends = (torch.as_tensor(np.array(part)) for part in zip(*seen, strict=True))
    # An environment starts at the first step and wherever it ended before. An observation is the last before its action.
    starts = torch.cat([torch.ones(1, n_envs, dtype=torch.bool), ends[:-1]])
    with torch.no_grad():
        output = model.policy(observations, model.policy.initial_state(n_envs), starts)
    assert (output.head.q.argmax(-1) == actions).all()


def test_eval_and_checkpoint_callbacks(tmp_path: Path) -> None:
    evaluation = EvalCallback(
        memory(2),
        n_eval_episodes=4,
        eval_freq=7,
        best_model_save_path=str(tmp_path / "best"),
        log_path=str(tmp_path / "log"),
        callback_on_new_best=StopTrainingOnRewardThreshold(reward_threshold=99),
        verbose=0,
    )
    checkpoints = CheckpointCallback(save_freq=7, save_path=str(tmp_path / "all"), name_prefix="pqn")
    model = lstm_agent().learn(35 * 3, callback=[evaluation, checkpoints])
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == [f"pqn_{35 * k}_steps.zip" for k in (1, 2, 3)]
    assert (tmp_path / "log" / "evaluations.npz").exists()
    best = PQN.load(tmp_path / "best" / "best_model", device="cpu")
    assert np.isfinite(evaluation.best_mean_reward)
    assert [a.shape for a in weights(best)] == [b.shape for b in weights(model)]
    last = PQN.load(tmp_path / "all" / "pqn_105_steps", device="cpu")
    assert last.num_timesteps == 105


# wrappers


def test_vec_normalize() -> None:
    env = VecNormalize(memory())
    model = lstm_agent(env).learn(105)
    assert env.obs_rms.count > 100
    assert model.get_vec_normalize_env() is env
    held_out = VecNormalize(memory(3), training=False, norm_reward=False)
    held_out.obs_rms = env.obs_rms
    assert np.isfinite(evaluate_policy(model, held_out, n_eval_episodes=3)[0])


def test_normalised_images_reach_the_retina_as_floats() -> None:
    model = PQN("GlimpsePolicy", VecNormalize(catch()), n_steps=7, policy_kwargs=SMALL_GLIMPSE, device="cpu").learn(35)
    assert model.rollout.observations.dtype == torch.float32  # type: ignore[union-attr]


def test_vec_frame_stack() -> None:
    model = PQN("GlimpsePolicy", VecFrameStack(catch(), 3), n_steps=7, policy_kwargs=SMALL_GLIMPSE, device="cpu").learn(35)
    assert model.policy.core.input_shape == (3, 7, 11)
    assert lstm_agent(VecFrameStack(memory(), 3)).learn(35).observation_space.shape == (6,)


def test_vec_monitor() -> None:
    env = DummyVecEnv([lambda: gym.make("saccade/ProbeMemory-v0") for _ in range(5)])
    model = lstm_agent(VecMonitor(env)).learn(105)
    assert [info["l"] for info in model.ep_info_buffer] == [3] * 35


def test_episode_statistics_count_each_episode_once() -> None:
    model = lstm_agent(stats_window_size=1000).learn(105)
    assert len(model.ep_info_buffer) == len(model.ep_success_buffer) == 35
    assert model.logger.name_to_value == {} or True
    returns = np.array([info["r"] for info in model.ep_info_buffer])
    assert ((returns == 1) == np.array(model.ep_success_buffer)).all()


def test_images_with_channels_last_are_transposed() -> None:
    env = DummyVecEnv([lambda: Monitor(Pictures())])
    model = PQN("GlimpsePolicy", env, n_steps=7, policy_kwargs=SMALL_GLIMPSE, device="cpu").learn(7)
    assert model.policy.core.input_shape == (3, 11, 13)
    assert model.predict(Pictures().observation_space.sample())[0].shape == ()


class Pictures(gym.Env[np.ndarray, np.int64]):
    observation_space = spaces.Box(0, 255, (11, 13, 3), np.uint8)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        return self.observation_space.sample(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        return self.observation_space.sample(), 1.0, bool(np.random.default_rng().random() < 0.3), False, {}


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


# policies


def test_every_short_name() -> None:
    for name in ("MlpPolicy", "LstmPolicy", "GruPolicy"):
        assert PQN(name, memory(), n_steps=7, policy_kwargs=SMALL, device="cpu").learn(35).num_timesteps == 35


def test_a_policy_class_and_a_core_by_policy_kwargs() -> None:
    kwargs = SMALL | {"core_class": GRU, "core_kwargs": {"hidden_size": 11, "n_layers": 2}}
    model = PQN(QPolicy, memory(), n_steps=7, policy_kwargs=kwargs, device="cpu").learn(35)
    assert isinstance(model.policy.core, GRU)
    assert model.policy.core.n_layers == 2


def test_the_optimiser_is_the_users_choice() -> None:
    kwargs = SMALL | {"optimizer_class": torch.optim.AdamW, "optimizer_kwargs": {"weight_decay": 0.3}}
    model = PQN("MlpPolicy", memory(), learning_rate=0.07, policy_kwargs=kwargs, device="cpu")
    assert isinstance(model.policy.optimizer, torch.optim.AdamW)
    assert model.policy.optimizer.param_groups[0]["weight_decay"] == 0.3
    assert model.policy.optimizer.param_groups[0]["lr"] == 0.07


class Doubled(BaseFeaturesExtractor):
    def __init__(self, observation_space: gym.Space[Any], features_dim: int = 3, gain: float = 1.0) -> None:
        super().__init__(observation_space, features_dim)
        self.gain = gain
        self.linear = nn.Linear(int(np.prod(observation_space.shape or ())), features_dim)

    def forward(self, observations: Tensor) -> Tensor:
        return self.gain * self.linear(observations)


def test_a_features_extractor_of_ones_own() -> None:
    kwargs = {"features_extractor_class": Doubled, "features_extractor_kwargs": {"features_dim": 7, "gain": 2.0}}
    model = PQN("LstmPolicy", memory(), n_steps=7, policy_kwargs=kwargs, device="cpu").learn(35)
    assert model.policy.core.input_shape == (7,)
    assert model.policy.features_extractor.gain == 2  # type: ignore[union-attr]
    model = PQN("MlpPolicy", memory(), policy_kwargs={"features_extractor_class": FlattenExtractor}, device="cpu")
    assert model.policy.core.features_dim == 2


# observation and action spaces


class Any2(gym.Env[Any, np.int64]):
    """Random observations of a space."""

    def __init__(self, space: gym.Space[Any], actions: gym.Space[Any] | None = None) -> None:
        self.observation_space, self.action_space = space, actions or spaces.Discrete(3)
        self.time = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.time = 0
        return self.observation_space.sample(), {}

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), f"{action} is not in {self.action_space}"
        self.time += 1
        return self.observation_space.sample(), 1.0, False, self.time == 3, {}


def several(space: gym.Space[Any], actions: gym.Space[Any] | None = None) -> VecEnv:
    return DummyVecEnv([lambda: Monitor(Any2(space, actions)) for _ in range(5)])


BOX = spaces.Box(-1, 1, (3,), np.float32)
DICT = spaces.Dict({"vector": BOX, "other": spaces.Box(0, 1, (2,), np.float32)})


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (3,), np.float64),
        spaces.Box(-np.inf, np.inf, (3, 5), np.float32),
        spaces.Box(0, 7, (3,), np.int64),
        spaces.Discrete(7),
        spaces.MultiDiscrete([3, 5]),
        spaces.MultiBinary(5),
        spaces.Box(0, 255, (3, 17, 19), np.uint8),
    ],
    ids=str,
)
def test_every_observation_space_that_sb3_takes(space: gym.Space[Any]) -> None:
    model = PQN("LstmPolicy", several(space), n_steps=7, policy_kwargs={"core_kwargs": {"hidden_size": 11}}, device="cpu")
    model.learn(35)
    action, state = model.predict(space.sample(), deterministic=True)
    assert spaces.Discrete(3).contains(int(action))
    assert model.predict(space.sample(), state, deterministic=True)[0].shape == ()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_glimpse_at_a_float_image(dtype: type) -> None:
    env = several(spaces.Box(-1, 1, (3, 17, 19), dtype))
    PQN("GlimpsePolicy", env, n_steps=7, policy_kwargs=SMALL_GLIMPSE, device="cpu").learn(35)


def test_a_dictionary_of_observations() -> None:
    kwargs = SMALL_LSTM | {"features_extractor_class": CombinedExtractor, "features_extractor_kwargs": {}}
    env = several(DICT)
    model = PQN("LstmPolicy", env, n_steps=7, policy_kwargs=kwargs, device="cpu").learn(35)
    assert model.predict(DICT.sample())[0].shape == ()
    assert model.predict(env.reset())[0].shape == (5,)


def test_a_dictionary_works_without_naming_a_torso_or_is_refused_in_words() -> None:
    for policy in ("MlpPolicy", "LstmPolicy"):
        try:
            model = PQN(policy, several(DICT), n_steps=7, policy_kwargs={}, device="cpu").learn(35)
        except ValueError as error:
            message = str(error)
            assert "Dict" in message or "dict" in message
            # It must not send the user to a policy that does not exist.
            assert "MultiInputPolicy" not in message or "MultiInputPolicy" in PQN.policy_aliases
        else:
            assert model.predict(DICT.sample())[0].shape == ()


def test_a_glimpse_needs_an_image() -> None:
    with pytest.raises(ValueError, match="image") as error:
        PQN("GlimpsePolicy", memory(), device="cpu")
    assert "Box(-1.0, 1.0, (2,), float32)" in str(error.value) or "[2]" in str(error.value)
    with pytest.raises(ValueError, match="image"):
        PQN("GlimpsePolicy", several(DICT), device="cpu")


@pytest.mark.parametrize("actions", [spaces.Box(-1, 1, (2,)), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(2)], ids=str)
def test_other_actions_than_discrete_ones_are_refused(actions: gym.Space[Any]) -> None:
    with pytest.raises((AssertionError, ValueError), match="Discrete"):
        PQN("MlpPolicy", several(BOX, actions), device="cpu")


def test_actions_that_do_not_start_at_zero_are_taken_as_they_are_or_refused_at_once() -> None:
    try:
        model = PQN("MlpPolicy", several(BOX, spaces.Discrete(2, start=3)), n_steps=7, device="cpu")
    except (ValueError, AssertionError) as error:
        assert "start" in str(error)
        return
    model.learn(35)
    assert model.action_space.contains(int(model.predict(BOX.sample())[0]))


def test_a_batch_that_is_not_whole_sequences_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="nearest valid: 7, 35"):
        lstm_agent(batch_size=10)
    with pytest.raises(TypeError, match="n_step"):
        lstm_agent(n_step=3)


def test_a_minibatch_a_lane() -> None:
    model = lstm_agent(batch_size=7, n_epochs=3).learn(35)
    assert model._n_updates == 3
    steps = [float(entry["step"]) for entry in model.policy.optimizer.state.values()]
    assert set(steps) == {15}


def test_the_environment_core_is_stateless_between_calls() -> None:
    """Learning twice from the same rollout gives the same loss: nothing is left of the first time."""
    model = lstm_agent().learn(35)
    losses = [model.loss(model.rollout).loss.item() for _ in range(2)]
    assert losses[0] == losses[1]


def test_stepping_a_policy_is_unrolling_it() -> None:
    core = lstm_agent().learn(35).policy.core
    assert not isinstance(core, FeedForward)
    from conformance import example

    call = example(core)
    with torch.no_grad():
        assert_equal(core(*call), step_by_step(core, call), 1e-5)
    assert all(leaf.isfinite().all() for leaf in leaves(core(*call)))
