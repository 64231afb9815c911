"""How the tests run the commands: in this process, as a shell would see them."""

import sys

import pytest
from hydra.core.global_hydra import GlobalHydra

from saccade.scripts.main import main

TINY = ["total_timesteps=64", "saliency.every=0", "evaluation.episodes=2", "progress_bar=false", "threads=1", "env.n_envs=2"]


def saccade(*arguments: str) -> int:
    """Run ``saccade ARGUMENTS`` and return its exit status; output goes where pytest's ``capsys`` finds it."""
    GlobalHydra.instance().clear()
    before = list(sys.argv)
    try:
        main(arguments)
    except SystemExit as exit_:
        return int(exit_.code or 0)
    finally:
        sys.argv = before
        GlobalHydra.instance().clear()
    return 0


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must be refused with status 2, and return what it says."""
    assert saccade(*arguments) == 2
    return capsys.readouterr().err
