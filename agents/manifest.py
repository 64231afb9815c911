"""Constructor arguments and spaces as JSON and back, without pickle and without importing anything.

A class is stored by name and found again in an exact list; nothing else is ever looked up, so that a file from elsewhere can
name only what stands on that list.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common import torch_layers, utils
from torch import nn

import saccade.policies as policies
from saccade.agents.reinforce import Reinforce
from saccade.agents.schedules import LinearWarmup

_SCHEDULES = (utils.LinearSchedule, utils.ConstantSchedule)
_ACTIVATIONS = (nn.Tanh, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Softplus)
_SCALARS = (type(None), bool, int, float, str)


class ManifestError(ValueError):
    """A checkpoint's manifest cannot be written or trusted."""


def name_of(thing: type) -> str:
    """The name a class is stored by: our own and torch's by the package that exports it, others by their module."""
    parts = thing.__module__.split(".")
    module = parts[:2] if parts[0] in {"saccade", "torch"} else parts
    return ".".join([*module, thing.__name__])


def allowed_classes(further: Iterable[type] = ()) -> dict[str, type]:
    """Every class that a manifest may name, by name."""
    exported = [getattr(policies, name) for name in policies.__all__]
    ours = [
        thing for thing in exported if isinstance(thing, type) and issubclass(thing, (torch.nn.Module, torch.optim.Optimizer))
    ]
    exported_by_torch = [thing for thing in vars(torch.optim).values() if isinstance(thing, type)]
    torch_classes = [thing for thing in exported_by_torch if issubclass(thing, torch.optim.Optimizer)]
    sb3 = [torch_layers.NatureCNN, torch_layers.FlattenExtractor, torch_layers.CombinedExtractor, *_SCHEDULES]
    return {name_of(thing): thing for thing in [*ours, Reinforce, LinearWarmup, *torch_classes, *_ACTIVATIONS, *sb3, *further]}


def encode(value: Any) -> Any:
    """A constructor argument as JSON.

    Raises:
        ManifestError: there is no way to store it without pickle.
    """
    if isinstance(value, _SCALARS):
        return value
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, type):
        return {"_class_": name_of(value)}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, partial) and value.args:
        raise ManifestError(f"{value!r} has positional arguments; name them to store it in a checkpoint")
    if isinstance(value, partial) and isinstance(value.func, type):
        return {"_target_": name_of(value.func), "_partial_": True, **encode(value.keywords)}
    if dataclasses.is_dataclass(value):
        return {"_target_": name_of(type(value)), **encode(vars(value))}
    if isinstance(value, _SCHEDULES):
        return {"_target_": name_of(type(value)), **encode(vars(value))}
    raise ManifestError(f"{value!r} cannot be stored in a checkpoint; use numbers, strings, classes or an SB3 schedule")


def decode(value: Any, classes: Mapping[str, type]) -> Any:
    """The inverse of :func:`encode`.

    Raises:
        ManifestError: a class is named that does not stand in ``classes``.
    """
    if isinstance(value, list):
        return [decode(item, classes) for item in value]
    if not isinstance(value, dict):
        return value
    if "_class_" in value:
        return find_class(value["_class_"], classes)
    arguments = {key: decode(item, classes) for key, item in value.items() if key not in {"_target_", "_partial_"}}
    if "_target_" not in value:
        return arguments
    target = find_class(value["_target_"], classes)
    return partial(target, **arguments) if value.get("_partial_") else target(**arguments)


def find_class(name: str, classes: Mapping[str, type]) -> type:
    """The allowed class of that name.

    Raises:
        ManifestError: there is none; names the nearest.
    """
    if name not in classes:
        nearest = get_close_matches(str(name), classes, n=3)
        hint = f"; nearest allowed: {', '.join(nearest)}" if nearest else ""
        raise ManifestError(f"the checkpoint names {name!r}, which is not allowed (pass allow=[TheClass] to load it){hint}")
    return classes[name]


def encode_space(space: gym.Space[Any]) -> dict[str, Any]:
    """A Gymnasium space as JSON.

    Raises:
        ManifestError: a kind of space that agents do not take.
    """
    match space:
        case gym.spaces.Box():
            low, high = space.low, space.high
            # Most bounds are one number; JSON has no infinity, numpy's text does.
            same = bool((low == low.flat[0]).all() and (high == high.flat[0]).all()) if low.size else False
            bounds = {
                "low": str(low.flat[0]) if same else [str(x) for x in low.flat],
                "high": str(high.flat[0]) if same else [str(x) for x in high.flat],
            }
            return {"space": "Box", **bounds, "shape": list(space.shape), "dtype": str(space.dtype)}
        case gym.spaces.Discrete():
            return {"space": "Discrete", "n": int(space.n), "start": int(space.start)}
        case gym.spaces.MultiDiscrete():
            return {"space": "MultiDiscrete", "nvec": space.nvec.tolist()}
        case gym.spaces.MultiBinary():
            return {"space": "MultiBinary", "n": encode(space.n)}
        case gym.spaces.Dict():
            return {"space": "Dict", "spaces": {key: encode_space(part) for key, part in space.spaces.items()}}
    raise ManifestError(f"{space} cannot be stored in a checkpoint")


def decode_space(data: Mapping[str, Any]) -> gym.Space[Any]:
    """The inverse of :func:`encode_space`.

    Raises:
        ManifestError: an unknown kind of space.
    """
    match data.get("space"):
        case "Box":
            dtype: Any = np.dtype(data["dtype"])
            low, high = (
                np.broadcast_to(np.array(data[bound], dtype=dtype).reshape(-1), (int(np.prod(data["shape"])),))
                if isinstance(data[bound], str)
                else np.array(data[bound], dtype=dtype)
                for bound in ("low", "high")
            )
            return gym.spaces.Box(low.reshape(data["shape"]), high.reshape(data["shape"]), dtype=dtype)
        case "Discrete":
            return gym.spaces.Discrete(data["n"], start=data["start"])
        case "MultiDiscrete":
            return gym.spaces.MultiDiscrete(data["nvec"])
        case "MultiBinary":
            return gym.spaces.MultiBinary(data["n"])
        case "Dict":
            return gym.spaces.Dict({key: decode_space(part) for key, part in data["spaces"].items()})
    raise ManifestError(f"unknown kind of space {data.get('space')!r} in the checkpoint")
