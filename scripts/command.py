"""How a command runs on Hydra: overrides are checked before anything is made, and bad input ends with exit status 2."""

import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

import hydra
from hydra import compose, initialize_config_module
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from saccade.scripts import schema

CONFIGS = "saccade.conf"
schema.register()


class UserError(Exception):
    """Something the user asked for cannot be done; the message says what, and what could be."""

    status = 2


class RunError(UserError):
    """A run that had started could not go on."""

    status = 1


def run_command(job: Callable[[DictConfig], None], config_name: str, arguments: Sequence[str]) -> None:
    """Check the overrides, then hand over to Hydra, which knows ``--multirun``, ``--cfg``, ``--help`` and completion.

    Exits with 2 on bad input, with 1 where a run had to stop, with 130 on Ctrl-C.
    """
    try:
        check_overrides(config_name, get_args_parser().parse_args(list(arguments)).overrides)
    except UserError as error:
        fail(error)

    def guarded(cfg: DictConfig) -> None:
        try:
            job(cfg)
        except UserError as error:
            fail(error)
        except KeyboardInterrupt:
            sys.exit(130)

    sys.argv = [f"saccade {config_name}", *arguments]
    hydra.main(version_base="1.3", config_path=f"pkg://{CONFIGS}", config_name=config_name)(guarded)()


def fail(error: UserError) -> None:
    """Say what is wrong and exit with the error's status."""
    print(f"saccade: {error}", file=sys.stderr)
    sys.exit(error.status)


def check_overrides(config_name: str, overrides: Sequence[str]) -> None:
    """Compose once without running.

    Raises:
        UserError: a group, a choice or a key does not exist, or cannot be parsed; names the nearest that do.
    """
    try:
        parsed = [override for text in overrides for override in OverridesParser.create().parse_overrides([text])]
    except HydraException as error:
        raise UserError(f"cannot read {' '.join(overrides)!r}: {first_line(error)}") from error
    with initialize_config_module(config_module=CONFIGS, version_base="1.3"):
        plain = [text for override in parsed for text in (alternatives(override)[:1] or [override.input_line or ""])]
        for index, override in enumerate(parsed):
            for text in alternatives(override):
                try:
                    compose(config_name, [*plain[:index], text, *plain[index + 1 :]], return_hydra_config=True)
                except (HydraException, OmegaConfBaseException) as error:
                    culprit = find_culprit(config_name, plain, index, text)
                    raise UserError(explain(config_name, culprit, error)) from error


def alternatives(override: Override) -> list[str]:
    """Every single value of an override, as an override: a sweep (``seed=0,1,2``) has several."""
    if not override.is_sweep_override():
        return [override.input_line or ""]
    key = override.get_key_element()
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def find_culprit(config_name: str, plain: Sequence[str], index: int, text: str) -> str:
    """The first override without whose presence composing works."""
    chosen = [*plain[:index], text, *plain[index + 1 :]]
    for count in range(1, len(chosen) + 1):
        try:
            compose(config_name, chosen[:count], return_hydra_config=True)
        except (HydraException, OmegaConfBaseException):
            return chosen[count - 1]
    return text


def explain(config_name: str, culprit: str, error: Exception) -> str:
    """What is wrong with an override, and the nearest valid names."""
    key, _, value = culprit.lstrip("+~").partition("=")
    loader = GlobalHydra.instance().config_loader()
    groups = loader.list_groups("")
    if key in groups:
        choices = [choice for choice in loader.get_group_options(key) if not choice.startswith("_")]
        if value not in choices:
            return f"{key} has no choice {value!r}; {nearest(value, choices)}"
        return f"cannot use {culprit!r}: {first_line(error)}"
    keys = [name for name in flat_keys(compose(config_name)) if not name.startswith("hydra")]
    if key in keys:
        return f"cannot use {culprit!r}: {first_line(error)}"
    return f"there is no value or group {key!r}; {nearest(key, [*groups, *keys])}"


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
