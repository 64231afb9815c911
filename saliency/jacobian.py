"""What moves each head: the Jacobians of value, advantage and policy with respect to what is seen.

After Wang et al. 2016, "Dueling Network Architectures for Deep Reinforcement Learning", figure 2 (arXiv:1511.06581), where
those of value and advantage are drawn as saliency maps (Simonyan et al. 2013, arXiv:1312.6034).

Shapes: ``T`` time, ``B`` batch, ``N`` steps, each of them a lane of its own, ``K`` numbers in a latent decision, ``M`` entries
of an action mask.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from saccade.policies.core import State, map_state
from saccade.policies.policy import CorePolicy, Observations, map_observations
from saccade.saliency.episode import Episode, undisturbed
from saccade.saliency.readout import readouts

HeadMaps: TypeAlias = dict[str, Observations]
"""By head, how much each number of the observations moves it; every map is shaped like the observations."""


@dataclass(frozen=True)
class Steps:
    """Where to differentiate: the steps of a sequence side by side, each with the state before it as a constant.

    Since no step can reach another and lanes are independent, one backward pass over all lanes is exact for each.

    Attributes:
        inputs: preprocessed observations ``x``, ``[N, ...]``.
        state: before each step, ``[N, ...]``.
        episode_starts: true where the initial state is used instead.
        actions: the actions that are meant.
        decisions: latent decisions taken at each step, or ``None``.
        masks: true where a choice was allowed, or ``None``.
    """

    inputs: Observations
    state: State
    episode_starts: Bool[Tensor, " N"]
    actions: Shaped[Tensor, "N ..."]
    decisions: Float[Tensor, "N K"] | None
    masks: Bool[Tensor, "N M"] | None

    def __getitem__(self, part: slice) -> "Steps":
        return Steps(
            map_observations(lambda leaf: leaf[part], self.inputs),
            map_state(lambda leaf: leaf[part], self.state),
            self.episode_starts[part],
            self.actions[part],
            None if self.decisions is None else self.decisions[part],
            None if self.masks is None else self.masks[part],
        )

    def readouts(self, policy: CorePolicy, inputs: Observations) -> dict[str, Float[Tensor, "N _"]]:
        """What every head would say in every lane, were it to see ``inputs`` in place of its own."""
        replay = None if self.decisions is None else self.decisions[None]
        features = policy.see(inputs)
        core = policy.core(features[None], self.state, self.episode_starts[None], replay, deterministic=True)
        return readouts(policy, core.features[0], self.actions, self.masks)


@contextmanager
def differentiable(policy: CorePolicy) -> Iterator[None]:
    """Gradients flow within the block, in evaluation mode.

    PyTorch's own kernels stand in for cuDNN, whose recurrent networks refuse gradients in that mode. The policy and the
    random generators are left as they were.
    """
    with (
        undisturbed(policy),
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.backends.cudnn.flags(enabled=False),
    ):
        yield


def unroll_steps(
    policy: CorePolicy,
    observations: Observations,
    episode_starts: Bool[Tensor, "T B"],
    actions: Shaped[Tensor, "T B ..."],
    replay: Float[Tensor, "T B K"] | None = None,
    state: State | None = None,
    masks: Bool[Tensor, "T B M"] | None = None,
) -> Steps:
    """Play a sequence ``[T, B, ...]`` through the policy and keep the state before every step; arguments as below."""
    dtype = next(policy.parameters()).dtype
    with undisturbed(policy), torch.no_grad():
        inputs = policy.preprocess(map_observations(lambda part: part.flatten(0, 1), observations))
        inputs = map_observations(lambda part: part.to(dtype), inputs)
        features = policy.see(inputs).unflatten(0, episode_starts.shape)
        state = policy.initial_state(episode_starts.shape[1]) if state is None else state
        before = []
        for t in range(len(episode_starts)):
            before.append(state)
            now = slice(t, t + 1)
            core = policy.core(
                features[now], state, episode_starts[now], None if replay is None else replay[now], deterministic=True
            )
            state = core.state
    states = map_state(lambda *leaves: torch.cat(leaves), *before)
    flat = [None if part is None else part.flatten(0, 1) for part in (replay, masks)]
    return Steps(inputs, states, episode_starts.flatten(), actions.flatten(0, 1), *flat)


def head_jacobian(
    policy: CorePolicy,
    observations: Observations,
    episode_starts: Bool[Tensor, "T B"],
    actions: Shaped[Tensor, "T B ..."],
    replay: Float[Tensor, "T B K"] | None = None,
    state: State | None = None,
    masks: Bool[Tensor, "T B M"] | None = None,
    lanes_at_once: int = 256,
) -> HeadMaps:
    """The derivative of every head at ``s_t`` with respect to ``x_t``, at every step of a sequence, in no way scaled.

    A head that says one number has a signed map: dV(s_t)/dx_t for ``value``, dA(s_t, a_t)/dx_t for ``advantage``, and for
    ``policy`` over discrete actions that of the centred logit of ``a_t``. Where it says several (a ``policy`` over a Box)
    the map is the root of the sum of their squared derivatives, which cannot cancel. Which numbers those are, and why, is
    :func:`readouts`'s and :func:`preference`'s to say.

    ``x_t`` is the observation after preprocessing: images are floats from 0 to 1, so a map says by how much a head would
    rise for each unit of a pixel. The state before step ``t``, and with it the gaze, is held fixed: the maps show what the
    *present* observation does, not what was remembered of earlier ones. Three things follow from the mathematics:

    - Outside the fields of a recurrent glimpse the derivative is exactly zero: the network did not look there.
    - Where a max-pooled field holds several equal largest pixels, they share its derivative evenly.
    - ``A`` is centred over the actions, so that the maps of a dueling policy add up to dQ(s_t, a_t)/dx_t.

    The policy's weights, gradients, modes and random generators are left as they were.

    Args:
        policy: any policy over any core.
        observations: raw ones, ``[T, B, ...]``, or a dictionary of them.
        episode_starts: where true, the state is the initial state before that step.
        actions: ``a_t``.
        replay: the latent decisions taken then; ``None`` for cores that take none, or to let them be chosen again.
        state: before the first step; ``None`` for the initial state.
        masks: true where a choice was allowed; ``None`` for all of them.
        lanes_at_once: how many steps are differentiated together, which bounds the memory used.

    Returns:
        A map ``[T, B, ...]`` of the shape of the preprocessed observations for each head that ``policy.outputs`` names.
    """
    steps = unroll_steps(policy, observations, episode_starts, actions, replay, state, masks)
    count = len(steps.actions)
    parts = [differentiate(policy, steps[start : start + lanes_at_once]) for start in range(0, count, lanes_at_once)]

    def whole(*leaves: Tensor) -> Tensor:
        return torch.cat(leaves).unflatten(0, episode_starts.shape)

    return {name: join(whole, [maps[name] for maps in parts]) for name in parts[0]}


def differentiate(policy: CorePolicy, steps: Steps) -> HeadMaps:
    """The maps of every lane's heads over its own inputs, ``[N, ...]``, by a backward pass for each number read off a head."""
    with differentiable(policy):
        inputs = map_observations(lambda leaf: leaf.detach().clone().requires_grad_(), steps.inputs)
        leaves = list(inputs.values()) if isinstance(inputs, dict) else [inputs]

        def gradient(number: Float[Tensor, " N"]) -> Observations:
            gradients = torch.autograd.grad(number.sum(), leaves, retain_graph=True, materialize_grads=True)
            return dict(zip(inputs, gradients, strict=True)) if isinstance(inputs, dict) else gradients[0]

        read = steps.readouts(policy, inputs)
        return {name: length(gradient(number) for number in numbers.unbind(dim=1)) for name, numbers in read.items()}


def length(derivatives: Iterable[Observations]) -> Observations:
    """The root of the sum of squares of several derivatives; a single one keeps its sign."""
    return reduce(lambda one, other: join(torch.hypot, [one, other]), derivatives)


def difference(policy: CorePolicy, steps: Steps, epsilon: float = 1e-7) -> HeadMaps:
    """The same maps by central differences, one input number after the other: slow, and the check on the others.

    Needs a policy in double precision (``policy.double()``), or rounding hides what is compared; ``epsilon`` then leaves
    seven digits, and is small enough for a rectifier to hardly ever lie between the two sides.
    """
    keys: list[Any] = list(steps.inputs) if isinstance(steps.inputs, dict) else [...]
    with undisturbed(policy), torch.no_grad():
        widths = {name: numbers.shape[1] for name, numbers in steps.readouts(policy, steps.inputs).items()}
        changes = {
            name: [map_observations(torch.zeros_like, steps.inputs) for _ in range(width)] for name, width in widths.items()
        }
        for key in keys:
            for i in range(steps.inputs[key][0].numel()):
                sides = []
                for sign in (1, -1):
                    inputs = map_observations(torch.clone, steps.inputs)
                    inputs[key].flatten(1)[:, i] += sign * epsilon
                    sides.append(steps.readouts(policy, inputs))
                for name, columns in changes.items():
                    slopes = (sides[0][name] - sides[1][name]) / (2 * epsilon)
                    for column, slope in zip(columns, slopes.unbind(dim=1), strict=True):
                        column[key].flatten(1)[:, i] = slope
    return {name: length(columns) for name, columns in changes.items()}


def join(function: Any, trees: Any) -> Observations:
    """Apply ``function`` to all the tensors of one place in observations of one structure."""
    if isinstance(trees[0], dict):
        return {key: function(*(tree[key] for tree in trees)) for key in trees[0]}
    return function(*trees)


def episode_jacobian(policy: CorePolicy, episode: Episode) -> HeadMaps:
    """:func:`head_jacobian` along a recorded episode, for the actions and gazes it holds; maps ``[T, ...]``."""

    def lane(array: Any) -> Tensor:
        return torch.as_tensor(array, device=policy.device)[:, None]

    maps = head_jacobian(
        policy,
        map_observations(lane, episode.observations),
        lane(episode.episode_starts),
        lane(episode.actions),
        None if episode.decisions is None else lane(episode.decisions),
        masks=None if episode.masks is None else lane(episode.masks),
    )
    return {name: map_observations(lambda leaf: leaf[:, 0], leaves) for name, leaves in maps.items()}


def mean_magnitude(maps: Observations) -> float:
    """The mean of all absolute derivatives."""
    leaves = list(maps.values()) if isinstance(maps, dict) else [maps]
    return float(torch.cat([leaf.abs().flatten() for leaf in leaves]).mean())
