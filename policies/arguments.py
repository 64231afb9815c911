"""What constructors take, along a class's ancestors."""

import inspect
from difflib import get_close_matches
from typing import Any


def named_arguments(cls: type, until: str | None = None) -> list[str]:
    """The names that a constructor takes, and those it hands ``**kwargs`` on to.

    Args:
        cls: whose constructor.
        until: the name of a ``**kwargs`` that is not followed.
    """
    taken: dict[str, None] = {}
    for one in cls.__mro__:
        if "__init__" not in vars(one):
            continue
        parameters = inspect.signature(vars(one)["__init__"]).parameters.values()
        rest = [parameter.name for parameter in parameters if parameter.kind == parameter.VAR_KEYWORD]
        taken |= dict.fromkeys(p.name for p in parameters if p.kind not in {p.VAR_POSITIONAL, p.VAR_KEYWORD})
        if not rest or until in rest:
            break
    return list(taken)[1:]


def check_arguments(cls: type, named: dict[str, Any]) -> None:
    """Refuse what no constructor along the class's ancestors takes.

    Raises:
        TypeError: there is such a name; names the class and the nearest valid one, or all where none is near.
    """
    taken = named_arguments(cls)
    for name in sorted(named.keys() - set(taken)):
        near = get_close_matches(name, taken, n=1)
        hint = f"the nearest is {near[0]!r}" if near else f"it takes {', '.join(taken)}"
        raise TypeError(f"{cls.__name__} takes no argument {name!r}; {hint}")
