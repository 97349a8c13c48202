"""Read a json array of records piece by piece, in bounded memory, at the parser's own speed.

A piece of the file is cut at a comma between two records and parsed as an array of its own. Where
to cut is guessed (the last ``}, {``) and the parser proves the guess: a piece that starts at the
first level of the array and parses as ``[piece]`` ends at that level too. Only where the guess is
wrong are the brackets counted.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any

from eql_d2.errors import ResultsError
from eql_d2.json_files import ByteSource, parse_json, paused_garbage_collection

CHUNK_BYTES = 1 << 18  # text parsed at once: its objects, 8 times as large, stay in the cache
LARGEST_RECORD = 1 << 26  # bytes of one record; more is no results file
SPACE = b" \t\n\r"
DEEPEST = 900  # brackets inside each other; the parsers end at about 1000
GUESSES = 4  # places where a record may start that are looked at from the end of a piece
LARGEST_GAP = 64  # bytes between two records in which the comma is looked for
# No pattern for a whole string: of one that does not end it would need 100 times the memory.
TOKEN = re.compile(rb'\\.|["\[\]{},]', re.DOTALL)


def stream_records(
    path: str | os.PathLike[str], *, chunk_bytes: int = CHUNK_BYTES
) -> Iterator[list[Any]]:
    """Yield the elements of a json array in batches, in order; no batch is empty.

    The elements are what ``json.load`` gives (integers outside 64 bits may come as floats where
    orjson is installed): ``NaN`` and ``Infinity`` pass, so that the caller can name the records
    that hold them. Nor need an element be an object: that is for the caller to check. The file may
    be plain, gzip, or a zip with one json file inside; its first bytes decide, not its name.

    Args:
        path: The file.
        chunk_bytes: Text read at once.

    Raises:
        ResultsError: The file cannot be read or is not one whole json array in UTF-8. The message
            names the file and the byte (of the decompressed text). Batches before that byte have
            been yielded.
    """
    with ByteSource(path, "results file", ResultsError) as source:
        buffer = _first_piece(source, chunk_bytes)
        offset = source.position - len(buffer)  # of the buffer's first byte
        begun = False
        while True:
            data = source.read(max(chunk_bytes, len(buffer)))  # more where no record ended
            buffer += data
            batch, comma, end = _cut_batch(source, buffer, offset, is_last=not data)
            if batch is None:
                if end >= 0 or not data:
                    break
                continue
            yield batch
            begun = True
            buffer = b"[" + buffer[comma + 1 :]
            offset += comma
        batch = _last_batch(source, buffer, offset, end)
        if batch:
            yield batch
        elif begun:
            raise _error(source, offset + end, "Expecting value")


def _first_piece(source: ByteSource, chunk_bytes: int) -> bytes:
    """The text from the opening bracket on."""
    buffer = source.read(max(chunk_bytes, 64)).removeprefix(b"\xef\xbb\xbf").lstrip(SPACE)
    while not buffer and (data := source.read(chunk_bytes)):
        buffer = data.lstrip(SPACE)
    if buffer.startswith(b"["):
        return buffer
    start = repr(buffer[:20]).removeprefix("b")
    hint = "an object, as in an annotation file or a file of one record per line"
    what = hint if buffer.startswith(b"{") else start
    position = source.position - len(buffer)
    raise ResultsError(
        f"results file {source.path}: expected a json list of detections at byte {position}, "
        f"got {what if buffer else 'nothing: the file is empty'}"
    )


def _cut_batch(
    source: ByteSource, buffer: bytes, offset: int, *, is_last: bool
) -> tuple[list[Any] | None, int, int]:
    """The records up to the last comma between two, that comma, and the array's closing bracket.

    The records are None where no comma is found, or where the rest is one batch: the array ends in
    the buffer, or the file does (``is_last``). The places are -1 where there is none.
    """
    end = -1
    comma = _guess(buffer)
    batch = None if comma < 0 else _try_parse(buffer[:comma])
    if batch is None:
        comma, end = _scan(source, buffer, offset)
        if end >= 0 or is_last or comma < 0:
            return None, comma, end
        batch = _parse(source, buffer[:comma] + b"]", offset)
    if not batch:
        raise _error(source, offset + comma, "Expecting value")
    return batch, comma, end


def _last_batch(source: ByteSource, buffer: bytes, offset: int, end: int) -> list[Any]:
    """The records up to the closing bracket at ``end``, after which there may only be space."""
    if end < 0:
        _parse(source, buffer, offset, "; was it cut off while being written?")
        raise AssertionError("the parser takes an array without an end")
    batch = _parse(source, buffer[: end + 1], offset)
    rest, position = buffer[end + 1 :], offset + end + 1
    while True:
        if text := rest.lstrip(SPACE):
            place = position + len(rest) - len(text)
            raise _error(source, place, "text after the end of the list")
        position += len(rest)
        rest = source.read(CHUNK_BYTES)  # the list may end where the buffer does
        if not rest:
            return batch


def _guess(buffer: bytes) -> int:
    """The last comma that seems to stand between two records, or -1."""
    brace = len(buffer)
    for _ in range(GUESSES):
        brace = buffer.rfind(b"{", 0, brace)
        if brace < 0:
            return -1
        start = max(0, brace - LARGEST_GAP)
        before = buffer[start:brace].rstrip(SPACE)
        if before.endswith(b",") and before[:-1].rstrip(SPACE).endswith(b"}"):
            return start + len(before) - 1
    return -1


def _scan(source: ByteSource, buffer: bytes, offset: int) -> tuple[int, int]:
    """The last comma between two elements of the array and its closing bracket; -1 without."""
    comma = end = -1
    depth = 0
    in_string = False
    for match in TOKEN.finditer(buffer):
        token = match.group()
        if token == b'"':
            in_string = not in_string
        elif in_string or token.startswith(b"\\"):
            continue
        elif token in b"[{":
            depth += 1
            if depth > DEEPEST:
                raise _error(source, offset + match.start(), f"more than {DEEPEST} levels deep")
        elif token in b"]}":
            depth -= 1
            if depth == 0:
                end = match.start()
                break
        elif token == b",":
            comma = match.start() if depth == 1 else comma
    if end < 0 and comma < 0 and len(buffer) > LARGEST_RECORD:
        raise _error(source, offset, f"no record ends within {len(buffer)} bytes")
    return comma, end


def _try_parse(text: bytes) -> list[Any] | None:
    """The records of an array without its closing bracket; None if the text is none."""
    try:
        with paused_garbage_collection():
            return parse_json(text + b"]")
    except (ValueError, RecursionError):
        return None


def _parse(source: ByteSource, text: bytes, offset: int, hint: str = "") -> list[Any]:
    """The records of an array that begins at byte ``offset`` of the file."""
    try:
        with paused_garbage_collection():
            return parse_json(text)
    except UnicodeDecodeError as problem:
        raise _error(source, offset + problem.start, f"not UTF-8{hint}") from problem
    except json.JSONDecodeError as problem:
        place = offset + len(problem.doc[: problem.pos].encode())
        raise _error(source, place, f"{problem.msg}{hint}") from problem
    except (ValueError, RecursionError) as problem:
        raise _error(source, offset, f"{problem}{hint}") from problem


def _error(source: ByteSource, position: int, what: str) -> ResultsError:
    return ResultsError(f"results file {source.path} is not valid json at byte {position}: {what}")
