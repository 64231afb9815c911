"""A memory that learned with few slots and is given more: no weight depends on their number."""

import re
from typing import Any

import pytest
import torch
from hydra import compose
from omegaconf import DictConfig, OmegaConf

from saccade.agents import Supervised
from saccade.envs import make_vec_env
from saccade.policies import DNC, NTM
from saccade.scripts.errors import UserError
from saccade.scripts.evaluate import evaluate
from saccade.scripts.overrides import config_loader
from saccade.scripts.settings import check_settings

MORE = "+evaluation.also.more.slots=9"
TASK = ("env=copy", "policy.core.slots=6", "policy.core.width=4")


def composed(*overrides: str) -> DictConfig:
    with config_loader(None):
        return compose("train", ["agent=ppo", *overrides])


@pytest.mark.parametrize(("make", "sizes"), [(NTM, {}), (DNC, {"read_heads": 2}), (DNC, {"link_slots": 3})])
def test_it_is_the_core_that_was_made_with_as_many(make: Any, sizes: dict[str, int]) -> None:
    torch.manual_seed(0)
    core, other = make((3,), slots=5, width=4, **sizes), make((3,), slots=12, width=4, **sizes)
    other.load_state_dict(core.state_dict())
    core.resize(12)
    inputs, starts = torch.randn(20, 2, 3), torch.zeros(20, 2, dtype=torch.bool)
    starts[7, 1] = True
    found, wanted = (one(inputs, one.initial_state(2), starts) for one in (core, other))
    assert torch.equal(found.features, wanted.features)
    step, whole = (one(inputs[:1], one.initial_state(2), starts[:1]).features for one in (core, other))
    assert torch.equal(step, whole)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="learned what its 5 slots hold at first, and cannot have 8"):
        NTM((3,), slots=5, learn_memory=True).resize(8)
    with pytest.raises(ValueError, match="at most as many as slots; got max_shift=2 and slots=4"):
        NTM((3,), slots=9, max_shift=2).resize(4)
    with pytest.raises(ValueError, match="slots must be at least its 3 link_slots; got 2"):
        DNC((3,), slots=5, link_slots=3).resize(2)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("policy=lstm", MORE), "also.more.slots is for a policy with policy.core.slots: policy=ntm, policy=dnc"),
        (("policy=ntm", *TASK, "policy.core.learn_memory=true", MORE), "what 6 slots hold at first is learned"),
        (
            ("policy=dnc", *TASK, "+evaluation.also.more.slots=5"),
            "is 5; it must be a number of slots, at least the training's 6",
        ),
        (("policy=dnc", *TASK, "+evaluation.also.more.slots=many"), "is 'many'; it must be a number of slots"),
        (("policy=dnc", *TASK, "+evaluation.also.more.slot=9"), "also.more cannot change env.slot; the nearest: slots"),
    ],
)
def test_settings_that_cannot_be_are_refused(overrides: tuple[str, ...], says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)):
        check_settings(composed(*overrides))


@pytest.mark.parametrize("policy", ["ntm", "dnc"])
def test_an_evaluation_has_as_many_as_its_setting_says(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = composed(f"policy={policy}", *TASK, MORE, "+evaluation.also.same.kwargs.max_length=20")
    check_settings(cfg)
    kind: Any = {"ntm": NTM, "dnc": DNC}[policy]
    kwargs = {"core_class": kind, "core_kwargs": {"slots": 6, "width": 4}}
    agent = Supervised("CorePolicy", make_vec_env("saccade/Copy-v0", 2), policy_kwargs=kwargs, device="cpu", seed=0)
    had: list[int] = []
    state = kind.initial_state

    def noted(core: Any, batch_size: int) -> Any:
        had.append(core.slots)
        return state(core, batch_size)

    monkeypatch.setattr(kind, "initial_state", noted)
    assert evaluate(cfg, agent, 2, 2, seed=0, wall_seconds=None).content().keys() >= {"also"}
    assert list(dict.fromkeys(had)) == [6, 9]
    assert had[-1] == agent.policy.core.slots == OmegaConf.select(cfg, "policy.core.slots") == 6
