"""A checkpoint's manifest: what it can say, and that whatever else it says runs nothing."""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.utils import ConstantSchedule, LinearSchedule
from torch import nn

from checkpoints import rewrite, same_tensors, save_one
from saccade.agents import PQN, CheckpointError, LinearWarmup, ManifestError, Reinforce
from saccade.agents.manifest import allowed_classes, decode, decode_space, encode, encode_space
from saccade.envs import ProbeMemory, TaskVecEnv
from saccade.policies import GRU, CentreGaze, FeedForward, LearnedGaze, QPolicy, Retina
from saccade.policies import __all__ as exported


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_one(tmp_path)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (3,), np.float32),
        spaces.Box(np.array([-np.inf, 0], np.float32), np.array([1.5, np.inf], np.float32)),
        spaces.Box(-np.inf, np.inf, (2, 3), np.float64),
        spaces.Box(0, 255, (3, 5, 7), np.uint8),
        spaces.Box(np.arange(6).reshape(2, 3), np.arange(6).reshape(2, 3) + 4, dtype=np.int64),
        spaces.Box(-0.1, 0.1, (), np.float32),
        spaces.Discrete(7),
        spaces.Discrete(7, start=-2),
        spaces.MultiDiscrete([3, 5]),
        spaces.MultiBinary(5),
        spaces.MultiBinary([2, 3]),
        spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Dict({"c": spaces.Box(0, 1, (2,), np.float32)})}),
    ],
    ids=str,
)
def test_spaces_survive_json(space: Any) -> None:
    back = decode_space(json.loads(json.dumps(encode_space(space))))
    assert back == space
    assert back.dtype == space.dtype
    assert back.shape == space.shape


def test_a_space_that_has_no_json_is_named() -> None:
    with pytest.raises(ManifestError, match="Text"):
        encode_space(spaces.Text(3))
    with pytest.raises(ManifestError, match="Pickle"):
        decode_space({"space": "Pickle"})


@pytest.mark.parametrize(
    "value",
    [
        None,
        3,
        0.1,
        float("inf"),
        "text",
        [1, [2, {"a": None}]],
        {"core_class": GRU, "kwargs": {"gaze": CentreGaze}},
        Reinforce(coef=0.7),
        LinearSchedule(0.1, 0.01, 0.5),
        ConstantSchedule(0.3),
        LinearWarmup(0.1, 0.01, 0.2),
    ],
    ids=str,
)
def test_arguments_survive_json(value: Any) -> None:
    back = decode(json.loads(json.dumps(encode(value))), allowed_classes())
    assert type(back) is type(value)
    assert vars(back) == vars(value) if hasattr(value, "__dict__") and not isinstance(value, type) else back == value


def test_partials_survive_json() -> None:
    value = partial(LearnedGaze, sigma=0.3)
    back = decode(json.loads(json.dumps(encode({"gaze": value}))), allowed_classes())["gaze"]
    assert isinstance(back, partial)
    assert (back.func, back.args, back.keywords) == (value.func, (), value.keywords)


@pytest.mark.parametrize("positional", [partial(Retina, 6, 3, 3, "mean"), partial(LearnedGaze, sigma=0.1)], ids=str)
def test_a_partials_positional_arguments_are_kept_or_refused(positional: Any) -> None:
    """Lost in silence, they would give another agent that loads without a word."""
    try:
        stored = encode(positional)
    except ManifestError:
        return
    back = decode(json.loads(json.dumps(stored)), allowed_classes())
    assert (back.func, back.args, back.keywords) == (positional.func, positional.args, positional.keywords)


# Nothing runs.


class Trap:
    """Whoever calls this has run code from a file."""

    fired = False

    def __init__(self, *arguments: Any, **named: Any) -> None:
        Trap.fired = True


HOSTILE = ["os.system", "builtins.eval", "builtins.exec", "torch.load", "pickle.loads", "subprocess.Popen", f"{__name__}.Trap"]
# Ways to say it that a lax reader might take.
HOSTILE += [
    "functools.partial",
    "typing.Any",
    "saccade.policies.tap.recording",
    "saccade.agents.PQN",
    "torch.nn.Module",
    "",
    "partial",
]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize(
    "place",
    [
        lambda manifest, node: manifest["arguments"].update(policy=node),
        lambda manifest, node: manifest["arguments"].update(learning_rate=node),
        lambda manifest, node: manifest["arguments"].update(reinforce=node),
        lambda manifest, node: manifest["arguments"]["policy_kwargs"].update(core_kwargs={"gaze": [{"deep": node}]}),
        lambda manifest, node: manifest["arguments"]["policy_kwargs"].update(optimizer_class=node),
    ],
    ids=["policy", "learning_rate", "reinforce", "deep in policy_kwargs", "optimizer_class"],
)
def test_a_hostile_manifest_runs_nothing(name: str, place: Callable[[Any, Any], None], saved: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(Trap, "fired", False)
    calls: list[Any] = []
    monkeypatch.setattr(os, "system", calls.append)
    for node in (
        {"_class_": name},
        {"_target_": name, "command": "touch hacked"},
        {"_target_": name, "_partial_": True, "command": "touch hacked"},
    ):
        rewrite(saved, lambda manifest, node=node: place(manifest, node))
        with pytest.raises(ManifestError, match="is not allowed") as error:
            PQN.load(saved, device="cpu")
        assert repr(name) in str(error.value)
    assert not calls
    assert not Trap.fired


def test_the_list_of_allowed_classes_holds_what_we_mean_and_nothing_else() -> None:
    allowed = allowed_classes()
    ours = {name for name in allowed if name.startswith("saccade.")}
    for name in ours:
        assert name.removeprefix("saccade.policies.") in exported or name in {
            "saccade.agents.Reinforce",
            "saccade.agents.LinearWarmup",
        }
    packages = ("torch.optim.", "stable_baselines3.common.")
    strangers = {name for name in allowed.keys() - ours if not name.startswith(packages)}
    assert {name.rpartition(".")[0] for name in strangers} == {"torch.nn"}
    assert all(not list(allowed[name]().parameters()) for name in strangers), "activations, and no layers"


@pytest.mark.parametrize("key", ["env", "device", "tensorboard_log", "_init_setup_model"])
def test_a_manifest_cannot_say_what_only_the_caller_may(key: str, saved: Path, tmp_path: Path) -> None:
    """An environment's id imports a module, a log folder is written to: neither is the file's business."""
    rewrite(saved, lambda manifest: manifest["arguments"].update({key: str(tmp_path / "theirs")}))
    with pytest.raises((ManifestError, CheckpointError, TypeError)):
        PQN.load(saved, device="cpu")


# Classes of the user's own.


class OwnCore(GRU):
    pass


class OwnTorso(FlattenExtractor):
    pass


class OwnExtra(FeedForward):
    def __init__(self, input_shape: Any) -> None:
        super().__init__(input_shape)
        self.gain = nn.Parameter(torch.ones(self.features_dim))


@pytest.mark.parametrize("core", [OwnCore, OwnExtra])
def test_ones_own_classes_have_to_be_allowed(core: type, tmp_path: Path) -> None:
    kwargs = {"core_class": core, "features_extractor_class": OwnTorso}
    model = PQN(QPolicy, TaskVecEnv(ProbeMemory(5)), n_steps=7, policy_kwargs=kwargs, device="cpu").learn(35)
    model.save(tmp_path / "agent")
    with pytest.raises(ManifestError, match=r"Own.*is not allowed \(pass allow=\[TheClass\]"):
        PQN.load(tmp_path / "agent", device="cpu")
    with pytest.raises(ManifestError, match="OwnTorso"):
        PQN.load(tmp_path / "agent", device="cpu", allow=[core])
    loaded = PQN.load(tmp_path / "agent", device="cpu", allow=[core, OwnTorso])
    assert type(loaded.policy.core) is core
    assert same_tensors(model.policy.state_dict(), loaded.policy.state_dict())


@pytest.mark.parametrize("activation_fn", [torch.nn.ReLU, torch.nn.ELU])
def test_activations_are_stored_by_name(activation_fn: type[torch.nn.Module]) -> None:
    stored = json.loads(json.dumps(encode({"activation_fn": activation_fn})))
    assert decode(stored, allowed_classes()) == {"activation_fn": activation_fn}
