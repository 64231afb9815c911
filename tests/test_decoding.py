"""The linear decoder: it finds what is there, nothing where nothing is, and is never tried on what it was made from."""

import numpy as np
import pytest
from jaxtyping import Float, Integer

from saccade.saliency import decode


def episodes(signal: float, dims: int = 12, count: int = 400) -> tuple[Float[np.ndarray, "E D"], Integer[np.ndarray, " E"]]:
    """Labels 0, 2 and 5, the last half of the time; numbers that show them, ``signal`` against noise of 1."""
    rng = np.random.default_rng(3)
    labels = rng.choice([0, 2, 5], p=[0.2, 0.3, 0.5], size=count)
    centres = rng.standard_normal((6, dims)) * signal
    return centres[labels] + rng.standard_normal((count, dims)), labels


def test_what_is_there_is_found() -> None:
    result = decode(*episodes(3.0))
    assert result.accuracy > 0.99
    assert result.chance == pytest.approx(0.5, abs=0.05)


def test_nothing_is_found_in_noise_however_much_there_is_of_it() -> None:
    # With more numbers than episodes any labels could be fitted: only episodes that were left out tell.
    assert decode(*episodes(0.0, dims=300, count=120)).accuracy < 0.5


def test_scales_and_constants_do_not_matter() -> None:
    numbers, labels = episodes(1.0)
    moved = np.concatenate([1e4 * numbers + 1e5, np.full((len(labels), 2), 7.0)], axis=1)
    assert decode(moved, labels).accuracy == pytest.approx(decode(numbers, labels).accuracy, abs=0.01)


def test_its_wants_are_named() -> None:
    numbers, labels = episodes(1.0)
    with pytest.raises(ValueError, match="at least 10 episodes, two a fold; got 9"):
        decode(numbers[:9], labels[:9])
