"""The checkout as the tests about its shape see it: packages and their files, from pyproject.toml."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = [name.removeprefix("saccade.") for name in PYPROJECT["tool"]["setuptools"]["packages"]]


def modules(*folders: str) -> list[str]:
    """Every Python file in these folders, as a path from the root."""
    return sorted(path.relative_to(ROOT).as_posix() for folder in folders for path in (ROOT / folder).rglob("*.py"))


def module_name(path: str) -> str:
    """``agents/pqn.py`` is imported as ``saccade.agents.pqn``."""
    return "saccade." + path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
