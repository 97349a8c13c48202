"""Time and memory of evaluation, side by side with other packages, each in its own process."""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

CHILD = "eql_d2.evaluation.benchmark_candidates"
OURS = "eql_d2"
Metrics = dict[str, float | None]


@dataclass(frozen=True)
class Measurement:
    """One candidate on one size.

    Attributes:
        candidate: Its name.
        kind: "bbox" or "segm".
        images: Images of the data.
        annotations: Seconds to read the annotation file.
        read: Seconds to read the results file.
        evaluate: Seconds of everything after.
        megabytes: Largest memory of the process.
        metrics: Percent, or None where undefined; None if the candidate gives none.
        failure: Why there is no measurement, or "".
    """

    candidate: str
    kind: str
    images: int
    annotations: float = 0.0
    read: float = 0.0
    evaluate: float = 0.0
    megabytes: float = 0.0
    metrics: Metrics | None = None
    failure: str = ""

    def record(self) -> dict[str, Any]:
        """Everything but the metrics of single categories, which were compared and fill pages."""
        metrics = {k: v for k, v in (self.metrics or {}).items() if not k.startswith("category ")}
        return asdict(self) | {"metrics": metrics or None}

    def row(self, reference: Measurement | None) -> str:
        """A line of the table, with the largest difference to the metrics of ``reference``."""
        start = f"{self.candidate:27}{self.kind:5}{self.images:7}"
        if self.failure:
            return f"{start}  {self.failure}"
        difference = None
        if reference is not None and reference is not self:
            difference = largest_difference(self.metrics, reference.metrics)
        text = "" if difference is None else f"{difference:.0e}" if difference else "0 (identical)"
        seconds = f"{self.annotations:9.2f}{self.read:11.2f}{self.evaluate:9.2f}"
        return f"{start}{seconds}{self.megabytes:8.0f}  {text}".rstrip()


COLUMNS = f"{'truth s':>9}{'results s':>11}{'AP s':>9}{'MB':>8}"
HEADER = f"{'':27}{'':5}{'images':>7}{COLUMNS}  largest difference"


def largest_difference(ours: Metrics | None, theirs: Metrics | None) -> float | None:
    """Largest difference of the metrics both have; infinite where only one is undefined."""
    if ours is None or theirs is None:
        return None
    largest = 0.0
    for name in ours.keys() & theirs.keys():
        a, b = ours[name], theirs[name]
        if a is not None and b is not None:
            largest = max(largest, abs(a - b))
        elif a is not b:
            return math.inf
    return largest


FIELDS = {
    "truth": "annotations",
    "results": "read",
    "AP": "evaluate",
    "memory": "megabytes",
}


def ratios(measurements: Sequence[Measurement]) -> list[str]:
    """How many times what this package takes each other candidate took, at each size."""
    lines = []
    done = [row for row in measurements if not row.failure]
    for row in done:
        ours = [m for m in done if (m.candidate, m.kind, m.images) == (OURS, row.kind, row.images)]
        if row.candidate == OURS or not ours:
            continue
        parts = [
            f"{what} {getattr(row, field) / getattr(ours[0], field):.2f}"
            for what, field in FIELDS.items()
            if min(getattr(row, field), getattr(ours[0], field)) > 1e-3
        ]
        lines.append(f"{row.candidate:27}{row.kind:5}{row.images:7}  {', '.join(parts)}")
    return lines


def growth(measurements: Sequence[Measurement]) -> list[str]:
    """For each candidate of two sizes or more: the exponent of time, between its extreme sizes."""
    lines = []
    for name, kind in dict.fromkeys((m.candidate, m.kind) for m in measurements):
        rows = [m for m in measurements if (m.candidate, m.kind) == (name, kind) and not m.failure]
        rows.sort(key=lambda m: m.images)
        if len(rows) < 2 or rows[0].images == rows[-1].images:
            continue
        ratio = math.log(rows[-1].images / rows[0].images)
        exponents = [
            f"{what} {math.log(getattr(rows[-1], field) / getattr(rows[0], field)) / ratio:.2f}"
            for what, field in FIELDS.items()
            if getattr(rows[0], field) > 1e-3
        ]
        sizes = f"from {rows[0].images} to {rows[-1].images} images"
        lines.append(f"{name:27}{kind:5}{', '.join(exponents)} ({sizes})")
    return lines


def measure(
    candidate: str, kind: str, images: int, annotations: Path, results: Path, *, gigabytes: float
) -> Measurement:
    """Run a candidate in a process that may take ``gigabytes`` of memory."""
    limit = int(gigabytes * 1e9)
    done = subprocess.run(
        [sys.executable, "-m", CHILD, candidate, str(annotations), str(results), kind],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    if done.returncode == 0:
        found = json.loads(done.stdout.splitlines()[-1])
        return Measurement(candidate, kind, images, **found)
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    if done.returncode < 0 or "MemoryError" in done.stderr or "bad_alloc" in done.stderr:
        last = f"needs more than {gigabytes:.0f} GB"
    return Measurement(candidate, kind, images, failure=f"failed: {last}")
