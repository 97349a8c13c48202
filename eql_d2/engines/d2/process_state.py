"""What a run changes in its process, and puts back: the log and torch's global switches."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eql_d2.engines.d2.compat import comm
from eql_d2.errors import UserError
from eql_d2.files import TerminalFormatter
from eql_d2.training_log import is_log_of_run, log_name

TRAINING_LOOP = "detectron2.engine.train_loop"  # logs the traceback of whatever ends a training


@contextmanager
def run_log(output_dir: Path) -> Iterator[Callable[[], None]]:
    """Send this process's log to ``OUTPUT_DIR/log.txt``; the first process also prints it.

    Yields:
        a function that removes what an earlier run left in that file.
    """
    rank = comm.get_rank()
    output_dir.mkdir(parents=True, exist_ok=True)
    file = output_dir / log_name(rank)
    earlier = file.stat().st_size if is_log_of_run(file) else 0
    handlers: list[logging.Handler] = [logging.FileHandler(file, encoding="utf-8")]
    if rank == 0 and not logging.getLogger().handlers:
        handlers.append(logging.StreamHandler(sys.stdout))
    loggers = [logging.getLogger(n) for n in ("eql_d2", "detectron2", "fvcore")]
    before = [(one.level, one.propagate) for one in loggers]
    for handler in handlers:
        handler.setFormatter(TerminalFormatter("[%(asctime)s %(name)s] %(message)s"))
    for one in loggers:
        one.setLevel(logging.INFO)
        one.propagate = rank == 0
        for handler in handlers:
            one.addHandler(handler)
    training_loop = logging.getLogger(TRAINING_LOOP)
    training_loop.addFilter(_is_no_mistake_of_users)
    try:
        yield lambda: _remove_beginning(file, earlier)
    finally:
        training_loop.removeFilter(_is_no_mistake_of_users)
        for one, (level, propagate) in zip(loggers, before, strict=True):
            one.setLevel(level)
            one.propagate = propagate
            for handler in handlers:
                one.removeHandler(handler)
        for handler in handlers:
            handler.close()


def _remove_beginning(file: Path, size: int) -> None:
    """Remove the first bytes of a file that a log appends to."""
    with file.open("r+b") as stream:
        stream.seek(size)
        rest = stream.read()
        stream.seek(0)
        stream.write(rest)
        stream.truncate()


def _is_no_mistake_of_users(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], UserError))


@contextmanager
def torch_switches(cfg: Any, *, training: bool) -> Iterator[None]:
    """Set what ``CUDNN_BENCHMARK`` and ``FLOAT32_PRECISION`` say."""
    benchmark = torch.backends.cudnn.benchmark
    precision = torch.get_float32_matmul_precision()
    # Test images come in many sizes, each of which would be tried out anew.
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK and training
    if cfg.FLOAT32_PRECISION:
        torch.set_float32_matmul_precision(cfg.FLOAT32_PRECISION)
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = benchmark
        torch.set_float32_matmul_precision(precision)


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Let what is done inside draw random numbers, and go on afterwards as if nothing was drawn.

    Data loaders draw seeds from torch's generator, and Detectron2's resizing draws from NumPy's
    even where there is one size to choose from.
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    numpy_state = np.random.get_state()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        np.random.set_state(numpy_state)
