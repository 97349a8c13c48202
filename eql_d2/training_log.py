"""What a run folder (``OUTPUT_DIR``) holds, and who may write into it.

A folder belongs to one run: it is locked while a run trains or evaluates into it, and a new run
starts in a folder that holds one only with ``--resume`` (continue it) or ``--overwrite`` (remove
its files first). ``metrics.jsonl``, the training log of both engines, has one JSON record a line.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import math
import os
import re
import shlex
import socket
import sys
from collections.abc import Container, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from eql_d2.checkpoint import (
    LAST_CHECKPOINT,
    METADATA_KEY,
    check_finite,
    load_checkpoint,
    resolve_checkpoint,
)
from eql_d2.command_line import TrainOptions
from eql_d2.errors import ConfigError, UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger("eql_d2")

METRICS_FILE = "metrics.jsonl"
FINAL_CHECKPOINT = "model_final.pth"
RESULTS_FILE = Path("inference") / "lvis_instances_results.json"
LOCK_FILE = ".lock"

_CHECKPOINT = re.compile(rf"model_\d{{7,}}\.pth|{re.escape(FINAL_CHECKPOINT)}")
_EVALUATION_FILE = "metrics.json"
_LOG = "log.txt"
# The files of a run by their folder in OUTPUT_DIR. config.yaml and category_statistics.json are
# not among them: every run writes them anew at its start, some from several machines at once.
_RUN_FILES = {
    ".": re.compile(
        rf"{LAST_CHECKPOINT}|{_CHECKPOINT.pattern}|{re.escape(METRICS_FILE)}|"
        rf"{re.escape(_EVALUATION_FILE)}|per_category\.csv|environment\.txt|"
        rf"{re.escape(_LOG)}(\.rank\d+)?|events\.out\.tfevents\..+"
    ),
    str(RESULTS_FILE.parent): re.compile(rf"{re.escape(RESULTS_FILE.name)}|shard_\d+_of_\d+\.json"),
    "pictures": re.compile(r"-?\d+_.+\.png"),
}
# What a killed run leaves of a file that it was writing.
_PARTIAL = re.compile(r"(?P<visible>.+)\.partial|\.(?P<stem>.+)\.\d+\.partial(?P<suffix>\.\w+)?")
# How the Detectron2 engine's log begins. The redirected output of a command begins otherwise.
# Detectron2's own log format shortens its name to d2 in every handler of the process.
_LOG_BEGINNING = re.compile(r"\[\d{4}-\d\d-\d\d [\d:,]+ (eql_d2|detectron2|d2|fvcore)\b")


@contextlib.contextmanager
def run_folder(cfg: Any, options: TrainOptions, engine: str) -> Iterator[None]:
    """Hold ``OUTPUT_DIR`` for one run, from before its data are read until its last file is there.

    One process of a run does this, whatever their number. The folder is made if need be.

    Args:
        cfg: the tree as read.
        options: the command line.
        engine: of this run.

    Raises:
        ConfigError: another process holds the folder, or :func:`folder_problems` finds some.
    """
    folder = Path(cfg.OUTPUT_DIR)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        problems = folder_problems(cfg, options, engine)  # what holds now holds until the end
        if problems:
            raise ConfigError(problems)
        yield


def folder_problems(cfg: Any, options: TrainOptions, engine: str) -> list[str]:
    """Return why a run may not use ``OUTPUT_DIR`` as the command line asks; nothing is changed.

    Args:
        cfg: the tree as read.
        options: the command line.
        engine: of this run.
    """
    for flag, given in (("--resume", options.resume), ("--eval-only", options.eval_only)):
        if options.overwrite and given:
            return [f"--overwrite removes the run that {flag} uses; leave one of the two out"]
    folder = Path(cfg.OUTPUT_DIR)
    if options.eval_only:
        return [] if options.resume else _evaluation_problems(folder, cfg.MODEL.WEIGHTS)
    if options.resume:
        return _resume_problems(folder, engine)
    if options.overwrite:
        return _overwrite_problems(folder, cfg.MODEL.WEIGHTS)
    held = held_run(folder)
    if not held:
        return []
    return [
        f"OUTPUT_DIR {folder} holds a run ({_some(held)}), which a new one would overwrite; add "
        "--resume to continue that run, or --overwrite to remove its files first (either before "
        "the KEY VALUE pairs), or give another OUTPUT_DIR"
    ]


def held_run(output_dir: str | Path) -> list[str]:
    """Return the names of the files that make a folder the folder of a run; [] where none does.

    They are checkpoints, the name of the last one, a training log with records, and metrics.
    """
    folder = Path(output_dir)
    log = folder / METRICS_FILE
    others = [name for name in (LAST_CHECKPOINT, _EVALUATION_FILE) if (folder / name).is_file()]
    if log.is_file() and log.stat().st_size > 0:
        others.append(METRICS_FILE)
    return _checkpoints(folder) + others


def remove_run(output_dir: str | Path, keep: Container[str] = ()) -> None:
    """Remove the files of the run that a folder holds, and say which; everything else stays.

    For the first process, when nothing is left to check and before the first file of the new run.

    Args:
        output_dir: the folder.
        keep: names of files that the new run has begun already.
    """
    folder = Path(output_dir)
    files = [name for name in _run_files(folder) if name not in keep]
    # The pointer first: if this is interrupted, no checkpoint that is left counts as the last.
    for name in sorted(files, key=lambda name: (name != LAST_CHECKPOINT, name)):
        (folder / name).unlink(missing_ok=True)
    for name in _RUN_FILES:
        if name != ".":
            with contextlib.suppress(OSError):  # files that are not the run's are in it
                (folder / name).rmdir()
    if files:
        logger.info(f"--overwrite: removed the earlier run in {folder}: {', '.join(files)}")


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
        for line in path.read_text("utf-8", errors="replace").splitlines():
            if _iteration_of(line) < start_iteration:
                kept.append(line + "\n")
    path.write_text("".join(kept), "utf-8")


def _iteration_of(line: str) -> float:
    # A killed run can leave half a line, which is dropped with the records behind it.
    try:
        iteration = json.loads(line)["iteration"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return math.inf
    return iteration if isinstance(iteration, (int, float)) else math.inf


def _resume_problems(folder: Path, engine: str) -> list[str]:
    """Return why the run cannot be resumed; one without any checkpoint starts at iteration 0."""
    checkpoints, pointer = _checkpoints(folder), folder / LAST_CHECKPOINT
    if not checkpoints and not pointer.is_file():
        return []
    try:
        if not pointer.is_file():
            raise UserError(f"{pointer}, which names the checkpoint to resume from, does not exist")
        last = resolve_checkpoint(folder)
    except UserError as error:
        return [
            f"--resume: {error}. Checkpoints in this folder: {', '.join(checkpoints) or 'none'}. "
            f"Write the name of one into {pointer}, or begin a new run: with one as MODEL.WEIGHTS "
            "and another OUTPUT_DIR, or with --overwrite instead of --resume"
        ]
    try:
        metadata = load_checkpoint(last).get(METADATA_KEY)
    except UserError as error:
        return [f"--resume: {error}"]
    trained_by = metadata.get("engine") if isinstance(metadata, dict) else engine
    if trained_by == engine:
        return []
    return [
        f"--resume: {last} was trained by the {trained_by} engine, this is the {engine} engine; "
        f"resume with --engine {trained_by}, or begin a new run in another OUTPUT_DIR"
    ]


def _overwrite_problems(folder: Path, weights: str) -> list[str]:
    """Return why the run in ``folder`` must stay: weights that are in it, or cannot be read."""
    path = Path(weights.partition("?")[0])  # as in ?matching_heuristics=True
    if not weights or not path.exists():
        return []  # fetched, and of no run; what does not exist is found by the engine
    try:
        path = resolve_checkpoint(path)
        own = {os.path.realpath(folder / name) for name in _run_files(folder)}
        if os.path.realpath(path) in own:
            return [
                f"--overwrite would remove {path}, with which MODEL.WEIGHTS asks to begin; give "
                "another OUTPUT_DIR, or move the file elsewhere first"
            ]
        check_finite(load_checkpoint(path), path)
    except UserError as error:
        return [f"MODEL.WEIGHTS: {error}"]
    return []


def _evaluation_problems(folder: Path, weights: str) -> list[str]:
    """Return why an evaluation may not write here: the folder holds the run of other weights."""
    checkpoints = _checkpoints(folder)
    path = Path(weights.partition("?")[0])
    if not weights or not checkpoints or path.resolve() == folder.resolve():
        return []
    if path.resolve().parent == folder.resolve():
        return []
    return [
        f"--eval-only: OUTPUT_DIR {folder} holds a run ({_some(checkpoints)}), whose metrics and "
        f"results those of MODEL.WEIGHTS {weights} would replace; give another OUTPUT_DIR"
    ]


def _checkpoints(folder: Path) -> list[str]:
    return [name for name in _names(folder) if _CHECKPOINT.fullmatch(name)]


def _run_files(folder: Path) -> list[str]:
    """Return the files of a run, relative to their folder; links count as what they are named."""
    found = []
    for part, pattern in _RUN_FILES.items():
        for name in _names(folder / part):
            if pattern.fullmatch(_without_partial(name)):
                found.append((Path(part) / name).as_posix())
    return [name for name in found if name != _LOG or is_log_of_run(folder / name)]


def _names(folder: Path) -> list[str]:
    """Return the names of the files in a folder, in order; none where there is no folder."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.is_file() or path.is_symlink())


def _without_partial(name: str) -> str:
    match = _PARTIAL.fullmatch(name)
    if match is None:
        return name
    return match["visible"] or match["stem"] + (match["suffix"] or "")


def log_name(rank: int) -> str:
    """Return the name of a process's log in its run's folder."""
    return _LOG if rank == 0 else f"{_LOG}.rank{rank}"


def is_log_of_run(path: Path) -> bool:
    """Tell the engine's own log from a command's output that the user sent to a file of this name.

    The new run's output may go there already; to remove it would lose it.
    """
    if not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        return _LOG_BEGINNING.match(file.readline(200)) is not None


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:6])
    return shown if len(names) <= 6 else f"{shown} and {len(names) - 6} more"


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold ``folder/.lock``, in which others find who does.

    A POSIX record lock: it works on network file systems, processes forked from this one do not
    inherit it, and it ends with the process, however that ends. It also ends when this process
    closes any descriptor of the file, so nothing else in this package opens it. The file is emptied
    but never removed: between the opening and the locking of a file that is being removed, another
    process could make and lock its successor, and both would believe that they hold the folder.

    Raises:
        ConfigError: another process holds it.
    """
    with _lock_file(folder / LOCK_FILE) as file:
        if not _lock(file):
            file.seek(0)
            owner = "".join(c if c.isprintable() else "?" for c in file.read(500).strip())
            raise ConfigError(
                f"OUTPUT_DIR {folder} is in use by {owner or 'another process'}; wait for it to "
                "end, or give another OUTPUT_DIR"
            )
        file.truncate(0)
        since = datetime.now().astimezone().isoformat(" ", "seconds")
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {since}")
        file.write(f" ({shlex.join(sys.argv)})\n")
        file.flush()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # the folder may be gone
                file.truncate(0)


def _lock_file(path: Path) -> TextIO:
    try:
        return path.open("a+", encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(
            f"{path}, which tells others that OUTPUT_DIR is in use, cannot be opened: "
            f"{error.strerror or error}; remove it, or give another OUTPUT_DIR"
        ) from error


def _lock(file: TextIO) -> bool:
    """Lock a file, or return False where another process has. Warn where nothing can be locked."""
    reason = "this system has no POSIX locks"
    if fcntl is not None:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            reason = error.strerror or str(error)
        else:
            return True
    logger.warning(f"{file.name} cannot be locked ({reason}); let no other run use this folder")
    return True
