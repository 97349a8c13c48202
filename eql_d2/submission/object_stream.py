"""Read the lists of a json object (an annotation file) piece by piece, in bounded memory."""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Iterator
from typing import Any

from eql_d2.errors import DataError
from eql_d2.json_files import ByteSource, paused_garbage_collection

CHUNK_BYTES = 1 << 20
BATCH = 4096  # elements of a list that are yielded together
LARGEST_VALUE = 1 << 28  # characters of one element or of a value that is no list
LONGEST_NUMBER = 400  # a number that ends where the text read so far ends may go on
SPACE = " \t\n\r"


def stream_members(path: str | os.PathLike[str]) -> Iterator[tuple[str, list[Any]]]:
    """Yield ``(key, elements)`` for each list of the object, in batches; at least one a list.

    Values that are not lists are parsed and left out. What passes is what ``json.load`` takes,
    except that the same key twice is an error.

    Raises:
        DataError: The file cannot be read or is not one json object in UTF-8.
    """
    with ByteSource(path, "annotation file", DataError) as source:
        text = _Text(source)
        if text.peek() != "{":
            raise text.error("expected a json object")
        seen: set[str] = set()
        for _ in _elements(text, "{", "}"):
            if text.peek() != '"':
                raise text.error("expected a key in double quotes")
            key = text.value()
            if key in seen:
                raise text.error(f"the key {key!r} comes twice")
            seen.add(key)
            text.take(":")
            if text.peek() != "[":
                text.value()
                continue
            batch: list[Any] = []
            for _ in _elements(text, "[", "]"):
                with paused_garbage_collection():
                    batch.append(text.value())
                if len(batch) == BATCH:
                    yield key, batch
                    batch = []
            yield key, batch
        if text.peek():
            raise text.error("text after the end of the object")


def _elements(text: _Text, opening: str, closing: str) -> Iterator[None]:
    """Pause in front of each element between two brackets; the caller takes it."""
    text.take(opening)
    if text.peek() == closing:
        text.take(closing)
        return
    while True:
        yield
        if text.peek() == closing:
            text.take(closing)
            return
        text.take(",")


class _Text:
    """The decoded text of a file from the current place on, filled as it is used up."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._parse = json.JSONDecoder().raw_decode
        self._text = ""
        self._at = 0
        self._passed = 0  # characters before the text
        self._ended = False

    def peek(self) -> str:
        """The next character that is no space; "" at the end of the file."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in SPACE:
                    return self._text[self._at]
                self._at += 1
            if not self._fill():
                return ""

    def take(self, character: str) -> None:
        """Go past the next character, which must be this one."""
        found = self.peek()
        if found != character:
            raise self.error(f"expected {character!r}, got {found!r}" if found else "it is cut off")
        self._at += 1

    def value(self) -> Any:
        """Go past the next value and return it."""
        if not self.peek():
            raise self.error("it is cut off")
        while True:
            try:
                result, end = self._parse(self._text, self._at)
            except RecursionError as problem:
                raise self.error(f"{problem}") from problem
            except ValueError as problem:
                if len(self._text) - self._at > LARGEST_VALUE:
                    what = f"no value ends within {LARGEST_VALUE:,} characters"
                    raise self.error(what) from problem
                if self._fill():
                    continue
                reason = getattr(problem, "msg", None) or problem
                raise self.error(f"{reason}; was it cut off while being written?") from problem
            if len(self._text) - end < LONGEST_NUMBER and self._fill():
                continue
            self._at = end
            return result

    def error(self, what: str) -> DataError:
        """An error that names the file and the place."""
        place = self._passed + self._at
        return DataError(
            f"annotation file {self._source.path} is not valid json at character {place}: {what}"
        )

    def _fill(self) -> bool:
        """Read on, keeping what is not used up; False at the end of the file."""
        if self._ended:
            return False
        data = self._source.read(max(CHUNK_BYTES, len(self._text) - self._at))
        self._ended = not data
        self._passed += self._at
        try:
            self._text = self._text[self._at :] + self._decode(data, final=self._ended)
        except UnicodeDecodeError as problem:
            self._at = len(self._text)
            raise self.error(f"not UTF-8 ({problem.reason})") from problem
        self._at = 0
        return True
