"""What a step costs as the canvas grows: a glimpse, which reads as many pixels of any, beside convolutions over the whole.

    python benchmarks/canvas.py --json FILE

One step without gradients of a Q policy in a few lanes, pictures as bytes, as they come from an environment. Ours is the
recurrent glimpse of Mnih et al. 2014 with three scales of 12x12 pixels. Its peer has the three convolutions of Mnih et al. 2015
over the whole canvas, the mean of each channel, and the same LSTM and head. The goal is the paper's claim: with a glimpse, what
a step costs does not depend on how large the picture is.
"""

from functools import partial

import gymnasium as gym
import harness
import numpy as np
import torch
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor

from saccade.policies import LSTM, ConvGrid, QPolicy, RecurrentGlimpse, Retina

SIDES = (60, 125, 250, 500, 1000)
LANES, TIMES, ROUNDS, QUICK = 8, 20, 7, 3
FLAT = 1.1
CONVOLUTIONS = "convolutions over the whole"


class Averaged(BaseFeaturesExtractor):
    """Convolutions, and the mean of each channel over all places."""

    def __init__(self, observation_space: gym.Space[gym.spaces.Box]) -> None:
        grid = ConvGrid(observation_space)
        super().__init__(observation_space, grid.output_shape[0])
        self.grid = grid

    def forward(self, observations: Tensor) -> Tensor:
        """``[B, C, H, W]`` to ``[B, D]``."""
        return self.grid(observations).mean((-2, -1))


def acting(policy: QPolicy, side: int, times: int) -> harness.Work:
    """So many steps; the unit is one step of one lane."""
    pictures = np.random.default_rng(0).integers(256, size=(1, LANES, 1, side, side), dtype=np.uint8)
    starts = torch.zeros(1, LANES, dtype=torch.bool)

    def work() -> int:
        state = policy.initial_state(LANES)
        with torch.inference_mode():
            for _ in range(times):
                state = policy(torch.as_tensor(pictures), state, starts).core.state
        return times * LANES

    return work


def policies(side: int) -> dict[str, QPolicy]:
    """Ours and the peer, on canvases of that many pixels a side."""
    make = partial(QPolicy, gym.spaces.Box(0, 255, (1, side, side), np.uint8), gym.spaces.Discrete(10), lambda _: 1e-3)
    glimpse = make(core_class=RecurrentGlimpse, core_kwargs={"retina": partial(Retina, patch_size=12, scales=3)})
    return {"ours": glimpse, CONVOLUTIONS: make(core_class=LSTM, features_extractor_class=Averaged)}


def measure(how: harness.Settings) -> list[harness.Row]:
    """A row for each size of the canvas."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    work: dict[str, harness.Work] = {}
    for side in SIDES:
        for name, policy in policies(side).items():
            work[f"{name} {side}"] = acting(policy, side, 1 if name == CONVOLUTIONS and side > SIDES[1] else TIMES)
    took = harness.milliseconds(work, QUICK if how.quick else ROUNDS, how)
    rows = []
    for side in SIDES:
        ours, peer = (1000 * took[f"{name} {side}"] for name in ("ours", CONVOLUTIONS))
        first, first_peer = (1000 * took[f"{name} {SIDES[0]}"] for name in ("ours", CONVOLUTIONS))
        rows.append(harness.cost(f"{side} pixels a side: a step of a lane", "µs", ours, peer, CONVOLUTIONS))
        growth = ours / first, peer / first_peer
        name = f"{side} pixels a side: by that of {SIDES[0]}"
        rows.append(harness.compare(name, "times", *growth, CONVOLUTIONS, at_most=FLAT))
    return rows


if __name__ == "__main__":
    harness.main(__doc__.partition("\n")[0], measure)
