"""The file of a checkpoint: one zip of a JSON manifest and safetensors, checked member by member, written all or nothing."""

import hashlib
import io
import json
import os
import pathlib
import secrets
import struct
import zipfile
import zlib
from contextlib import nullcontext
from typing import Any

FORMAT = 1
TENSORS = ("policy.safetensors", "optimizer.safetensors")
MANIFEST_KEYS = frozenset(
    {"agent", "arguments", "observation_space", "action_space", "n_envs", "counters", "optimizer_groups", "sha256"}
)


class CheckpointError(ValueError):
    """A file is not a checkpoint of ours, is damaged, or is of another version."""


def pack(members: dict[str, bytes]) -> bytes:
    """A zip of all members, the manifest first."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(members, key=lambda name: name != "manifest.json"):
            archive.writestr(name, members[name])
    return buffer.getvalue()


def unpack(path: str | pathlib.Path | io.BufferedIOBase) -> dict[str, bytes]:
    """All members of a checkpoint, checked against its manifest.

    Raises:
        CheckpointError: not a checkpoint, a member missing or changed, or another format version.
    """
    if isinstance(path, str | pathlib.Path):
        path = pathlib.Path(path)
        if not path.suffix and not path.exists():
            path = path.with_suffix(".zip")
    # A file that cannot be opened says so itself; whatever goes wrong from here on is damage.
    opened: Any = path.open("rb") if isinstance(path, pathlib.Path) else nullcontext(path)
    try:
        with opened as file, zipfile.ZipFile(file) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        manifest = json.loads(members["manifest.json"])
        version, checksums = manifest["format"], manifest["sha256"]
    # Python's reader of a damaged header has many ways to fail: "encrypted", "unsupported version", the end of the file ...
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        OSError,
        EOFError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise CheckpointError(f"{path} is not a checkpoint of ours, or is damaged: {error}") from error
    if version != FORMAT:
        raise CheckpointError(f"{path} has format {version}; this version reads format {FORMAT}")
    for key in MANIFEST_KEYS - manifest.keys():
        raise CheckpointError(f"{path} is damaged: its manifest has no {key!r}")
    if not isinstance(checksums, dict):
        raise CheckpointError(f"{path} is damaged: its manifest has no checksums")
    for name in {*TENSORS, *checksums, *members} - {"manifest.json"}:
        if name not in checksums or hashlib.sha256(members.get(name, b"")).hexdigest() != checksums[name]:
            raise CheckpointError(f"{path} is damaged: its member {name} is not what was saved")
    return members


def write_atomically(path: pathlib.Path, data: bytes) -> None:
    """Write a file so that at any moment, through a crash too, either the old one or the new one is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}"
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
