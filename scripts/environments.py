"""``saccade envs``: what can be trained on."""

import sys
from collections.abc import Sequence
from itertools import groupby

from saccade.envs import list_environments

USAGE = "usage: saccade envs [TEXT]   lists environments whose id or description holds TEXT; train with env.id=ID"


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry of ``saccade envs``."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments and arguments[0] in {"-h", "--help"}:
        print(USAGE)
        return
    wanted = " ".join(arguments).lower()
    rows = [row for row in list_environments() if wanted in f"{row.group} {row.id} {row.summary}".lower()]
    if not rows:
        print(f"saccade: no environment's id or description holds {wanted!r}", file=sys.stderr)
        sys.exit(2)
    width = max(len(row.id) for row in rows)
    for group, members in groupby(rows, key=lambda row: row.group):
        print(f"\n{group}")
        for row in members:
            spaces = f"  [{row.observations} -> {row.actions}]" if row.observations else ""
            print(f"  {row.id:<{width}}  {row.summary}{spaces}".rstrip())


if __name__ == "__main__":
    main()
