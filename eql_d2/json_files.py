"""Json files as every part of the package reads them: compressed or not, with clear errors.

Standard library only (and orjson where it is installed), so that every layer may use it.
"""

from __future__ import annotations

import contextlib
import gc
import gzip
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

from eql_d2.errors import DataError, UserError
from eql_d2.files import AnyPath, terminal_text

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
GZIP, ZIP = b"\x1f\x8b", b"PK\x03\x04"
# Json compresses 5 to 50 times, deflate at most 1032 times; so no archive of data is both of these:
MOST_UNPACKED = 1 << 27  # bytes that unpack from any archive, and beyond them
LARGEST_RATIO = 200  # so many bytes from each byte of the archive
CHUNK = 1 << 24  # bytes unpacked at once
# What broken files make the standard library raise; RuntimeError: a zip with a password.
UNREADABLE = (OSError, EOFError, ValueError, RuntimeError, zlib.error, zipfile.error, struct.error)


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


def parse_json(text: bytes) -> Any:
    """Parse json as ``json.loads`` does, with orjson (2-3 times faster) if it is installed.

    What orjson refuses goes to ``json``, so errors and ``NaN`` are the same with and without it.

    Raises:
        ValueError: The text is not json in UTF-8.
        RecursionError: It is nested too deeply.
    """
    quick, value = _parse_quickly(text)
    return value if quick else json.loads(text.decode("utf-8"))


def _parse_quickly(text: bytes) -> tuple[bool, Any]:
    with contextlib.suppress(ImportError):
        import orjson

        with contextlib.suppress(orjson.JSONDecodeError):
            try:
                return True, orjson.loads(text)
            except SystemError as problem:  # how orjson says that the memory is full
                raise MemoryError from problem
    return False, None


def read_json(path: AnyPath, what: str, error: type[UserError] = DataError) -> Any:
    """Parse a json file in UTF-8, with or without a byte order mark, compressed or not.

    Args:
        path: The file; see :class:`ByteSource` for the forms it may have.
        what: What it should hold, for the message, such as "annotation file".
        error: The class of the exception to raise.

    Raises:
        UserError: (as ``error``) There is no such file, it cannot be read, or it is empty, cut off
            at its end, or anything else that is not json, or it is larger than the memory; the
            message says which.
    """
    text, size = "", 0
    try:
        with ByteSource(path, what, error) as source:
            data = source.read().removeprefix(BYTE_ORDER_MARK)
        size = len(data)
        with paused_garbage_collection():
            quick, value = _parse_quickly(data)
            if quick:
                return value
            text = data.decode("utf-8")
            del data  # large files are not kept twice
            return json.loads(text)
    except UnicodeDecodeError as problem:
        reason = f"it is no text ({problem})"
    except json.JSONDecodeError as problem:
        reason = _syntax_hint(text, problem)
    except UserError:
        raise
    except (ValueError, RecursionError) as problem:
        reason = str(problem)
    except MemoryError:
        held = f"; it holds {size:,} bytes of json" if size else ""
        raise error(
            f"{what} {path} needs more memory than there is{held}. Free some, or use a smaller file"
        ) from None
    raise error(f"{what} {path} is not valid json ({reason})")


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


def _is_data(name: str) -> bool:
    """Whether a zip's entry is a json file, and no ``__MACOSX/._name.json`` that Macs add."""
    return name.endswith(".json") and not name.rpartition("/")[2].startswith(".")


class ByteSource:
    """The bytes of a file that is plain, gzip, or a zip with one json file inside.

    The first bytes decide, not the name: json begins with neither signature. Use as a context
    manager. All reading raises ``error`` with a message that names the file.

    Attributes:
        path: The file.
        position: Bytes read so far, after decompression.

    A file that unpacks to more than ``MOST_UNPACKED`` bytes and to more than ``LARGEST_RATIO``
    times what it takes compressed is refused while it is read: it was made to fill the memory.
    """

    def __init__(self, path: AnyPath, what: str, error: type[UserError]) -> None:
        self.path = path
        self.position = 0
        self._what = what
        self._error = error
        self._stack: contextlib.ExitStack
        self._file: IO[bytes]
        self._packed: Callable[[], int] | None = None  # bytes of the archive read so far

    def __enter__(self) -> ByteSource:
        with self._named_errors(), contextlib.ExitStack() as stack:
            self._file = self._open(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes (all by default); none at the end only."""
        if size < 0 and self._packed is not None:
            return b"".join(iter(lambda: self.read(CHUNK), b""))
        with self._named_errors():
            data = self._file.read(size)
        self.position += len(data)
        if self._packed is not None and self.position > MOST_UNPACKED:
            packed = max(self._packed(), 1)
            if self.position > LARGEST_RATIO * packed:
                raise self._error(
                    f"{self._what} {self.path} is refused: {packed:,} compressed bytes became more "
                    f"than {self.position:,}, which no data do (limit: {LARGEST_RATIO} to 1); if "
                    "it is what you want to read, unpack it yourself"
                )
        return data

    def _open(self, stack: contextlib.ExitStack) -> IO[bytes]:
        file = stack.enter_context(io.BufferedReader(io.FileIO(self.path)))
        signature = file.peek(4)
        if signature.startswith(GZIP):
            self._packed = file.tell
            return cast(IO[bytes], stack.enter_context(gzip.open(file)))
        if not signature.startswith(ZIP):
            return file
        archive = stack.enter_context(zipfile.ZipFile(file))
        names = [name for name in archive.namelist() if _is_data(name)]
        if len(names) != 1:
            found = ", ".join(map(terminal_text, archive.namelist()[:5])) or "nothing"
            raise self._error(
                f"{self._what} {self.path}: expected a zip with one .json file, it holds {found}"
            )
        start = archive.getinfo(names[0]).header_offset
        self._packed = lambda: file.tell() - start
        return stack.enter_context(archive.open(names[0]))

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except UNREADABLE as problem:
            place = f" after byte {self.position}" if self.position else ""
            raise self._error(
                f"{self._what} {self.path} cannot be read{place}: {_reason(problem)}"
            ) from problem


def _reason(problem: Exception) -> str:
    if isinstance(problem, FileNotFoundError):
        return f"No such file (looked from {Path.cwd()})"
    if isinstance(problem, IsADirectoryError):
        return "it is a folder"
    return str(getattr(problem, "strerror", None) or problem)
