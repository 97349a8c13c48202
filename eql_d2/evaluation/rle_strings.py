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
    """Compressed RLE strings in few long texts: millions of them without an object each."""

    def __init__(self) -> None:
        self._texts: list[bytes] = []
        self._size = 0
        self._first = np.zeros(1, dtype=np.int64)  # the first string of each text, and one more
        self._edges = np.zeros(1, dtype=np.int64)  # of all strings, as if the texts were one
        self._lengths: list[NDArray[np.int64]] = []  # of the texts that these do not know yet

    def append(self, rles: JoinedRles) -> None:
        """Append the strings of ``rles``."""
        self._append(rles.text, rles.lengths)

    def append_strings(self, strings: Sequence[bytes]) -> None:
        """Append strings."""
        lengths = np.fromiter(map(len, strings), dtype=np.int64, count=len(strings))
        self._append(b"".join(strings), lengths)

    def _append(self, text: bytes, lengths: NDArray[np.int64]) -> None:
        self._texts.append(text)
        self._lengths.append(lengths)
        self._size += len(lengths)

    def _find_edges(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if self._lengths:
            numbers = np.cumsum(list(map(len, self._lengths)))
            self._first = np.concatenate((self._first, self._first[-1] + numbers))
            stops = self._edges[-1] + np.cumsum(np.concatenate(self._lengths))
            self._edges = np.concatenate((self._edges, stops))
            self._lengths.clear()
        return self._first, self._edges

    def __len__(self) -> int:
        return self._size

    def take(self, indices: NDArray[np.int64]) -> list[bytes]:
        """The strings at some indices from 0 on."""
        first, edges = self._find_edges()
        text = np.searchsorted(first, indices, side="right") - 1
        before = edges[first[text]]
        starts, stops = edges[indices] - before, edges[indices + 1] - before
        places = zip(text.tolist(), starts.tolist(), stops.tolist(), strict=True)
        return [self._texts[i][start:stop] for i, start, stop in places]

    def subset(self, indices: NDArray[np.int64]) -> RleStrings:
        """The strings at some indices from 0 on, in their order."""
        result = RleStrings()
        result.append_strings(self.take(indices))
        return result

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return self.take(np.arange(*index.indices(len(self))))
        place = operator.index(index)
        place += len(self) * (place < 0)
        if not 0 <= place < len(self):
            raise IndexError(f"index {index} of {len(self)} strings")
        return self.take(np.array([place]))[0]
