"""``saccade evaluate``: play episodes with a trained agent and write ``evaluation.json``."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from stable_baselines3.common.evaluation import evaluate_policy

from saccade.agents.algorithm import CoreAlgorithm
from saccade.agents.archive import write_atomically
from saccade.agents.masks import Masked
from saccade.envs import WrongExperienceError
from saccade.scripts.build import load_agent, make_env, set_threads
from saccade.scripts.command import RunError, UserError, run_command
from saccade.scripts.run_folder import CHECKPOINT, CONFIG, EVALUATION


@dataclass(frozen=True)
class Evaluation:
    """What ``evaluation.json`` holds.

    Attributes:
        mean_reward: mean return of an episode; ``std_reward`` its standard deviation.
        success_rate: share of episodes that reached their aim; ``None`` where the environment does not say.
        episodes: how many were played.
        seed: of the environments played in.
        env: its id.
        steps: environment steps of training.
        wall_seconds: of training.
    """

    mean_reward: float
    std_reward: float
    success_rate: float | None
    episodes: int
    seed: int
    env: str
    steps: int
    wall_seconds: float | None

    def summary(self) -> str:
        """One line for people."""
        success = "" if self.success_rate is None else f", success rate {self.success_rate:.3f}"
        return f"mean reward {self.mean_reward:.3f} ± {self.std_reward:.3f}{success} over {self.episodes} episodes"


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry of ``saccade evaluate``."""
    run_command(evaluate_run, "evaluate", sys.argv[1:] if arguments is None else arguments)


def evaluate_run(options: DictConfig) -> None:
    """Load a run's agent, play, print and write ``evaluation.json`` into its folder.

    Raises:
        UserError: no such run, or nothing in it to evaluate.
        RunError: an environment returned what it should not.
    """
    for name in ("episodes", "n_envs"):
        if options[name] < 1:
            raise UserError(f"{name} must be at least 1; got {options[name]}")
    if options.run is None:
        raise UserError("which run? saccade evaluate run=runs/NAME")
    folder = Path(options.run)
    for name in (CONFIG, CHECKPOINT):
        if not (folder / name).is_file():
            raise UserError(f"{folder} is not a finished run folder: it has no {name}")
    cfg = OmegaConf.load(folder / CONFIG)
    assert isinstance(cfg, DictConfig)
    set_threads(cfg)
    model = load_agent(cfg, folder / CHECKPOINT)
    before = read_evaluation(folder)
    wall_seconds = before.get("wall_seconds")
    try:
        result = evaluate(cfg, model, options.episodes, options.n_envs, options.seed, wall_seconds, options.deterministic)
    except WrongExperienceError as error:
        raise RunError(str(error)) from error
    print(f"{result.summary()}  ({write_evaluation(folder, result)})")


def evaluate(
    cfg: DictConfig,
    model: CoreAlgorithm,
    episodes: int,
    n_envs: int,
    seed: int,
    wall_seconds: float | None,
    deterministic: bool = True,
) -> Evaluation:
    """Play ``episodes`` episodes in fresh environments of ``cfg.env``."""
    env = make_env(cfg, n_envs=min(n_envs, episodes), seed=seed)
    player = Masked(model, env)
    successes: list[bool] = []

    def note(local: dict[str, Any], everything: dict[str, Any]) -> None:
        player.note(local, everything)
        if local["done"] and "is_success" in local["info"]:
            successes.append(bool(local["info"]["is_success"]))

    rewards, _ = evaluate_policy(
        player,
        env,
        episodes,
        deterministic=deterministic,
        callback=note,
        return_episode_rewards=True,
    )
    env.close()
    assert isinstance(rewards, list)
    return Evaluation(
        mean_reward=float(np.mean(rewards)),
        std_reward=float(np.std(rewards)),
        success_rate=float(np.mean(successes)) if successes else None,
        episodes=len(rewards),
        seed=seed,
        env=cfg.env.id,
        steps=model.num_timesteps,
        wall_seconds=None if wall_seconds is None else round(wall_seconds, 1),
    )


def write_evaluation(folder: Path, result: Evaluation) -> Path:
    """Write ``evaluation.json``; returns its path."""
    path = folder / EVALUATION
    write_atomically(path, (json.dumps(asdict(result), indent=1) + "\n").encode())
    return path


def read_evaluation(folder: Path) -> dict[str, Any]:
    """What an earlier evaluation wrote, or nothing."""
    path = folder / EVALUATION
    return dict(json.loads(path.read_text())) if path.is_file() else {}


if __name__ == "__main__":
    main()
