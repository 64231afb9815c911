"""How much of each kind of attention lies on what matters in Spotlight, before training and after.

    saccade results experiment=spotlight_soft 'seeds=[0,1,2]'      # and all other experiments that are called spotlight_...
    python benchmarks/spotlight_maps.py --json FILE

Which place matters, and at which moment, is known there. Of a map over an image, its grid or its columns, what counts is the
share on the place that was lit, at the moment of the signal; of gazes, how many are within it at that moment; of a map over
past steps, the share on that moment when the answer is given. Its peer is the same policy before it has learned anything. All
figures are means over the seeds, the heads and many episodes.
"""

from pathlib import Path

import harness
import numpy as np
import torch
from jaxtyping import Bool, Float, Integer
from omegaconf import DictConfig, OmegaConf

from saccade.agents.algorithm import CoreAlgorithm
from saccade.envs import Spotlight, TaskVecEnv
from saccade.policies import Recording, TapKind, recording
from saccade.scripts.build import load_agent, make_agent, make_env
from saccade.scripts.run_folder import CHECKPOINT, CONFIG

RUNS = "*-spotlight-s*"
EPISODES, QUICK, LANES, SEED = 2000, 200, 100, 1_000_000
"""Episodes that are scored, and with ``--quick``; how many are played side by side, and their seed."""
GOAL, GAZE_GOAL = 0.8, 0.6


def on_place(kind: TapKind, values: Float[np.ndarray, "N ..."], relevant: Bool[np.ndarray, "N H W"]) -> Float[np.ndarray, " N"]:
    """The share of a map, or of a gaze, on the relevant pixels of each lane."""
    lanes, height, width = relevant.shape
    if kind is TapKind.GAZE:
        sizes = np.array([width, height])
        column, row = np.clip(((values + 1) / 2 * sizes).astype(int), 0, sizes - 1).T
        return relevant[np.arange(lanes), row, column].astype(np.float64)
    if kind is TapKind.ELEMENTS:  # the columns of the image
        heads = values.reshape(lanes, -1, width)
        return (heads * relevant.any(axis=1)[:, None]).sum(-1).mean(1)
    h, w = values.shape[-2:]
    places = relevant.reshape(lanes, h, height // h, w, width // w).mean((2, 4))
    return (values.reshape(lanes, -1, h, w) * places[:, None]).sum((-2, -1)).mean(1)


def on_moment(values: Float[np.ndarray, "N *heads W1"], ago: Integer[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """The share of a map over past steps on the one so many steps ago."""
    heads = values.reshape(len(values), -1, values.shape[-1])
    return heads[np.arange(len(values)), :, values.shape[-1] - 1 - ago].mean(1)


def shown(taps: Recording) -> tuple[TapKind, list[Float[np.ndarray, "N ..."]]]:
    """What a step looked at: its gazes where it has some, else its map."""
    gazes = [name for name, kind in taps.kinds.items() if kind is TapKind.GAZE] or ["attention"]
    return taps.kinds[gazes[0]], [taps.stacked(name)[0].numpy() for name in gazes]


def score(agent: CoreAlgorithm, env: TaskVecEnv, episodes: int) -> tuple[TapKind, float]:
    """What is looked at, and the mean share on what matters over that many episodes."""
    task = env.task
    assert isinstance(task, Spotlight)
    observations, state, starts = env.reset(), None, np.ones(env.num_envs, np.bool_)
    shares: list[Float[np.ndarray, " M"]] = []
    while sum(map(len, shares)) < episodes:
        with recording() as taps:
            actions, state = agent.policy.predict(observations, state, starts, deterministic=True)
        kind, values = shown(taps)
        if kind is TapKind.TIME:
            now = task.time == task.steps - 1
            scores = on_moment(values[0], task.time - np.minimum(task.moment, task.time))
        else:
            now = task.time == task.moment
            scores = np.mean([on_place(kind, one, task.relevant()) for one in values], axis=0)
        shares.append(scores[now])
        observations, _, starts, _ = env.step(actions)
    return kind, float(np.concatenate(shares)[:episodes].mean())


def runs() -> dict[str, list[tuple[DictConfig, Path]]]:
    """By policy, the latest run of every seed: its config and its folder."""
    found: dict[str, dict[str, tuple[DictConfig, Path]]] = {}
    for run in sorted(Path("runs/results").glob(RUNS)):
        cfg = OmegaConf.load(run / CONFIG)
        assert isinstance(cfg, DictConfig)
        if not (run / CHECKPOINT).exists():  # it is still learning
            continue
        found.setdefault(run.name.split("-")[1], {})[str(cfg.seed)] = (cfg, run)
    if not found:
        raise SystemExit("no runs in runs/results; first: saccade results experiment=spotlight_soft 'seeds=[0,1,2]'")
    return {policy: list(seeds.values()) for policy, seeds in found.items()}


def measure(how: harness.Settings) -> list[harness.Row]:
    """A row for each kind of attention, the mean over its seeds."""
    torch.set_num_threads(1)
    rows = []
    for policy, seeds in runs().items():
        before, after = [], []
        for cfg, run in seeds:
            env = make_env(cfg, n_envs=LANES, seed=SEED)
            assert isinstance(env, TaskVecEnv)
            episodes = QUICK if how.quick else EPISODES
            before.append(score(make_agent(cfg, env), env, episodes)[1])
            kind, share = score(load_agent(cfg, run / CHECKPOINT), env, episodes)
            after.append(share)
        what = {TapKind.TIME: "the moment", TapKind.GAZE: "gazes within the place"}.get(kind, "the place")
        goal = GAZE_GOAL if kind is TapKind.GAZE else GOAL
        mean_after, mean_before = float(np.mean(after)), float(np.mean(before))
        rows.append(harness.compare(f"{policy}: {what}", "share", mean_after, mean_before, "before training", at_least=goal))
    return rows


if __name__ == "__main__":
    harness.main(__doc__.partition("\n")[0], measure)
