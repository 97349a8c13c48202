"""Read a json file of millions of records, compressed or not."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from types import TracebackType
from typing import IO, Any, cast

from eql_d2.errors import UserError
from eql_d2.files import atomic_text_file, paused_garbage_collection

__all__ = ["ByteSource", "atomic_text_file", "parse_json", "paused_garbage_collection", "read_json"]

GZIP, ZIP = b"\x1f\x8b", b"PK\x03\x04"
# What broken files make the standard library raise; RuntimeError: a zip with a password.
UNREADABLE = (OSError, EOFError, ValueError, RuntimeError, zlib.error, zipfile.error, struct.error)


def parse_json(text: bytes) -> Any:
    """Parse json as ``json.loads`` does, with orjson (2-3 times faster) if it is installed.

    What orjson refuses goes to ``json``, so errors and ``NaN`` are the same with and without it.

    Raises:
        ValueError: The text is not json in UTF-8.
        RecursionError: It is nested too deeply.
    """
    with contextlib.suppress(ImportError):
        import orjson

        with contextlib.suppress(orjson.JSONDecodeError):
            return orjson.loads(text)
    return json.loads(text.decode("utf-8"))


def read_json(path: str | os.PathLike[str], what: str, error: type[UserError]) -> Any:
    """Parse the json file at ``path``, which may be compressed as in :class:`ByteSource`.

    Args:
        path: The file.
        what: What the file should hold, for the message, for example "annotation file".
        error: The class of the exception to raise.

    Raises:
        UserError: (as ``error``) The file cannot be opened or is not json.
    """
    with ByteSource(path, what, error) as source:
        text = source.read().removeprefix(b"\xef\xbb\xbf")
    try:
        with paused_garbage_collection():
            return parse_json(text)
    except (ValueError, RecursionError) as problem:
        raise error(
            f"{what} {path} is not valid json ({problem}); was it cut off while being written?"
        ) from problem


class ByteSource:
    """The bytes of a file that is plain, gzip, or a zip with one json file inside.

    The first bytes decide, not the name: json begins with neither signature. Use as a context
    manager. All reading raises ``error`` with a message that names the file.

    Attributes:
        path: The file.
        position: Bytes read so far, after decompression.
    """

    def __init__(self, path: str | os.PathLike[str], what: str, error: type[UserError]) -> None:
        self.path = path
        self.position = 0
        self._what = what
        self._error = error
        self._stack: contextlib.ExitStack
        self._file: IO[bytes]

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
        with self._named_errors():
            data = self._file.read(size)
        self.position += len(data)
        return data

    def _open(self, stack: contextlib.ExitStack) -> IO[bytes]:
        file = stack.enter_context(io.BufferedReader(io.FileIO(self.path)))
        signature = file.peek(4)
        if signature.startswith(GZIP):
            return cast(IO[bytes], stack.enter_context(gzip.open(file)))
        if not signature.startswith(ZIP):
            return file
        archive = stack.enter_context(zipfile.ZipFile(file))
        names = [name for name in archive.namelist() if name.endswith(".json")]
        if len(names) != 1:
            found = ", ".join(archive.namelist()[:5]) or "nothing"
            raise self._error(
                f"{self._what} {self.path}: expected a zip with one .json file, it holds {found}"
            )
        return stack.enter_context(archive.open(names[0]))

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except UNREADABLE as problem:
            reason = getattr(problem, "strerror", None) or problem
            place = f" after byte {self.position}" if self.position else ""
            raise self._error(
                f"{self._what} {self.path} cannot be read{place}: {reason}"
            ) from problem
