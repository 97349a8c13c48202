"""Fields of json records as NumPy columns with a mask of the rows that hold what they should.

Unlike :mod:`eql_d2.evaluation.columns`, which refuses a column, this goes on with the good rows, so
that one wrong field hides no other fault. Shapes: N records.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST_INTEGER = 2**62
MISSING = object()  # stands for a field that a record does not have

Flags = NDArray[np.bool_]


def field(records: Sequence[dict[str, Any]], key: str) -> tuple[list[Any], Flags]:
    """``record[key]`` of each record, :data:`MISSING` where there is none; (N,) which have it."""
    try:
        values = [record[key] for record in records]
    except KeyError:
        values = [record.get(key, MISSING) for record in records]
        return values, np.array([value is not MISSING for value in values], dtype=bool)
    return values, np.ones(len(values), dtype=bool)


def whole_numbers(values: Sequence[Any]) -> tuple[NDArray[np.int64], Flags]:
    """(N,) integers, -1 where the value is none, and (N,) which are; 3.0 passes for 3."""
    if set(map(type, values)) == {int}:
        with contextlib.suppress(OverflowError):
            numbers = np.array(values, dtype=np.int64)
            if -LARGEST_INTEGER < numbers.min() and numbers.max() < LARGEST_INTEGER:
                return numbers, np.ones(len(values), dtype=bool)
    good = [_is_whole(value) for value in values]
    whole = [int(value) if fits else -1 for value, fits in zip(values, good, strict=True)]
    return np.array(whole, dtype=np.int64), np.array(good, dtype=bool)


def finite_numbers(values: Sequence[Any]) -> tuple[NDArray[np.float64], Flags]:
    """(N,) numbers, NaN where the value is no finite number, and (N,) which are."""
    numbers = _plain_floats(values)
    if numbers is None:
        numbers = np.array([_number(value) for value in values], dtype=np.float64)
    good = np.isfinite(numbers)
    numbers[~good] = np.nan
    return numbers, good


def boxes(values: Sequence[Any]) -> tuple[NDArray[np.float64], Flags]:
    """(N, 4) four finite numbers, NaN where the value is not that, and (N,) which are.

    The sides may be negative: that is for the caller to judge.
    """
    numbers = None
    if set(map(type, values)) <= {list} and set(map(len, values)) <= {4}:
        numbers = _plain_floats(list(chain.from_iterable(values)))
    if numbers is None:
        rows = [_four_numbers(value) for value in values]
        numbers = np.array(rows, dtype=np.float64)
    numbers = numbers.reshape(-1, 4)
    good = np.asarray(np.isfinite(numbers).all(axis=1))
    numbers[~good] = np.nan
    return numbers, good


def _plain_floats(values: Sequence[Any]) -> NDArray[np.float64] | None:
    """The values as an array if all are Python numbers, which is what json gives."""
    if not set(map(type, values)) <= {int, float}:
        return None
    try:
        return np.array(values, dtype=np.float64)
    except OverflowError:
        return None


def _number(value: object) -> float:
    """The value as a float; NaN if it is no number or has no float."""
    if isinstance(value, (bool, np.bool_)):
        return math.nan
    if not isinstance(value, (int, float, np.integer, np.floating)):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def _is_whole(value: object) -> bool:
    number = _number(value)
    return math.isfinite(number) and number == int(number) and abs(number) < LARGEST_INTEGER


def _four_numbers(value: object) -> list[float]:
    if isinstance(value, (list, tuple, np.ndarray)) and len(value) == 4:
        return [_number(number) for number in value]
    return [math.nan] * 4
