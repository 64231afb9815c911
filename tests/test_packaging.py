"""One import name over top-level folders: what is declared, what is in the wheel, and the size of files."""

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from repository import PACKAGES, PYPROJECT, ROOT, modules

VERSION = PYPROJECT["project"]["version"]


def files(folder: str) -> set[str]:
    """Every file of a package folder, as a path from the root."""
    found = (path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT).as_posix() for path in found}


def test_every_package_folder_is_declared() -> None:
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks"}
    assert folders == set(PACKAGES)
    assert PYPROJECT["tool"]["setuptools"]["package-dir"] == {f"saccade.{name}": name for name in PACKAGES}


def test_bare_names_are_banned() -> None:
    assert set(PYPROJECT["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]) == set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_package_is_flat_and_typed(package: str) -> None:
    # A sub-package would import from a checkout and be missing from the wheel.
    assert [path for path in modules(package) if path.count("/") > 1] == []
    assert (ROOT / package / "py.typed").is_file()


def test_type_checkers_see_one_link_a_package() -> None:
    links = {path.name: path.readlink().as_posix() for path in (ROOT / ".typings" / "saccade").iterdir()}
    assert links == {name: f"../../{name}" for name in PACKAGES}


def test_versions_agree() -> None:
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited is not None
    assert cited[1] == VERSION
    assert VERSION in (ROOT / "CHANGELOG.md").read_text()


def test_torch_is_pinned_exactly() -> None:
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in pins if line.startswith("torch==") and "+" not in line]
    assert [line for line in pins if not re.fullmatch(r"#.*|[\w.-]+==[\w.!]+", line)] == []


@pytest.mark.parametrize("path", modules(*PACKAGES, "tests", "benchmarks"))
def test_files_and_functions_are_short(path: str) -> None:
    source = (ROOT / path).read_text()
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    assert len(source.splitlines()) <= 300, "a file has one idea, in at most 300 lines"
    assert {name: length for name, length in lengths.items() if length > 60} == {}, "a function has at most 60 lines"


def test_wheel_holds_every_file(tmp_path: Path) -> None:
    # Built from a copy: setuptools would pick up removed modules from a build/ left in the checkout.
    source = tmp_path / "source"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(source)], check=True, timeout=120)

    [wheel] = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    code = {name for name in names if not name.startswith(f"saccade-{VERSION}.dist-info/")}
    assert code == {f"saccade/{path}" for package in PACKAGES for path in files(package)}
    assert f"saccade-{VERSION}.dist-info/licenses/LICENSE" in names
