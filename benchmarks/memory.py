"""Our external memories against their peers, of the same sizes and with as many weights.

    python benchmarks/memory.py --json FILE                 on one thread of a processor

Learning is a forward pass over a sequence, from the initial state, and the gradient by weights and inputs; acting is one step
without gradients, the state carried on. Both are told in milliseconds that they use of the processor, whoever else uses it, and
without layers before or after the memory. The DNC's peer is the ``dnc`` package as its users call it; the NTM's is
``plain_ntm.py``. ``nn.LSTM``, of 128 units, stands next to both: what a memory costs beyond one.

Peers are measured here, not believed. The package, called over a sequence, gives the controller at *every* step the vectors
that were read before the call: less work than the paper's network, which ours is, and another function. Nor can an episode
start in the middle of its sequences; here none does.

``floor`` is how long the multiplications of the paper's equations alone would take, at the rate of large matrix products. What
learning needs of memory, graph included, is measured in processes of its own, on Linux.
"""

import gc
import statistics
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import dnc
import harness
import torch
from floors import operations, peak
from plain_ntm import PlainNTM
from torch import Tensor, nn

from saccade.policies import DNC, NTM
from saccade.policies.core import Core

INPUTS, STEPS, LANES = 32, 64, 16
ACTING_LANES = (1, 8)
GROWTH_STEPS, GROWTH_LANES, GROWTH_SLOTS, LINKS = 32, 8, 64, 8
PACKAGE, PLAIN, LSTM = f"dnc {version('dnc')}", "step by step", "nn.LSTM"

Run: TypeAlias = Callable[[Tensor, Tensor, Any], tuple[Tensor, Any]]
"""From inputs ``[T, B, I]``, where episodes start ``[T, B]``, and the state before (``None``: the initial one), to features and
the state after."""


class Entrant(NamedTuple):
    """A network, and how to call it."""

    network: nn.Module
    run: Run


class Goals(NamedTuple):
    """The least ratios to the peer, where there are any: learning, and acting in one lane."""

    learning: float
    acting: float | None


# --- Who is measured ---------------------------------------------------------------------------------------------------------


def of_core(core: Core) -> Entrant:
    """One of ours."""

    def run(inputs: Tensor, starts: Tensor, state: Any) -> tuple[Tensor, Any]:
        output = core(inputs, core.initial_state(inputs.shape[1]) if state is None else state, starts)
        return output.features, output.state

    return Entrant(core, run)


def of_package() -> Entrant:
    """The DNC of the ``dnc`` package at our sizes: one LSTM of one layer, and the interface in one linear layer.

    Its layer for outputs does nothing here: ours leaves that to the heads.
    """
    sizes = {"nr_cells": 64, "cell_size": 32, "read_heads": 4}
    network = dnc.DNC(INPUTS, 128, rnn_type="lstm", num_layers=1, num_hidden_layers=1, independent_linears=False, **sizes)
    network.output = nn.Identity()

    def run(inputs: Tensor, starts: Tensor, state: Any) -> tuple[Tensor, Any]:
        if state is None:
            return network(inputs.transpose(0, 1), (None, None, None), reset_experience=True)
        return network(inputs.transpose(0, 1), state)

    return Entrant(network, run)


def of_torch(network: nn.Module) -> Entrant:
    """Of anything that is called with a sequence and a state."""
    return Entrant(network, lambda inputs, starts, state: network(inputs, state))


ENTRANTS: dict[str, Callable[[], Entrant]] = {
    "DNC": lambda: of_core(DNC((INPUTS,))),
    PACKAGE: of_package,
    "NTM": lambda: of_core(NTM((INPUTS,))),
    PLAIN: lambda: of_torch(PlainNTM(INPUTS)),
    LSTM: lambda: of_torch(nn.LSTM(INPUTS, 128)),
}
CONTESTS = {"DNC": (PACKAGE, Goals(2.5, 3.0)), "NTM": (PLAIN, Goals(3.0, None))}


def entrants() -> dict[str, Entrant]:
    """All of them.

    Raises:
        ValueError: one of ours has another number of weights than its peer.
    """
    made = {name: make() for name, make in ENTRANTS.items()}
    counts = {name: sum(weight.numel() for weight in entrant.network.parameters()) for name, entrant in made.items()}
    for ours, (peer, _) in CONTESTS.items():
        if counts[ours] != counts[peer]:
            raise ValueError(f"our {ours} has {counts[ours]} weights, and its peer, {peer}, {counts[peer]}")
    return made


# --- What they do ------------------------------------------------------------------------------------------------------------


def learning(entrant: Entrant, steps: int, lanes: int, times: int = 1) -> harness.Work:
    """Forward and backward passes over one sequence."""
    inputs, starts = torch.randn(steps, lanes, INPUTS, requires_grad=True), torch.zeros(steps, lanes, dtype=torch.bool)

    def work() -> int:
        for _ in range(times):
            entrant.network.zero_grad()
            features, _ = entrant.run(inputs, starts, None)
            features.backward(torch.ones_like(features))
        return times

    return work


def acting(entrant: Entrant, lanes: int, times: int) -> harness.Work:
    """Steps one after another."""
    inputs, starts = torch.randn(1, lanes, INPUTS), torch.zeros(1, lanes, dtype=torch.bool)

    def work() -> int:
        state = None
        with torch.inference_mode():
            for _ in range(times):
                _, state = entrant.run(inputs, starts, state)
        return times

    return work


def extra_bytes(before: harness.Work, work: harness.Work) -> int:
    """By how much this process grows at most while it works, counted from what it holds after it did something like it."""
    before()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark falls to what is held now
    held = status("VmRSS")
    work()
    return status("VmHWM") - held


def status(what: str) -> int:
    """Bytes, as the kernel tells them of this process."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(lines[what].split()[0])


def learning_bytes(name: str) -> int:
    """Of this process, which nothing else has filled, for learning; what is loaded or made once is there already."""
    entrant = ENTRANTS[name]()
    return extra_bytes(learning(entrant, 2, LANES), learning(entrant, STEPS, LANES))


# --- Rows --------------------------------------------------------------------------------------------------------------------


def products(core: DNC | NTM) -> int:
    """Multiplications of a step in the memory itself, by the papers' equations: a whole link matrix, every slot and head."""
    slots, words = core.slots, core.slots * core.width
    if isinstance(core, DNC):
        heads = core.read_heads
        links = (2 + 2 * heads) * slots**2  # L decays and grows; both directions of it for every head
        return (heads + 1) * words + heads * words + 2 * words + links  # keys, reads, erasing and adding
    heads, shifts = core.read_heads + core.write_heads, 2 * core.max_shift + 1
    return heads * (words + slots * shifts) + core.read_heads * words + 2 * core.write_heads * words


def floor_of(core: nn.Module, steps: int, lanes: int, rate: float) -> float:
    """Milliseconds that learning needs for its arithmetic: a forward pass, and a gradient by either factor of each product.

    Args:
        core: ours, with the whole link matrix.
        steps: in a sequence.
        lanes: side by side.
        rate: floating-point operations a second.
    """
    assert isinstance(core, DNC | NTM)
    each = operations(core, None, forward=0, learned=1) + 2 * 3 * products(core)
    return 1000 * each * steps * lanes / rate


def learning_rows(made: dict[str, Entrant], rate: float, settings: harness.Settings) -> list[harness.Row]:
    """Ours against the peer and against an LSTM."""
    times, rounds = (1, 3) if settings.quick else (2, 11)
    took = harness.milliseconds({who: learning(made[who], STEPS, LANES, times) for who in made}, rounds, settings)
    rows = []
    for ours, (peer, goals) in CONTESTS.items():
        name = f"{ours}, learning from {LANES} x {STEPS} steps"
        least = floor_of(made[ours].network, STEPS, LANES, rate)
        rows.append(harness.cost(name, "ms", took[ours], took[peer], peer, goal=goals.learning, floor=least))
        rows.append(harness.cost(f"{name}, against an LSTM", "ms", took[ours], took[LSTM], LSTM))
    return rows


def acting_rows(made: dict[str, Entrant], settings: harness.Settings) -> list[harness.Row]:
    """The same for a step."""
    times, rounds = (50, 5) if settings.quick else (200, 11)
    rows = []
    for lanes in ACTING_LANES:
        took = harness.milliseconds({who: acting(made[who], lanes, times) for who in made}, rounds, settings)
        for ours, (peer, goals) in CONTESTS.items():
            name = f"{ours}, acting, {lanes} {'lane' if lanes == 1 else 'lanes'}"
            rows.append(harness.cost(name, "ms", took[ours], took[peer], peer, goal=goals.acting if lanes == 1 else None))
            rows.append(harness.cost(f"{name}, against an LSTM", "ms", took[ours], took[LSTM], LSTM))
    return rows


def bytes_rows(settings: harness.Settings) -> list[harness.Row]:
    """What learning needs of memory; no row where the kernel does not tell."""
    if not Path("/proc/self/clear_refs").exists():
        return []

    def mebibytes(names: Iterable[str]) -> dict[str, float]:
        found: dict[str, list[int]] = {name: [] for name in names}
        for _ in range(1 if settings.quick else 3):
            for name, samples in found.items():
                with ProcessPoolExecutor(1, get_context("spawn")) as process:
                    samples.append(process.submit(learning_bytes, name).result())
        return {name: statistics.median(samples) / 2**20 for name, samples in found.items()}

    name = f"DNC, memory for learning from {LANES} x {STEPS} steps"
    needed = mebibytes(["DNC", PACKAGE])
    return [harness.cost(name, "MiB", needed["DNC"], needed[PACKAGE], PACKAGE)]


def growth_rows(rate: float, settings: harness.Settings) -> list[harness.Row]:
    """Ours with more slots, with few links of each, and over longer sequences."""
    by_slots = {(slots, GROWTH_STEPS): DNC((INPUTS,), slots) for slots in (32, 64, 128, 256)}
    by_steps = {(GROWTH_SLOTS, steps): by_slots[GROWTH_SLOTS, GROWTH_STEPS] for steps in (64, 128)}
    sparse = {size: DNC((INPUTS,), size[0], link_slots=LINKS) for size in by_slots}
    named = partial("DNC, {} slots, learning from {lanes} x {} steps".format, lanes=GROWTH_LANES)
    few = f", {LINKS} links a slot"
    cores = {named(*size): (core, size[1]) for size, core in (by_slots | by_steps).items()}
    cores |= {named(*size) + few: (core, size[1]) for size, core in sparse.items()}
    work = {name: learning(of_core(core), steps, GROWTH_LANES) for name, (core, steps) in cores.items()}
    took = harness.milliseconds(work, 3 if settings.quick else 11, settings)
    rows = []
    for name, (core, steps) in cores.items():
        if name.endswith(few):
            rows.append(harness.cost(name, "ms", took[name], took[name.removesuffix(few)], "ours, all links"))
        else:
            rows.append(harness.cost(name, "ms", took[name], floor=floor_of(core, steps, GROWTH_LANES, rate)))
    return rows


def measure(settings: harness.Settings) -> list[harness.Row]:
    """All rows."""
    torch.manual_seed(0)
    made, rate = entrants(), peak(torch.float32, settings)
    rows = learning_rows(made, rate, settings) + acting_rows(made, settings)
    return rows + bytes_rows(settings) + growth_rows(rate, settings)


if __name__ == "__main__":
    harness.main(__doc__, measure)
