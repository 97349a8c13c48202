"""``metrics.jsonl``, the training log of both engines: one JSON record a line."""

from __future__ import annotations

import json
import math
from pathlib import Path

METRICS_FILE = "metrics.jsonl"


def keep_records(path: Path, start_iteration: int) -> None:
    """Keep the records of iterations before ``start_iteration``; create the file.

    A run that went on after its last checkpoint has logged iterations that a resumed run makes
    again; without this they would be in the log twice.

    Args:
        path: the log; a new run (``start_iteration`` 0) begins an empty one.
        start_iteration: first iteration that will be logged, counted from 0.
    """
    kept = []
    if start_iteration and path.is_file():
        for line in path.read_text("utf-8").splitlines():
            if _iteration_of(line) < start_iteration:
                kept.append(line + "\n")
    path.write_text("".join(kept), "utf-8")


def _iteration_of(line: str) -> float:
    # A killed run can leave half a line, which is dropped with the records behind it.
    try:
        return json.loads(line)["iteration"]
    except (ValueError, KeyError, TypeError):
        return math.inf
