"""Learning rates over a training, beside SB3's: called with the share of it that remains, from 1 down to 0."""

from dataclasses import dataclass

from saccade.agents.arguments import check_least, check_positive


@dataclass(frozen=True)
class LinearWarmup:
    """From nearly 0 up to a peak, and then down again, both in a straight line.

    Layers that are normalised after each addition, as those of a Universal Transformer, begin with gradients that are large
    near the output, and a full rate at once can spoil them for good (Xiong et al. 2020, "On Layer Normalization in the
    Transformer Architecture", arXiv:2002.04745).

    Args:
        peak: the highest rate.
        end: the rate at the end.
        warmup: the share of the training until the peak.

    Raises:
        ValueError: ``peak`` is not positive, ``end`` is negative, or ``warmup`` is not in (0, 1).
    """

    peak: float
    end: float = 0.0
    warmup: float = 0.05

    def __post_init__(self) -> None:
        """Refuse what is no schedule."""
        check_positive(peak=self.peak)
        check_least(0, end=self.end)
        if not 0 < self.warmup < 1:
            raise ValueError(f"warmup must be above 0 and below 1; got {self.warmup}")

    def __call__(self, progress_remaining: float | int) -> float:
        """The rate when so much of the training remains."""
        done = 1 - progress_remaining
        if done < self.warmup:
            # An update with a rate of 0 would be lost.
            return self.peak * max(done / self.warmup, 1e-3)
        return self.end + (self.peak - self.end) * progress_remaining / (1 - self.warmup)
