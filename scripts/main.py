"""``saccade``: one command, a handful of subcommands, each also a file to run (``python scripts/train.py``)."""

import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import version

COMMANDS = {
    "train": "train an agent that attends, from a composed config",
    "evaluate": "play episodes with a trained agent: saccade evaluate run=runs/NAME",
    "check": "find out in seconds whether an agent, a policy and an environment can learn together",
    "results": "run an experiment's seeds and write what its claim rests on",
    "envs": "list what can be trained on",
}
MODULES = {"envs": "saccade.scripts.environments"}

USAGE = "\n".join(
    [
        "usage: saccade COMMAND [name=value ...]",
        "",
        *(f"  {name:<10} {what}" for name, what in COMMANDS.items()),
        "",
        "saccade COMMAND --help says more; tensorboard --logdir runs shows curves and films.",
    ]
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one subcommand; exits with 2 where there is no such command, with 130 on Ctrl-C, imports included."""
    try:
        dispatch(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `saccade envs | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at Python's end
        sys.exit(141)


def dispatch(arguments: list[str]) -> None:
    """Choose the subcommand."""
    command = arguments[0] if arguments else "--help"
    if command in {"-h", "--help"}:
        print(USAGE)
    elif command in {"-V", "--version"}:
        print(f"saccade {version('saccade')}")
    elif command in COMMANDS:
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())  # env.id=my_file:Mine-v0 finds a file beside you
        # Each command's own imports wait until it is chosen: torch alone takes seconds.
        import_module(MODULES.get(command, f"saccade.scripts.{command}")).main(arguments[1:])
    else:
        near = get_close_matches(command, COMMANDS, n=1)
        hint = f"; the nearest is {near[0]!r}" if near else ""
        print(f"saccade: unknown command {command!r}{hint}\n\n{USAGE}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
