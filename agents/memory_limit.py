"""How much memory there is, and a refusal, before anything is allocated, of what cannot fit into it."""

import os
from collections.abc import Callable
from pathlib import Path

GIB = 2**30


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that this process may use: the smallest of its control groups' limits (v2 or v1) and physical memory.

    Args:
        root: where ``proc`` and ``sys`` lie.
    """
    limits = [limit for path in _limit_files(root) if (limit := _read_limit(path)) is not None]
    return min([_physical_memory(), *limits])


def check_fits(what: str, buffer_size: int, predicted_bytes: Callable[[int], int], limit: int | None = None) -> None:
    """Refuse a buffer that is predicted to need more than the memory there is.

    Args:
        what: what would be allocated, for the message.
        buffer_size: the size asked for.
        predicted_bytes: bytes as a function of the size; must not fall as the size grows.
        limit: bytes there are; :func:`available_memory` if ``None``.

    Raises:
        ValueError: it does not fit; names the prediction, the limit, and the largest size that fits.
    """
    limit = available_memory() if limit is None else limit
    needed = predicted_bytes(buffer_size)
    if needed <= limit:
        return
    fits, too_large = 0, buffer_size
    while too_large - fits > 1:
        middle = (fits + too_large) // 2
        fits, too_large = (middle, too_large) if predicted_bytes(middle) <= limit else (fits, middle)
    raise ValueError(
        f"{what} with buffer_size={buffer_size} needs {needed / GIB:.2f} GiB; this process may use {limit / GIB:.2f} GiB. "
        + (f"The largest buffer_size that fits is {fits}" if fits else "No buffer_size fits")
    )


def _physical_memory() -> int:
    """Bytes of the machine, or a number larger than any machine's where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 2**63 - 1


def _limit_files(root: Path) -> list[Path]:
    """Every file that may limit this process: those of its own control group and of the groups above it."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    files = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            mount, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            mount, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        # Inside a container the path may be the host's, and only the mount itself be there: missing files are no limit.
        own = Path(group.lstrip("/"))
        files += [mount / folder / name for folder in [own, *own.parents]]
    return files


def _read_limit(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None  # "max": no limit
