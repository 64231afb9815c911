"""How minibatches are picked: several at a time, which is to change nothing."""

from dataclasses import replace

import pytest
import torch

from saccade.agents.policy_batch import PolicyBatch
from small_agents import memory, ppo


def collected(policy: str) -> PolicyBatch:
    """35 transitions, in sequences of one step."""
    model = ppo(policy, memory(), sequence_length=1)
    _, callback = model._setup_learn(35, None)
    model.prepare()
    assert model.env is not None
    return model.first_batch(model.env, callback)


@pytest.mark.parametrize("at_once", [1, 2, 3, 100])
def test_picking_several_minibatches_at_once_changes_nothing(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = collected("MlpPolicy")
    index = torch.randperm(batch.n_sequences)
    monkeypatch.setattr("torch.randperm", lambda *_, **__: index)
    monkeypatch.setattr("saccade.agents.policy_batch.AT_ONCE", at_once)
    minibatches = list(batch.minibatches(7))
    assert len(minibatches) == -(-len(index) // 7)
    for minibatch, rows in zip(minibatches, index.split(7), strict=True):
        picked = batch.pick(rows)
        for name, value in vars(picked).items():
            assert (
                value == getattr(minibatch, name) if isinstance(value, tuple) else torch.equal(value, getattr(minibatch, name))
            )


def test_parts_of_a_batch_keep_their_states_and_observations() -> None:
    batch = replace(collected("LstmPolicy"))
    batch.observations = {"first": batch.observations, "second": batch.rewards}  # type: ignore[dict-item]
    parts = list(batch.split(7))
    assert [part.n_sequences for part in parts] == [7, 7, 7, 7, 7]
    for k, leaf in enumerate(batch.state):
        assert torch.equal(torch.cat([part.state[k] for part in parts]), leaf)
    for key, value in batch.observations.items():
        assert torch.equal(torch.cat([part.observations[key] for part in parts], dim=1), value)
