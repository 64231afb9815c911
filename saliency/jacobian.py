"""What moves the value, and what moves the advantage: the Jacobians of a dueling head with respect to what is seen.

Wang et al. 2016, "Dueling Network Architectures for Deep Reinforcement Learning", figure 2 (arXiv:1511.06581), where
they are drawn as saliency maps after Simonyan et al. 2013 (arXiv:1312.6034).

Shapes: ``T`` time, ``B`` batch, ``N`` steps, each of them a lane of its own, ``K`` numbers in a latent decision.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from saccade.policies.core import State, map_state
from saccade.policies.policy import Observations, QPolicy, map_observations
from saccade.saliency.episode import Episode, undisturbed


class DuelingMaps(NamedTuple):
    """Signed and unscaled: ``value``, dV(s_t)/dx_t, and ``advantage``, dA(s_t, a_t)/dx_t, both shaped like ``x_t``."""

    value: Observations
    advantage: Observations


@dataclass(frozen=True)
class Steps:
    """Where to differentiate: the steps of a sequence side by side, each with the state before it as a constant.

    Since no step can reach another and lanes are independent, one backward pass over all lanes is exact for each.

    Attributes:
        inputs: preprocessed observations ``x``, ``[N, ...]``.
        state: before each step, ``[N, ...]``.
        episode_starts: true where the initial state is used instead.
        actions: the actions whose advantage is meant.
        decisions: latent decisions taken at each step, or ``None``.
    """

    inputs: Observations
    state: State
    episode_starts: Bool[Tensor, " N"]
    actions: Shaped[Tensor, " N"]
    decisions: Float[Tensor, "N K"] | None

    def __getitem__(self, part: slice) -> "Steps":
        return Steps(
            map_observations(lambda leaf: leaf[part], self.inputs),
            map_state(lambda leaf: leaf[part], self.state),
            self.episode_starts[part],
            self.actions[part],
            None if self.decisions is None else self.decisions[part],
        )

    def outputs(self, policy: QPolicy, inputs: Observations) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
        """``V(s)`` and the centred ``A(s, a)`` of every lane, were it to see ``inputs`` in place of its own."""
        replay = None if self.decisions is None else self.decisions[None]
        features = policy.features_extractor(inputs)
        core = policy.core(features[None], self.state, self.episode_starts[None], replay, deterministic=True)
        head = policy.head(core.features[0])
        return head.value[:, 0], head.advantage.gather(1, self.actions[:, None].long())[:, 0]


@contextmanager
def differentiable(policy: QPolicy) -> Iterator[None]:
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
    policy: QPolicy,
    observations: Observations,
    episode_starts: Bool[Tensor, "T B"],
    actions: Shaped[Tensor, "T B"],
    replay: Float[Tensor, "T B K"] | None = None,
    state: State | None = None,
) -> Steps:
    """Play a sequence ``[T, B, ...]`` through the policy and keep the state before every step; arguments as below."""
    dtype = next(policy.parameters()).dtype
    with undisturbed(policy), torch.no_grad():
        inputs = policy.preprocess(map_observations(lambda part: part.flatten(0, 1), observations))
        inputs = map_observations(lambda part: part.to(dtype), inputs)
        features = policy.features_extractor(inputs).unflatten(0, episode_starts.shape)
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
    decisions = None if replay is None else replay.flatten(0, 1)
    return Steps(inputs, states, episode_starts.flatten(), actions.flatten(), decisions)


def dueling_jacobian(
    policy: QPolicy,
    observations: Observations,
    episode_starts: Bool[Tensor, "T B"],
    actions: Shaped[Tensor, "T B"],
    replay: Float[Tensor, "T B K"] | None = None,
    state: State | None = None,
    lanes_at_once: int = 256,
) -> DuelingMaps:
    """``dV(s_t)/dx_t`` and ``dA(s_t, a_t)/dx_t`` at every step of a sequence, signed and in no way scaled.

    ``x_t`` is the observation after preprocessing: images are floats from 0 to 1, so a map says by how much V or A
    would rise for each unit of a pixel. The state before step ``t``, and with it the gaze, is held fixed: the maps show
    what the *present* observation does, not what was remembered of earlier ones. Three things follow from the
    mathematics:

    - Outside a hard glimpse's fields the derivative is exactly zero: the network did not look there.
    - Where a max-pooled field holds several equal largest pixels, they share its derivative evenly.
    - ``A`` is centred over the actions, so that the two maps add up to dQ(s_t, a_t)/dx_t.

    The policy's weights, gradients, modes and random generators are left as they were.

    Args:
        policy: a dueling policy over any core.
        observations: raw ones, ``[T, B, ...]``, or a dictionary of them.
        episode_starts: where true, the state is the initial state before that step.
        actions: ``a_t``.
        replay: the latent decisions taken then; ``None`` for cores that take none, or to let them be chosen again.
        state: before the first step; ``None`` for the initial state.
        lanes_at_once: how many steps are differentiated together, which bounds the memory used.

    Returns:
        Two maps ``[T, B, ...]`` of the shape of the preprocessed observations.
    """
    steps = unroll_steps(policy, observations, episode_starts, actions, replay, state)
    count = len(steps.actions)
    parts = [differentiate(policy, steps[start : start + lanes_at_once]) for start in range(0, count, lanes_at_once)]

    def whole(*leaves: Tensor) -> Tensor:
        return torch.cat(leaves).unflatten(0, episode_starts.shape)

    return DuelingMaps(*(join(whole, maps) for maps in zip(*parts, strict=True)))


def differentiate(policy: QPolicy, steps: Steps) -> DuelingMaps:
    """The derivatives of every lane's V and A with respect to its own inputs, ``[N, ...]``, by two backward passes."""
    with differentiable(policy):
        inputs = map_observations(lambda leaf: leaf.detach().clone().requires_grad_(), steps.inputs)
        leaves = list(inputs.values()) if isinstance(inputs, dict) else [inputs]
        maps = []
        for output in steps.outputs(policy, inputs):
            gradients = torch.autograd.grad(output.sum(), leaves, retain_graph=True, materialize_grads=True)
            maps.append(dict(zip(inputs, gradients, strict=True)) if isinstance(inputs, dict) else gradients[0])
    return DuelingMaps(*maps)


def difference(policy: QPolicy, steps: Steps, epsilon: float = 1e-7) -> DuelingMaps:
    """The same derivatives by central differences, one input number after the other: slow, and the check on the others.

    Needs a policy in double precision (``policy.double()``), or rounding hides what is compared; ``epsilon`` then leaves
    seven digits, and is small enough for a rectifier to hardly ever lie between the two sides.
    """
    maps = DuelingMaps(*(map_observations(torch.zeros_like, steps.inputs) for _ in range(2)))
    keys: list[Any] = list(steps.inputs) if isinstance(steps.inputs, dict) else [...]
    with undisturbed(policy), torch.no_grad():
        for key in keys:
            for i in range(steps.inputs[key][0].numel()):
                sides = []
                for sign in (1, -1):
                    inputs = map_observations(torch.clone, steps.inputs)
                    inputs[key].flatten(1)[:, i] += sign * epsilon
                    sides.append(steps.outputs(policy, inputs))
                for change, high, low in zip(maps, *sides, strict=True):
                    change[key].flatten(1)[:, i] = (high - low) / (2 * epsilon)
    return maps


def join(function: Any, trees: Any) -> Observations:
    """Apply ``function`` to all the tensors of one place in observations of one structure."""
    if isinstance(trees[0], dict):
        return {key: function(*(tree[key] for tree in trees)) for key in trees[0]}
    return function(*trees)


def episode_jacobian(policy: QPolicy, episode: Episode) -> DuelingMaps:
    """:func:`dueling_jacobian` along a recorded episode, for the actions and gazes it holds; maps ``[T, ...]``."""

    def lane(array: Any) -> Tensor:
        return torch.as_tensor(array, device=policy.device)[:, None]

    maps = dueling_jacobian(
        policy,
        map_observations(lane, episode.observations),
        lane(episode.episode_starts),
        lane(episode.actions),
        None if episode.decisions is None else lane(episode.decisions),
    )
    return DuelingMaps(*(map_observations(lambda leaf: leaf[:, 0], leaves) for leaves in maps))


def mean_magnitude(maps: Observations) -> float:
    """The mean of all absolute derivatives."""
    leaves = list(maps.values()) if isinstance(maps, dict) else [maps]
    return float(torch.cat([leaf.abs().flatten() for leaf in leaves]).mean())
