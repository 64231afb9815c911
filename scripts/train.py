"""``saccade train``: train an agent from a composed config, into a run folder of its own."""

import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat

from saccade.agents import InvalidExperienceError
from saccade.agents.algorithm import CoreAlgorithm
from saccade.envs import WrongExperienceError
from saccade.saliency import SaliencyCallback
from saccade.scripts.build import drop_foreign_kwargs, make_agent, make_env, set_threads, training_env
from saccade.scripts.command import RunError, run_command
from saccade.scripts.evaluate import evaluate, write_evaluation
from saccade.scripts.run_folder import CHECKPOINT, CONFIG, METRICS, MetricsWriter, default_name, reserve_run_folder
from saccade.scripts.settings import check_settings


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry of ``saccade train``."""
    run_command(train, "train", sys.argv[1:] if arguments is None else arguments)


def train(cfg: DictConfig) -> None:
    """Everything is built before a folder is made, so that bad input leaves nothing behind.

    Raises:
        UserError: something in the config cannot be done.
        RunError: an environment returned what cannot be learned from.
        KeyboardInterrupt: Ctrl-C, after the files are finished.
    """
    choices = dict(HydraConfig.get().runtime.choices)
    drop_foreign_kwargs(cfg, HydraConfig.get().overrides.task)
    set_threads(cfg)
    env = training_env(cfg)
    model = make_agent(cfg, env)
    check_settings(cfg)
    name = cfg.name or default_name(choices["agent"], choices["policy"], cfg.env.id, cfg.seed)
    folder = reserve_run_folder(cfg.runs, name)
    OmegaConf.save(cfg, folder / CONFIG)
    model.set_logger(Logger(str(folder), [TensorBoardOutputFormat(str(folder)), MetricsWriter(folder / METRICS)]))
    print(f"run folder  {folder}\nwatch it    tensorboard --logdir {cfg.runs}", flush=True)
    started = time.perf_counter()
    try:
        try:
            learn(cfg, model, folder)
        finally:
            with no_interrupts():
                model.save(folder / CHECKPOINT)
                model.logger.close()
                env.close()
        report(cfg, model, folder, time.perf_counter() - started)
    except (InvalidExperienceError, WrongExperienceError) as error:
        raise RunError(f"{error}\nstopped at step {model.num_timesteps}; the run lies in {folder}") from error
    except KeyboardInterrupt:
        print(f"\ninterrupted at step {model.num_timesteps}; the run lies in {folder}", flush=True)
        raise


@contextmanager
def no_interrupts() -> Iterator[None]:
    """Ctrl-C waits: a second one must not cost the checkpoint that the first one asked for."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def learn(cfg: DictConfig, model: CoreAlgorithm, folder: Path) -> None:
    """The training itself, with films at intervals."""
    callbacks: list[BaseCallback] = []
    if cfg.saliency.every:
        make = lambda: make_env(cfg, n_envs=1, seed=cfg.seed + 10_000)  # noqa: E731
        callbacks.append(
            SaliencyCallback(make, every=cfg.saliency.every, max_steps=cfg.saliency.max_steps, folder=folder / "films")
        )
    model.learn(cfg.total_timesteps, callback=callbacks, log_interval=cfg.log_interval, progress_bar=cfg.progress_bar)


def report(cfg: DictConfig, model: CoreAlgorithm, folder: Path, wall_seconds: float) -> None:
    """Evaluate, write ``evaluation.json``, and say where everything is."""
    result = evaluate(cfg, model, cfg.evaluation.episodes, cfg.evaluation.n_envs, cfg.seed + 20_000, wall_seconds)
    path = write_evaluation(folder, result)
    print(f"run folder  {folder}\nscore       {result.summary(path)}\nlook        tensorboard --logdir {cfg.runs}")


if __name__ == "__main__":
    main()
