"""How a command runs on Hydra: overrides are checked before anything is made, and bad input ends with exit status 2."""

import os
import sys
from collections.abc import Callable, Sequence

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from saccade.scripts.errors import RunError, UserError
from saccade.scripts.overrides import CONFIGS, check_overrides

__all__ = ["RunError", "UserError", "run_command"]


def run_command(job: Callable[[DictConfig], None], config_name: str, arguments: Sequence[str]) -> None:
    """Check the overrides, then hand over to Hydra, which knows ``--multirun``, ``--cfg``, ``--help`` and completion.

    Exits with 2 on bad input, with 1 where a run had to stop, with 130 on Ctrl-C. With ``--multirun`` a job that fails leaves
    the others running, and the worst status counts.
    """
    try:
        check_arguments(config_name, arguments)
        worst = run_jobs(job, config_name, arguments)
    except UserError as error:
        print(f"saccade: {error}", file=sys.stderr)
        sys.exit(error.status)
    except KeyboardInterrupt:
        sys.exit(130)
    if worst:
        sys.exit(worst)


def check_arguments(config_name: str, arguments: Sequence[str]) -> None:
    """Check the overrides, except where they are half typed (completion) or another config's.

    Raises:
        UserError: one of them is wrong.
    """
    args = get_args_parser().parse_args(list(arguments))
    if args.shell_completion or args.config_path or args.config_name or args.experimental_rerun:
        return
    check_overrides(config_name, args.overrides, args.multirun, args.config_dir)


def run_jobs(job: Callable[[DictConfig], None], config_name: str, arguments: Sequence[str]) -> int:
    """Let Hydra run the job, or one after another, and return the worst exit status."""
    statuses = [0]
    here = os.getpid()

    def guarded(cfg: DictConfig) -> None:
        try:
            job(cfg)
        except UserError as error:
            which = HydraConfig.get()
            of = f"{' '.join(which.overrides.task)}: " if which.mode == RunMode.MULTIRUN else ""
            print(f"saccade: {of}{error}", file=sys.stderr, flush=True)
            if os.getpid() != here:  # a launcher's own process, whose list nobody reads
                raise
            statuses.append(error.status)
        except SystemExit as end:
            if os.getpid() != here:
                raise
            statuses.append(int(end.code or 0))

    sys.argv = [f"saccade {config_name}", *arguments]
    try:
        hydra.main(version_base="1.3", config_path=f"pkg://{CONFIGS}", config_name=config_name)(guarded)()
    except SystemExit as end:
        statuses.append(int(end.code or 0))
    return max(statuses)
