"""The law of acting from a held state (``Core.hold``), a correct core that holds one, and broken ones."""

import copy
from typing import Any

import torch
from torch import Tensor

from broken_cores import Leaky
from examples import T, assert_equal, example
from saccade.policies import Core, CoreOutput


@torch.no_grad()
def check_held_states(core: Core) -> None:
    """Acting from a held state is acting, past resets; what is released is the state; what was held is left as it was."""
    call = example(core)
    kept = copy.deepcopy(call.state)
    held, state = core.hold(call.state), call.state
    assert_equal(core.release(state), state)
    for t in range(2 * T):
        now = call.steps(t % T, t % T + 1, state)
        plain, output = core(*now), core(*now._replace(state=held))
        assert_equal(output.features, plain.features, 1e-5)
        held, state = output.state, plain.state
        assert_equal(core.release(held), state, 1e-5)
    assert_equal(call.state, kept)


class Held:
    """The state of acting, written over in every step."""

    def __init__(self, leaf: Tensor) -> None:
        self.leaf = leaf


class Holds(Leaky):
    """A leaky integrator that acts in place, correct."""

    def hold(self, state: Any) -> Any:
        return Held(state[0].clone())

    def release(self, held: Any) -> Any:
        return (held.leaf.clone(),) if isinstance(held, Held) else held

    def run_one(self, inputs: Tensor, state: Any, episode_starts: Tensor, *how: Any) -> CoreOutput:
        if not isinstance(state, Held):
            return super().run_one(inputs, state, episode_starts, *how)
        self.reset_held(state.leaf, episode_starts[0])
        state.leaf.mul_(self.keep.detach()).add_(self.read(inputs[0]).detach()).tanh_()
        return CoreOutput(state.leaf[None].clone(), state)

    def reset_held(self, leaf: Tensor, starts: Tensor) -> None:
        leaf[starts] = 0


class HoldsWithoutACopy(Holds):
    def hold(self, state: Any) -> Any:
        return Held(state[0])


class HoldsThroughResets(Holds):
    def reset_held(self, leaf: Tensor, starts: Tensor) -> None:
        pass


class ReleasesTheStateItBeganWith(Holds):
    def hold(self, state: Any) -> Any:
        held = super().hold(state)
        held.first = state
        return held

    def release(self, held: Any) -> Any:
        return held.first if isinstance(held, Held) else held
