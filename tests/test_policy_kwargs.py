"""``policy_kwargs`` as SB3's users write them: taken, or refused in words."""

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor
from torch import Tensor, nn

from saccade.agents import PPO, PQN
from saccade.policies import LSTM, ActorCriticHead, ActorCriticPolicy, CorePolicy, QPolicy
from saccade.policies.stacked_mlp import StackedMLP

D, A, B = 11, 3, 5
VECTOR = spaces.Box(-1, 1, (D,), np.float32)


def q_policy(space: gym.Space[Any] = VECTOR, **arguments: Any) -> QPolicy:
    return QPolicy(space, spaces.Discrete(A), lambda _: 0.1, **arguments)


def actor_critic(space: gym.Space[Any] = VECTOR, **arguments: Any) -> ActorCriticPolicy:
    return ActorCriticPolicy(space, spaces.Discrete(A), lambda _: 0.1, **arguments)


def widths(network: nn.Module) -> list[int]:
    return [layer.out_features for layer in network.modules() if isinstance(layer, nn.Linear)]


# The head of Q values.


@pytest.mark.parametrize(
    ("arguments", "hidden"),
    [
        ({}, [128]),
        ({"head_hidden_size": 17}, [17]),
        ({"head_hidden_size": 0}, []),
        ({"net_arch": [13, 17, 7]}, [13, 17, 7]),
        ({"net_arch": []}, []),
        ({"net_arch": [13, 7], "head_hidden_size": 17}, [13, 7]),
    ],
    ids=str,
)
@pytest.mark.parametrize("layer_norm", [True, False])
def test_hidden_widths_of_q_heads(arguments: dict[str, Any], hidden: list[int], layer_norm: bool) -> None:
    dueling = q_policy(dueling=True, layer_norm=layer_norm, **arguments)
    assert widths(dueling.head.get_submodule("value")) == [*hidden, 1]
    assert widths(dueling.head.get_submodule("advantage")) == [*hidden, A]
    single = q_policy(dueling=False, layer_norm=layer_norm, **arguments)
    assert widths(single.head) == [*hidden, A]
    norms = [layer.normalized_shape for layer in single.head.modules() if isinstance(layer, nn.LayerNorm)]
    assert norms == ([(width,) for width in hidden] if layer_norm else [])
    assert single.predict(np.zeros((B, D), np.float32))[0].shape == (B,)


def test_names_of_a_one_layer_heads_weights() -> None:
    layers = {"0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias"}
    assert set(q_policy().head.state_dict()) == {f"{name}.{layer}" for name in ("value", "advantage") for layer in layers}
    plain = q_policy(head_hidden_size=7, layer_norm=False, dueling=False).head
    assert list(plain.state_dict()) == ["q.0.weight", "q.0.bias", "q.2.weight", "q.2.bias"]
    assert list(q_policy(head_hidden_size=0, dueling=False).head.state_dict()) == ["q.0.weight", "q.0.bias"]


def test_the_activation_of_a_q_head() -> None:
    kinds = [type(layer) for layer in q_policy(net_arch=[13, 7], activation_fn=nn.ELU, dueling=False).head.get_submodule("q")]
    assert kinds == [nn.Linear, nn.LayerNorm, nn.ELU] * 2 + [nn.Linear]
    torch.manual_seed(3)
    ours = q_policy(net_arch=[13, 7], activation_fn=nn.Tanh, layer_norm=False, dueling=False).head
    features = torch.randn(B, 128)
    expected = features
    linear = [layer for layer in ours.modules() if isinstance(layer, nn.Linear)]
    for layer in linear[:-1]:
        expected = torch.tanh(layer(expected))
    torch.testing.assert_close(ours(features).q, linear[-1](expected))


@pytest.mark.parametrize("net_arch", [[0], [13, -7]], ids=str)
@pytest.mark.parametrize("make", [q_policy, actor_critic])
def test_widths_that_are_none_are_refused(make: Any, net_arch: Any) -> None:
    with pytest.raises(ValueError, match=r"net_arch.*\[64, 64\]"):
        make(net_arch=net_arch)


def test_an_agent_with_sb3s_dqn_words_learns_and_comes_back(tmp_path: Any) -> None:
    agent = PQN(
        "MlpPolicy", "CartPole-v1", n_steps=7, policy_kwargs={"net_arch": [13, 7], "activation_fn": nn.Tanh}, device="cpu"
    )
    agent.learn(35).save(tmp_path / "agent")
    again = PQN.load(tmp_path / "agent", device="cpu")
    assert widths(again.policy.head.get_submodule("value")) == [13, 7, 1]
    for name, weight in agent.policy.state_dict().items():
        assert torch.equal(weight, again.policy.state_dict()[name])


# The actor-critic head.


def test_the_old_form_of_net_arch() -> None:
    head = actor_critic(net_arch=[{"pi": [7], "vf": [5, 3]}]).head
    assert [[weight.shape[-1] for weight in network.weights] for network in head.hidden] == [[7], [5, 3]]
    with pytest.raises(ValueError, match="net_arch"):
        actor_critic(net_arch=[64, {"pi": [7], "vf": [5]}])


def test_without_orthogonal_initialisation_layers_start_as_torchs_do() -> None:
    torch.manual_seed(3)
    stack = StackedMLP(2, D, (17, 7), nn.Tanh, gain=None)
    torch.manual_seed(3)
    for before, after, weight, bias in zip((D, 17), (17, 7), stack.weights, stack.biases, strict=True):
        for copy in range(2):
            layer = nn.Linear(before, after)
            assert torch.equal(weight[copy].t(), layer.weight)
            assert torch.equal(bias[copy, 0], layer.bias)


@pytest.mark.parametrize("vf", [(13,), (7, 5)])
def test_ortho_init_is_of_the_whole_head(vf: tuple[int, ...]) -> None:
    for ortho in (True, False):
        head = actor_critic(ortho_init=ortho, net_arch={"pi": (13,), "vf": vf}).head
        biases = [parameter for name, parameter in head.named_parameters() if "bias" in name]
        assert [bool(bias.any()) for bias in biases] == [not ortho] * len(biases)
        gains = torch.linalg.svdvals(head.action.weight)
        assert torch.allclose(gains, torch.full_like(gains, 0.01)) == ortho
    assert not ActorCriticHead(D, A, (13,), vf, nn.Tanh).action.bias.any()


def test_one_torso_for_both() -> None:
    assert actor_critic(share_features_extractor=True).features_extractor is not None
    with pytest.raises(ValueError, match=r"share_features_extractor.*one torso serves both.*Twin"):
        actor_critic(share_features_extractor=False)


# Unknown names.


class OneMore(ActorCriticPolicy):
    def __init__(self, *args: Any, temperature: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.temperature = temperature


@pytest.mark.parametrize(
    ("make", "name", "nearest"),
    [
        (QPolicy, "net_arhc", "net_arch"),
        (QPolicy, "core_kwarg", "core_kwargs"),
        (ActorCriticPolicy, "orto_init", "ortho_init"),
        (OneMore, "temprature", "temperature"),
        (OneMore, "log_std", "log_std_init"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(make: type[CorePolicy], name: str, nearest: str) -> None:
    with pytest.raises(TypeError, match=f"^{make.__name__} takes no argument '{name}'; the nearest is '{nearest}"):
        make(VECTOR, spaces.Discrete(A), lambda _: 0.1, **{name: 3})


def test_names_of_other_policies_and_names_like_none_are_refused() -> None:
    with pytest.raises(TypeError, match=r"QPolicy takes no argument 'log_std_init'; it takes .*dueling.*core_class"):
        q_policy(log_std_init=0.0)
    with pytest.raises(TypeError, match="ActorCriticPolicy takes no argument 'dueling'"):
        actor_critic(dueling=True)
    with pytest.raises(TypeError, match="ActorCriticPolicy takes no argument 'squash'"):
        PPO("LstmPolicy", "CartPole-v1", policy_kwargs={"squash": True}, device="cpu")


def test_a_subclass_with_an_argument_more() -> None:
    model = OneMore(VECTOR, spaces.Discrete(A), lambda _: 0.1, temperature=2.0, net_arch=[7], core_class=LSTM)
    assert model.temperature == 2
    assert model.head.action.in_features == 7


# Torsos and spaces.


class Volume(BaseFeaturesExtractor):
    """Convolutions in two and in three dimensions."""

    def __init__(self, observation_space: gym.Space[Any]) -> None:
        super().__init__(observation_space, features_dim=7)
        self.solid = nn.Conv3d(2, 3, kernel_size=2)
        self.flat = nn.Conv2d(3, 7, kernel_size=2)

    def forward(self, observations: Tensor) -> Tensor:
        return self.flat(self.solid(observations).amax(dim=2)).amax(dim=(2, 3))


@pytest.mark.parametrize("make", [q_policy, actor_critic])
def test_a_torso_of_solid_convolutions(make: Any) -> None:
    space = spaces.Box(-1, 1, (2, 3, 5, 7), np.float32)
    model = make(space, features_extractor_class=Volume)
    assert model.features_extractor.flat.weight.is_contiguous(memory_format=torch.channels_last)
    assert model.features_extractor.solid.weight.is_contiguous()
    assert model.predict(np.stack([space.sample() for _ in range(B)]))[0].shape == (B,)


def image(height: int, width: int) -> spaces.Dict:
    return spaces.Dict({"vector": VECTOR, "camera": spaces.Box(0, 255, (3, height, width), np.uint8)})


@pytest.mark.parametrize("make", [q_policy, actor_critic])
def test_a_small_image_in_a_dictionary_is_refused_in_words(make: Any) -> None:
    with pytest.raises(ValueError, match=r"'camera' is an image of 41x35 pixels.* 36x36.*features_extractor_class"):
        make(image(41, 35))
    with pytest.raises(ValueError, match="'camera' is an image of 17x19 pixels"):
        make(image(17, 19), features_extractor_class=CombinedExtractor)
    assert make(image(36, 37)).predict(image(36, 37).sample())[0].shape == ()


class VectorOnly(BaseFeaturesExtractor):
    """Of a dictionary."""

    def __init__(self, observation_space: gym.Space[Any]) -> None:
        super().__init__(observation_space, features_dim=D)

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        return observations["vector"]


def test_a_small_image_is_for_a_torso_of_ones_own() -> None:
    space = image(17, 19)
    assert q_policy(space, features_extractor_class=VectorOnly).predict(space.sample())[0].shape == ()


@pytest.mark.parametrize("make", [q_policy, actor_critic])
def test_a_box_without_a_dimension_is_refused(make: Any) -> None:
    number = spaces.Box(-1, 1, (), np.float32)
    with pytest.raises(ValueError, match=r"Box\(-1.0, 1.0, \(\), float32\).*shape \(1,\)"):
        make(number)
    with pytest.raises(ValueError, match=r"'speed' is Box.*shape \(1,\)"):
        make(spaces.Dict({"vector": VECTOR, "speed": number}))


# Mixed precision.


def test_a_torso_in_bfloat16_sees_nearly_the_same() -> None:
    space = spaces.Box(0, 255, (3, 36, 37), np.uint8)
    whole = q_policy(space)
    half = q_policy(space, mixed_precision=True)
    half.load_state_dict(whole.state_dict())
    seen = torch.as_tensor(np.stack([space.sample() for _ in range(B)]))
    features = half.extract(seen)
    assert features.dtype == torch.float32
    assert 0 < (features - whole.extract(seen)).abs().max() < 0.05 * whole.extract(seen).abs().max()
    features.square().mean().backward()
    gradients = [weight.grad for weight in half.features_extractor.parameters()]
    assert all(gradient is not None and gradient.dtype == torch.float32 and gradient.abs().sum() > 0 for gradient in gradients)


@pytest.mark.parametrize(("known", "warnings_expected"), [(True, 0), (False, 1)])
def test_where_bfloat16_is_imitated_that_is_said(known: bool, warnings_expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saccade.agents.algorithm.knows_bfloat16", lambda device: known)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        PPO("MlpPolicy", "CartPole-v1", policy_kwargs={"mixed_precision": True}, device="cpu")
    assert [("imitates" in str(warning.message)) for warning in caught] == [True] * warnings_expected
