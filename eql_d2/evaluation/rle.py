"""Run-length encoded masks: check them, measure them, make them from annotations.

A compressed RLE is a string of 6-bit characters. pycocotools trusts it: a cut string is read past
its end, and two masks whose runs do not add up to the same number of pixels are compared for ever.
So every string that comes from a file passes :func:`measure_rles` first.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eql_d2.annotation_checks import MOST_PIXELS

CHUNK = 1024  # strings decoded at once: their numbers fit the processor cache, 3 times faster
FIRST_CHARACTER = 48  # "0"; the format uses the 64 characters from here
MORE, SIGN, VALUE_BITS, BITS = 0x20, 0x10, 0x1F, 5
LARGEST_RUN = MOST_PIXELS + 1  # differences of two fit 6 characters of 5 bits
LONGEST_NUMBER = 6  # characters: runs below LARGEST_RUN need no more, and pycocotools misreads 7


@dataclass(frozen=True)
class RleSizes:
    """Pixels of N masks.

    Attributes:
        areas: (N,) int64 pixels inside the mask.
        totals: (N,) int64 pixels of the image the mask was made for; -1 if the string is broken.
        spans: (N, 2) int64 number of the first pixel inside and of the first behind the mask,
            counted down the columns. Both -1 if the string has a run of length 0 behind its first:
            where two such runs meet, pycocotools stops comparing two masks.
    """

    areas: NDArray[np.int64]
    totals: NDArray[np.int64]
    spans: NDArray[np.int64]


def measure_rles(counts: Sequence[bytes]) -> RleSizes:
    """Decode the run lengths of compressed RLE strings, all together, and sum them."""
    lengths = np.fromiter(map(len, counts), dtype=np.int64, count=len(counts))
    return measure_joined_rles(b"".join(counts), lengths)


def measure_joined_rles(text: bytes, lengths: NDArray[np.int64]) -> RleSizes:
    """The same for N strings that stand one after the other in ``text``, of (N,) ``lengths``."""
    areas = np.zeros(len(lengths), dtype=np.int64)
    totals = np.full(len(lengths), -1, dtype=np.int64)
    spans = np.zeros((len(lengths), 2), dtype=np.int64)
    edges = np.concatenate(([0], np.cumsum(lengths)))
    for first in range(0, len(lengths), CHUNK):
        part = slice(first, min(first + CHUNK, len(lengths)))
        here = slice(edges[part.start], edges[part.stop])
        codes = np.frombuffer(text, np.uint8)[here] - np.uint8(FIRST_CHARACTER)
        good = _well_formed(codes, lengths[part])
        if not good.all():
            codes = codes[np.repeat(good, lengths[part])]
        index = first + np.flatnonzero(good)
        if len(index):
            areas[index], totals[index], spans[index] = _sum_runs(codes, lengths[part][good])
    return RleSizes(areas, totals, spans)


def _well_formed(codes: NDArray[np.uint8], lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N,) strings that are not empty, use the alphabet only and end with a finished number."""
    good = lengths > 0
    stops = np.cumsum(lengths)
    if len(codes) and codes.max() > (MORE | VALUE_BITS):
        foreign = np.flatnonzero(codes > (MORE | VALUE_BITS))
        good[np.searchsorted(stops, foreign, side="right")] = False
    good[good] = (codes[stops[good] - 1] & MORE) == 0
    return good


def _sum_runs(
    codes: NDArray[np.uint8], lengths: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Areas, totals and spans of well-formed strings joined in ``codes``.

    Where a run is negative or too long the total is -1 and the rest 0.
    """
    last = np.flatnonzero(codes < MORE)
    stop = np.searchsorted(last, np.cumsum(lengths))
    begin = np.concatenate(([0], stop[:-1]))
    count = stop - begin
    values, too_long = _numbers(codes, last)
    # Number m > 2 of a mask is the difference to number m - 2, so the runs inside the mask (odd m)
    # and those outside it (even m) are two running sums; number 0 stands for itself. A zero after
    # an odd count makes the two alternate through all masks.
    odd_count = (count & 1) == 1
    slots = count + odd_count
    edges = np.cumsum(slots)
    lanes = np.zeros(edges[-1], dtype=np.int64)
    is_number = np.ones(len(lanes), dtype=bool)
    is_number[edges[odd_count] - 1] = False
    lanes[is_number] = values
    lanes[edges - slots] = 0
    lanes = lanes.reshape(-1, 2)
    half = np.cumsum(slots // 2)
    inside = _sum_lane(lanes[:, 1], half, np.where(odd_count, half - 1, -1))
    outside = _sum_lane(lanes[:, 0], half, half - slots // 2)
    before = values[begin]
    totals = inside.sums + outside.sums + before
    spans = np.stack((before, totals - outside.last * odd_count), axis=1)
    spans[inside.empty | outside.empty] = -1
    bad = inside.bad | outside.bad | (before < 0) | (before >= LARGEST_RUN)
    bad[np.searchsorted(stop, too_long, side="right")] = True
    inside.sums[bad], totals[bad], spans[bad] = 0, -1, 0
    return inside.sums, totals, spans


def _numbers(
    codes: NDArray[np.uint8], last: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The numbers that ``codes`` spell, 5 bits a character, lowest first, the last one signed.

    ``last`` is the place of the last character of each. Also gives which of them are too long.
    """
    values = (codes[last] ^ SIGN).astype(np.int64) - SIGN
    place = np.flatnonzero(codes >= MORE)
    number = place - np.arange(len(place))  # finished numbers before each unfinished character
    digits = codes[place] & VALUE_BITS
    highest = np.flatnonzero(np.diff(number, append=-1))
    for _ in range(LONGEST_NUMBER - 1):
        some = number[highest]
        values[some] = (values[some] << BITS) + digits[highest]
        next_one = highest - 1
        highest = next_one[(highest > 0) & (number[next_one] == some)]
    return values, number[highest]


class _Lane(NamedTuple):
    """Every second run of N masks: their sum, the last; whether one is impossible, or empty."""

    sums: NDArray[np.int64]
    last: NDArray[np.int64]
    bad: NDArray[np.bool_]
    empty: NDArray[np.bool_]


def _sum_lane(
    steps: NDArray[np.int64], stop: NDArray[np.int64], no_run: NDArray[np.int64]
) -> _Lane:
    """Sum the running sums of the ``steps`` of each mask.

    Args:
        steps: From each run to the next; the first is from 0.
        stop: (N,) end of each mask's steps.
        no_run: (N,) the place among a mask's steps that stands for no run, or -1.
    """
    count = np.diff(stop, prepend=0)
    start = stop - count
    running = np.cumsum(steps)
    runs = running - np.repeat(running[start] - steps[start], count)
    last = runs[stop - 1]
    runs[no_run[no_run >= 0]] = 0
    sums = np.add.reduceat(runs, start)
    runs[no_run[no_run >= 0]] = 1
    bad, empty = np.zeros((2, len(count)), dtype=bool)
    if runs.min() <= 0 or runs.max() >= LARGEST_RUN:
        impossible = (runs < 0) | (runs >= LARGEST_RUN)
        bad[np.searchsorted(stop, np.flatnonzero(impossible), side="right")] = True
        empty[np.searchsorted(stop, np.flatnonzero(runs == 0), side="right")] = True
    return _Lane(sums, last, bad, empty)


def is_polygons(segmentation: object) -> bool:
    """Whether a value is a list of one or more polygons of at least three finite points."""
    return (
        isinstance(segmentation, list)
        and bool(segmentation)
        and all(map(_is_polygon, segmentation))
    )


def _is_polygon(part: object) -> bool:
    if not isinstance(part, list) or len(part) < 6 or len(part) % 2:
        return False
    try:
        finite = -sys.float_info.max <= min(part) and max(part) <= sys.float_info.max
        total = sum(part)
        return bool(finite and total == total)  # a NaN may hide from min and max
    except (TypeError, OverflowError):
        return False


def is_rle(value: object) -> bool:
    """Whether ``value`` has the form of an RLE, compressed or not; counts may still be wrong."""
    if not isinstance(value, dict) or not isinstance(value.get("size"), (list, tuple)):
        return False
    size, counts = value["size"], value.get("counts")
    good_counts = isinstance(counts, (str, bytes)) or (
        isinstance(counts, list)
        and all(type(run) is int and 0 <= run < LARGEST_RUN for run in counts)
    )
    good_size = len(size) == 2 and all(type(side) is int and side > 0 for side in size)
    return good_counts and good_size and size[0] * size[1] < LARGEST_RUN


def compressed_counts(rle: dict[str, Any]) -> bytes:
    """The counts of an RLE that passes :func:`is_rle`, as compressed bytes."""
    counts = rle["counts"]
    if isinstance(counts, str):
        # Characters outside ASCII become bytes outside the alphabet, which measure_rles refuses.
        return counts.encode("utf-8", "surrogatepass")
    return counts if isinstance(counts, bytes) else _compress(counts)


def _compress(runs: Sequence[int]) -> bytes:
    """Run lengths as pycocotools writes them, but it overruns its buffer where most are long."""
    text = bytearray()
    for i, run in enumerate(runs):
        value = run - runs[i - 2] if i > 2 else run
        more = True
        while more:
            digit, value = value & VALUE_BITS, value >> BITS
            more = value != (-1 if digit & SIGN else 0)
            text.append(FIRST_CHARACTER + digit + MORE * more)
    return bytes(text)
