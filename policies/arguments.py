"""What constructors take, along a class's ancestors."""

import inspect
from difflib import get_close_matches
from typing import Any

WORDS = {
    "lstm_hidden_size": 'core_kwargs={"hidden_size": ...}',
    "n_lstm_layers": 'core_kwargs={"n_layers": ...}',
    "enable_critic_lstm": "core_class=Twin for an LSTM each, LSTM for one",
    "shared_lstm": "core_class=LSTM",
    "optimize_memory_usage": "nothing: frames are stored once",
}
"""What SB3's and sb3-contrib's users say, and what to say here."""


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
        hint = f"write {WORDS[name]}" if name in WORDS else hint
        raise TypeError(f"{cls.__name__} takes no argument {name!r}; {hint}")
