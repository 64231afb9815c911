"""The tests see wrong shapes: annotations of the package are checked while they run (tests/conftest.py)."""

import importlib

import pytest
import torch
from jaxtyping import TypeCheckError

from repository import PACKAGES, module_name, modules
from saccade.policies.core import reset_state


def test_a_wrong_shape_is_caught() -> None:
    with pytest.raises(TypeCheckError, match="starts"):
        reset_state(torch.zeros(3, 2), torch.zeros(3, 2), torch.zeros(3, 2, dtype=torch.bool))


@pytest.mark.parametrize("name", [module_name(path) for path in modules(*PACKAGES) if not path.endswith("__init__.py")])
def test_every_module_is_checked(name: str) -> None:
    assert type(importlib.import_module(name).__loader__).__module__ == "jaxtyping._import_hook"
