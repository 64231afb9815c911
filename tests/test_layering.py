"""Imports run one way (docs/architecture.md), and always under the name ``saccade``."""

import ast
from collections.abc import Iterator

import pytest

from repository import PACKAGES, ROOT, modules

MAY_IMPORT = {
    "policies": set(),
    "envs": set(),
    "conf": set(),
    "agents": {"policies"},
    "saliency": {"policies", "agents"},
    "scripts": {"agents", "policies", "saliency", "envs", "conf"},
    # Users of the package, not part of it.
    "tests": set(PACKAGES),
    "benchmarks": set(PACKAGES),
}


def imports(source: str) -> Iterator[str]:
    """Dotted names that a file imports; relative ones keep their dots in front."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                start = "." * level + (f"{module}." if module else "")
                yield from (start + alias.name for alias in names)
            case ast.Call(
                func=ast.Attribute(attr="import_module") | ast.Name(id="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name


def violations(folder: str, source: str) -> list[str]:
    """The imports of a file in ``folder`` that break the rule."""
    broken = []
    for name in imports(source):
        top, _, rest = name.partition(".")
        package = rest.partition(".")[0]
        if top in PACKAGES:
            broken.append(f"{name}: import it as saccade.{name}")
        elif not top:
            broken.append(f"{name}: relative")
        elif top == "saccade" and package != folder and package not in MAY_IMPORT[folder]:
            broken.append(f"{name}: {folder} may not import it")
    return broken


def test_every_package_has_a_rule() -> None:
    assert set(PACKAGES) < set(MAY_IMPORT)


@pytest.mark.parametrize("path", modules(*MAY_IMPORT))
def test_imports_run_one_way(path: str) -> None:
    assert violations(path.partition("/")[0], (ROOT / path).read_text()) == []


@pytest.mark.parametrize(
    ("folder", "line"),
    [
        ("policies", "from saccade.agents import PQN"),
        ("policies", "from saccade import envs"),
        ("policies", "import saccade.saliency.film"),
        ("policies", "def f():\n    import saccade.scripts.main"),
        ("envs", "from saccade.policies.core import Core"),
        ("agents", "import torch, saccade.envs.catch"),
        ("agents", "from saccade.saliency import film"),
        ("saliency", "from saccade.scripts.main import main"),
        ("saliency", "import importlib\nimportlib.import_module('saccade.envs.catch')"),
        ("scripts", "from agents.pqn import PQN"),
        ("tests", "import envs"),
        ("agents", "from ..envs import catch"),
        ("agents", "import saccade"),
    ],
)
def test_a_planted_violation_is_caught(folder: str, line: str) -> None:
    assert len(violations(folder, line)) == 1


@pytest.mark.parametrize(
    ("folder", "line"),
    [
        ("policies", "from saccade.policies.core import Core"),
        ("agents", "from saccade.policies import QPolicy"),
        ("saliency", "from saccade.agents import PQN"),
        ("scripts", "from saccade.envs import Catch"),
        ("envs", "import gymnasium.envs"),
        ("policies", "from stable_baselines3.common import policies"),
    ],
)
def test_an_allowed_import_passes(folder: str, line: str) -> None:
    assert violations(folder, line) == []
