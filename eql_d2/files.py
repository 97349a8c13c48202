"""Files as every part of the package treats them: json read with clear errors, writing whole files.

Standard library only, so that every layer may use it.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from eql_d2.errors import DataError, UserError

AnyPath = str | os.PathLike[str]


@contextlib.contextmanager
def paused_garbage_collection() -> Iterator[None]:
    """Switch cyclic garbage collection off for a while.

    Parsing creates millions of objects, none in a cycle, and every one of them makes the collector
    walk over all the others again: more than half of the time on a large file.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def read_json(path: AnyPath, what: str, error: type[UserError] = DataError) -> Any:
    """Parse a json file in UTF-8, with or without a byte order mark.

    Args:
        path: the file.
        what: what it should hold, for the message, such as "annotation file".
        error: class of the exception.

    Raises:
        UserError: (as ``error``) there is no such file, it cannot be read, or it is empty, cut off
            at its end, an archive or anything else that is not json; the message says which.
    """
    file = Path(path)
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        reason = f"No such file (looked from {Path.cwd()})"
        raise error(f"{what} {path} cannot be read: {reason}") from None
    except IsADirectoryError:
        raise error(f"{what} {path} cannot be read: it is a folder") from None
    except (OSError, ValueError) as problem:
        reason = str(getattr(problem, "strerror", None) or problem)
        raise error(f"{what} {path} cannot be read: {reason}") from None
    beginning = content[:4]
    try:
        text = content.decode("utf-8-sig")
        del content  # large files are not kept twice
        with paused_garbage_collection():
            return json.loads(text)
    except UnicodeDecodeError as problem:
        reason = _archive_hint(beginning) or f"it is no text ({problem})"
    except json.JSONDecodeError as problem:
        reason = _syntax_hint(text, problem)
    except (ValueError, RecursionError) as problem:
        reason = str(problem)
    raise error(f"{what} {path} is not valid json ({reason})")


def _archive_hint(beginning: bytes) -> str:
    if beginning.startswith(b"PK\x03\x04"):
        return "it is a zip archive, unpack it first"
    if beginning.startswith(b"\x1f\x8b"):
        return "it is a gzip archive, unpack it first"
    return ""


def _syntax_hint(text: str, problem: json.JSONDecodeError) -> str:
    if not text.strip():
        return "it is empty; was its download or its writing interrupted?"
    # What follows the last sound token: nothing, half a string, half a number or half of a word.
    half_token = problem.pos > 0 and re.fullmatch(
        r"[-+.\w]{0,30}\s*", text[problem.pos : problem.pos + 40]
    )
    if half_token or problem.msg.startswith("Unterminated string"):
        return (
            f"it is cut off after {len(text):,} characters, {problem.msg}; "
            "was its download or its writing interrupted?"
        )
    near = text[max(0, problem.pos - 20) : problem.pos + 20]
    return f"{problem} near {near!r}"


@contextlib.contextmanager
def atomic_path(path: AnyPath) -> Iterator[Path]:
    """Give a hidden path to write to, which becomes ``path`` when the block ends without an error.

    A reader never sees half a file, and a killed run leaves an earlier file as it was. The hidden
    path has the same ending, and the folder of both is made. Of a link the target is replaced.

    Raises:
        UserError: the folder cannot be made, or the file cannot get its name.
    """
    target = Path(os.path.realpath(path))
    partial = target.with_name(f".{target.stem}.{os.getpid()}.partial{target.suffix}")
    try:
        with _named_errors(path):
            target.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with _named_errors(path):
            partial.replace(target)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


@contextlib.contextmanager
def atomic_text_file(path: AnyPath) -> Iterator[TextIO]:
    """Open a text file for writing that gets its name only when the block ends without an error.

    UTF-8, line ends as written; see :func:`atomic_path`.

    Raises:
        UserError: it cannot be written.
    """
    with atomic_path(path) as partial:
        with _named_errors(path):
            file = partial.open("w", encoding="utf-8", newline="")
        with file:
            yield file


def check_not_input(output: AnyPath, *inputs: AnyPath) -> None:
    """Refuse to write over what is read.

    Raises:
        UserError: ``output`` is the same file as one of ``inputs``.
    """
    if Path(output).resolve() in [Path(path).resolve() for path in inputs]:
        raise UserError(f"{output} is read, and would be overwritten; choose another output")


def check_output_folder(path: AnyPath, flag: str) -> Path:
    """Make sure, before any work, that files can be written into a folder; nothing is left there.

    Args:
        path: a folder that exists or will be made.
        flag: of the command line, for the message.

    Returns:
        ``path``.

    Raises:
        UserError: it is a file, or it cannot be made or written to.
    """
    folder = Path(path)
    try:
        existing = folder
        while not os.path.lexists(existing) and existing != existing.parent:
            existing = existing.parent
        if existing.exists() and not existing.is_dir():
            raise UserError(f"{flag} {path}: {existing} is a file; give a folder")
        with tempfile.TemporaryFile(dir=existing):
            return folder
    except (OSError, ValueError) as problem:
        if isinstance(problem, UserError):
            raise
        reason = getattr(problem, "strerror", None) or problem
        raise UserError(f"{flag} {path} cannot be written to: {reason}") from None


@contextlib.contextmanager
def _named_errors(path: AnyPath) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        raise UserError(f"{path} cannot be written: {problem.strerror or problem}") from problem
