"""The sequential Jacobian: how much what was seen at one step moves what each head says at a later one.

Named so in Graves 2012, "Supervised Sequence Labelling with Recurrent Neural Networks" (Springer): a network's
implicit attention, with time as a third dimension. Where a core has attention over past steps as well, the one can be held
against the other.

Shapes: ``T`` steps of a sequence, ``F`` steps up to the last of those looked at, ``L`` lanes.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from saccade.policies.policy import CorePolicy, map_observations
from saccade.saliency.episode import Episode
from saccade.saliency.film import FilmError
from saccade.saliency.jacobian import HeadMaps, differentiable, join, length
from saccade.saliency.panel import Axis, cells_panel
from saccade.saliency.readout import readouts
from saccade.saliency.sheet import draw_sheet, steps_axis

PAST = (320, 24)
"""About how many pixels the steps that were seen take, and at most how many each one does."""


class SequentialJacobian(NamedTuple):
    """Derivatives of what heads say at step ``t`` (the first axis) with respect to what was seen at step ``τ`` (the second).

    Attributes:
        times: by head, ``[T, T]``: the Euclidean norm of the derivative with respect to the torso's features of ``x_τ``, or
            to ``x_τ`` itself for cores that look at images. For a head that says several numbers, of all of them together.
        inputs: by head, ``[T, T, ...]``: the derivative with respect to the preprocessed ``x_τ``, signed as in
            :func:`~saccade.saliency.jacobian.head_jacobian`; ``None`` unless asked for.
    """

    times: dict[str, Float[Tensor, "T T"]]
    inputs: HeadMaps | None


def sequential_jacobian(
    policy: CorePolicy, episode: Episode, inputs: bool = False, lanes_at_once: int = 16
) -> SequentialJacobian:
    """The sequential Jacobian of every head along a recorded sequence, for the actions and gazes it holds.

    Everything else that the state went through is differentiated: memories, and keys and values that a Transformer keeps. Gazes
    and other latent decisions are those that were taken, and constants. Exactly zero are the future (``τ > t``) and what came
    before an episode's start.

    A lane is made for every ``t``, all of them with the same features, and what a head says at ``t`` is read off lane ``t``
    alone. As no lane depends on another, one backward pass gives the rows of all lanes: as exact as a pass for each, and for
    every core.

    The policy's weights, gradients, modes and random generators are left as they were.

    Args:
        policy: any policy over any core.
        episode: one episode, or a sequence of several.
        inputs: also go through the torso, to what was seen: a backward pass through it for every ``t``, and ``T * T`` maps.
        lanes_at_once: how many ``t`` are differentiated together, which bounds the memory used.

    Raises:
        ValueError: ``lanes_at_once`` is below 1.
    """
    if lanes_at_once < 1:
        raise ValueError(f"lanes_at_once must be at least 1; got {lanes_at_once}")
    with differentiable(policy):
        observations = map_observations(lambda part: torch.as_tensor(part, device=policy.device), episode.observations)
        seen = map_observations(lambda part: part.to(policy.dtype), policy.preprocess(observations))
        seen = map_observations(lambda part: part.detach().clone().requires_grad_(), seen)
        features = policy.see(seen)
        rows: dict[str, list[Tensor]] = {}
        maps: dict[str, list[Any]] = {}
        for first in range(0, len(episode), lanes_at_once):
            targets = range(first, min(first + lanes_at_once, len(episode)))
            for name, derivatives in feature_derivatives(policy, episode, features.detach(), targets).items():
                norms = torch.stack([one.flatten(2).norm(dim=2) for one in derivatives]).norm(dim=0)
                rows.setdefault(name, []).append(norms.T)
                if inputs:
                    maps.setdefault(name, []).extend(through_torso(seen, features, derivatives))
    times = {name: torch.cat([padded(part, len(episode)) for part in parts]) for name, parts in rows.items()}
    whole = {name: join(lambda *parts: torch.stack(parts), parts) for name, parts in maps.items()}
    return SequentialJacobian(times, whole if inputs else None)


def feature_derivatives(
    policy: CorePolicy, episode: Episode, features: Float[Tensor, "T ..."], targets: range
) -> dict[str, list[Float[Tensor, "F L ..."]]]:
    """Of every number that a head says at the targets, a lane for each, by features at any step up to the last of them."""
    steps, lanes = targets[-1] + 1, len(targets)

    def copied(array: Any) -> Tensor:
        rows = torch.as_tensor(array, device=policy.device)[:steps]
        return rows[:, None].expand(steps, lanes, *rows.shape[1:])

    copies = copied(features).clone().requires_grad_()
    replay = None if episode.decisions is None else copied(episode.decisions).to(policy.dtype)
    core = policy.core(copies, policy.initial_state(lanes), copied(episode.episode_starts), replay, deterministic=True)
    said = core.features[list(targets), range(lanes)]
    actions = torch.as_tensor(episode.actions, device=policy.device)[list(targets)]
    masks = None if episode.masks is None else torch.as_tensor(episode.masks, device=policy.device)[list(targets)]
    return {
        name: [
            torch.autograd.grad(number.sum(), copies, retain_graph=True, materialize_grads=True)[0]
            for number in numbers.unbind(dim=1)
        ]
        for name, numbers in readouts(policy, said, actions, masks).items()
    }


def through_torso(seen: Any, features: Float[Tensor, "T ..."], derivatives: list[Float[Tensor, "F L ..."]]) -> list[Any]:
    """A map of every step seen, ``[T, ...]``, for each lane; the root of the sum of squares over several numbers."""
    leaves = list(seen.values()) if isinstance(seen, dict) else [seen]
    maps = []
    for lane in range(derivatives[0].shape[1]):
        pulled = []
        for one in derivatives:
            cotangent = torch.zeros_like(features)
            cotangent[: len(one)] = one[:, lane]
            found = torch.autograd.grad(features, leaves, cotangent, retain_graph=True, materialize_grads=True)
            pulled.append(dict(zip(seen, found, strict=True)) if isinstance(seen, dict) else found[0])
        maps.append(length(pulled))
    return maps


def padded(rows: Float[Tensor, "L F"], steps: int) -> Float[Tensor, "L T"]:
    """Rows with zeros for the steps after the last that they know of."""
    return torch.nn.functional.pad(rows, (0, steps - rows.shape[1]))


def mean_lag(times: Float[Tensor, "T T"]) -> float:
    """How many steps ago lies what a head depends on: the mean of ``t - τ``, weighted by the map; 0 for a map of zeros."""
    steps = torch.arange(len(times), device=times.device)
    return float((times * (steps[:, None] - steps)).sum() / times.sum().clamp(min=torch.finfo(times.dtype).tiny))


def time_map(episode: Episode, times: dict[str, Float[Tensor, "T T"]]) -> UInt8[np.ndarray, "H W 3"]:
    """A square for every head, steps seen over steps at which it says something, below what was seen, done and given.

    Each head has a scale of its own, stated above it.

    Raises:
        FilmError: a derivative is not finite.
    """
    panels = []
    for name, map_ in times.items():
        if not bool(map_.isfinite().all()):
            raise FilmError(f"|d {name}/d features| is not finite at step {int((~map_.isfinite()).any(dim=1).int().argmax())}")
        cells = map_.detach().float().cpu().numpy().T
        panels.append(cells_panel(f"|d {name}/d features|", cells, Axis("seen at", len(cells), *PAST), steps_axis(len(cells))))
    return draw_sheet(episode, [[panel] for panel in panels], "what each head depends on, over time")
