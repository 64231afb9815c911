"""Recurrent cores' fast paths against one step after another, and two cores side by side."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import conformance as law
from broken_cores import Attends, Decides, Leaky
from examples import assert_equal, example
from saccade.policies import GRU, LSTM, Core, CoreOutput, RecurrentGlimpse, State, recording
from saccade.policies.recurrent import Recurrent
from saccade.policies.recurrent_kernels import GRULayer, pack_episodes
from saccade.policies.twin import Twin

every_core = pytest.mark.parametrize(
    "make",
    [
        partial(LSTM, hidden_size=13),
        partial(LSTM, hidden_size=13, n_layers=2),
        partial(GRU, hidden_size=13),
        partial(GRU, hidden_size=13, n_layers=2),
    ],
    ids=["lstm", "lstm, two layers", "gru", "gru, two layers"],
)
every_density = pytest.mark.parametrize("density", [0.0, 0.03, 0.2, 0.7, 1.0])


def random_starts(steps: int, lanes: int, density: float) -> Tensor:
    return torch.rand(steps, lanes, generator=torch.Generator().manual_seed(7)) < density


@every_density
@pytest.mark.parametrize(("steps", "lanes"), [(2, 3), (17, 5), (5, 17), (53, 1)])
def test_packed_episodes_keep_their_steps_their_order_and_their_ends(density: float, steps: int, lanes: int) -> None:
    starts = random_starts(steps, lanes, density).numpy()
    source, target, final = pack_episodes(starts)
    wipe, hold = starts.size, starts.size + 1
    np.testing.assert_array_equal(source.flatten()[target.flatten()], np.arange(starts.size))
    assert np.sort(source[source < wipe]).tolist() == list(range(starts.size))
    for n, lane in enumerate(source.T):
        assert lane[0] < wipe, "a packed lane begins with an episode"
        if n < lanes:
            assert lane[0] == n, "lane n's state goes on in packed lane n"
        for before, after in pairwise(lane):
            if after < wipe and before < wipe:
                assert after == before + lanes, "one step after another of one lane"
                assert not starts.flatten()[after], "no reset without a wipe"
            elif after < wipe:
                assert before == wipe
                assert starts.flatten()[after]
            elif after == wipe:
                assert before < wipe
    for lane, n in enumerate(final):
        own = source[:, n][source[:, n] != hold]
        assert own[-1] == (steps - 1) * lanes + lane, "a lane's last step is the last that its packed lane takes"


@every_density
@pytest.mark.parametrize(("steps", "lanes"), [(17, 5), (53, 1)])
def test_packed_lanes_are_little_longer_than_the_longest_episode(density: float, steps: int, lanes: int) -> None:
    starts = random_starts(steps, lanes, density).numpy()
    cuts = [[0, *(np.flatnonzero(starts[1:, lane]) + 1), steps] for lane in range(lanes)]
    longest = max(stop - start for lane in cuts for start, stop in pairwise(lane))
    assert longest <= len(pack_episodes(starts).source) <= longest + 3


def run(core: Core, path: type[Core], starts: Tensor, dtype: torch.dtype) -> tuple[CoreOutput, tuple[Tensor, ...]]:
    """Output and gradients by everything, along one class's ``unroll``."""
    torch.manual_seed(5)
    call = example(core, *starts.shape, dtype)
    given = [call.inputs, *call.state, *core.parameters()]
    for tensor in given:
        tensor.requires_grad_()
    output = path.unroll(core, call.inputs, call.state, starts)
    weights = torch.linspace(-1, 1, output.features.numel(), dtype=dtype).view_as(output.features)
    loss = (output.features * weights).sum() + sum(leaf.square().sum() for leaf in output.state)
    return output, torch.autograd.grad(loss, given)


@every_core
@every_density
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)], ids=["double", "float"])
def test_the_fast_path_is_one_step_after_another(
    make: partial[Recurrent], density: float, dtype: torch.dtype, tolerance: float
) -> None:
    core = make((11,)).to(dtype)
    starts = random_starts(19, 5, density)
    fast, stepped = run(core, type(core), starts, dtype), run(core, Core, starts, dtype)
    assert_equal(fast[0], stepped[0], min(tolerance, 1e-5))
    assert_equal(fast[1], stepped[1], tolerance)


@every_core
def test_large_weights_do_not_open_a_gate_that_wipes_or_holds(make: partial[Recurrent]) -> None:
    core = make((11,)).double()
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.mul_(100)
    starts = random_starts(19, 5, 0.2)
    assert_equal(run(core, type(core), starts, torch.float64)[0], run(core, Core, starts, torch.float64)[0], 1e-9)


@every_core
def test_no_gradient_crosses_an_episode_start(make: partial[Recurrent]) -> None:
    core = make((11,))
    starts = torch.zeros(7, 2, dtype=torch.bool)
    starts[3, 0] = True
    state = example(core, 7, 2).state
    leaves = [torch.randn(7, 2, 11).requires_grad_(), *(leaf.requires_grad_() for leaf in state)]
    features = core(leaves[0], state, starts).features
    by_inputs, *by_state = torch.autograd.grad(features[3:, 0].square().sum(), leaves)
    assert by_inputs[3:, 0].any()
    assert not by_inputs[:3].any()
    assert not any(gradient.any() for gradient in by_state)


@every_core
@torch.no_grad()
def test_a_nan_stays_within_its_episode(make: partial[Recurrent]) -> None:
    core = make((11,))
    call = example(core, 7, 5)
    call.state[0][3] = torch.nan
    starts = torch.zeros(7, 5, dtype=torch.bool)
    starts[4, 3] = starts[2, 1] = True
    broken = core(call.inputs, call.state, starts).features.isnan().any(-1)
    expected = torch.zeros_like(broken)
    expected[:4, 3] = True
    assert torch.equal(broken, expected)


@every_core
@torch.no_grad()
def test_calls_between_resets_are_one_step_after_another(make: partial[Recurrent]) -> None:
    core = make((11,))
    call = example(core, 17, 5)
    starts = random_starts(17, 5, 0.1)
    starts[0] = False
    leaves = tuple(leaf.transpose(0, 1).contiguous() for leaf in call.state)
    features, _ = core.run_pieces(call.inputs, leaves, starts, starts.numpy())
    assert_equal(features, Core.unroll(core, call.inputs, call.state, starts).features, 1e-5)


def test_the_gru_layer_is_torchs() -> None:
    network = nn.GRU(3, 5).double()
    inputs, hidden = torch.randn(7, 2, 3).double().requires_grad_(), torch.randn(2, 5).double().requires_grad_()
    weights = list(network.parameters())
    expected, _ = network(inputs, hidden[None])
    assert_equal(GRULayer.apply(inputs, hidden, *weights), expected, 1e-12)
    assert torch.autograd.gradcheck(GRULayer.apply, (inputs, hidden, *weights))


def test_a_second_derivative_of_the_gru_layer_is_refused() -> None:
    core = GRU((3,), hidden_size=5)
    inputs = torch.randn(7, 2, 3).requires_grad_()
    features = core(inputs, core.initial_state(2), torch.zeros(7, 2, dtype=torch.bool)).features
    with pytest.raises(RuntimeError, match="create_graph"):
        torch.autograd.grad(features.sum(), inputs, create_graph=True)


class Charges(Leaky):
    """A core with a cost: half its features' sum."""

    def step(self, inputs: Tensor, state: State, replay: Tensor | None = None, deterministic: bool = False) -> CoreOutput:
        output = super().step(inputs, state)
        return output._replace(cost=output.features.sum(-1) / 2)


def test_twins_are_two_cores_that_share_nothing() -> None:
    core = Twin((11,), partial(GRU, hidden_size=13))
    call = example(core)
    output = core(*call)
    actor = core.actor(call.inputs, call.state.actor, call.episode_starts)
    critic = core.critic(call.inputs, call.state.critic, call.episode_starts)
    assert core.features_dim == 26
    assert_equal(output.features, torch.cat([actor.features, critic.features], dim=-1))
    assert_equal(output.state, type(output.state)(actor.state, critic.state))
    gradients = torch.autograd.grad(output.features[..., :13].sum(), list(core.critic.parameters()), allow_unused=True)
    assert not any(gradient is not None and gradient.any() for gradient in gradients)
    assert output.cost is None


def test_twins_cost_what_both_cost() -> None:
    core = Twin((11,), Charges)
    law.check_steps_equal_unroll(core)
    output = core(*example(core))
    assert output.cost is not None
    torch.testing.assert_close(output.cost, output.features.sum(-1) / 2)


def test_twins_taps_have_names_of_their_own() -> None:
    core = Twin((11,), Attends)
    law.check_taps(core)
    with recording() as taps:
        core(*example(core))
    with recording() as alone:
        core.critic.step(torch.rand(5, 11), core.critic.initial_state(5))
    assert taps.kinds.keys() == {f"{who}_{name}" for who in ("actor", "critic") for name in alone.kinds}


def test_twins_of_a_core_with_decisions_are_refused() -> None:
    with pytest.raises(ValueError, match="Decides takes latent decisions.*LSTM"):
        Twin((11,), Decides)
    with pytest.raises(ValueError, match="vector|image"):
        Twin((11,), RecurrentGlimpse)
