"""Millions of RLE strings without a Python object each."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from eql_d2.evaluation.rle import LARGEST_RUN, compressed_counts, is_rle


@dataclass(frozen=True)
class JoinedRles:
    """N masks.

    Attributes:
        sizes: (N, 2) height, width.
        text: Their compressed strings, one after the other.
        lengths: (N,) bytes of each string.
    """

    sizes: NDArray[np.int64]
    text: bytes
    lengths: NDArray[np.int64]

    def boxes(self) -> NDArray[np.float64]:
        """(N, 4) smallest boxes around the masks, whose strings must have been checked."""
        from pycocotools import mask as coco_mask

        stops = np.cumsum(self.lengths).tolist()
        parts = zip(self.sizes.tolist(), stops, self.lengths.tolist(), strict=True)
        rles = [
            {"size": size, "counts": self.text[stop - length : stop]}
            for size, stop, length in parts
        ]
        return coco_mask.toBbox(rles).reshape(-1, 4)


def join_rles(values: Sequence[Any]) -> JoinedRles | None:
    """The ``segmentation`` of results records; None if one does not pass :func:`is_rle`."""
    usual = _join_usual(values)
    if usual is not None:
        return usual
    if not all(map(is_rle, values)):
        return None
    strings = [compressed_counts(value) for value in values]
    sizes = np.array([value["size"] for value in values], dtype=np.int64).reshape(-1, 2)
    return JoinedRles(sizes, b"".join(strings), np.fromiter(map(len, strings), dtype=np.int64))


def _join_usual(values: Sequence[Any]) -> JoinedRles | None:
    """The same for dictionaries with compressed ASCII strings only, 4 times faster; else None."""
    if set(map(type, values)) != {dict}:
        return None
    try:
        sizes = list(map(itemgetter("size"), values))
        counts = list(map(itemgetter("counts"), values))
    except KeyError:
        return None
    if set(map(type, counts)) != {str} or set(map(type, sizes)) != {list}:
        return None
    sides = list(chain.from_iterable(sizes))
    text = "".join(counts)
    if set(map(type, sides)) != {int} or set(map(len, sizes)) != {2} or not text.isascii():
        return None
    if min(sides) < 1 or max(sides) >= LARGEST_RUN:
        return None
    array = np.fromiter(sides, dtype=np.int64, count=len(sides)).reshape(-1, 2)
    if array.prod(axis=1).max() >= LARGEST_RUN:
        return None
    lengths = np.fromiter(map(len, counts), dtype=np.int64, count=len(counts))
    return JoinedRles(array, text.encode("ascii"), lengths)


class RleStrings(Sequence[bytes]):
    """Compressed RLE strings in one buffer: millions of them without an object each."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._stops = np.zeros(1, dtype=np.int64)
        self._lengths: list[NDArray[np.int64]] = []

    def append(self, rles: JoinedRles) -> None:
        """Append the strings of ``rles``."""
        self._text += rles.text
        self._lengths.append(rles.lengths)

    def append_strings(self, strings: Sequence[bytes]) -> None:
        """Append strings."""
        self._text += b"".join(strings)
        self._lengths.append(np.fromiter(map(len, strings), dtype=np.int64, count=len(strings)))

    def _edges(self) -> NDArray[np.int64]:
        if self._lengths:
            stops = self._stops[-1] + np.cumsum(np.concatenate(self._lengths))
            self._stops = np.concatenate((self._stops, stops))
            self._lengths.clear()
        return self._stops

    def __len__(self) -> int:
        return len(self._edges()) - 1

    def take(self, indices: NDArray[np.int64]) -> list[bytes]:
        """The strings at some indices from 0 on."""
        stops = self._edges()
        with memoryview(self._text) as text:
            edges = zip(stops[indices].tolist(), stops[indices + 1].tolist(), strict=True)
            return [bytes(text[start:stop]) for start, stop in edges]

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        stops = self._edges()
        place = operator.index(index)
        place += (len(stops) - 1) * (place < 0)
        if not 0 <= place < len(stops) - 1:
            raise IndexError(f"index {index} of {len(stops) - 1} strings")
        return bytes(self._text[stops[place] : stops[place + 1]])
