"""The sequential Jacobian: against one backward pass for every step, where it must be zero, and where a planted lag shows."""

from functools import partial
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import CombinedExtractor
from torch import Tensor

from saccade.envs import ProbeMemory, TaskVecEnv
from saccade.policies import (
    DNC,
    GRU,
    LSTM,
    ActorCriticPolicy,
    ConvTorso,
    Core,
    CoreOutput,
    FeedForward,
    GTrXL,
    QPolicy,
    RecurrentGlimpse,
    Retina,
    SoftAttention,
)
from saccade.policies.policy import map_observations
from saccade.policies.twin import Twin
from saccade.saliency import Episode, FilmError, play_episode, sequential_jacobian, time_map
from saccade.saliency.jacobian import head_jacobian
from saccade.saliency.readout import readouts
from saccade.saliency.sequential import mean_lag

T, ACTIONS, START = 7, 3, 4
VECTOR = spaces.Box(-1, 1, (5,), np.float32)
IMAGE = spaces.Box(0, 1, (2, 11, 13), np.float32)
BOTH = spaces.Dict({"a": VECTOR, "b": spaces.Box(-1, 1, (3,), np.float32)})
GLIMPSE = {"retina": partial(Retina, 3, 2), "hidden_size": 17, "glimpse_size": 19, "pathway_size": 5}
ROWS: dict[str, tuple[gym.Space[Any], Any, dict[str, Any], dict[str, Any]]] = {
    "mlp": (VECTOR, FeedForward, {}, {}),
    "lstm": (VECTOR, LSTM, {"hidden_size": 13}, {}),
    "twin": (VECTOR, Twin, {"core": partial(GRU, hidden_size=13)}, {}),
    "dict": (BOTH, LSTM, {"hidden_size": 13}, {"features_extractor_class": CombinedExtractor}),
    "conv-gru": (IMAGE, GRU, {"hidden_size": 13}, {"features_extractor_class": ConvTorso}),
    "glimpse": (IMAGE, RecurrentGlimpse, GLIMPSE, {}),
    "soft": (IMAGE, SoftAttention, {"hidden_size": 13}, {}),
    "gtrxl": (VECTOR, GTrXL, {"hidden_size": 12, "n_heads": 2, "n_layers": 2, "window": 3}, {}),
    "dnc": (VECTOR, DNC, {"slots": 5, "width": 3, "read_heads": 2}, {}),
}


def make_policy(name: str, kind: Any = QPolicy) -> Any:
    space, core_class, core_kwargs, kwargs = ROWS[name]
    actions = spaces.Discrete(ACTIONS)
    policy = kind(space, actions, lambda _: 1e-3, core_class=core_class, core_kwargs=core_kwargs, **kwargs)
    policy.set_training_mode(False)
    return policy.double()


def make_episode(policy: Any, starts: tuple[int, ...] = (0, START)) -> Episode:
    """Two episodes one after the other, of random observations."""
    policy.observation_space.seed(0)
    samples = [policy.observation_space.sample() for _ in range(T)]
    observations: Any = np.stack(samples) if isinstance(samples[0], np.ndarray) else None
    if observations is None:
        observations = {key: np.stack([sample[key] for sample in samples]) for key in samples[0]}
    size, rng = policy.core.decision_size, np.random.default_rng(0)
    begins = np.zeros(T, np.bool_)
    begins[list(starts)] = True
    decisions = rng.uniform(-0.8, 0.8, (T, size)) if size else None
    actions, rewards = rng.integers(ACTIONS, size=T), np.zeros(T, np.float32)
    return Episode(observations, actions, rewards, {}, None, begins, decisions, {}, None, False, True)


def one_by_one(policy: Any, episode: Episode) -> dict[str, list[tuple[Tensor, ...]]]:
    """The same by a backward pass for every step and number, through one lane."""
    seen = policy.preprocess(map_observations(torch.as_tensor, episode.observations))
    seen = map_observations(lambda part: part.double().requires_grad_(), seen)
    leaves = list(seen.values()) if isinstance(seen, dict) else [seen]
    starts = torch.as_tensor(episode.episode_starts)[:, None]
    replay = None if episode.decisions is None else torch.as_tensor(episode.decisions)[:, None]
    core = policy.core(policy.see(seen)[:, None], policy.initial_state(1), starts, replay, deterministic=True)
    read = readouts(policy, core.features[:, 0], torch.as_tensor(episode.actions))
    return {
        name: [torch.autograd.grad(numbers[t, 0], leaves, retain_graph=True, materialize_grads=True) for t in range(T)]
        for name, numbers in read.items()
    }


@pytest.mark.parametrize("kind", [QPolicy, ActorCriticPolicy])
@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("lanes", [64, 3])
def test_equals_a_backward_pass_for_every_step(name: str, kind: Any, lanes: int) -> None:
    policy = make_policy(name, kind)
    episode = make_episode(policy)
    found, expected = sequential_jacobian(policy, episode, inputs=True, lanes_at_once=lanes), one_by_one(policy, episode)
    assert found.inputs is not None
    assert found.inputs.keys() == expected.keys()
    for head, maps in found.inputs.items():
        assert found.times[head].max() > 0
        for number, leaf in enumerate(maps.values() if isinstance(maps, dict) else [maps]):
            whole = torch.stack([gradients[number] for gradients in expected[head]])
            torch.testing.assert_close(leaf, whole, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ROWS)
def test_the_future_and_other_episodes_are_exactly_zero(name: str) -> None:
    policy = make_policy(name)
    for times in sequential_jacobian(policy, make_episode(policy)).times.values():
        t, seen = torch.meshgrid(torch.arange(T), torch.arange(T), indexing="ij")
        beyond = (seen > t) | ((t >= START) & (seen < START))
        assert not times[beyond].any()
        assert (times.diagonal() > 0).all()
        assert name == "mlp" or bool((times[START - 1, : START - 1] > 0).all())


@pytest.mark.parametrize("name", ["lstm", "conv-gru", "gtrxl"])
def test_the_present_is_the_jacobian_of_the_step(name: str) -> None:
    policy = make_policy(name)
    episode = make_episode(policy)
    lanes = [torch.as_tensor(part)[:, None] for part in (episode.observations, episode.episode_starts, episode.actions)]
    steps = head_jacobian(policy, *lanes)
    maps = sequential_jacobian(policy, episode, inputs=True).inputs
    assert maps is not None
    for head, whole in maps.items():
        assert isinstance(whole, Tensor)
        now: Any = steps[head]
        torch.testing.assert_close(whole[range(T), range(T)], now[:, 0], rtol=0, atol=1e-9)


def test_of_a_vector_seen_as_it_is_the_times_are_the_norms_of_the_maps() -> None:
    policy = make_policy("lstm", ActorCriticPolicy)
    found = sequential_jacobian(policy, make_episode(policy), inputs=True)
    assert found.inputs is not None
    for head, times in found.times.items():
        maps: Any = found.inputs[head]
        torch.testing.assert_close(times, maps.norm(dim=2), rtol=0, atol=1e-12)


class DelayState(NamedTuple):
    past: Tensor


class Delay(Core):
    """Says what it saw two steps ago."""

    def __init__(self, input_shape: Any) -> None:
        super().__init__(input_shape, features_dim=int(input_shape[0]))

    def initial_state(self, batch_size: int) -> DelayState:
        return DelayState(torch.zeros(batch_size, 2, self.features_dim, dtype=torch.float64))

    def step(self, inputs: Tensor, state: Any, replay: Any = None, deterministic: bool = False) -> CoreOutput:
        return CoreOutput(state.past[:, 0], DelayState(torch.stack([state.past[:, 1], inputs], dim=1)))


def test_a_planted_lag_is_found() -> None:
    policy = QPolicy(VECTOR, spaces.Discrete(ACTIONS), lambda _: 1e-3, core_class=Delay).double()
    for times in sequential_jacobian(policy, make_episode(policy, (0,))).times.values():
        assert (times > 0).nonzero().tolist() == [[t, t - 2] for t in range(2, T)]
        assert mean_lag(times) == pytest.approx(2)


def test_what_depends_on_nothing_has_no_lag() -> None:
    assert mean_lag(torch.zeros(3, 3)) == 0
    assert mean_lag(torch.eye(3)) == 0
    assert mean_lag(torch.tensor([[1.0, 0.0], [3.0, 1.0]])) == pytest.approx(3 / 5)


def test_everything_is_left_as_it_was() -> None:
    policy = make_policy("lstm")
    policy.set_training_mode(True)
    before, generator = [part.clone() for part in policy.parameters()], torch.get_rng_state()
    sequential_jacobian(policy, make_episode(policy), inputs=True)
    assert policy.training
    assert all((part == old).all() and part.grad is None for part, old in zip(policy.parameters(), before, strict=True))
    assert bool((torch.get_rng_state() == generator).all())


def test_its_picture_says_where_a_derivative_is_not_finite() -> None:
    env = TaskVecEnv(ProbeMemory(2))
    policy = QPolicy(env.observation_space, env.action_space, lambda _: 1e-3, core_class=LSTM, core_kwargs={"hidden_size": 13})
    episode = play_episode(policy, env)
    times = sequential_jacobian(policy, episode).times
    picture = time_map(episode, times)
    assert picture.dtype == np.uint8
    times["value"][1, 0] = torch.nan
    with pytest.raises(FilmError, match=r"value.*not finite at step 1"):
        time_map(episode, times)


def test_no_lane_at_all_is_refused() -> None:
    policy = make_policy("mlp")
    with pytest.raises(ValueError, match="lanes_at_once must be at least 1; got 0"):
        sequential_jacobian(policy, make_episode(policy), lanes_at_once=0)
