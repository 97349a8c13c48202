"""Files as every part of the package writes them: whole or not at all, with clear errors.

And text from a stranger's files, made harmless: for a terminal, for a cell of a csv, for the name
of a file. Standard library only, so that every layer may use it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import tempfile
import unicodedata
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, TextIO

from eql_d2.errors import UserError

AnyPath = str | os.PathLike[str]
# In the output folder of a run: image counts and groups of its categories, as
# eql_d2.categories.write_statistics leaves them. Here, because tools look for it without torch.
STATISTICS_FILE = "category_statistics.json"
# What only writing meets: a disk or a quota is full, a file is too large, a disk fails or has gone.
DISK_ERRORS = frozenset(
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EIO", "EROFS", "ESTALE")
    if hasattr(errno, name)
)

# Paths that the user gave and the system does not take: no permission, too long, a circle of links.
PATH_ERRORS = frozenset((errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP))


# Categories of Unicode that a terminal obeys instead of showing: controls, bidirectional marks and
# other invisible characters, halves of pairs, private and unassigned ones, separators of lines.
_NOT_SHOWN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_JOINERS = "\u200c\u200d"  # Persian, Hindi and emoji are spelled with them
_FORMULA = re.compile("'*[=+\\-@\uff1d\uff0b\uff0d\uff20]")
LONGEST_STEM = 100  # bytes of an input's name in the name of an output; systems take 255


def terminal_text(text: str, *, keep_lines: bool = False) -> str:
    r"""Return text from a file as a terminal, a log or a table can show it.

    What would move the cursor, change colours, reverse the line or forge a new one is written as
    ``\x1b``, ``\u202e``, ``\n`` ...; letters of all languages stay as they are.

    Args:
        text: such as a category's name.
        keep_lines: whether line ends and tabs stay, for messages of several lines of our own.
    """
    if text.isprintable():
        return text
    kept = _JOINERS + "\n\t" if keep_lines else _JOINERS
    return "".join(
        c
        if c in kept or unicodedata.category(c) not in _NOT_SHOWN
        else c.encode("unicode_escape").decode("ascii")
        for c in text
    )


class TerminalFormatter(logging.Formatter):
    """Log lines as :func:`terminal_text` makes them; those of several lines stay so."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, or the lines."""
        return terminal_text(super().format(record), keep_lines=True)


def csv_text(text: str) -> str:
    """Return text as a cell that spreadsheets do not take for a formula.

    They run what begins with ``=``, ``+``, ``-`` or ``@``; an apostrophe in front makes it text
    (OWASP, CSV injection). For names only, never for numbers. :func:`read_csv_text` takes it back;
    controls are written as :func:`terminal_text` writes them: they would break the row.
    """
    text = terminal_text(text)
    return f"'{text}" if _FORMULA.match(text) else text


def read_csv_text(cell: str | None) -> str:
    """Return the text that :func:`csv_text` put an apostrophe before.

    Raises:
        TypeError: the row has fewer cells than the header, for which ``csv.DictReader`` gives None.
    """
    if cell is None:
        raise TypeError("a row has fewer cells than the header")
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def safe_stem(name: str) -> str:
    """Return an input's name without its folder and ending, as a part of an output's name.

    Only letters, digits, ``_``, ``.`` and ``-`` stay, and not more than systems take.
    """
    stem = re.sub(r"[^\w.-]", "_", Path(name).stem)
    return stem.encode("utf-8", "ignore")[:LONGEST_STEM].decode("utf-8", "ignore")


@contextlib.contextmanager
def atomic_path(path: AnyPath) -> Iterator[Path]:
    """Give a hidden path to write to, which becomes ``path`` when the block ends without an error.

    A reader never sees half a file, and a killed run leaves an earlier file as it was. The hidden
    path has the same ending, and the folder of both is made. Of a link the target is replaced. What
    is no file, such as ``/dev/stdout``, is written to as it is.

    Raises:
        UserError: the folder cannot be made, the file cannot get its name, or the disk took no more
            of it.
    """
    target = Path(os.path.realpath(path))
    partial = target.with_name(f".{target.stem}.{os.getpid()}.partial{target.suffix}")
    if _is_device(path):
        with _named_errors(path, DISK_ERRORS):
            yield Path(path)
        return
    try:
        with _named_errors(path):
            target.parent.mkdir(parents=True, exist_ok=True)
        with _named_errors(path, DISK_ERRORS):
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
            # Json may hold halves of pairs of UTF-16, which UTF-8 does not have.
            file = partial.open("w", encoding="utf-8", errors="backslashreplace", newline="")
        with file:
            yield file


def write_bytes(path: AnyPath, content: bytes) -> None:
    """Write a whole file; see :func:`atomic_path`.

    For what others encode, such as pictures: they hide why a disk took no more.

    Raises:
        UserError: it cannot be written.
    """
    with atomic_path(path) as partial, _named_errors(path):
        partial.write_bytes(content)


def write_json(path: AnyPath, content: Any) -> None:
    """Write a small json file for people and programs; see :func:`atomic_path`.

    Raises:
        UserError: it cannot be written.
    """
    with atomic_text_file(path) as file:
        json.dump(content, file, indent=2)
        file.write("\n")


def check_not_input(output: AnyPath, *inputs: AnyPath) -> None:
    """Refuse to write over what is read.

    Raises:
        UserError: ``output`` is the same file as one of ``inputs``.
    """
    if os.path.realpath(output) in map(os.path.realpath, inputs):
        raise UserError(f"{output} is read, and would be overwritten; choose another output")


def check_output_file(path: AnyPath, flag: str, *inputs: AnyPath) -> Path:
    """Make sure, before any work, that a file can be written; nothing is left there.

    Args:
        path: the file, whose folder exists or will be made.
        flag: of the command line, for the message.
        *inputs: files that are read.

    Returns:
        ``path``.

    Raises:
        UserError: it is a folder or one of ``inputs``, or its folder cannot be made or written to.
    """
    if os.path.isdir(path or os.curdir):
        raise UserError(f"{flag} {path or repr(path)} is a folder; give the name of a file")
    check_not_input(path, *inputs)
    if not _is_device(path):
        _check_folder(Path(os.path.realpath(path)).parent, f"{flag} {path}")
    return Path(path)


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
    _check_folder(Path(path), f"{flag} {path}")
    return Path(path)


def _check_folder(folder: Path, subject: str) -> None:
    try:
        existing = folder
        while not os.path.lexists(existing) and existing != existing.parent:
            existing = existing.parent
        if existing.exists() and not existing.is_dir():
            raise UserError(f"{subject}: {existing} is a file; give a folder")
        tempfile.TemporaryFile(dir=existing).close()
    except (OSError, ValueError) as problem:
        if isinstance(problem, UserError):
            raise
        reason = getattr(problem, "strerror", None) or problem
        raise UserError(f"{subject} cannot be written to: {reason}") from None


def _is_device(path: AnyPath) -> bool:
    return os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path))


@contextlib.contextmanager
def _named_errors(path: AnyPath, codes: Container[int | None] | None = None) -> Iterator[None]:
    """Name the file in errors of writing it: all errors of the system, or those with ``codes``."""
    try:
        yield
    except OSError as problem:
        if codes is not None and problem.errno not in codes:
            raise
        hint = ""
        if problem.errno in DISK_ERRORS and not _is_device(path):
            hint = ". What was begun of it is removed, an earlier file of that name is as it was; "
            hint += "make room, or choose another place"
        reason = problem.strerror or problem
        raise UserError(f"{path} cannot be written: {reason}{hint}") from problem
