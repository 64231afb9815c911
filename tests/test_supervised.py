"""The agent that learns from right answers: that it learns, its loss by hand, and what its marks mean."""

from collections.abc import Callable
from math import log
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from torch import Tensor
from torch.distributions import Bernoulli, Categorical

from saccade.agents import Supervised
from saccade.agents.lessons import Batch
from saccade.envs import Copy, DynamicNGrams, SequenceTask, TaskVecEnv
from saccade.policies import LSTM
from supervised_agents import SHORT, STEPS, Dials, OneLesson, agent

# Learning.


def test_a_lesson_is_learned_by_heart() -> None:
    kwargs: dict[str, Any] = {"net_arch": (), "core_kwargs": {"hidden_size": 32}}
    env = TaskVecEnv(OneLesson(1, max_length=3))
    model = agent(env, batch_size=8, learning_rate=0.03, policy_kwargs=kwargs)
    batch = model.batch(env.task.generate(8))  # type: ignore[attr-defined]
    before = model.loss(batch).metrics
    model.learn(100 * int(batch.real.sum()), log_interval=None)
    after = model.loss(batch).metrics
    assert model._n_updates == 100
    assert before["errors"] > 4
    assert after["errors"] == 0
    assert after["right"] == 1
    assert after["bits"] < 0.5
    assert after["value_loss"] < 0.03, "the mean square of the returns to come is some 0.7"


def test_copies_are_learned_and_can_be_acted() -> None:
    task = Copy(7, min_length=1, max_length=2, bits=2, seed=0)
    kwargs: dict[str, Any] = {"net_arch": (), "core_kwargs": {"hidden_size": 32}}
    model = agent(TaskVecEnv(task), batch_size=32, learning_rate=0.03, policy_kwargs=kwargs)
    model.learn(120 * 32 * 4, log_interval=None)
    mean, _ = evaluate_policy(model, TaskVecEnv(Copy(7, min_length=1, max_length=2, bits=2, seed=1)), n_eval_episodes=70)
    assert mean > 0.98
    assert np.mean(list(model.ep_success_buffer or ())) > 0.95


def log_probability(task: Any, parameters: Tensor, action: Tensor) -> Tensor:
    """By torch's own distributions."""
    match task.action_space:
        case spaces.Discrete():
            return Categorical(logits=parameters).log_prob(action)
        case spaces.MultiBinary():
            return Bernoulli(logits=parameters).log_prob(action.float()).sum()
        case _:
            sizes = task.action_space.nvec.tolist()
            parts = zip(parameters.split(sizes), action, strict=True)
            return torch.stack([Categorical(logits=logits).log_prob(one) for logits, one in parts]).sum()


TASKS_BY_ACTION: list[Callable[[], SequenceTask]] = [
    lambda: Copy(1, **SHORT),
    lambda: Dials(1),
    lambda: DynamicNGrams(1, n=3, bits=9),
]
EveryAction = pytest.mark.parametrize("make", TASKS_BY_ACTION, ids=["bits", "dials", "choices"])


@EveryAction
@pytest.mark.parametrize("policy", ["LstmPolicy", "TwinPolicy", "MlpPolicy"])
def test_the_loss_is_that_of_every_episode_played_alone(make: Callable[[], SequenceTask], policy: str) -> None:
    task = make()
    task.seed(7)
    lesson = task.generate(11)
    model = agent(TaskVecEnv(task), policy, batch_size=11)
    with torch.no_grad():
        model.policy.head.action.weight.mul_(100)  # or all probabilities are nearly alike
        nats, errors, right = torch.zeros(()), 0, 0
        for lane in range(11):
            state, missed = model.policy.initial_state(1), 0
            for t in range(lesson.lengths[lane]):
                seen, start = torch.as_tensor(lesson.inputs[t, lane])[None, None], torch.full((1, 1), t == 0)
                output, core = model.policy(seen, state, start)
                state = core.state
                if lesson.answers[t, lane]:
                    action = torch.as_tensor(lesson.targets[t, lane])
                    nats -= log_probability(task, output.parameters[0, 0], action)
                    missed += int((model.policy.distribution.mode(output.parameters[0, 0]) != action).sum())
            errors += missed
            right += missed == 0
        terms = model.loss(model.batch(lesson))
    assert float(terms.metrics["bits"]) == pytest.approx(float(nats) / 11 / log(2), rel=1e-4)
    assert float(terms.metrics["errors"]) == pytest.approx(errors / 11)
    assert float(terms.metrics["right"]) == pytest.approx(right / 11)
    assert float(terms.loss) == pytest.approx(float(nats) / 11 + float(terms.metrics["value_loss"]), rel=1e-4)
    assert errors > 0


def test_padding_changes_nothing() -> None:
    model = agent()
    lesson = Copy(1, **SHORT, seed=1).generate(16)
    after = np.arange(len(lesson.inputs))[:, None] >= lesson.lengths
    assert after.any()
    noisy = lesson.inputs.copy()
    noisy[after] = 9
    with torch.no_grad():
        ours, theirs = (model.loss(model.batch(one)) for one in (lesson, lesson._replace(inputs=noisy)))
    assert ours.loss == theirs.loss


@EveryAction
def test_the_marks_are_what_the_most_likely_actions_get(make: Callable[[], SequenceTask]) -> None:
    lanes = 16
    task = make()
    venv = TaskVecEnv(type(task)(lanes, **({} if isinstance(task, Dials) else SHORT if isinstance(task, Copy) else {"n": 3})))
    model = agent(venv)
    model.learn(STEPS)
    venv.seed(4)
    seen = venv.reset()
    state, starts, infos = None, np.ones(lanes, np.bool_), {}
    while len(infos) < lanes:
        actions, state = model.predict(seen, state, starts, deterministic=True)
        seen, _, starts, found = venv.step(actions)
        infos |= {lane: found[lane] for lane in np.flatnonzero(starts) if lane not in infos}
    venv.task.seed(4)
    with torch.no_grad():
        _, marks = model.judge(model.batch(venv.task.generate(lanes)))  # type: ignore[attr-defined]
    assert marks.returns.tolist() == pytest.approx([infos[lane]["episode"]["r"] for lane in range(lanes)], abs=1e-5)
    assert marks.errors.tolist() == [infos[lane]["measures"]["errors"] for lane in range(lanes)]


def gradients(model: Supervised, loss: Tensor) -> dict[str, Tensor | None]:
    names, parameters = zip(*model.policy.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True))


def test_the_critic_has_no_part_in_what_a_shared_memory_learns() -> None:
    model = agent()
    batch = model.batch(Copy(1, **SHORT, seed=1).generate(16))
    output, _ = model.policy(batch.inputs, model.policy.initial_state(16), batch.episode_starts)
    nats = -model.policy.score(output.parameters[batch.answers], batch.targets).log_prob.sum() / 16
    alone, both = gradients(model, nats), gradients(model, model.loss(batch).loss)
    for name, gradient in both.items():
        assert gradient is not None, f"nothing trains {name}"
        assert gradient.any(), f"nothing trains {name}"
        if name.startswith("core."):
            torch.testing.assert_close(gradient, alone[name])
    value = both["head.value.weight"]
    assert value is not None
    assert value.any()


def test_a_critic_with_a_memory_of_its_own_trains_it() -> None:
    model = agent(policy="TwinPolicy")
    for name, gradient in gradients(model, model.loss(model.batch(Copy(1, **SHORT, seed=1).generate(16))).loss).items():
        assert gradient is not None, f"nothing trains {name}"
        assert gradient.any(), f"nothing trains {name}"


class Costly(LSTM):
    """Asks 0.25 for every step."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        return output._replace(cost=torch.full(output.features.shape[:2], 0.25))


def test_what_a_core_asks_for_its_steps_is_added_up_over_an_episode() -> None:
    kwargs = {"core_class": Costly, "core_kwargs": {"hidden_size": 16}}
    model = agent(policy="TwinPolicy", policy_kwargs=kwargs)
    lesson = Copy(1, **SHORT, seed=1).generate(16)
    terms = model.loss(model.batch(lesson))
    nats = float(terms.metrics["bits"]) * log(2)
    added = float(terms.loss.detach()) - nats - float(terms.metrics["value_loss"])
    assert added == pytest.approx(0.25 * lesson.lengths.mean(), rel=1e-4)


def test_a_task_is_told_how_many_were_right() -> None:
    task = Dials(1, seed=0)
    model = agent(TaskVecEnv(task), batch_size=7)
    shares = []

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            with torch.no_grad():
                shares.append(float(model.loss(model.lesson).metrics["right"]))
            return True

    with torch.no_grad():  # so that some are right from the start
        model.policy.head.action.bias.copy_(torch.tensor([9.0, 0, 0, 9, 0, 0, 0, 0]))
    model.learn(1000, callback=Watch(), log_interval=None)
    assert len(shares) > 20
    assert task.grades == pytest.approx(shares)
    assert len(set(task.grades)) > 1


def test_one_value_an_answer_goes_where_it_was_asked() -> None:
    answers = torch.tensor([[False, True], [True, False], [True, True]])
    batch = Batch(torch.zeros(3, 2, 1), answers, answers, answers, torch.zeros(4))
    assert batch.per_step(torch.tensor([1.0, 2.0, 3.0, 4.0])).tolist() == [[0, 1], [2, 0], [3, 4]]
