"""Set up before any test module is read: shape checks on every annotation of the package, one thread, fixed seeds."""

import os
import random
import sys

import numpy as np
import pytest
import torch
from jaxtyping import install_import_hook

early = sorted(name for name in sys.modules if name.startswith("saccade."))
if early:
    raise RuntimeError(f"imported before their shapes could be checked: {', '.join(early)}")
install_import_hook("saccade", "beartype.beartype")

# Tests run side by side; for the commands they start, too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - SB3 draws from numpy's global generator
    torch.manual_seed(0)
