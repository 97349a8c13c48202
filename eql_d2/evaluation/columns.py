"""Turn a list of json records into NumPy columns, naming every record that does not fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eql_d2.errors import UserError

NUM_EXAMPLES = 3  # of each kind of problem in a message
LARGEST_INTEGER = 2**62  # ids beyond it, which nobody has, are taken for it


class Problems:
    """Collects what is wrong with ``total`` records, to be told in one exception.

    Attributes:
        total: Records in all; may grow while records arrive in batches.
        first: The number of the first record of the batch whose problems are added.
    """

    def __init__(self, subject: str, records: str, total: int, error: type[UserError]) -> None:
        self.subject = subject
        self.records = records
        self.total = total
        self.first = 0
        self.error = error
        self._found: dict[str, tuple[int, list[str]]] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    @property
    def count(self) -> int:
        """Problems noted; a record counts once for each kind."""
        return sum(count for count, _ in self._found.values())

    @property
    def lines(self) -> list[str]:
        """One line for each kind of problem: how many records, and the first of them."""
        return [
            f"{count} of {self.total} {self.records}: {what} "
            f"({', '.join(examples)}{', ...' if count > NUM_EXAMPLES else ''})"
            for what, (count, examples) in self._found.items()
        ]

    def add(
        self, what: str, where: Sequence[int] | NDArray[Any], example: Callable[[int], object]
    ) -> None:
        """Note ``what`` is wrong with the records at the indices ``where``, which may be none."""
        if len(where) == 0:
            return
        count, examples = self._found.get(what, (0, []))
        shown = where[: NUM_EXAMPLES - len(examples)]
        new = [f"number {self.first + int(i)}: {_short(example(int(i)))}" for i in shown]
        self._found[what] = (count + len(where), examples + new)

    def absorb(self, other: Problems) -> None:
        """Note the problems of ``other``, which are of other kinds."""
        self._found |= other._found

    def raise_if_any(self) -> None:
        """Raise the exception if a problem was noted."""
        if self:
            raise self.error(f"{self.subject}:\n" + "\n".join(f"  - {line}" for line in self.lines))


def _short(value: object, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def column(
    records: Sequence[Any], key: str, problems: Problems, reason: str = ""
) -> list[Any] | None:
    """``[record[key] for record in records]``, or None with the offenders noted."""
    try:
        return list(map(itemgetter(key), records))
    except (KeyError, TypeError, IndexError):
        lacking = [i for i, r in enumerate(records) if not isinstance(r, dict) or key not in r]
        problems.add(f"no {key!r}{reason}", lacking, lambda i: records[i])
        return None


def integer_column(values: Sequence[Any], key: str, problems: Problems) -> NDArray[np.int64] | None:
    """``values`` as (N,) int64, or None with the offenders noted. 3.0 passes for 3."""
    kind, array = _as_array(values, ndim=1)
    if kind == "i" and array is not None:
        return array.astype(np.int64)
    bad = [i for i, value in enumerate(values) if not _is_integer(value)]
    problems.add(f"{key!r} is not an integer", bad, lambda i: values[i])
    limit = LARGEST_INTEGER
    whole = [max(-limit, min(int(value), limit)) for value in values] if not bad else []
    return None if bad else np.array(whole, dtype=np.int64)


def number_column(
    values: Sequence[Any], key: str, problems: Problems
) -> NDArray[np.float64] | None:
    """``values`` as (N,) finite float64, or None with the offenders noted."""
    kind, array = _as_array(values, ndim=1)
    if kind in ("i", "f", "u") and array is not None:
        numbers = array.astype(np.float64)
        bad: Sequence[int] | NDArray[Any] = np.flatnonzero(~np.isfinite(numbers))
    else:
        bad = [i for i, value in enumerate(values) if not is_finite_number(value)]
        numbers = np.array([] if bad else [float(v) for v in values], dtype=np.float64)
    problems.add(f"{key!r} is not a finite number", bad, lambda i: values[i])
    return None if len(bad) else numbers


def box_column(values: Sequence[Any], problems: Problems) -> NDArray[np.float64] | None:
    """``values`` as (N, 4) float64 x, y, width, height, or None with the offenders noted."""
    if len(values) == 0:
        return np.zeros((0, 4))
    kind, array = _as_array(values, ndim=2)
    fits = kind in ("i", "f", "u") and array is not None and array.shape == (len(values), 4)
    if fits and array is not None and bool not in set(map(type, chain.from_iterable(values))):
        boxes = array.astype(np.float64)
        good = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] >= 0).all(axis=1)
        bad: Sequence[int] | NDArray[Any] = np.flatnonzero(~good)
    else:
        bad = [i for i, value in enumerate(values) if not is_box(value)]
        boxes = np.array([] if bad else [[float(x) for x in box] for box in values])
    problems.add(
        "'bbox' is not [x, y, width, height] with finite numbers and sides >= 0",
        bad,
        lambda i: values[i],
    )
    return None if len(bad) else boxes


def _as_array(values: Sequence[Any], ndim: int) -> tuple[str, NDArray[Any] | None]:
    """The values as NumPy reads them and the kind of their dtype; "" where they do not fit."""
    if len(values) == 0:
        return "i", np.zeros(0, dtype=np.int64)
    if bool in set(map(type, values)):  # NumPy would read True as 1
        return "", None
    try:
        array = np.array(values)
    except (ValueError, OverflowError, TypeError):
        return "", None
    return array.dtype.kind if array.ndim == ndim else "", array


def _is_integer(value: object) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return True
    if not is_finite_number(value):
        return False
    assert isinstance(value, (int, float, np.number))
    return bool(value == int(value))


def is_finite_number(value: object) -> bool:
    """Whether ``value`` is a number, no bool, that float64 can hold."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        return False
    try:
        return bool(np.isfinite(float(value)))
    except OverflowError:
        return False


def is_box(value: object) -> bool:
    """Whether ``value`` is [x, y, width, height] with finite numbers and sides >= 0."""
    return (
        isinstance(value, (list, tuple, np.ndarray))
        and len(value) == 4
        and all(is_finite_number(x) for x in value)
        and value[2] >= 0
        and value[3] >= 0
    )
