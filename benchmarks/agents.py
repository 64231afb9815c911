"""Our agents against their peers: the same network, rollout, minibatches and epochs.

    python benchmarks/agents.py --json FILE                 on one thread of a processor
    python benchmarks/agents.py --device cuda --json FILE   with networks on a GPU

A unit of work is one call of ``learn`` that goes on with the training: acting, environments and updates. With LSTMs on CartPole
it starts over in every turn: how long episodes are decides what a sequence costs the peer, so both have to learn the same part
of the training. On Pong ours steps our own Atari environments, and the peer SB3's ``make_atari_env`` with stacked frames, as
their users do; both with one thread, except where a row says two. On a processor, agents and ``predict`` are timed by what they
use of it, whoever else does; frames, and whatever has its networks on a GPU, by the clock on the wall. ``floor`` is how fast
the network's multiplications alone would let an agent learn there. Rows in bfloat16 need a device that knows it.
"""

import copy
import gc
from collections.abc import Sequence
from typing import Any, NamedTuple

import harness
import numpy as np
import peers
import stable_baselines3 as sb3
import torch
from floors import operations, peak
from predicting import predict_rows
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from saccade.agents import DQN, PPO
from saccade.envs import make_vec_env
from saccade.policies import Twin
from saccade.policies.torso import knows_bfloat16

LANES = 8
PONG = "atari/pong"
ATARI_PPO: dict[str, Any] = {"batch_size": 256, "n_epochs": 4, "learning_rate": 2.5e-4, "clip_range": 0.1, "ent_coef": 0.01}
ATARI_DQN: dict[str, Any] = {"buffer_size": 10_000, "learning_starts": 100, "train_freq": 4, "batch_size": 32}
GREEDY: dict[str, Any] = {"exploration_initial_eps": 0.01, "exploration_final_eps": 0.01}
UNIFORM: dict[str, Any] = {"double": False, "n_steps": 1, "priority_exponent": 0.0}


class Entrant(NamedTuple):
    """One of our agents.

    Attributes:
        label: what tells it from others in the same contest.
        agent: on its own environments.
        goal: the least ratio to the peer, or ``None``.
        same: whether its network is the peer's.
    """

    label: str
    agent: PPO | DQN
    goal: float | None = None
    same: bool = True


class Visits(NamedTuple):
    """How often each environment step goes through the network: ``forward`` only, and ``learned`` from."""

    forward: float
    learned: float


def pong(lanes: int, threads: int = 1) -> VecEnv:
    """Our Atari environments."""
    return make_vec_env(PONG, lanes, seed=0, kwargs={"num_threads": threads})


def learning(agent: BaseAlgorithm, steps: int, anew: bool = False) -> harness.Work:
    """Go on training for ``steps`` environment steps; or, ``anew``, train for so many from the weights at the start."""
    start = copy.deepcopy(agent.get_parameters())

    def work() -> int:
        if anew:
            agent.set_parameters(start)
        before = 0 if anew else agent.num_timesteps
        agent.learn(steps, reset_num_timesteps=anew)
        return agent.num_timesteps - before

    return work


def contest(
    task: str,
    peer: BaseAlgorithm,
    entrants: Sequence[Entrant],
    visits: Visits,
    settings: harness.Settings,
    *,
    steps: int,
    anew: bool = False,
) -> list[harness.Row]:
    """A row for each of our entrants, timed in turns with their peer; ``anew``: from the start of the training in every turn.

    Raises:
        ValueError: an entrant's network has another number of weights than the peer's.
    """
    peer_name = f"{type(peer).__module__.partition('.')[0]} {type(peer).__name__}"
    expected = weights(peer)
    for entrant in entrants:
        if entrant.same and weights(entrant.agent) != expected:
            raise ValueError(f"{task}, {entrant.label}: {weights(entrant.agent)} weights, and its peer has {expected}")
    work = {entrant.label: learning(entrant.agent, steps, anew) for entrant in entrants}
    work["peer"] = learning(peer, steps, anew)
    rates = harness.median_rates(work, 2 if settings.quick else 3, settings.clock)
    rows = []
    for label, agent, goal, _ in entrants:
        policy = agent.policy
        shape = agent.observation_space.shape
        image = shape if shape is not None and len(shape) == 3 else None
        each = operations(policy, image, forward=visits.forward, learned=visits.learned)
        floor = peak(torch.bfloat16 if policy.mixed_precision else torch.float32, settings) / each
        least = settings.goal(goal)
        row = harness.compare(
            f"{task}, {label}", "steps/s", rates[label], rates["peer"], peer_name, ratio_at_least=least, floor=floor
        )
        rows.append(row)
    for algorithm in (peer, *(entrant.agent for entrant in entrants)):
        assert algorithm.env is not None
        algorithm.env.close()
    gc.collect()
    return rows


def weights(agent: BaseAlgorithm) -> int:
    """How many numbers its networks learn; a target network's are copies."""
    parameters = agent.policy.q_net.parameters() if isinstance(agent, sb3.DQN) else agent.policy.parameters()
    return sum(parameter.numel() for parameter in parameters)


def ppo_cartpole(settings: harness.Settings) -> list[harness.Row]:
    """SB3's defaults."""
    quick, device = settings
    steps = 256 if quick else 2048
    ours = PPO("MlpPolicy", make_vec_env("CartPole-v1", LANES, seed=0), n_steps=steps, device=device, seed=0)
    name = f"PPO, CartPole, {LANES} lanes"
    peer = peers.ppo("MlpPolicy", peers.cartpole(LANES), n_steps=steps, device=device)
    entrants = [Entrant("SB3's defaults", ours, 2.0)]
    return contest(name, peer, entrants, Visits(1, 10), settings, steps=LANES * steps)


def lstm_cartpole(settings: harness.Settings) -> list[harness.Row]:
    """sb3-contrib's defaults; ours learns from shorter sequences, and from whole ones."""
    quick, device = settings
    epochs = 10
    arguments: dict[str, Any] = {"n_steps": 128, "batch_size": 128, "n_epochs": epochs}

    def ours(length: int) -> PPO:
        envs = make_vec_env("CartPole-v1", LANES, seed=0)
        kwargs = {"core_class": Twin}
        return PPO("CorePolicy", envs, **arguments, sequence_length=length, policy_kwargs=kwargs, device=device, seed=0)

    peer = peers.recurrent_ppo("MlpLstmPolicy", peers.cartpole(LANES), **arguments, device=device)
    entrants = [Entrant("sequences of 32", ours(32), 8.0), Entrant("sequences of 128", ours(128))]
    name = f"PPO + LSTM, CartPole, {LANES} lanes"
    steps = (1 if quick else 2) * LANES * 128
    return contest(name, peer, entrants, Visits(1, epochs), settings, steps=steps, anew=True)


def ppo_pong(settings: harness.Settings) -> list[harness.Row]:
    """The settings of RL Zoo."""
    quick, device = settings
    arguments = {**ATARI_PPO, "n_steps": 32 if quick else 128}

    def ours(mixed_precision: bool) -> PPO:
        kwargs = {"net_arch": [], "mixed_precision": mixed_precision}
        return PPO("CnnPolicy", pong(LANES), **arguments, policy_kwargs=kwargs, device=device, seed=0)

    entrants = [Entrant("fp32", ours(False), 1.3)]
    if knows_bfloat16(torch.device(device)):
        entrants.append(Entrant("bf16 torso", ours(True), 1.7))
    peer = peers.ppo("CnnPolicy", peers.pong(LANES), **arguments, device=device)
    steps = LANES * arguments["n_steps"]
    return contest(f"PPO, Pong, {LANES} lanes", peer, entrants, Visits(1, 4), settings, steps=steps)


def lstm_pong(settings: harness.Settings) -> list[harness.Row]:
    """The settings of RL Zoo for Atari, and sb3-contrib's network."""
    quick, device = settings
    arguments = {**ATARI_PPO, "n_steps": 32 if quick else 128}
    kwargs = {"core_class": Twin, "net_arch": []}
    ours = PPO("CorePolicy", pong(LANES), **arguments, policy_kwargs=kwargs, device=device, seed=0)
    peer = peers.recurrent_ppo("CnnLstmPolicy", peers.pong(LANES), **arguments, device=device)
    entrants = [Entrant("sequences of 32", ours, 2.0)]
    steps = LANES * arguments["n_steps"]
    return contest(f"PPO + LSTM, Pong, {LANES} lanes", peer, entrants, Visits(1, 4), settings, steps=steps)


def dqn_pong(settings: harness.Settings) -> list[harness.Row]:
    """A gradient step every 4 steps; acting is greedy, so that it takes a forward pass."""
    quick, device = settings
    same: dict[str, Any] = {"dueling": False, "head_hidden_size": 0}

    def ours(learning: dict[str, Any], **kwargs: Any) -> DQN:
        return DQN("CnnPolicy", pong(1), **ATARI_DQN, **GREEDY, **learning, policy_kwargs=kwargs, device=device, seed=0)

    entrants = [
        Entrant("fp32", ours(UNIFORM, **same), 1.35),
        Entrant("double, dueling, 3 steps, prioritised", ours({}), same=False),
    ]
    if knows_bfloat16(torch.device(device)):
        entrants.append(Entrant("bf16 torso", ours(UNIFORM, **same, mixed_precision=True), 1.8))
    peer = peers.dqn("CnnPolicy", peers.pong(1), **ATARI_DQN, **GREEDY, device=device)
    updates = 32 / 4  # a transition is learned from 8 times on average, and what followed is looked at as often
    steps = 100 if quick else 400
    return contest("DQN, Pong, 1 lane", peer, entrants, Visits(1 + updates, updates), settings, steps=steps)


def stepping(venv: VecEnv, steps: int) -> harness.Work:
    """Random actions, drawn beforehand."""
    actions = np.random.default_rng(0).integers(6, size=(steps, venv.num_envs))
    venv.reset()

    def work() -> int:
        for action in actions:
            venv.step(action)
        return actions.size

    return work


def frame_rows(settings: harness.Settings) -> list[harness.Row]:
    """Pong without an agent, on one and on two threads; the peer has no use for a second."""
    steps = 50 if settings.quick else 250
    venvs = {"1": pong(LANES, 1), "2": pong(LANES, 2), "peer": peers.pong(LANES)}
    work = {name: stepping(venv, steps) for name, venv in venvs.items()}
    rates = harness.median_rates(work, rounds=3 if settings.quick else 9)
    name, peer_name = f"Pong frames, {LANES} lanes", "SB3's make_atari_env, VecFrameStack"
    return [
        harness.compare(f"{name}, one thread", "steps/s", rates["1"], rates["peer"], peer_name),
        harness.compare(f"{name}, two threads", "steps/s", rates["2"], rates["peer"], peer_name, ratio_at_least=1.8),
    ]


def measure(settings: harness.Settings) -> list[harness.Row]:
    """All rows."""
    contests = (lstm_cartpole, lstm_pong, ppo_cartpole, ppo_pong, dqn_pong, predict_rows, frame_rows)
    return [row for rows in contests for row in rows(settings)]


if __name__ == "__main__":
    harness.main(__doc__, measure, devices=("cpu", "cuda"))
