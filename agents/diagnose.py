"""The lecture's habits, run in seconds: check shapes, look at the first loss and every gradient, overfit one tiny batch."""

from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.logger import Logger

from saccade.agents.algorithm import CoreAlgorithm, Shown
from saccade.agents.guard import InvalidExperienceError
from saccade.agents.update import LossTerms
from saccade.policies.policy import map_observations


class Finding(NamedTuple):
    """One thing that was looked at: its name, whether all is well, and what was seen in plain words."""

    name: str
    ok: bool
    message: str


OVERFIT_STEPS = 2000
OVERFIT_SHARE = 0.1
LARGE_LOSS = 100.0


def diagnose(model: CoreAlgorithm) -> Iterator[Finding]:
    """Look at an untrained agent in its environment, one finding after another; stops where going on makes no sense.

    The agent is of no use afterwards: it has overfitted a single batch.
    """
    model.set_logger(Logger(None, []))
    try:
        batch = first_batch(model)
    except InvalidExperienceError as error:
        yield Finding("experience", False, f"{error}; mend the environment first")
        return
    model.policy.set_training_mode(True)
    shown = model.show(batch)
    yield check_experience(shown)
    yield check_shapes(model, shown)
    yield check_replay(model, shown)
    frozen = model.frozen_loss(batch)
    first = frozen()
    finding = check_first_loss(first)
    yield finding
    if not finding.ok:
        return
    yield check_gradients(model, first)
    yield check_overfit(model, frozen)


def first_batch(model: CoreAlgorithm) -> Any:
    """A batch of what the untrained agent sees."""
    _, callback = model._setup_learn(1, CallbackList([]))
    assert model.env is not None
    model.prepare()
    return model.first_batch(model.env, callback)


def check_experience(shown: Shown) -> Finding:
    """Whether there is anything to learn from in the batch."""
    rewards, ends = shown.rewards, int(shown.episode_starts[1:].sum())
    steps, sequences = rewards.shape
    among = f", {ends} episode ends among them" if steps > 1 else ""
    seen = f"{sequences} sequences of {steps} steps{among}, rewards {span(rewards)}"
    if not bool(rewards.any()):
        return Finding(
            "experience",
            True,
            f"{seen}; no reward yet, so the fit below says little: raise agent.n_steps to see an episode's end",
        )
    return Finding("experience", True, seen)


def check_shapes(model: CoreAlgorithm, shown: Shown) -> Finding:
    """Run the policy over the batch: every assertion on shapes inside runs too."""
    policy = model.policy
    with torch.no_grad():
        core = policy.encode(shown.observations, shown.state, shown.episode_starts, shown.replay)
    expected = (*shown.episode_starts.shape, policy.core.features_dim)
    shapes: list[str] = []
    map_observations(lambda part: shapes.append(str(list(part.shape[2:]))), shown.observations)
    seen = f"observations {', '.join(shapes)} -> {type(policy.core).__name__} -> features {list(core.features.shape[2:])}"
    ok = tuple(core.features.shape) == expected and bool(torch.isfinite(core.features).all())
    return Finding("shapes", ok, seen if ok else f"{seen}: expected finite features {list(expected)}")


def check_replay(model: CoreAlgorithm, shown: Shown) -> Finding:
    """Acting step by step and learning from the whole sequence must see the same network."""
    policy = model.policy
    with torch.no_grad():
        together = policy.encode(shown.observations, shown.state, shown.episode_starts, shown.replay)
        # With what was decided where nobody had yet.
        replay = None if together.decision is None else together.decision.value
        state, apart = shown.state, []
        for t in range(len(shown.episode_starts)):
            core = policy.encode(
                map_observations(itemgetter(slice(t, t + 1)), shown.observations),
                state,
                shown.episode_starts[t : t + 1],
                None if replay is None else replay[t : t + 1],
            )
            state = core.state
            apart.append(core.features[0])
    gap = float((together.features - torch.stack(apart)).abs().max())
    ok = gap < 1e-4
    message = f"step by step and as one sequence differ by {gap:.1e}"
    return Finding("memory", ok, message if ok else f"{message}: the core's unroll and step disagree, or a state leaks")


def check_first_loss(first: LossTerms) -> Finding:
    """Finite, and not of a size that says observations or rewards are unscaled."""
    loss = float(first.loss.detach())
    terms = ", ".join(f"{name} {float(value):.3g}" for name, value in first.metrics.items())
    if not torch.isfinite(first.loss):
        return Finding("first loss", False, f"is {loss}: some input or weight is not finite ({terms})")
    if abs(loss) > LARGE_LOSS:
        return Finding(
            "first loss",
            False,
            f"is {loss:.3g}, far from 0 ({terms}): scale rewards (normalize_reward=true)",
        )
    return Finding("first loss", True, f"{loss:.3g} ({terms})")


def check_gradients(model: CoreAlgorithm, first: LossTerms) -> Finding:
    """Every parameter must be part of the loss, and its gradient finite; one that is zero on this batch is worth a word."""
    model.policy.zero_grad(set_to_none=True)
    first.loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.policy.named_parameters()}
    missing = [name for name, gradient in gradients.items() if gradient is None]
    if missing:
        return Finding("gradients", False, f"none reaches {', '.join(missing)}: these would never be trained")
    broken = [name for name, gradient in gradients.items() if gradient is not None and not bool(torch.isfinite(gradient).all())]
    if broken:
        return Finding("gradients", False, f"not finite in {', '.join(broken)}")
    idle = [name for name, gradient in gradients.items() if gradient is not None and not bool(gradient.any())]
    words = f", but zero for this batch in {', '.join(idle)}: fine if their input is constant here" if idle else " and not zero"
    return Finding("gradients", True, f"finite in all {len(gradients)} parameters{words}")


def check_overfit(model: CoreAlgorithm, frozen: Callable[[], LossTerms]) -> Finding:
    """A network that cannot learn one batch by heart will not learn the task."""
    optimizer = torch.optim.Adam(model.policy.parameters(), lr=3e-3)
    name = next(iter(frozen().metrics))
    start = final = float(frozen().metrics[name])
    for step in range(1, OVERFIT_STEPS + 1):
        terms = frozen()
        optimizer.zero_grad(set_to_none=True)
        terms.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.policy.parameters(), 10.0)
        optimizer.step()
        final = float(terms.metrics[name])
        if final <= OVERFIT_SHARE * start:
            return Finding("overfit", True, f"{name} of one batch fell from {start:.3g} to {final:.3g} in {step} steps")
    return Finding(
        "overfit",
        False,
        f"{name} of one batch fell only from {start:.3g} to {final:.3g} in {OVERFIT_STEPS} steps: the policy does not see, "
        "or does not remember, what tells these steps apart (a core with memory? a larger retina or network?)",
    )


def span(values: torch.Tensor) -> str:
    """Smallest and largest value."""
    return f"{float(values.min()):.3g} to {float(values.max()):.3g}"
