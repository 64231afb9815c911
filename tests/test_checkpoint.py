"""Checkpoints: they give back the agent, and never spoil the file they replace."""

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints import SMALL, looking, reacting, remembering, same_tensors, save_one, tensors
from saccade.agents import PQN, CheckpointError, ManifestError
from saccade.agents.archive import pack, unpack
from saccade.envs import ProbeConstant, ProbeMemory, TaskVecEnv
from small_agents import flat

AGENTS = pytest.mark.parametrize("make", [remembering, looking, reacting])


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_one(tmp_path)


@AGENTS
def test_a_loaded_agent_acts_and_goes_on_as_the_saved_one(make: Callable[[], PQN], tmp_path: Path) -> None:
    model = make().learn(7 * 5 * 3)
    model.save(tmp_path / "agent")
    loaded = PQN.load(tmp_path / "agent", device="cpu")
    assert same_tensors(model.policy.state_dict(), loaded.policy.state_dict())
    ours, theirs = model.policy.optimizer.state_dict(), loaded.policy.optimizer.state_dict()
    assert len(list(tensors(ours["state"]))) > 10
    assert same_tensors(ours["state"], theirs["state"])
    assert json.loads(json.dumps(ours["param_groups"])) == json.loads(json.dumps(theirs["param_groups"]))
    for name in ("num_timesteps", "_n_updates", "_total_timesteps", "exploration_rate", "n_envs", "gamma", "q_lambda"):
        assert getattr(model, name) == getattr(loaded, name)
    assert loaded.reinforce == model.reinforce
    assert (loaded.observation_space, loaded.action_space) == (model.observation_space, model.action_space)
    assert type(loaded.policy) is type(model.policy)
    observation = model.env.reset()  # type: ignore[union-attr]
    one, two = (agent.predict(observation, deterministic=True) for agent in (model, loaded))
    assert (one[0] == two[0]).all()
    assert all((a == b).all() for a, b in zip(flat(one[1]), flat(two[1]), strict=True))


@AGENTS
def test_the_next_update_after_loading_is_the_next_update(make: Callable[[], PQN], tmp_path: Path) -> None:
    model = make().learn(7 * 5 * 3)
    model.save(tmp_path / "agent")
    loaded = PQN.load(tmp_path / "agent", env=model.env, device="cpu")
    loaded._setup_learn(1)
    loaded.prepare()
    loaded.rollout = model.rollout
    loaded.set_logger(model.logger)
    for agent in (model, loaded):
        torch.manual_seed(0)
        agent.train()
    assert same_tensors(model.policy.state_dict(), loaded.policy.state_dict())


def test_an_agent_that_never_learned(tmp_path: Path) -> None:
    model = remembering()
    model.save(tmp_path / "agent")
    loaded = PQN.load(tmp_path / "agent", device="cpu")
    assert same_tensors(model.policy.state_dict(), loaded.policy.state_dict())
    assert loaded.exploration_rate == 1


def test_saving_twice_gives_the_same_members(tmp_path: Path) -> None:
    model = remembering().learn(35)
    model.save(tmp_path / "one")
    PQN.load(tmp_path / "one", device="cpu").save(tmp_path / "two")
    one, two = (zipfile.ZipFile(tmp_path / f"{name}.zip") for name in ("one", "two"))
    with one, two:
        assert one.namelist() == two.namelist()
        assert all(one.read(name) == two.read(name) for name in one.namelist())


def test_an_open_file_will_do() -> None:
    model, file = remembering().learn(35), io.BytesIO()
    model.save(file)  # type: ignore[arg-type]
    file.seek(0)
    assert same_tensors(PQN.load(file, device="cpu").policy.state_dict(), model.policy.state_dict())  # type: ignore[arg-type]


def test_a_suffix_is_added_where_there_is_none(tmp_path: Path) -> None:
    model = remembering()
    model.learn(35)
    model.save(str(tmp_path / "deep" / "er" / "agent"))
    assert [path.name for path in (tmp_path / "deep" / "er").iterdir()] == ["agent.zip"]
    for name in ("agent", "agent.zip"):
        PQN.load(str(tmp_path / "deep" / "er" / name), device="cpu")


def test_arguments_given_to_load_win(saved: Path) -> None:
    assert PQN.load(saved, device="cpu", gamma=0.5, seed=7).gamma == 0.5


def test_an_environment_that_does_not_fit_is_refused(saved: Path) -> None:
    with pytest.raises(ValueError, match="spaces do not match"):
        PQN.load(saved, env=TaskVecEnv(ProbeConstant(5)), device="cpu")


@pytest.mark.parametrize("optimizer", ["RAdam", "Adam", "AdamW", "SGD", "RMSprop"])
def test_every_optimiser_on_the_list(optimizer: str, tmp_path: Path) -> None:
    kwargs = SMALL | {"optimizer_class": getattr(torch.optim, optimizer)}
    if optimizer in {"SGD", "RMSprop"}:
        kwargs["optimizer_kwargs"] = {"momentum": 0.9}
    model = PQN("MlpPolicy", TaskVecEnv(ProbeMemory(5)), n_steps=7, policy_kwargs=kwargs, device="cpu").learn(35)
    model.save(tmp_path / "agent")
    loaded = PQN.load(tmp_path / "agent", device="cpu")
    assert same_tensors(model.policy.optimizer.state_dict()["state"], loaded.policy.optimizer.state_dict()["state"])


def test_an_argument_without_json_is_asked_for_when_loading(tmp_path: Path) -> None:
    model = PQN("MlpPolicy", TaskVecEnv(ProbeMemory(5)), learning_rate=lambda progress: 0.1 * progress, device="cpu")
    model.save(tmp_path / "lambda")
    with pytest.raises(ManifestError, match=r"learning_rate could not be stored .*pass learning_rate="):
        PQN.load(tmp_path / "lambda")
    assert same_tensors(PQN.load(tmp_path / "lambda", learning_rate=0.1).policy.state_dict(), model.policy.state_dict())


def test_a_path_with_another_suffix_is_not_another_file(saved: Path) -> None:
    with pytest.raises(FileNotFoundError):
        PQN.load(saved.with_suffix(".model"))


def test_set_parameters_draws_no_random_number(saved: Path) -> None:
    model = PQN.load(saved)
    before = torch.random.get_rng_state()
    model.set_parameters(str(saved))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    "broken", [{"sha256": 5}, {"arguments": []}, {"counters": []}, {"n_envs": "x"}, {"optimizer_groups": []}, {"arguments": {}}]
)
def test_a_malformed_manifest_is_a_checkpoint_error(broken: dict[str, Any], saved: Path, tmp_path: Path) -> None:
    members = unpack(saved)
    members["manifest.json"] = json.dumps({**json.loads(members["manifest.json"]), **broken}).encode()
    (tmp_path / "broken.zip").write_bytes(pack(members))
    with pytest.raises(CheckpointError):
        PQN.load(tmp_path / "broken.zip")


# A write that is cut short.


@pytest.mark.parametrize("where", ["fsync", "write", "replace"])
@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()], ids=["full disk", "ctrl-c"])
def test_a_write_that_fails_leaves_the_old_file(where: str, error: BaseException, saved: Path, monkeypatch: Any) -> None:
    before = saved.read_bytes()
    model = remembering(seed=9).learn(35)

    def fail(*_: Any, **__: Any) -> None:
        raise error

    if where == "replace":
        monkeypatch.setattr(Path, "replace", fail)
        monkeypatch.setattr(os, "replace", fail)
        monkeypatch.setattr(os, "rename", fail)
    elif where == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr("saccade.agents.checkpoint.pack", fail)
    with pytest.raises(type(error)):
        model.save(saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name], "a temporary file is left behind"


def test_the_file_is_flushed_to_disk_before_it_takes_the_old_ones_place(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (order.append("fsync"), fsync(descriptor))[1])
    monkeypatch.setattr(Path, "replace", lambda self, target: (order.append("replace"), replace(self, target))[1])
    remembering().learn(35).save(saved)
    assert order[:2] == ["fsync", "replace"]
