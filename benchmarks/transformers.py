"""Our Transformers against the way that implementations for PPO have them, and against an LSTM of as many weights.

    python benchmarks/transformers.py --json FILE           on one thread of a processor

Learning is a forward pass over a chunk, from a full window, and the gradient by the weights; acting is one step without
gradients, the state carried on. The peer is ``plain_transformer.py``: the same weights and outputs, but every step comes with a
window of its own, whose keys and values are made anew. Its gradients stop at the window, where ours flow on within the chunk;
with chunks of one step they are the same, and checked here. Both are told in milliseconds that they use of the processor,
whoever else uses it. Agents of about as many weights stand next to sb3-contrib's RecurrentPPO.
"""

from typing import Any

import harness
import peers
import plain_transformer as plain
import torch
from torch import nn

from saccade.agents import PPO
from saccade.policies import GTrXL, TrXL
from saccade.policies.transformer import WindowState, WindowTransformer

INPUTS, LAYERS, SIZE = 128, 4, 128
STEPS, WINDOW, LANES = 128, 64, 16
ACTING_LANES, ACTING_WINDOWS, MIDDLE = 8, (32, 128, 512), 128
PLAIN, LSTM = "a window for every step", "sb3_contrib RecurrentPPO"
TOLERANCE = 1e-4


def make(kind: type[WindowTransformer], window: int) -> WindowTransformer:
    """A core of the benchmark's size."""
    return kind((INPUTS,), hidden_size=SIZE, n_layers=LAYERS, window=window, feedforward_size=SIZE)


def full_state(core: WindowTransformer, lanes: int) -> WindowState:
    """A state after more steps than the window has."""
    steps = core.window + 1
    with torch.no_grad():
        starts = torch.zeros(steps, lanes, dtype=torch.bool)
        state: WindowState = core(torch.randn(steps, lanes, INPUTS), core.initial_state(lanes), starts).state
    return state


# --- Learning ----------------------------------------------------------------------------------------------------------------


def learning(core: WindowTransformer, lanes: int) -> harness.Work:
    """Forward and backward passes over one chunk."""
    inputs, starts, state = (
        torch.randn(STEPS, lanes, INPUTS),
        torch.zeros(STEPS, lanes, dtype=torch.bool),
        full_state(core, lanes),
    )

    def work() -> int:
        core.zero_grad()
        core(inputs, state, starts).features.square().sum().backward()
        return 1

    return work


def plain_learning(core: WindowTransformer, lanes: int) -> harness.Work:
    """The same with a window for every step, picked from what was stored while acting."""
    inputs = torch.randn(STEPS * lanes, INPUTS)
    stored = torch.randn(core.window + STEPS, lanes, LAYERS, SIZE)
    filled = torch.ones(STEPS * lanes, core.window, dtype=torch.bool)

    def work() -> int:
        core.zero_grad()
        features, _ = plain.run(core, inputs, plain.pick_windows(stored, core.window), filled)
        features.square().sum().backward()
        return 1

    return work


def check_same(core: WindowTransformer) -> None:
    """That ours and the plain one are the same: features over a chunk, and gradients over a step.

    Raises:
        ValueError: they are not.
    """
    lanes, steps = 3, 5
    state, inputs = full_state(core, lanes), torch.randn(steps, lanes, INPUTS)
    starts = torch.zeros(steps, lanes, dtype=torch.bool)
    ours = core(inputs, state, starts).features
    for t in range(steps):
        theirs, _ = plain.run(core, inputs[t], state.memory, state.filled > 0)
        both = [
            torch.autograd.grad(features.square().sum(), list(core.parameters()), retain_graph=True)
            for features in (core(inputs[t : t + 1], state, starts[:1]).features[0], theirs)
        ]
        furthest = max(float((a - b).abs().max() / b.abs().max().clamp(min=1)) for a, b in zip(*both, strict=True))
        if max(furthest, float((ours[t] - theirs).detach().abs().max())) > TOLERANCE:
            raise ValueError(f"{type(core).__name__} and the plain one differ at step {t}, their gradients by {furthest:.2g}")
        with torch.no_grad():
            state = core(inputs[t : t + 1], state, starts[:1]).state


def learning_rows(settings: harness.Settings) -> list[harness.Row]:
    """A chunk, in many lanes and in one."""
    rows = []
    for kind in (TrXL, GTrXL):
        core = make(kind, WINDOW)
        check_same(core)
        for lanes in (LANES, 1):
            work = {"ours": learning(core, lanes), PLAIN: plain_learning(core, lanes)}
            took = harness.milliseconds(work, 3 if settings.quick else 7, settings)
            name = f"{kind.__name__}, learning from {lanes} x {STEPS} steps"
            rows.append(harness.cost(name, "ms", took["ours"], took[PLAIN], PLAIN, goal=20 if lanes == LANES else None))
    return rows


# --- Acting ------------------------------------------------------------------------------------------------------------------


def acting(core: WindowTransformer, times: int) -> harness.Work:
    """Steps one after another, from a held window."""
    inputs, starts = torch.randn(1, ACTING_LANES, INPUTS), torch.zeros(1, ACTING_LANES, dtype=torch.bool)
    held: Any = core.hold(full_state(core, ACTING_LANES))

    def work() -> int:
        with torch.inference_mode():
            for _ in range(times):
                core(inputs, held, starts)
        return times

    return work


def plain_acting(core: WindowTransformer, times: int) -> harness.Work:
    """The same, with keys and values made anew from stored layer inputs."""
    inputs, state = torch.randn(ACTING_LANES, INPUTS), full_state(core, ACTING_LANES)
    filled = state.filled > 0

    def work() -> int:
        memory = state.memory
        with torch.inference_mode():
            for _ in range(times):
                _, layers = plain.run(core, inputs, memory, filled)
                memory = torch.cat([memory[:, :, 1:], layers[:, :, None]], dim=2)
        return times

    return work


def acting_rows(settings: harness.Settings) -> list[harness.Row]:
    """Windows of several lengths, and how the time grows with them."""
    times, rounds = (20, 3) if settings.quick else (100, 11)
    rows = []
    for kind in (TrXL, GTrXL):
        took = {}
        for window in ACTING_WINDOWS:
            core = make(kind, window)
            work = {"ours": acting(core, times), PLAIN: plain_acting(core, times)}
            took[window] = harness.milliseconds(work, rounds, settings)
            goal = 4.0 if window == MIDDLE else None
            name = f"{kind.__name__}, acting, {ACTING_LANES} lanes, window {window}"
            rows.append(harness.cost(name, "ms", took[window]["ours"], took[window][PLAIN], PLAIN, goal=goal))
        least, most = took[ACTING_WINDOWS[0]]["ours"], took[ACTING_WINDOWS[-1]]["ours"]
        longer = ACTING_WINDOWS[-1] / ACTING_WINDOWS[0]
        name = f"{kind.__name__}, acting, time for {longer:.0f} times the window"
        rows.append(harness.compare(name, "times", most / least, at_most=longer))
    return rows


# --- What is kept ------------------------------------------------------------------------------------------------------------


def memory_rows() -> list[harness.Row]:
    """What learning from one chunk needs of past steps: one window a lane, against one a step."""
    core = make(TrXL, WINDOW)
    ours = sum(leaf.nbytes for leaf in core.initial_state(LANES))
    windows = plain.pick_windows(torch.zeros(WINDOW + STEPS, LANES, LAYERS, SIZE), WINDOW).nbytes
    name = f"windows that {LANES} x {STEPS} steps learn with"
    return [harness.cost(name, "MiB", ours / 2**20, windows / 2**20, PLAIN)]


# --- Agents ------------------------------------------------------------------------------------------------------------------


def agent_rows(settings: harness.Settings) -> list[harness.Row]:
    """PPO on CartPole with each memory, and as many weights, one layer and a window of 32."""
    rollout: dict[str, Any] = {"n_steps": 128, "batch_size": 256, "n_epochs": 4}
    net = {"net_arch": [], "lstm_hidden_size": 64, "enable_critic_lstm": False, "shared_lstm": True}
    peer = peers.recurrent_ppo("MlpLstmPolicy", peers.cartpole(8), **rollout, policy_kwargs=net)
    work, counts = {LSTM: learn(peer)}, {LSTM: weights(peer.policy)}
    for kind, wide in ((TrXL, 52), (GTrXL, 36)):
        sizes = {"hidden_size": wide, "n_layers": 1, "n_heads": 4, "window": 32, "feedforward_size": wide}
        kwargs = {"net_arch": [], "core_class": kind, "core_kwargs": sizes}
        ours = PPO("CorePolicy", peers.cartpole(8), **rollout, policy_kwargs=kwargs, device="cpu")
        work[kind.__name__], counts[kind.__name__] = learn(ours), weights(ours.policy)
    rates = harness.median_rates(work, 3 if settings.quick else 7, settings.clock)
    return [
        harness.compare(f"PPO + {who}, CartPole, {counts[who]:,} weights", "steps/s", rates[who], rates[LSTM], named)
        for named in [f"{LSTM}, {counts[LSTM]:,} weights"]
        for who in ("TrXL", "GTrXL")
    ]


def learn(agent: Any) -> harness.Work:
    """One rollout and what is learned from it."""
    steps = agent.n_steps * agent.n_envs

    def work() -> int:
        agent.learn(steps, reset_num_timesteps=False)
        return steps

    return work


def weights(network: nn.Module) -> int:
    """How many."""
    return sum(parameter.numel() for parameter in network.parameters())


def measure(settings: harness.Settings) -> list[harness.Row]:
    """All rows."""
    torch.manual_seed(0)
    return learning_rows(settings) + acting_rows(settings) + memory_rows() + agent_rows(settings)


if __name__ == "__main__":
    harness.main(__doc__, measure)
