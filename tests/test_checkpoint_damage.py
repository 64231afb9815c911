"""Checkpoints from elsewhere, damaged or of another kind: noticed, named, and never unpickled."""

import hashlib
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import stable_baselines3
import torch

from checkpoints import rewrite, save_one
from saccade.agents import PQN, CheckpointError
from saccade.agents.archive import unpack


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_one(tmp_path)


def test_nothing_in_the_file_is_a_pickle(saved: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        names = archive.namelist()
        contents = [archive.read(name) for name in names]
    assert sorted(names) == ["manifest.json", "optimizer.safetensors", "policy.safetensors"]
    assert names[0] == "manifest.json"
    for data in contents[1:]:
        # safetensors: the length of a JSON header, the header, bare numbers.
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        assert sum(entry["data_offsets"][1] - entry["data_offsets"][0] for entry in header.values()) == len(data) - 8 - length


def test_saving_and_loading_never_touch_pickle(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("pickle was used")

    for module, name in (
        (pickle, "loads"),
        (pickle, "load"),
        (pickle, "dumps"),
        (pickle, "dump"),
        (torch, "load"),
        (torch, "save"),
    ):
        monkeypatch.setattr(module, name, refuse)
    PQN.load(saved, device="cpu").save(saved)
    assert PQN.load(saved, device="cpu").num_timesteps == 35


def test_an_sb3_file_is_refused(tmp_path: Path) -> None:
    stable_baselines3.PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, device="cpu").save(tmp_path / "ppo")
    with pytest.raises(CheckpointError, match="not a checkpoint of ours"):
        PQN.load(tmp_path / "ppo", device="cpu")


# Damage.


def test_a_changed_member_is_named(saved: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for name in ("policy.safetensors", "optimizer.safetensors"):
        for broken in (members[name][:-1] + bytes([members[name][-1] ^ 1]), b"", None):
            with zipfile.ZipFile(saved, "w") as archive:
                for member, data in (members | {name: broken}).items():
                    if data is not None:
                        archive.writestr(member, data)
            with pytest.raises(CheckpointError, match=name):
                PQN.load(saved, device="cpu")


def test_a_flipped_bit_in_the_file_names_the_member(saved: Path) -> None:
    data = saved.read_bytes()
    with zipfile.ZipFile(saved) as archive:
        infos = {info.filename: (info.header_offset + 30 + len(info.filename), info.file_size) for info in archive.infolist()}
    for name, (start, size) in infos.items():
        for place in (start, start + size // 2, start + size - 1):
            saved.write_bytes(data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :])
            with pytest.raises(CheckpointError, match=name):
                PQN.load(saved, device="cpu")


def test_a_flipped_bit_anywhere_is_noticed_or_harmless(saved: Path) -> None:
    """Headers and directory of the zip included, where Python's reader has many ways to fail."""
    data = saved.read_bytes()
    whole = unpack(saved)
    with zipfile.ZipFile(saved) as archive:
        directory = archive.start_dir
        headers = [place for info in archive.infolist() for place in range(info.header_offset, info.header_offset + 30)]
    places = [*headers, *range(directory, len(data))]
    other: dict[str, int] = {}
    for place in places:
        for bit in (0, 6):
            flipped = data[:place] + bytes([data[place] ^ (1 << bit)]) + data[place + 1 :]
            saved.write_bytes(flipped)
            try:
                assert unpack(saved) == whole
            except CheckpointError:
                pass
            except Exception as error:  # noqa: BLE001 - which ones escape is what is asked
                other[f"{type(error).__name__}: {error}"[:80]] = place
    assert not other, "these should have been CheckpointErrors"


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_refused(share: float, saved: Path) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CheckpointError, match="agent.zip"):
        PQN.load(saved, device="cpu")


def test_a_missing_file_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing"):
        PQN.load(tmp_path / "nothing", device="cpu")


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_format_is_named(version: Any, saved: Path) -> None:
    rewrite(saved, lambda manifest: manifest.update(format=version))
    with pytest.raises(CheckpointError, match=f"format {version}.*reads format 1"):
        PQN.load(saved, device="cpu")


@pytest.mark.parametrize("key", ["format", "agent", "arguments", "observation_space", "counters", "optimizer_groups", "sha256"])
def test_a_manifest_without_a_key_is_refused(key: str, saved: Path) -> None:
    rewrite(saved, lambda manifest: manifest.pop(key))
    with pytest.raises(CheckpointError, match=key):
        PQN.load(saved, device="cpu")


def test_a_manifest_that_leaves_a_checksum_out_does_not_turn_the_check_off(saved: Path) -> None:
    rewrite(saved, lambda manifest: manifest["sha256"].pop("policy.safetensors"))
    with pytest.raises(CheckpointError, match="policy.safetensors"):
        PQN.load(saved, device="cpu")


def test_another_agents_file_is_refused(saved: Path) -> None:
    rewrite(saved, lambda manifest: manifest.update(agent="saccade.agents.DQN"))
    with pytest.raises(CheckpointError, match="saccade.agents.DQN, not of saccade.agents.PQN"):
        PQN.load(saved, device="cpu")


def test_weights_of_another_shape_are_refused(saved: Path) -> None:
    def shrink(manifest: dict[str, Any]) -> None:
        manifest["arguments"]["policy_kwargs"]["head_hidden_size"] = 19

    with pytest.raises((RuntimeError, CheckpointError), match="size mismatch|head"):
        PQN.load(rewrite(saved, shrink), device="cpu")


def test_the_checksums_are_of_the_members(saved: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        for name, checksum in manifest["sha256"].items():
            assert hashlib.sha256(archive.read(name)).hexdigest() == checksum
    assert manifest["sha256"].keys() == {"policy.safetensors", "optimizer.safetensors"}
