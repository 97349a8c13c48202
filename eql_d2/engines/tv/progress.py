"""The training log: one line for people, one JSON record for programs."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from eql_d2.training_log import keep_records

logger = logging.getLogger("eql_d2.engines.tv")


class TrainingLog:
    """Averages losses between records, writes ``metrics.jsonl`` and prints progress.

    Sums stay on the device until a record is due, so logging does not stall a GPU.

    Args:
        path: the file; records behind ``start_iteration`` (of a run that went on after its last
            checkpoint) are dropped, a new run starts a new file.
        start_iteration: iterations already done.
        max_iter: iterations in all.
        period: iterations between records.
    """

    def __init__(self, path: Path, start_iteration: int, max_iter: int, period: int) -> None:
        self._path = path
        self._max_iter = max_iter
        self._period = period
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        self._data_seconds = 0.0
        self._last_time = time.monotonic()
        keep_records(path, start_iteration)

    def is_due(self, iteration: int) -> bool:
        """Say whether the record of this iteration (counted from 0) will be written."""
        return (iteration + 1) % self._period == 0 or iteration + 1 == self._max_iter

    def add(
        self,
        iteration: int,
        losses: Mapping[str, Tensor],
        statistics: Mapping[str, Tensor],
        learning_rate: float,
        data_seconds: float,
    ) -> None:
        """Add one iteration; write and print a record when it is due."""
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, torch.zeros(())).to(value) + value.detach()
        self._count += 1
        self._data_seconds += data_seconds
        if not self.is_due(iteration):
            return
        now = time.monotonic()
        seconds = (now - self._last_time) / self._count
        means = {name: float(value) / self._count for name, value in self._sums.items()}
        record = {
            "iteration": iteration,
            "total_loss": sum(means.values()),
            **means,
            **{name: _json_number(float(value)) for name, value in statistics.items()},
            "lr": learning_rate,
            "time": seconds,
            "data_time": self._data_seconds / self._count,
        }
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")
        left = seconds * (self._max_iter - iteration - 1)
        terms = "  ".join(f"{k.removeprefix('loss_')} {v:.3f}" for k, v in means.items())
        logger.info(
            f"iteration {iteration + 1}/{self._max_iter}  loss {record['total_loss']:.3f}  "
            f"{terms}  lr {learning_rate:.2g}  {seconds:.2f} s/it  left {format_duration(left)}"
        )
        self._sums, self._count, self._data_seconds, self._last_time = {}, 0, 0.0, now

    def pause(self, seconds: float) -> None:
        """Leave ``seconds`` (of an evaluation) out of the time per iteration."""
        self._last_time += seconds


def _json_number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def format_duration(seconds: float) -> str:
    """Return ``h:mm:ss`` or ``m:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
