"""Whether an agent's first move can be decoded from its memory once it has been told its goal (Mini-SHRDLU).

    saccade results experiment=shrdlu_ppo_dnc 'seeds=[0,1,2]'
    python benchmarks/shrdlu_plan.py --json FILE

Graves et al. 2016 (Nature 538), figure 4d: a logistic regression names the first action from what the memory holds right after
the goal was read, in 89% of the episodes, where a guess is right in 17%. Here every agent plays the lesson that it was
evaluated on. A linear decoder (:func:`saccade.saliency.decode`) names its first move from what the memory holds after the step
that shows the goal's letter; from the vectors read in it; from the controller's state, if it has one; and from the memory
a step before, when all goals have been told and none has been chosen. Its peer is the share of the commonest first move.
"""

from pathlib import Path
from typing import Any

import harness
import numpy as np
import torch
from jaxtyping import Float, Integer
from omegaconf import DictConfig, OmegaConf

from saccade.agents.algorithm import CoreAlgorithm
from saccade.envs import MiniShrdlu, TaskVecEnv
from saccade.policies.core import map_state
from saccade.saliency import Decoding, decode
from saccade.scripts.build import load_agent, make_env
from saccade.scripts.run_folder import CHECKPOINT, CONFIG
from saccade.scripts.settings import settings

RUNS, LESSON = "ppo-dnc-minishrdlu-s*", "last_lesson"
"""What the runs' folders are called, and in which setting of ``evaluation.also`` their agents play."""
EPISODES, QUICK, LANES, SEED = 4000, 500, 50, 1_000_000
"""Episodes that are decoded, and with ``--quick``; how many are played side by side, and their seed."""
AFTER, BEFORE = "after the goal's letter", "a step before it"
GOAL = 2.0

Found = dict[str, Float[np.ndarray, "E D"]]
"""What an agent held in every episode, by the name of the row."""


def held(state: Any, when: str) -> Found:
    """The parts of a DNC's state, a row a lane."""
    flat = map_state(lambda leaf: leaf.reshape(len(leaf), -1), state)
    if when == BEFORE:
        return {f"memory, {when}": flat.memory}
    found = {f"memory, {when}": flat.memory, f"vectors read, {when}": flat.reads}
    if flat.controller:  # one without a state holds nothing
        found[f"controller, {when}"] = np.concatenate(list(flat.controller), axis=1)
    return found


def play(agent: CoreAlgorithm, env: TaskVecEnv, episodes: int) -> tuple[Found, Integer[np.ndarray, " E"]]:
    """What the agent held around the moment when it was told its goal, and its first move, in that many episodes."""
    task = env.task
    assert isinstance(task, MiniShrdlu)
    observations: Any = env.reset()
    state, starts = None, np.ones(env.num_envs, np.bool_)
    found: list[Found] = []
    moves: list[np.ndarray] = []
    while sum(map(len, moves)) < episodes:
        queried, before = task.at_query, state
        actions, state = agent.policy.predict(observations, before, starts, deterministic=True)
        if queried.any():  # never in an episode's first step, as a goal comes first
            parts = held(before, BEFORE) | held(state, AFTER)
            found.append({name: part[queried] for name, part in parts.items()})
            moves.append(actions[queried])
        observations, _, starts, _ = env.step(actions)
    numbers = {name: np.concatenate([parts[name] for parts in found])[:episodes] for name in found[0]}
    return numbers, np.concatenate(moves)[:episodes]


def agents() -> list[tuple[DictConfig, CoreAlgorithm]]:
    """The latest run of every seed: its config, in the lesson that is played, and its agent."""
    latest = {run.name.split("-s")[1].split("-")[0]: run for run in sorted(Path("runs/results").glob(RUNS))}
    if not latest:
        raise SystemExit("no runs in runs/results; first: saccade results experiment=shrdlu_ppo_dnc 'seeds=[0,1,2]'")
    found = []
    for run in latest.values():
        cfg = OmegaConf.load(run / CONFIG)
        assert isinstance(cfg, DictConfig)
        found.append((settings(cfg)[LESSON], load_agent(cfg, run / CHECKPOINT)))
    return found


def measure(how: harness.Settings) -> list[harness.Row]:
    """A row for each part of the state, the mean over the agents."""
    torch.set_num_threads(1)
    decoded: dict[str, list[Decoding]] = {}
    for cfg, agent in agents():
        env = make_env(cfg, n_envs=LANES, seed=SEED)
        assert isinstance(env, TaskVecEnv)
        found, moves = play(agent, env, QUICK if how.quick else EPISODES)
        for name, numbers in found.items():
            decoded.setdefault(name, []).append(decode(numbers, moves))
    rows = []
    for name, pairs in decoded.items():
        accuracy, chance = np.mean(pairs, axis=0).tolist()
        goal = GOAL if name == f"memory, {AFTER}" else None
        rows.append(harness.compare(name, "share", accuracy, chance, "the commonest move", ratio_at_least=goal))
    return rows


if __name__ == "__main__":
    harness.main(__doc__.partition("\n")[0], measure)
