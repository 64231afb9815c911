"""Learning rates over a training."""

import pytest

from saccade.agents import LinearWarmup


def test_the_rate_rises_to_its_peak_and_falls_to_its_end() -> None:
    schedule = LinearWarmup(peak=0.1, end=0.02, warmup=0.2)
    assert 0 < schedule(1) == schedule(1.0) < 0.001  # SB3 begins with a whole number
    assert schedule(0.9) == pytest.approx(0.05)
    assert schedule(0.8) == pytest.approx(0.1)
    assert schedule(0.4) == pytest.approx(0.06)
    assert schedule(0.0) == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"peak": 0.0}, "peak must be positive; got 0.0"),
        ({"peak": 0.1, "end": -0.1}, "end must be at least 0; got -0.1"),
        ({"peak": 0.1, "warmup": 0.0}, "warmup must be above 0 and below 1; got 0.0"),
        ({"peak": 0.1, "warmup": 1.0}, "warmup must be above 0 and below 1; got 1.0"),
    ],
)
def test_no_schedule_is_made_of_numbers_that_are_none(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LinearWarmup(**arguments)
