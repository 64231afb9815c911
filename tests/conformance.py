"""The parity law for cores, one plain function a clause: each raises ``AssertionError`` where a core breaks it."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.gradcheck import GradcheckError

from examples import B, Example, T, assert_equal, example, leaves, pick, step_by_step, structure
from saccade.policies import Core, TapKind, recording
from saccade.policies.core import map_state

MakeCore = Callable[[], Core]


@torch.no_grad()
def check_steps_equal_unroll(core: Core) -> None:
    """Acting is learning: ``T`` calls of one step give what one call of ``T`` steps gives, resets in mid-sequence too."""
    call = example(core)
    stepped = step_by_step(core, call)
    assert_equal(core(*call), stepped, 1e-5)
    assert_equal(core.unroll(*call), stepped, 1e-5)


@torch.no_grad()
def check_a_sequence_cut_in_two(core: Core) -> None:
    """A sequence cut anywhere, its state carried over, is the sequence."""
    call = example(core)
    whole = core(*call)
    for cut in range(1, T):
        first = core(*call.steps(0, cut, call.state))
        second = core(*call.steps(cut, T, first.state))
        assert_equal(torch.cat([first.features, second.features]), whole.features, 1e-5)
        assert_equal(second.state, whole.state, 1e-5)


@torch.no_grad()
def check_episodes_stand_alone(core: Core) -> None:
    """Every episode within a sequence is what it would be by itself, from the initial state, in a batch of one."""
    call = example(core)
    whole = core(*call)
    for lane in range(B):
        one = call.lanes([lane])
        state = one.state
        cuts = [t for t in range(1, T) if one.episode_starts[t, 0]]
        for start, end in zip([0, *cuts], [*cuts, T], strict=True):
            if one.episode_starts[start, 0]:
                state = core.initial_state(1)
            part = one.steps(start, end, state)
            alone = core(*part._replace(episode_starts=torch.zeros_like(part.episode_starts)))
            assert_equal(alone.features, whole.features[start:end, [lane]], 1e-5)
            state = alone.state
        assert_equal(state, map_state(lambda leaf, lane=lane: leaf[[lane]], whole.state), 1e-5)


@torch.no_grad()
def check_episode_start_wipes(core: Core) -> None:
    """After an episode's start nothing is left of what went before: not a large number, not a NaN."""
    call = example(core)
    call.episode_starts[0] = True
    fresh = core(*call._replace(state=core.initial_state(B)))
    for junk in (1e4, float("nan"), float("inf")):
        spoilt = map_state(lambda leaf, junk=junk: torch.full_like(leaf, junk), call.state)
        assert_equal(core(*call._replace(state=spoilt)), fresh)
        assert_equal(step_by_step(core, call._replace(state=spoilt)), fresh, 1e-5)


def check_lanes_are_independent(core: Core) -> None:
    """A lane's output depends on nothing that happens in another, and not on which lane it is."""
    call = example(core)
    with torch.no_grad():
        before = core(*call)
        for lane in range(B):
            others = [other for other in range(B) if other != lane]
            changed = Example(*(None if part is None else copy.deepcopy(part) for part in call))
            changed.inputs[:, lane] = torch.rand_like(changed.inputs[:, lane])
            changed.episode_starts[:, lane] ^= True
            for leaf in leaves((changed.state, changed.replay)):
                (leaf.select(1, lane) if leaf is changed.replay else leaf[lane]).add_(0.7)
            assert_equal(pick(core(*changed), others), pick(before, others), 1e-6)
        order = [3, 0, 4, 1, 2]
        assert_equal(core(*call.lanes(order)), pick(before, order), 1e-6)
    inputs = call.inputs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(core(inputs, *call[1:]).features[:, 1].square().sum(), inputs)
    gradient[:, 1] = 0
    assert not gradient.any(), "a lane's features have a gradient with respect to another lane's inputs"


@torch.no_grad()
def check_same_arguments_agree(core: Core) -> None:
    """The same arguments give the same output, bit by bit; a sampled one under the same seed."""
    call = example(core)
    other = example(core)
    for how in ((call.replay, False), (None, True), (None, False)):
        outputs = []
        for _ in range(2):
            torch.manual_seed(3)
            outputs.append(core(*call[:3], *how))
            core(*other)
        assert_equal(outputs[0], outputs[1])
    if not random_without_sigma(core):
        assert_equal(core(*call[:3], None, True), core(*call[:3], None, True))


def random_without_sigma(core: Core) -> bool:
    """Whether this is a core whose decisions are random even when it is deterministic (a baseline, by design)."""
    return core.decision_size > 0 and not core.trains_decisions


@torch.no_grad()
def check_nothing_is_kept(core: Core) -> None:
    """A call leaves the core as it was: no memory on ``self``, no parameter made on first use."""
    before = contents(core)
    call = example(core)
    core(*call)
    core(*call.lanes([0]).steps(0, 1, map_state(lambda leaf: leaf[[0]], call.state)))
    core(*call[:3])
    after = contents(core)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert not changed, f"a call changed {sorted(changed)}"


def contents(core: Core) -> dict[str, Any]:
    """Everything that a core and its parts hold, in a form that can be compared."""
    parts = {f"{name}.{key}": described(value) for name, part in core.named_modules() for key, value in vars(part).items()}
    return parts | {f"state_dict {name}": described(value) for name, value in core.state_dict().items()}


def described(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.dtype, tuple(value.shape), value.tolist()
    if isinstance(value, nn.Module):
        return id(value)
    if isinstance(value, dict):
        return {str(key): described(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [described(item) for item in value]
    if hasattr(value, "__dict__") and not callable(value):
        return {key: described(item) for key, item in vars(value).items()}
    return repr(value)


@torch.no_grad()
def check_arguments_are_left_alone(core: Core) -> None:
    """Inputs, state, episode starts and decisions are read, never written to."""
    for call in (example(core), example(core, steps=1)):
        kept = copy.deepcopy(call)
        core(*call)
        core.step(call.inputs[0], call.state, None if call.replay is None else call.replay[0])
        assert_equal(call, kept)


def check_gradients_reach(core: Core, beyond_features: frozenset[str] = frozenset()) -> None:
    """Features and costs give every parameter a gradient, except those named; decisions give these theirs."""
    call = example(core)
    output = core(*call)
    objective = output.features.square().sum() + (0 if output.cost is None else output.cost.sum())
    objective = objective + sum(leaf.square().sum() for leaf in leaves(output.state) if leaf.requires_grad)
    names, parameters = list(dict(core.named_parameters())), list(core.parameters())
    if not parameters:
        return
    assert reached(names, parameters, objective) == set(names) - beyond_features
    if beyond_features:
        assert output.decision is not None
        score = core(*call).decision.log_prob.square().sum()
        assert beyond_features <= reached(names, parameters, score)


def reached(names: list[str], parameters: list[Tensor], objective: Tensor) -> set[str]:
    gradients = torch.autograd.grad(objective, parameters, allow_unused=True)
    found = {name for name, gradient in zip(names, gradients, strict=True) if gradient is not None and gradient.any()}
    assert all(gradient.isfinite().all() for gradient in gradients if gradient is not None)
    return found


def check_gradients_are_right(core: Core) -> None:
    """Gradients by inputs, state, decisions and parameters agree with finite differences (a float64 core of tiny size)."""
    call = example(core, 3, 2, torch.float64)
    call.episode_starts[:] = torch.tensor([[False, True], [True, False], [False, False]])
    names = list(dict(core.named_parameters()))
    given = [*leaves((call.inputs, call.state, call.replay)), *core.parameters()]
    variables = [tensor.detach().clone().requires_grad_() for tensor in given]

    def outputs(*variables: Tensor) -> tuple[Tensor, ...]:
        values = iter(variables)
        inputs, state = next(values), map_state(lambda leaf: next(values), call.state)
        replay = None if call.replay is None else next(values)
        weights = dict(zip(names, values, strict=True))
        output = torch.func.functional_call(core, weights, (inputs, state, call.episode_starts, replay))
        # A view of an input, or an input itself, cannot be told from the input.
        return tuple(leaf * 1 for leaf in leaves(output) if leaf.requires_grad)

    try:
        torch.autograd.gradcheck(outputs, variables, atol=1e-5, rtol=1e-4, fast_mode=True)
    except GradcheckError as error:
        raise AssertionError(str(error)) from error


@torch.no_grad()
def check_round_trip(make: MakeCore) -> None:
    """All that makes a core what it is, is in its ``state_dict``; and two cores share nothing."""
    first, second = make(), make()
    call = example(first)
    ours = {tensor.data_ptr() for tensor in first.state_dict().values()}
    assert not ours & {tensor.data_ptr() for tensor in second.state_dict().values()}, "two cores share weights"
    # Away from what every new core starts from.
    for parameter in first.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    second.load_state_dict({name: tensor.clone() for name, tensor in first.state_dict().items()})
    assert_equal(second(*call), first(*call))


@torch.no_grad()
def check_shapes(core: Core) -> None:
    """``[T, B, D]`` out, a batch-first state of the same structure, whatever ``T`` and ``B``, 1 included."""
    for steps, lanes in ((T, B), (1, B), (T, 1), (1, 1)):
        call = example(core, steps, lanes)
        assert structure(core.initial_state(lanes)) == structure(call.state)
        for arguments in (call, call._replace(replay=None)):
            output = core(*arguments)
            assert output.features.shape == (steps, lanes, core.features_dim)
            assert structure(output.state) == structure(call.state)
            assert all(leaf.shape[0] == lanes for leaf in leaves(output.state))
            assert (output.decision is not None) == (core.decision_size > 0)
            if output.decision is not None:
                assert output.decision.value.shape == (steps, lanes, core.decision_size)
                assert output.decision.log_prob.shape == output.decision.entropy.shape == (steps, lanes)
            assert all(part is None or part.shape == (steps, lanes) for part in (output.cost, output.ponder))
            assert all(leaf.isfinite().all() for leaf in leaves(output))


def check_replay(core: Core) -> None:
    """Sampled decisions, replayed, give back features, state, log-probabilities and entropies."""
    if not core.decision_size:
        return
    call = example(core)
    sampled = core(*call[:3])
    assert sampled.decision is not None
    assert not sampled.decision.value.requires_grad
    replayed = core(*call[:3], sampled.decision.value)
    assert_equal(replayed, sampled, 1e-5)
    likeliest = core(*call[:3], sampled.decision.value, True)
    assert_equal(likeliest, replayed)
    if core.trains_decisions:
        assert replayed.decision.log_prob.requires_grad


@torch.no_grad()
def check_taps(core: Core) -> None:
    """A recording, from a state that the core came to, changes no output and holds every step; taps are what kinds say."""
    call = example(core)
    call = call._replace(state=core(*call._replace(state=core.initial_state(B))).state)
    quiet = core(*call)
    with recording() as taps:
        recorded = core(*call)
    assert_equal(recorded, quiet, 1e-6)
    for name, kind in taps.kinds.items():
        values = taps.stacked(name)
        assert values.shape[:2] == (T, B), f"tap {name} has shape {list(values.shape)}"
        check_tap(name, kind, values)


def check_tap(name: str, kind: TapKind, values: Tensor) -> None:
    """Attention sums to one, a head's weights to one at most; gates, usage and links are from 0 to 1; shapes are the kind's."""
    axes = {TapKind.LINK: 4, TapKind.CONTENT: 4, TapKind.USAGE: 3, TapKind.GAZE: 3}.get(kind, values.ndim)
    assert values.ndim == axes, f"tap {name} of kind {kind} has shape {list(values.shape)}"
    if kind in (TapKind.MEMORY, TapKind.TIME, TapKind.SPACE, TapKind.ELEMENTS):
        assert (values >= 0).all(), f"tap {name} has negative weights"
        total = values.sum((-2, -1) if kind is TapKind.SPACE else -1)
        enough = (total >= 1 - 1e-5) | (kind is TapKind.MEMORY)  # a head of a memory may read, or write, nothing
        assert (enough & (total <= 1 + 1e-5)).all(), f"tap {name} sums to {total.min()} to {total.max()}"
    if kind in (TapKind.GATE, TapKind.USAGE, TapKind.LINK):
        assert ((values >= -1e-6) & (values <= 1 + 1e-5)).all(), f"tap {name} is not from 0 to 1"
    square = kind is not TapKind.LINK or (values.shape[2] == values.shape[3] and not values.diagonal(0, 2, 3).any())
    assert square, f"tap {name} is not square, or links a slot to itself"
    assert kind is not TapKind.GAZE or (values.shape[2] == 2 and (values.abs() <= 1).all()), f"tap {name} is no place"


@torch.no_grad()
def check_wrong_shapes_are_refused(core: Core) -> None:
    """Inputs of another shape raise a ``ValueError`` that names the shape that was wanted and the one that came."""
    call = example(core)
    wanted = ", ".join(map(str, core.input_shape))
    more = call.inputs.new_zeros(T, B, *(size + 2 for size in core.input_shape))
    for wrong in (more, call.inputs.unsqueeze(-1), call.inputs[..., 0]):
        message = refused(core, call._replace(inputs=wrong))
        assert message is not None, f"inputs of shape {list(wrong.shape)} were taken"
        assert wanted in message, f"{message} does not name the wanted shape"
        assert str(list(wrong.shape)) in message, f"{message} does not name the shape that came"


def refused(core: Core, call: Example) -> str | None:
    """The message of the ``ValueError`` that the call raises, if it does."""
    try:
        core(*call)
    except ValueError as error:
        return str(error)
    return None
