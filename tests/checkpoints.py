"""Agents to save, and what is needed to look into their files."""

import json
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.utils import LinearSchedule
from torch import Tensor

from saccade.agents import PQN, Reinforce
from saccade.envs import Catch, ProbeMemory, TaskVecEnv
from saccade.policies import GRU, FeedForward, LearnedGaze, MLPTorso, QPolicy, Retina

SMALL = {"features_extractor_kwargs": {"net_arch": [13]}, "head_hidden_size": 17}


def remembering(**arguments: Any) -> PQN:
    kwargs = SMALL | {"core_kwargs": {"hidden_size": 11}}
    return PQN("LstmPolicy", TaskVecEnv(ProbeMemory(5, seed=0)), n_steps=7, policy_kwargs=kwargs, device="cpu", **arguments)


def looking() -> PQN:
    core_kwargs = {
        "hidden_size": 11,
        "glimpse_size": 13,
        "pathway_size": 7,
        "memory": partial(GRU, n_layers=1),
        "gaze": partial(LearnedGaze, sigma=0.3, learn_sigma=True),
        "retina": partial(Retina, patch_size=3, scales=2, pooling="mean"),
    }
    env = TaskVecEnv(Catch(5, height=7, width=11, seed=0))
    reinforce = Reinforce(coef=0.3, clip_range=None, ent_coef=0.01)
    kwargs = {"core_kwargs": core_kwargs}
    return PQN("GlimpsePolicy", env, n_steps=7, policy_kwargs=kwargs, reinforce=reinforce, device="cpu")


def reacting() -> PQN:
    kwargs = SMALL | {
        "core_class": FeedForward,
        "features_extractor_class": MLPTorso,
        "optimizer_class": torch.optim.Adam,
        "optimizer_kwargs": {"betas": (0.8, 0.9), "eps": 1e-5, "amsgrad": True},
    }
    env = TaskVecEnv(ProbeMemory(5, seed=0))
    return PQN(
        QPolicy, env, LinearSchedule(0.01, 0.002, 0.5), n_steps=7, gamma=0.9, q_lambda=0.3, policy_kwargs=kwargs, device="cpu"
    )


def tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        for key in sorted(tree, key=str):
            yield from tensors(tree[key])
    elif isinstance(tree, list | tuple):
        for item in tree:
            yield from tensors(item)


def same_tensors(ours: Any, theirs: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(tensors(ours), tensors(theirs), strict=True))


def save_one(folder: Path) -> Path:
    """A small agent that has learned once, saved."""
    remembering().learn(35).save(folder / "agent")
    return folder / "agent.zip"


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The checkpoint with another manifest, its other members and their checksums as they are."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(members["manifest.json"])
    change(manifest)
    members["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path
