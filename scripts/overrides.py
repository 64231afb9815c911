"""Overrides are checked before anything is made: what does not exist is refused with the nearest that does."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from saccade.scripts import schema
from saccade.scripts.errors import UserError

CONFIGS = "saccade.conf"
CANNOT_COMPOSE = (HydraException, OmegaConfBaseException, ValueError)
schema.register()


@contextmanager
def config_loader(config_dir: str | None) -> Iterator[Any]:
    """Hydra's loader of our configs, behind those of ``--config-dir`` if it was given.

    Raises:
        UserError: there is no such folder.
    """
    if config_dir is not None and not Path(config_dir).is_dir():
        raise UserError(f"--config-dir {config_dir}: there is no such folder")
    with initialize_config_module(config_module=CONFIGS, version_base="1.3"):
        loader: Any = GlobalHydra.instance().config_loader()
        if config_dir is not None:
            path = f"file://{Path(config_dir).resolve()}"
            loader.config_search_path.prepend("command-line", path, SearchPathQuery(provider="schema"))
            loader.repository = ConfigRepository(loader.config_search_path)
        yield loader


def check_overrides(config_name: str, overrides: Sequence[str], multirun: bool = False, config_dir: str | None = None) -> None:
    """Compose without running, every value of a sweep once.

    Raises:
        UserError: a group, a choice or a key does not exist, or cannot be parsed; names the nearest that do. Or runs cannot
            be written to.
    """
    with config_loader(config_dir) as loader:
        parsed = parse(overrides, loader)
        values = [alternatives(override, loader) for override in parsed]
        plain = [texts[0] for texts in values]
        cfg = composed(config_name, plain)
        for index, texts in enumerate(values):
            for text in texts[1:]:  # composing takes a tenth of a second: only what differs is composed anew
                composed(config_name, [*plain[:index], text, *plain[index + 1 :]])
        check_sweeps(cfg, parsed, multirun)
        if cfg.get("runs") is not None:
            check_folder(Path(cfg.runs))


def composed(config_name: str, chosen: Sequence[str]) -> DictConfig:
    """The config with these overrides.

    Raises:
        UserError: one of them is wrong; says which.
    """
    try:
        return compose(config_name, list(chosen), return_hydra_config=True)
    except CANNOT_COMPOSE as error:
        raise UserError(explain(config_name, chosen, find_culprit(config_name, chosen), error)) from error


def parse(overrides: Sequence[str], loader: Any) -> list[Override]:
    """The overrides as Hydra reads them.

    Raises:
        UserError: it cannot read one.
    """
    parser = OverridesParser.create(config_loader=loader)
    parsed: list[Override] = []
    for text in overrides:
        try:
            parsed += parser.parse_overrides([text])
        except HydraException as error:
            raise UserError(f"cannot read {text!r}: {first_line(error)}") from error
    return parsed


def alternatives(override: Override, loader: Any) -> list[str]:
    """Every single value of an override, as an override: a sweep (``seed=0,1,2``) has several, an interval its start.

    Raises:
        UserError: a sweep has none.
    """
    if not override.is_sweep_override():
        return [override.input_line or ""]
    key, sweep = override.get_key_element(), override.value()
    if isinstance(sweep, IntervalSweep):
        return [f"{key}={sweep.start}"]
    values = [f"{key}={value}" for value in override.sweep_string_iterator()]
    if not values:
        choices = public_choices(loader, override.key_or_group)
        there = f"; there are: {', '.join(choices)}" if choices else ""
        raise UserError(f"{override.input_line!r} names no value{there}")
    return values


def check_sweeps(cfg: DictConfig, parsed: Sequence[Override], multirun: bool) -> None:
    """Whether there are sweeps where only one value makes sense.

    Raises:
        UserError: a sweep without ``--multirun``, or one that Hydra's own sweeper cannot run.
    """
    for override in parsed:
        if not override.is_sweep_override():
            continue
        if not multirun and cfg.hydra.mode != RunMode.MULTIRUN:
            raise UserError(
                f"{override.input_line!r} names several values; to run each of them, add --multirun before the first name=value"
            )
        if override.is_interval_sweep() and cfg.hydra.runtime.choices["hydra/sweeper"] == "basic":
            raise UserError(
                f"{override.input_line!r} is an interval, for a sweeper that searches; list values (a,b,c), or range(...)"
            )


def check_folder(folder: Path) -> None:
    """Whether files can be made in a folder, or in the one where it would be made.

    Raises:
        UserError: they cannot.
    """
    there = next(path for path in [folder.absolute(), *folder.absolute().parents] if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UserError(f"cannot make a run folder in {folder}: {there} is no folder that can be written to")


def find_culprit(config_name: str, chosen: Sequence[str]) -> str:
    """The first override without whose presence composing works."""
    for count in range(1, len(chosen) + 1):
        try:
            compose(config_name, list(chosen[:count]), return_hydra_config=True)
        except CANNOT_COMPOSE:
            return chosen[count - 1]
    return chosen[-1]


def explain(config_name: str, chosen: Sequence[str], culprit: str, error: Exception) -> str:
    """What is wrong with an override, and the nearest valid names."""
    key, _, value = culprit.lstrip("+~").partition("=")
    loader = GlobalHydra.instance().config_loader()
    choices = public_choices(loader, key.partition("@")[0])
    if choices and value not in choices:
        plugin = ", and a plugin may add others" if key.startswith("hydra/") else ""
        return f"{key} has no choice {value!r}; {nearest(value, choices)}{plugin}"
    keys = valid_keys(config_name, [text for text in chosen if text != culprit])
    if choices or key in keys:
        return f"cannot use {culprit!r}: {first_line(error)}"
    groups = [group for group in loader.list_groups("") if group != "hydra"]
    open_keys = ("env.kwargs.", "evaluation.also.", "also.", "claim.more.")
    add = f"; for an argument that the config does not list: +{culprit}" if key.startswith(open_keys) else ""
    return f"there is no value or group {key!r}; {nearest(key, [*groups, *keys])}{add}"


def public_choices(loader: Any, group: str) -> list[str]:
    """The choices of a group, without those that only others build on (``_glimpse``); none if it is no group."""
    return [choice for choice in loader.get_group_options(group) if not choice.startswith("_")]


def valid_keys(config_name: str, others: Sequence[str]) -> list[str]:
    """Every dotted key of the config with the groups that the other overrides choose."""
    loader = GlobalHydra.instance().config_loader()
    choices = [text for text in others if public_choices(loader, text.lstrip("+~").partition("=")[0])]
    try:
        cfg = compose(config_name, choices)
    except CANNOT_COMPOSE:  # another override is wrong as well
        cfg = compose(config_name)
    return [name for name in flat_keys(cfg) if not name.startswith("hydra")]


def flat_keys(cfg: Any, prefix: str = "") -> list[str]:
    """Every dotted key of a config."""
    keys = []
    for key in cfg:
        keys.append(f"{prefix}{key}")
        if OmegaConf.is_dict(node := cfg._get_node(key)) and not OmegaConf.is_missing(cfg, key) and node is not None:
            keys += flat_keys(node, f"{prefix}{key}.")
    return keys


def nearest(name: str, valid: Sequence[str]) -> str:
    """The nearest valid names in words, or all if none comes near."""
    valid = list(dict.fromkeys(valid))
    tails: dict[str, list[str]] = {}
    for option in valid:
        tails.setdefault(option.rsplit(".", 1)[-1], []).append(option)
    near = get_close_matches(name, valid, n=3, cutoff=0.6)
    near += [option for tail in get_close_matches(name.rsplit(".", 1)[-1], tails, n=2, cutoff=0.7) for option in tails[tail]]
    near = list(dict.fromkeys(near))[:3]
    return f"the nearest: {', '.join(near)}" if near else f"there are: {', '.join(sorted(valid)[:20])}"


def first_line(error: Exception) -> str:
    """The first line of an error's message, or of what caused it, which is where Hydra's errors say why."""
    why = error.__cause__ or error
    return (str(why).splitlines() or [type(why).__name__])[0]
