"""Run folders: one run, one folder, whatever else starts at the same moment."""

import json
import math
import re
import zlib
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from stable_baselines3.common.logger import KVWriter

from saccade.scripts.errors import UserError

CHECKPOINT = "checkpoint.zip"
CONFIG = "config.yaml"
EVALUATION = "evaluation.json"
METRICS = "metrics.jsonl"


def reserve_run_folder(runs: str | Path, name: str) -> Path:
    """Make a folder of this name in ``runs``, with ``-2``, ``-3`` ... behind it where the name is taken.

    Making a folder is the one step that two processes cannot both succeed at, so twenty runs started at once get twenty.

    Raises:
        UserError: it cannot be made or written to.
    """
    try:
        Path(runs).mkdir(parents=True, exist_ok=True)
        for number in range(1, 10_000):
            folder = Path(runs) / (name if number == 1 else f"{name}-{number}")
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder
    except OSError as error:
        raise UserError(f"cannot make a run folder in {Path(runs).resolve()}: {error.strerror or error}") from error
    raise UserError(f"{Path(runs).resolve()} holds 9,999 runs named {name!r}; choose another name=")


def default_name(agent: str, policy: str, env_id: str, seed: int) -> str:
    """``agent-policy-environment-seed-time``."""
    short = re.sub(r"-v\d+$", "", env_id.rpartition("/")[2].rpartition(":")[2])
    env = re.sub(r"[^a-z0-9]+", "-", short.lower()).strip("-")
    return f"{agent}-{policy}-{env}-s{seed}-{datetime.now():%Y%m%d-%H%M%S}"


class MetricsWriter(KVWriter):
    """SB3 logger output: ``metrics.jsonl``, a line a row, each with a checksum of its own.

    ``{"crc32": "...", "metrics": {...}}``: the checksum is of the compact JSON of ``metrics``.
    """

    def __init__(self, path: Path) -> None:
        self.file: TextIO = path.open("a", encoding="utf-8")

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Append one row: every number and string that was recorded; a number that is not finite is ``null``."""
        metrics: dict[str, Any] = {"step": step}
        for key, value in sorted(key_values.items()):
            if hasattr(value, "item"):
                value = value.item()
            if isinstance(value, float) and not math.isfinite(value):
                value = None  # JSON has no such numbers
            if isinstance(value, bool | int | float | str | None):
                metrics[key] = value
        text = compact(metrics)
        self.file.write(f'{{"crc32":"{zlib.crc32(text.encode()):08x}","metrics":{text}}}\n')
        self.file.flush()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a ``metrics.jsonl`` whose checksums hold; reading stops at the first one that does not."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
            if f"{zlib.crc32(compact(record['metrics']).encode()):08x}" != record["crc32"]:
                break
        except (ValueError, KeyError, TypeError):
            break
        rows.append(record["metrics"])
    return rows


def compact(data: Any) -> str:
    """JSON without spaces."""
    return json.dumps(data, separators=(",", ":"), sort_keys=True)
