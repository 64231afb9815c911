"""One episode of a trained agent, recorded: what it saw, did and expected, and what its mechanisms attended to.

Shapes: ``T`` steps of the episode, ``K`` numbers in a latent decision, ``M`` entries of an action mask, ``H W`` height and
width of a frame.
"""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Shaped, UInt8
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv

from saccade.agents.masks import ActionMasks
from saccade.policies.core import map_state
from saccade.policies.policy import CorePolicy, map_observations
from saccade.policies.tap import TapKind, recording
from saccade.saliency.frames import observation_frames, shows_image


@dataclass(frozen=True)
class TapRecord:
    """What one mechanism attended to, step by step.

    Attributes:
        kind: what the last axes of the values run over.
        values: ``[T, ...]``.
        notes: constants that a picture needs (the sizes of a gaze's fields, say).
    """

    kind: TapKind
    values: Shaped[np.ndarray, "T ..."]
    notes: Mapping[str, object]


@dataclass(frozen=True)
class Episode:
    """One episode, as arrays with time first. Row ``t`` is what the agent saw, and what it made of it.

    Attributes:
        observations: ``[T, ...]``, raw, or a dictionary of such arrays.
        actions: ``[T, ...]``, the greedy ones.
        rewards: what each action brought.
        outputs: by name, what each head said, ``[T, n]``; see ``CorePolicy.outputs``.
        masks: true where an action was allowed; ``None`` where the environment or the policy knows no masks.
        episode_starts: true at the first step only.
        decisions: the core's latent decisions, those of a gaze for the step after; ``None`` for cores that take none.
        taps: by name, what the policy's mechanisms attended to.
        frames: pictures of what was seen; ``None`` where neither the observation nor the environment gives one.
        frames_are_observations: a frame's pixels are the observation's, so that places in the one are places in the
            other.
        finished: the episode ended by itself, not at the cap on steps.
    """

    observations: Any
    actions: Shaped[np.ndarray, "T ..."]
    rewards: Float32[np.ndarray, " T"]
    outputs: dict[str, Float[np.ndarray, "T _"]]
    masks: Bool[np.ndarray, "T M"] | None
    episode_starts: Bool[np.ndarray, " T"]
    decisions: Float[np.ndarray, "T K"] | None
    taps: dict[str, TapRecord]
    frames: UInt8[np.ndarray, "T H W 3"] | None
    frames_are_observations: bool
    finished: bool

    def __len__(self) -> int:
        return len(self.rewards)

    def first(self, count: int) -> "Episode":
        """The first ``count`` steps, or all where there are no more."""
        if count >= len(self):
            return self

        def cut(part: Any) -> Any:
            return None if part is None else map_observations(lambda leaf: leaf[:count], part)

        columns = {name: cut(getattr(self, name)) for name in TIMED}
        taps = {name: replace(record, values=record.values[:count]) for name, record in self.taps.items()}
        return replace(self, **columns, taps=taps, finished=False)


TIMED = ("observations", "actions", "rewards", "outputs", "masks", "episode_starts", "decisions", "frames")
"""What of an episode has a row for each step."""


@contextmanager
def undisturbed(policy: CorePolicy) -> Iterator[None]:
    """Evaluation mode within the block; afterwards every module's mode and every random generator are as they were.

    The generators are Python's, numpy's and torch's global ones, the last on the CPU and on the policy's device.
    """
    modes = {module: module.training for module in policy.modules()}
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - environments and SB3 draw from it
    devices = [policy.device] if policy.device.type == "cuda" else []
    policy.set_training_mode(False)
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        for module, mode in modes.items():
            module.training = mode


def play_episode(policy: CorePolicy, env: VecEnv, max_steps: int = 256, render: bool = True) -> Episode:
    """Reset ``env``, let the policy act greedily, and record lane 0 until its episode ends.

    The policy's weights, gradients, modes and random generators are left as they were.

    Args:
        policy: acts with the likeliest action and latent decision; an actor-critic among the actions that the environment
            allows (:class:`ActionMasks`).
        env: any number of lanes; all are stepped.
        max_steps: the episode is left there if it has not ended before.
        render: ask the environment for pictures where the observation is none.

    Raises:
        ValueError: ``max_steps`` is below 1.
    """
    if max_steps < 1:
        raise ValueError(f"max_steps must be at least 1; got {max_steps}")
    rendered = render and not shows_image(policy.observation_space) and env.render_mode == "rgb_array"
    rows: list[dict[str, Any]] = []
    pictures: list[Any] = []
    with undisturbed(policy), torch.no_grad(), recording() as taps:
        observations: Any = env.reset()
        allowed = ActionMasks.of(policy, env)
        state = policy.initial_state(env.num_envs)
        starts, finished = np.ones(env.num_envs, dtype=np.bool_), False
        while len(rows) < max_steps and not finished:
            if rendered:
                pictures.append(env.get_images()[0])
            tensors = obs_as_tensor(observations, policy.device)
            one_step = map_observations(lambda part: part[None], tensors)
            core = policy.encode(one_step, state, torch.as_tensor(starts, device=policy.device)[None], deterministic=True)
            masks = torch.as_tensor(allowed.now(), device=policy.device)[None] if allowed.known else None
            chosen = policy.choose(core, True, masks)[0].cpu().numpy()
            row = {
                "observations": map_observations(lambda part: np.array(part[0]), observations),
                "actions": chosen[0],
                "outputs": map_observations(lambda part: part[0, 0].cpu().numpy(), policy.outputs(core.features)),
                "masks": None if masks is None else masks[0, 0].cpu().numpy(),
                "episode_starts": starts[0],
                "decisions": None if core.decision is None else core.decision.value[0, 0].cpu().numpy(),
            }
            observations, rewards, starts, infos = env.step(chosen)
            allowed.note(infos, starts)
            rows.append({**row, "rewards": np.float32(rewards[0])})
            state, finished = map_state(torch.Tensor.detach, core.state), bool(starts[0])
    columns = {name: stack([row[name] for row in rows]) for name in rows[0]}
    frames = observation_frames(columns["observations"], policy.observation_space)
    if rendered and all(picture is not None for picture in pictures):
        frames = np.stack(pictures)[..., :3]
    return Episode(
        **columns,
        taps={
            name: TapRecord(kind, taps.stacked(name)[:, 0].cpu().numpy(), taps.notes[name]) for name, kind in taps.kinds.items()
        },
        frames=frames,
        frames_are_observations=shows_image(policy.observation_space),
        finished=finished,
    )


def stack(rows: list[Any]) -> Any:
    """Rows of arrays, or of dictionaries of arrays, along a new first axis; ``None`` for rows of ``None``."""
    if rows[0] is None:
        return None
    if isinstance(rows[0], dict):
        return {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    return np.stack(rows)
