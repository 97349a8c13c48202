"""Time and memory of evaluation, side by side with other packages, each in a process of its own.

``python -m eql_d2.evaluation.benchmark CANDIDATE ANNOTATIONS RESULTS KIND`` measures one candidate
in this process and prints one line of json.
"""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eql_d2.evaluation.json_file import parse_json, paused_garbage_collection

MAX_DETECTIONS = 300
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")
MEGABYTE = 1e6
Row = dict[str, Any]


@dataclass(frozen=True)
class Measurement:
    """One candidate on one size.

    Attributes:
        candidate: Its name.
        images: Images of the data.
        read: Seconds to read both files.
        evaluate: Seconds of everything after.
        megabytes: Largest memory of the process.
        metrics: Percent or None; empty where the candidate gives none.
        failure: Why there is no measurement, or "".
    """

    candidate: str
    images: int
    read: float = 0.0
    evaluate: float = 0.0
    megabytes: float = 0.0
    metrics: dict[str, float | None] | None = None
    failure: str = ""

    HEADER = f"{'':34} {'images':>7} {'read s':>8} {'after s':>8} {'MB':>7}  largest difference"

    def row(self, reference: Measurement) -> str:
        """A line of the table; ``reference`` has the metrics to compare with."""
        start = f"{self.candidate:34} {self.images:7}"
        if self.failure:
            return f"{start} {self.failure}"
        difference = largest_difference(self.metrics, reference.metrics)
        text = "" if difference is None or self is reference else f"{difference:.1e}"
        return f"{start} {self.read:8.2f} {self.evaluate:8.2f} {self.megabytes:7.0f}  {text}"


def largest_difference(
    ours: dict[str, float | None] | None, theirs: dict[str, float | None] | None
) -> float | None:
    """Largest difference of metrics, in percent; infinite where one side is undefined only."""
    if not ours or not theirs:
        return None
    differences = [0.0]
    for name in ours.keys() & theirs.keys():
        a, b = ours[name], theirs[name]
        if (a is None) != (b is None):
            return math.inf
        if a is not None and b is not None:
            differences.append(abs(a - b))
    return max(differences)


def growth_exponents(measurements: Sequence[Measurement]) -> list[str]:
    """For each candidate with two sizes or more: time ~ images^exponent, smallest to largest."""
    lines = []
    for name in dict.fromkeys(m.candidate for m in measurements):
        rows = [m for m in measurements if m.candidate == name and not m.failure]
        if len(rows) < 2:
            continue
        a, b = rows[0], rows[-1]
        seconds = (a.read + a.evaluate, b.read + b.evaluate)
        exponent = math.log(seconds[1] / seconds[0]) / math.log(b.images / a.images)
        lines.append(f"{name:34} time ~ images^{exponent:.2f} from {a.images} to {b.images}")
    return lines


def measure(
    candidate: str, images: int, annotations: Path, results: Path, kind: str, *, gigabytes: float
) -> Measurement:
    """Run one candidate in a process that may take ``gigabytes`` of memory."""
    limit = int(gigabytes * 1e9)
    command = [sys.executable, "-m", __spec__.name if __spec__ else __name__, candidate]
    done = subprocess.run(
        [*command, str(annotations), str(results), kind],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    if done.returncode == 0:
        return Measurement(candidate, images, **json.loads(done.stdout.splitlines()[-1]))
    last = (done.stderr.strip().splitlines() or ["killed"])[-1]
    memory = "MemoryError" in done.stderr or "bad_alloc" in done.stderr or done.returncode < 0
    return Measurement(
        candidate, images, failure=f"needs more than {gigabytes:.0f} GB" if memory else last
    )


def _timed(
    read: Callable[[], Any], evaluate: Callable[[Any], dict[str, float | None] | None]
) -> Row:
    start = time.perf_counter()
    data = read()
    middle = time.perf_counter()
    metrics = evaluate(data)
    stop = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "read": middle - start,
        "evaluate": stop - middle,
        "megabytes": peak * unit / MEGABYTE,
        "metrics": metrics,
    }


def _ours(annotations: Path, results: Path, kind: str) -> Row:
    from eql_d2.evaluation.annotations import read_ground_truth
    from eql_d2.evaluation.results import read_results
    from eql_d2.evaluation.scoring import evaluate_arrays

    def read() -> Any:
        truth = read_ground_truth(annotations, need_masks=kind == "segm")
        return truth, read_results(results, truth, [kind])

    def evaluate(data: Any) -> dict[str, float | None]:
        metrics = evaluate_arrays(*data, [kind], MAX_DETECTIONS).metrics
        return {name: metrics[f"{kind}/{name}"] for name in METRICS}

    return _timed(read, evaluate)
