"""How long an agent ponders a vector before it says whether its ones are odd, by how many numbers are set (ACT).

    saccade results experiment=act_parity 'seeds=[0,1,2]'
    python benchmarks/parity_ponder.py --json FILE

Graves 2016 (arXiv:1603.08983), figure 4: with a cost on computations, harder problems get more of them. The more numbers are
set, the more there is to count. Every agent answers vectors with each number of them; rows are means over the agents.
"""

from pathlib import Path

import harness
import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from saccade.agents.algorithm import CoreAlgorithm
from saccade.envs import Parity
from saccade.policies import ActorCriticPolicy
from saccade.scripts.build import load_agent
from saccade.scripts.run_folder import CHECKPOINT, CONFIG

RUNS, PONDER = "supervised-*-parity-s*", "policy.core.ponder"
"""What the runs' folders are called, and what their configs have; the baseline's do not."""
EPISODES, QUICK, SEED = 10_000, 1000, 1_000_000
"""Vectors with each number set, and with ``--quick``; and their seed."""


def agents() -> list[CoreAlgorithm]:
    """Of the latest run of every seed."""
    latest: dict[str, tuple[DictConfig, Path]] = {}
    for run in sorted(Path("runs/results").glob(RUNS)):
        cfg = OmegaConf.load(run / CONFIG)
        assert isinstance(cfg, DictConfig)
        if OmegaConf.select(cfg, PONDER) and (run / CHECKPOINT).exists():
            latest[str(cfg.seed)] = (cfg, run)
    if not latest:
        raise SystemExit("no runs in runs/results; first: saccade results experiment=act_parity 'seeds=[0,1,2]'")
    return [load_agent(cfg, run / CHECKPOINT) for cfg, run in latest.values()]


@torch.no_grad()
def answer(agent: CoreAlgorithm, count: int, episodes: int) -> tuple[float, float]:
    """The mean number of computations, and the share of wrong answers, for vectors of which ``count`` numbers are set."""
    policy, shape = agent.policy, agent.observation_space.shape
    assert isinstance(policy, ActorCriticPolicy) and shape is not None
    lesson = Parity(1, size=shape[0], min_set=count, max_set=count, seed=SEED).generate(episodes)
    starts = torch.ones(1, episodes, dtype=torch.bool)
    core = policy.encode(torch.as_tensor(lesson.inputs), policy.initial_state(episodes), starts)
    said = policy.distribution.mode(policy.read(core.features).parameters).numpy()
    assert core.ponder is not None
    return float(core.ponder.mean()), float((said != lesson.targets).mean())


def measure(how: harness.Settings) -> list[harness.Row]:
    """Two rows for each number of numbers that are set."""
    made = agents()
    shape = made[0].observation_space.shape
    assert shape is not None
    rows = []
    for count in range(1, shape[0] + 1):
        ponder, wrong = np.mean([answer(agent, count, QUICK if how.quick else EPISODES) for agent in made], axis=0).tolist()
        rows.append(harness.compare(f"{count} of {shape[0]} numbers set: computations", "runs", ponder))
        rows.append(harness.compare(f"{count} of {shape[0]} numbers set: wrong", "share", wrong, at_most=0.05))
    return rows


if __name__ == "__main__":
    harness.main(__doc__.partition("\n")[0], measure)
