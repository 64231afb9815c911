"""Tables of a class's arguments, made from its signature and its docstring."""

import inspect
import re
from functools import partial
from pydoc import locate
from typing import Any

HANDED_ON = {"observation_space", "action_space", "lr_schedule", "input_shape", "features_dim"}
ROLE = re.compile(r":\w+:`~?(?:[\w.]+\.)?(\w+)`")
ENTRY = re.compile(r"(\*{0,2}\w+)(?: \([^)]*\))?: (.*)")


def arguments_table(name: str) -> str:
    """A Markdown table, a row an argument: its default and what the docstring says.

    Where the docstring does not say what ``**kwargs`` are, they are those of the class above.

    Args:
        name: ``saccade.agents.PQN``; arguments with a leading underscore are left out, and what an agent hands to its policy
            and a policy to its core.

    Raises:
        ValueError: there is no such class, or its docstring leaves an argument out.
    """
    found = locate(name)
    if not isinstance(found, type):
        raise ValueError(f"{name} is not a class that can be imported; write it as saccade.agents.PQN")
    rows: dict[str, str] = {}
    for cls in found.__mro__:
        if "__init__" not in vars(cls):
            continue
        meanings = documented(inspect.getdoc(cls) or "")
        parameters = list(inspect.signature(vars(cls)["__init__"]).parameters.values())[1:]
        followed = [one for one in parameters if one.kind is one.VAR_KEYWORD and one.name not in meanings]
        for parameter in parameters:
            unsaid = parameter in followed or parameter.kind is parameter.VAR_POSITIONAL
            if unsaid or parameter.name in HANDED_ON or parameter.name.startswith("_"):
                continue
            meaning = meanings.get(parameter.name) or elsewhere(parameter.name, meanings)
            if meaning is None and followed:
                continue  # the class above says it
            if meaning is None:
                raise ValueError(f"the docstring of {name} does not say what {parameter.name} is, under Args or Attributes")
            rows.setdefault(parameter.name, f"| `{parameter.name}` | {default(parameter)} | {meaning} |")
        if not followed:
            break
    return "\n".join(["| argument | default | meaning |", "|---|---|---|", *rows.values()]) + "\n"


def documented(docstring: str) -> dict[str, str]:
    r"""The entries of a docstring's ``Args`` and ``Attributes``, as Markdown on one line each.

    >>> documented("A thing.\n\nArgs:\n    size: ``N``,\n        slots.\n\nRaises:\n    ValueError: too few.")
    {'size': '`N`, slots.'}
    """
    entries: dict[str, str] = {}
    inside, latest = False, None
    for line in docstring.splitlines():
        if line and not line.startswith(" "):
            inside, latest = line in ("Args:", "Attributes:"), None
        elif inside and (match := ENTRY.fullmatch(line[4:])):
            latest = match[1].lstrip("*")
            entries[latest] = match[2]
        elif inside and latest and line.strip():
            entries[latest] += " " + line.strip()
    return {name: ROLE.sub(r"`\1`", text.replace("``", "`")).replace("|", "\\|") for name, text in entries.items()}


def elsewhere(name: str, meanings: dict[str, str]) -> str | None:
    """Which argument's text explains this one as well."""
    return next((f"see `{other}`" for other, text in meanings.items() if f"`{name}`" in text), None)


def default(parameter: inspect.Parameter) -> str:
    """The default as one would write it; functions and classes by name."""
    value: Any = parameter.default
    if parameter.kind in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL):
        return ""
    if value is inspect.Parameter.empty:
        return "required"
    if isinstance(value, partial):
        return f"`partial({value.func.__name__}, {', '.join(f'{name}={given!r}' for name, given in value.keywords.items())})`"
    return f"`{value.__name__ if inspect.isroutine(value) or isinstance(value, type) else repr(value)}`"
