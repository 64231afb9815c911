"""Multi-head attention over a window of past steps, by content and by how long ago they were.

Vaswani et al. 2017 (arXiv:1706.03762) for the heads; Dai et al. 2019, "Transformer-XL" (arXiv:1901.02860), appendix B, for the
relative positions, and Shaw et al. 2018 (arXiv:1803.02155), section 3.2, for a largest one; Lim et al. 2019, "Temporal Fusion
Transformers" (arXiv:1912.09363), eq. 13 to 16, for values that all heads share. Shapes: ``T`` steps that ask, ``B`` lanes,
``W`` steps of the window before the one that asks, ``S = W + T`` steps that can be looked at, oldest first, ``H`` heads of
``d`` numbers, ``D`` features.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from saccade.policies.band_attention import BandAttention
from saccade.policies.tap import is_recording


class Projected(NamedTuple):
    """What steps show to those that look at them; ``G`` heads of values: ``H``, or 1 where all heads share them."""

    keys: Float[Tensor, "S B H d"]
    values: Float[Tensor, "S B G d"]


class Attended(NamedTuple):
    """What was read; and, in a recording, the weights by which: of a step ``W`` before the one that asks first, itself last."""

    features: Float[Tensor, "T B D"]
    weights: Float[Tensor, "B H T W1"] | None


class RelativeAttention(nn.Module):
    """Every step attends to itself and to the ``W`` steps before it.

    The score of step ``j`` for step ``i`` is ``(q_i + u)·k_j + (q_i + v)·r_{i-j}``, by ``√d`` (Dai et al. 2019, appendix B);
    ``r_{i-j}`` is made from sines and cosines of the distance.

    Args:
        size: ``D``.
        n_heads: ``H``.
        window: ``W``.
        shared_values: the heads share their values, and what they read is averaged (Lim et al. 2019): then the mean of the
            heads' weights is what acts, and can be shown.
        max_distance: all steps that are longer ago than this are taken to be just so long ago (Shaw et al. 2018); ``None`` for
            no such limit.

    Raises:
        ValueError: ``n_heads`` does not divide ``size``; names the nearest that do.
    """

    distances: Tensor

    def __init__(
        self, size: int, n_heads: int, window: int, shared_values: bool = False, max_distance: int | None = None
    ) -> None:
        super().__init__()
        check_heads(size, n_heads)
        self.size, self.n_heads, self.window, self.head_size = size, n_heads, window, size // n_heads
        self.value_heads = 1 if shared_values else n_heads
        self.query = nn.Linear(size, size, bias=False)
        self.key = nn.Linear(size, size, bias=False)
        self.value = nn.Linear(size, self.value_heads * self.head_size, bias=False)
        self.position = nn.Linear(size, size, bias=False)
        self.output = nn.Linear(self.value_heads * self.head_size, size, bias=False)
        # u and v of every head.
        self.content_bias = nn.Parameter(torch.zeros(n_heads, self.head_size))
        self.position_bias = nn.Parameter(torch.zeros(n_heads, self.head_size))
        distances = torch.arange(window, -1, -1).clamp(max=window if max_distance is None else max_distance)
        self.register_buffer("distances", sinusoids(distances, size), persistent=False)

    def project(self, steps: Float[Tensor, "S B D"]) -> Projected:
        """Keys and values of steps that can be looked at."""
        keys = self.key(steps).unflatten(-1, (self.n_heads, self.head_size))
        return Projected(keys, self.value(steps).unflatten(-1, (self.value_heads, self.head_size)))

    def positions(self, window: int) -> Float[Tensor, "H W1 d"]:
        """``r`` of the distances from ``window`` down to 0."""
        return heads_first(self.position(self.distances[-window - 1 :])[:, None], self.n_heads)[:, 0]

    def queries(self, asking: Float[Tensor, "T B D"]) -> tuple[Float[Tensor, "T B H d"], Float[Tensor, "T B H d"]]:
        """``q + u`` and ``q + v``, by ``√d``."""
        query = self.query(asking).unflatten(-1, (self.n_heads, self.head_size))
        scale = self.head_size**-0.5
        return (query + self.content_bias) * scale, (query + self.position_bias) * scale

    def forward(
        self,
        asking: Float[Tensor, "T B D"],
        steps: Float[Tensor, "S B D"],
        hidden: Float[Tensor, "B T S"] | None,
    ) -> Attended:
        """What ``T`` steps read from the window before them, and from themselves.

        Args:
            asking: the last ``T`` of ``steps``.
            steps: the steps before the first that asks, ``W`` or fewer, then those that ask.
            hidden: what is added to scores: minus infinity where a step of the window cannot be looked at, else 0; ``None``
                where all can.
        """
        query = heads_first(self.query(asking), self.n_heads)
        scale = self.head_size**-0.5
        read, weights = BandAttention.apply(  # type: ignore[no-untyped-call]
            (query + self.content_bias[:, None, None]) * scale,
            (query + self.position_bias[:, None, None]) * scale,
            heads_first(self.key(steps), self.n_heads),
            heads_first(self.value(steps), self.value_heads),
            self.positions(len(steps) - len(asking)),
            hidden,
            is_recording(),
        )
        features = self.output(read.permute(2, 1, 0, 3).flatten(2))
        return Attended(features, None if weights is None else weights.transpose(0, 1))


def heads_first(features: Float[Tensor, "S B HD"], n_heads: int) -> Float[Tensor, "H B S d"]:
    """Features of heads one after another, apart."""
    return features.unflatten(-1, (n_heads, -1)).permute(2, 1, 0, 3).contiguous()


def count_episodes(filled: Bool[Tensor, "B W"], episode_starts: Bool[Tensor, "T B"]) -> Int[Tensor, "B S"]:
    """Which episode each step belongs to: 0 the one that is going on before the first, then 1 ...; -1 where there is no step.

    Args:
        filled: whether a slot of the window holds a step of the episode that is going on.
        episode_starts: where an episode starts.
    """
    return torch.cat([filled.to(torch.int64) - 1, episode_starts.cumsum(0).t()], dim=1)


def hidden_steps(episodes: Int[Tensor, "B S"], window: int, dtype: torch.dtype) -> Float[Tensor, "B T S"] | None:
    """What to add to scores so that no step sees another episode, or a slot that holds nothing; ``None`` if that is nothing."""
    if not episodes.any():
        return None
    apart = episodes[:, window:, None] != episodes[:, None, :]
    return torch.zeros(apart.shape, dtype=dtype, device=apart.device).masked_fill_(apart, float("-inf"))


def sinusoids(distances: Tensor, size: int) -> Float[Tensor, "distances D"]:
    """Sines, then cosines, of distances (Vaswani et al. 2017, section 3.5)."""
    frequencies = 10_000.0 ** -(torch.arange(0, size, 2) / size)
    angles = distances[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)[:, :size]


def check_heads(size: int, n_heads: int, name: str = "hidden_size") -> None:
    """Refuse heads that do not share the features equally.

    Raises:
        ValueError: names the nearest numbers that do.
    """
    if size % n_heads:
        valid = sorted((n for n in range(1, size + 1) if size % n == 0), key=lambda n: abs(n - n_heads))[:3]
        raise ValueError(
            f"n_heads={n_heads} does not divide {name}={size}; nearest valid: {', '.join(map(str, sorted(valid)))}"
        )
