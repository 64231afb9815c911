"""Tables of a class's arguments, made from its signature and its docstring."""

import inspect
import re
from pydoc import locate
from typing import Any

ENTRY = re.compile(r"(\*{0,2}\w+)(?: \([^)]*\))?: (.*)")


def arguments_table(name: str) -> str:
    """A Markdown table, a row an argument: its default and what the docstring says.

    Args:
        name: ``saccade.agents.PQN``; arguments with a leading underscore are left out.

    Raises:
        ValueError: there is no such class, or its docstring leaves an argument out.
    """
    found = locate(name)
    if not isinstance(found, type):
        raise ValueError(f"{name} is not a class that can be imported; write it as saccade.agents.PQN")
    meanings = documented(inspect.getdoc(found) or "")
    lines = ["| argument | default | meaning |", "|---|---|---|"]
    for parameter in inspect.signature(found).parameters.values():
        if not parameter.name.startswith("_"):
            meaning = meanings.get(parameter.name) or elsewhere(parameter.name, meanings)
            if meaning is None:
                raise ValueError(f"the docstring of {name} does not say what {parameter.name} is, under Args or Attributes")
            lines.append(f"| `{parameter.name}` | {default(parameter)} | {meaning} |")
    return "\n".join(lines) + "\n"


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
    return {name: text.replace("``", "`").replace("|", "\\|") for name, text in entries.items()}


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
    return f"`{value.__name__ if inspect.isroutine(value) or isinstance(value, type) else repr(value)}`"
