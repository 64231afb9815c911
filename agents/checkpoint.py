"""Checkpoints: one zip of a JSON manifest and safetensors, a checksum for every member, no pickle on the way in or out."""

import hashlib
import io
import json
import pathlib
from collections.abc import Iterable
from typing import Any, TypeVar

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import check_for_correct_spaces, get_system_info
from torch import Tensor, nn

from saccade.agents.archive import FORMAT, CheckpointError, pack, unpack, write_atomically
from saccade.agents.manifest import (
    ManifestError,
    allowed_classes,
    decode,
    decode_space,
    encode,
    encode_space,
    name_of,
)
from saccade.policies.arguments import check_arguments, named_arguments

T = TypeVar("T", bound="Checkpointed")

OMITTED = "_omitted_"
COUNTERS = ("num_timesteps", "_total_timesteps", "_n_updates", "_episode_num", "_current_progress_remaining")
SB3_ARGUMENTS = {"policy_kwargs": "policy_kwargs", "seed": "seed", "stats_window_size": "_stats_window_size"}
NOT_STORED = {"env", "_init_setup_model"}
MISSING = object()


class Checkpointed(BaseAlgorithm):
    """SB3's ``save`` and ``load``, on safe files."""

    def constructor_arguments(self) -> dict[str, Any]:
        """What this algorithm was made with, by argument name; SB3 keeps each under an attribute of its name."""
        names = {name: name for name in named_arguments(type(self), "sb3_kwargs") if name not in NOT_STORED}
        names |= {"policy": "policy_class", **SB3_ARGUMENTS}
        return {argument: getattr(self, attribute, MISSING) for argument, attribute in names.items()}

    def networks(self) -> dict[str, nn.Module]:
        """Everything with weights, by the name of its attribute."""
        return {"policy": self.policy}

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return [*self.networks(), "policy.optimizer"], []

    def save(self, path: str | pathlib.Path | io.BufferedIOBase, exclude: object = None, include: object = None) -> None:
        """Write everything needed to use the agent and to go on training it to ``path`` (``.zip`` is added if missing).

        A file at ``path`` stays whole until the new one is: written under a temporary name, flushed to disk, renamed.

        Args:
            path: a path, or an open binary file.
            exclude: for SB3's signature; nothing here can be left out.
            include: for SB3's signature; nothing can be added.

        A constructor argument without a JSON form (a lambda as ``learning_rate``, say) is left out; :meth:`load` asks for it.
        """
        optimizer_tensors, optimizer_groups = flatten_optimizer(self.policy.optimizer)
        members = {
            **{f"{name}.safetensors": save_tensors(contiguous(net.state_dict())) for name, net in self.networks().items()},
            "optimizer.safetensors": save_tensors(contiguous(optimizer_tensors)),
        }
        assert self.observation_space is not None
        manifest = {
            "format": FORMAT,
            "agent": name_of(type(self)),
            "arguments": {name: encode_or_omit(value) for name, value in self.constructor_arguments().items()},
            "observation_space": encode_space(self.observation_space),
            "action_space": encode_space(self.action_space),
            "n_envs": self.n_envs,
            "counters": {name: getattr(self, name) for name in COUNTERS},
            "optimizer_groups": optimizer_groups,
            "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in members.items()},
        }
        members["manifest.json"] = json.dumps(manifest, indent=1).encode()
        if isinstance(path, str | pathlib.Path):
            target = pathlib.Path(path)
            write_atomically(target if target.suffix else target.with_suffix(".zip"), pack(members))
        else:
            path.write(pack(members))

    def set_parameters(
        self, load_path_or_dict: str | dict[str, Any], exact_match: bool = True, device: torch.device | str = "auto"
    ) -> None:
        """SB3's ``set_parameters``; a path is one of our checkpoints."""
        if isinstance(load_path_or_dict, str | pathlib.Path):
            members = unpack(load_path_or_dict)
            groups = json.loads(members["manifest.json"])["optimizer_groups"]
            load_path_or_dict = {
                **{name: load_tensors(members[f"{name}.safetensors"]) for name in self.networks()},
                "policy.optimizer": optimizer_state(load_tensors(members["optimizer.safetensors"]), groups),
            }
        super().set_parameters(load_path_or_dict, exact_match, device)
        align_moments(self.policy.optimizer)

    @classmethod
    def load(
        cls: type[T],
        path: str | pathlib.Path | io.BufferedIOBase,
        env: GymEnv | None = None,
        device: torch.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        allow: Iterable[type] = (),
        **kwargs: Any,
    ) -> T:
        """An agent from a checkpoint. Where to log (``tensorboard_log``, ``verbose``) is not stored: name it again.

        Args:
            path: what was given to :meth:`save`.
            env: an environment to go on training in; its spaces must be those of the checkpoint.
            device: where to put the weights.
            custom_objects: constructor arguments that replace the stored ones, as ``kwargs`` (SB3).
            print_system_info: print versions first (SB3).
            force_reset: for SB3's signature; the environment is always reset before training goes on.
            allow: classes of your own (a core, a torso) that the checkpoint may name.
            kwargs: constructor arguments that replace the stored ones.

        Raises:
            CheckpointError: not a checkpoint, damaged, of another format or another agent.
            ManifestError: it names a class that is not allowed, or an argument could not be stored and is not given.
            TypeError: a name among ``kwargs`` is no constructor argument.
        """
        if print_system_info:
            get_system_info()
        members = unpack(path)
        manifest = json.loads(members["manifest.json"])
        if manifest["agent"] != name_of(cls):
            raise CheckpointError(f"this is a checkpoint of {manifest['agent']}, not of {name_of(cls)}")
        given = {**(custom_objects or {}), **kwargs}
        check_arguments(cls, given)
        try:
            return cls._from_manifest(manifest, members, env, device, allowed_classes(allow), given)
        except (CheckpointError, ManifestError):
            raise
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} does not fit this version or environment, or is damaged: {error}") from error

    @classmethod
    def _from_manifest(
        cls: type[T],
        manifest: dict[str, Any],
        members: dict[str, bytes],
        env: GymEnv | None,
        device: torch.device | str,
        classes: dict[str, type],
        given: dict[str, Any],
    ) -> T:
        own = {*named_arguments(cls, "sb3_kwargs"), *SB3_ARGUMENTS} - NOT_STORED
        if strangers := manifest["arguments"].keys() - own:
            raise ManifestError(f"the checkpoint sets {', '.join(sorted(strangers))}, which only the caller may")
        stored = {name: value for name, value in manifest["arguments"].items() if name not in given}
        for name, value in stored.items():
            if isinstance(value, dict) and OMITTED in value:
                raise ManifestError(f"{name} could not be stored ({value[OMITTED]}); pass {name}=... to load it")
        model = cls(env=env, device=device, _init_setup_model=False, **decode(stored, classes), **given)  # type: ignore[call-arg]
        observation_space, action_space = (decode_space(manifest[f"{name}_space"]) for name in ("observation", "action"))
        if model.env is not None:
            check_for_correct_spaces(model.env, observation_space, action_space)
        else:
            model.observation_space, model.action_space, model.n_envs = observation_space, action_space, int(manifest["n_envs"])
        model._setup_model()
        for name, network in model.networks().items():
            network.load_state_dict(load_tensors(members[f"{name}.safetensors"]))
        tensors = load_tensors(members["optimizer.safetensors"])
        model.policy.optimizer.load_state_dict(optimizer_state(tensors, manifest["optimizer_groups"]))
        align_moments(model.policy.optimizer)
        for name in COUNTERS:
            setattr(model, name, manifest["counters"][name])
        return model


def encode_or_omit(value: Any) -> Any:
    """A constructor argument as JSON, or in its place a note that it has none: a training is never lost for that."""
    if value is MISSING:
        return {OMITTED: "the agent has no attribute of that name"}
    try:
        return encode(value)
    except ManifestError as error:
        return {OMITTED: str(error)}


def contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that share no memory, on the CPU, as safetensors needs them."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """An optimiser's state as flat tensors (``"<parameter index>.<name>"``) and its parameter groups as JSON."""
    state = optimizer.state_dict()
    tensors = {
        f"{index}.{name}": torch.as_tensor(value) for index, entry in state["state"].items() for name, value in entry.items()
    }
    return tensors, [{key: encode(value) for key, value in group.items()} for group in state["param_groups"]]


def optimizer_state(tensors: dict[str, Tensor], groups: list[dict[str, Any]]) -> dict[str, Any]:
    """The inverse of :func:`flatten_optimizer`: what ``load_state_dict`` takes."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    return {"state": state, "param_groups": groups}


def align_moments(optimizer: torch.optim.Optimizer) -> None:
    """Lay out an optimiser's state in memory as its parameters are.

    ``load_state_dict`` keeps the layout of what it is given, and a fused kernel pairs numbers by their place in memory: where
    convolutions have their channels last, the moments of one weight would be another's.
    """
    for parameter, entry in optimizer.state.items():
        for name, value in entry.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                entry[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
