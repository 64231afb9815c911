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
from stable_baselines3.common.vec_env import VecEnv

from saccade.agents.algorithm import CoreAlgorithm
from saccade.agents.archive import write_atomically
from saccade.agents.masks import Masked
from saccade.envs import WrongExperienceError
from saccade.scripts.build import load_agent, make_env, set_threads
from saccade.scripts.command import RunError, UserError, run_command
from saccade.scripts.run_folder import CHECKPOINT, CONFIG, EVALUATION
from saccade.scripts.settings import check_settings, resized, settings

MOST_STEPS = 10_000
"""Of a try for an episode's measures, which ends without any where no episode has ended by then."""


@dataclass(frozen=True)
class Score:
    """What an agent has come to in some episodes.

    Attributes:
        mean_reward: mean return of an episode; ``std_reward`` its standard deviation.
        success_rate: share of episodes that reached their aim; ``None`` where the environment does not say.
        measures: mean over the episodes of each of an environment's own measures; ``None`` where one is not finite.
        episodes: how many were played.
    """

    mean_reward: float
    std_reward: float
    success_rate: float | None
    measures: dict[str, float | None]
    episodes: int

    def summary(self) -> str:
        """One line for people."""
        success = "" if self.success_rate is None else f", success rate {self.success_rate:.3f}"
        measures = "".join(
            f", {name} {'not finite' if value is None else f'{value:.3f}'}" for name, value in self.measures.items()
        )
        return f"mean reward {self.mean_reward:.3f} ± {self.std_reward:.3f}{success}{measures} over {self.episodes} episodes"


@dataclass(frozen=True)
class Evaluation:
    """What ``evaluation.json`` holds: the score's entries, and these.

    Attributes:
        score: in the environment of the training.
        seed: of the environments played in.
        env: its id.
        steps: environment steps of training.
        wall_seconds: of training.
        also: the scores in the other settings, by name.
    """

    score: Score
    seed: int
    env: str
    steps: int
    wall_seconds: float | None
    also: dict[str, Score]

    def content(self) -> dict[str, Any]:
        """As it is written."""
        content = asdict(self)
        return {**content.pop("score"), **content}

    def summary(self, path: Path) -> str:
        """One line for people, then one for each other setting.

        Args:
            path: where it was written.
        """
        others = [f"{name:<10}  {score.summary()}" for name, score in self.also.items()]
        return "\n".join([f"{self.score.summary()}  ({path})", *others])


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
    OmegaConf.update(cfg, "evaluation.also", options.also, merge=True, force_add=True)
    set_threads(cfg)
    check_settings(cfg)
    model = load_agent(cfg, folder / CHECKPOINT)
    before = read_evaluation(folder)
    wall_seconds = before.get("wall_seconds")
    try:
        result = evaluate(cfg, model, options.episodes, options.n_envs, options.seed, wall_seconds, options.deterministic)
    except WrongExperienceError as error:
        raise RunError(str(error)) from error
    print(result.summary(write_evaluation(folder, result)))


def evaluate(
    cfg: DictConfig,
    model: CoreAlgorithm,
    episodes: int,
    n_envs: int,
    seed: int,
    wall_seconds: float | None,
    deterministic: bool = True,
) -> Evaluation:
    """Play ``episodes`` episodes in fresh environments of ``cfg.env``, and as many in each of ``cfg.evaluation.also``.

    Raises:
        WrongExperienceError: an environment returned what it should not.
    """

    def play(where: DictConfig) -> Score:
        env = make_env(where, n_envs=min(n_envs, episodes), seed=seed)
        with resized(model, where):
            result = score(model, env, episodes, deterministic)
        env.close()
        return result

    return Evaluation(
        score=play(cfg),
        seed=seed,
        env=cfg.env.id,
        steps=model.num_timesteps,
        wall_seconds=None if wall_seconds is None else round(wall_seconds, 1),
        also={name: play(other) for name, other in settings(cfg).items()},
    )


def score(model: CoreAlgorithm, env: VecEnv, episodes: int, deterministic: bool = True) -> Score:
    """Play ``episodes`` episodes.

    Raises:
        WrongExperienceError: the environment returned what it should not.
    """
    player = Masked(model, env)
    successes: list[bool] = []
    measures: dict[str, list[float]] = {}

    def note(local: dict[str, Any], everything: dict[str, Any]) -> None:
        player.note(local, everything)
        if not local["done"]:
            return
        if "is_success" in local["info"]:
            successes.append(bool(local["info"]["is_success"]))
        for name, value in measured(local["info"]).items():
            measures.setdefault(name, []).append(value)

    rewards, _ = evaluate_policy(
        player,
        env,
        episodes,
        deterministic=deterministic,
        callback=note,
        return_episode_rewards=True,
    )
    assert isinstance(rewards, list)
    return Score(
        mean_reward=float(np.mean(rewards)),
        std_reward=float(np.std(rewards)),
        success_rate=float(np.mean(successes)) if successes else None,
        measures={name: float(np.mean(values)) if np.isfinite(values).all() else None for name, values in measures.items()},
        episodes=len(rewards),
    )


def measured(info: dict[str, Any]) -> dict[str, float]:
    """What the info of an episode's last step measures of it, ``info["measures"]``; nothing where it does not say.

    Raises:
        WrongExperienceError: that is not one number a name.
    """
    given = info.get("measures", {})
    try:
        return {str(name): float(value) for name, value in given.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise WrongExperienceError(f"info['measures'] holds one number a name, and not {given!r}") from error


def measures_of(model: CoreAlgorithm, env: VecEnv) -> list[str] | None:
    """The names of what an environment measures, from an episode; none where no episode has ended by ``MOST_STEPS``.

    Raises:
        WrongExperienceError: the environment returned what it should not.
    """
    player = Masked(model, env)
    observations, state, dones = env.reset(), None, np.ones(env.num_envs, np.bool_)
    for _ in range(MOST_STEPS):
        actions, state = player.predict(observations, state, dones)
        observations, _, dones, infos = env.step(actions)
        player.note({"infos": infos, "dones": dones}, {})
        if dones.any():
            return list(measured(infos[int(dones.argmax())]))
    return None


def write_evaluation(folder: Path, result: Evaluation) -> Path:
    """Write ``evaluation.json``; returns its path."""
    path = folder / EVALUATION
    write_atomically(path, (json.dumps(result.content(), indent=1) + "\n").encode())
    return path


def read_evaluation(folder: Path) -> dict[str, Any]:
    """What an earlier evaluation wrote, or nothing."""
    path = folder / EVALUATION
    return dict(json.loads(path.read_text())) if path.is_file() else {}


if __name__ == "__main__":
    main()
