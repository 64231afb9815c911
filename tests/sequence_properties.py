"""What must hold of R2D2's lessons, whatever it learns: the loss as a slow loop, and where states and gradients come from."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from replay_agents import clocks, r2d2
from saccade.agents import R2D2
from saccade.agents.sequences import Sequences
from saccade.policies.core import map_state


def example(
    policy: str, n_steps: int, burn_in: int, epsilon: float | None, agent_class: type[R2D2] = R2D2
) -> tuple[R2D2, Sequences]:
    """An agent in double precision, its target network unlike its policy, and a batch with every kind of ending."""
    settings = {"burn_in": burn_in, "sequence_length": 7 - burn_in, "n_steps": n_steps, "rescale_epsilon": epsilon}
    model = r2d2(clocks(3), policy, agent_class, gamma=0.9, priority_mix=0.7, **settings)
    model.policy.double()
    model.target.double()
    with torch.no_grad():
        for parameter in [*model.policy.parameters(), *model.target.parameters()]:
            parameter.add_(0.3 * torch.randn_like(parameter))
    # The length of each sequence, whether it begins an episode, and whether it ends one (or goes on, or is cut off).
    lanes = [
        (7, 1, 0),
        (7, 0, 0),
        (7, 0, 1),
        (5, 0, 1),
        (4, 0, 0),
        (1, 1, 1),
        (1, 1, 0),
        (2, 1, 0),
        (6, 1, 1),
        (4, 0, 1),
        (7, 1, 1),
    ]
    length, first, ends = (torch.tensor(column) for column in zip(*lanes, strict=True))
    steps = torch.arange(7)[:, None]
    mask = (steps < length).double()
    terminal = (steps == length - 1) & (ends == 1)
    starts = torch.zeros(8, len(lanes), dtype=torch.bool)
    starts[0] = first == 1
    state = map_state(lambda leaf: torch.randn(len(lanes), *leaf.shape[1:], dtype=torch.double), model.policy.initial_state(1))
    batch = Sequences(
        observations=torch.randn(8, len(lanes), 2).double(),
        actions=torch.randint(3, mask.shape),
        rewards=5 * torch.randn(mask.shape).double() * mask,
        discounts=0.9 * mask * ~terminal,
        mask=mask,
        episode_starts=starts,
        decisions=torch.zeros(*mask.shape, 0),
        state=state,
        weights=torch.rand(len(lanes)).double(),
        indices=np.arange(len(lanes)),
    )
    return model, batch


def h(x: Tensor, epsilon: float | None) -> Tensor:
    if epsilon is None:
        return x
    return torch.sign(x) * (torch.sqrt(torch.abs(x) + 1) - 1) + epsilon * x


def h_inverse(y: Tensor, epsilon: float | None) -> Tensor:
    """As in Pohlen et al. 2018, proposition A.2 (iii)."""
    if epsilon is None:
        return y
    if epsilon == 0:
        return torch.sign(y) * ((torch.abs(y) + 1) ** 2 - 1)
    root = torch.sqrt(1 + 4 * epsilon * (torch.abs(y) + 1 + epsilon))
    return torch.sign(y) * (((root - 1) / (2 * epsilon)) ** 2 - 1)


def slow_q(model: R2D2, network: Any, batch: Sequences, lane: int) -> list[Tensor]:
    """Q values of one sequence, step by step, up to the observation that followed it."""
    first = bool(batch.episode_starts[0, lane])
    state = network.initial_state(1) if first else map_state(lambda leaf: leaf[lane : lane + 1], batch.state)
    values = []
    for t in range(int(batch.mask[:, lane].sum()) + 1):
        if t == model.burn_in and not first:
            state = map_state(torch.detach, state)
        output = network(batch.observations[t, lane][None, None], state, torch.zeros(1, 1, dtype=torch.bool))  # type: ignore[index]
        state = output.core.state
        values.append(output.head.q[0, 0])
    return values


def slow_lesson(model: R2D2, batch: Sequences) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, priorities and returns ``[L, N]`` as Kapturowski et al. (2019, section 2.3) write them."""
    losses, priorities = [], []
    returns = torch.zeros_like(batch.mask)
    for lane in range(len(batch.weights)):
        length = int(batch.mask[:, lane].sum())
        q, q_target = (slow_q(model, network, batch, lane) for network in (model.policy, model.target))
        ended = bool(batch.discounts[length - 1, lane] == 0)
        errors = []
        for t in range(length):
            n = min(model.n_steps, length - t)
            value = sum(model.gamma**k * batch.rewards[t + k, lane] for k in range(n))
            if not (ended and t + n == length):
                best = int(q[t + n].argmax())
                value = value + model.gamma**n * h_inverse(q_target[t + n][best], model.rescale_epsilon).detach()
            returns[t, lane] = value
            if t >= model.burn_in or batch.episode_starts[0, lane]:
                errors.append(h(torch.as_tensor(value), model.rescale_epsilon) - q[t][batch.actions[t, lane]])
        size = torch.stack(errors).abs()
        losses.append(batch.weights[lane] * (size**2).mean() / 2)
        priorities.append((model.priority_mix * size.max() + (1 - model.priority_mix) * size.mean()).detach())
    return torch.stack(losses).mean(), torch.stack(priorities), returns


def burn_in_gradients(model: R2D2, batch: Sequences) -> Tensor:
    """For each sequence, whether its loss has a gradient with respect to what was seen in the burn-in."""
    assert isinstance(batch.observations, Tensor)
    seen = batch.observations.clone().requires_grad_()
    model.judge(batch._replace(observations=seen), None).terms.loss.backward()
    assert seen.grad is not None
    return seen.grad[: model.burn_in].abs().sum(dim=(0, 2)) > 0


def replayed_error(policy: str, burn_in: int, length: int, agent_class: type[R2D2] = R2D2) -> float:
    """How far the features of replayed sequences are from those that acted, the weights being the same."""
    # Where gazes are drawn, lanes that see the same go apart.
    env = clocks(1, length=11, kind="image") if policy == "GlimpsePolicy" else clocks(3, length=11)
    settings = {"burn_in": burn_in, "sequence_length": length, "learning_starts": 10**6, "buffer_size": 600}
    model = r2d2(env, policy, agent_class, **settings)
    acted: dict[bytes, Tensor] = {}
    look = model.look

    def remember(observations: Any, starts: Tensor) -> Any:
        core = look(observations, starts)
        for seen, features in zip(observations, core.features[0], strict=True):
            acted[seen.numpy().tobytes()] = features
        return core

    model.look = remember  # type: ignore[method-assign]
    model.learn(60 * env.num_envs)
    batch = model.replay.sample(61)
    assert isinstance(batch.observations, Tensor) and not batch.episode_starts[0].all()
    with torch.no_grad():
        features = model.unroll(model.policy, batch).core.features
    steps = (batch.mask > 0).nonzero().tolist()
    return max(float((features[t, n] - acted[batch.observations[t, n].numpy().tobytes()]).abs().max()) for t, n in steps)
