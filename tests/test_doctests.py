"""Every module imports without a warning, and the examples in its docstrings hold."""

import doctest
import importlib

import pytest

from repository import PACKAGES, module_name, modules


@pytest.mark.parametrize("name", [module_name(path) for path in modules(*PACKAGES)])
def test_examples_in_docstrings(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
