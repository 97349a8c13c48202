"""Check one batch of detection records on their own; see :data:`.faults.KINDS` for the kinds.

Shapes: N records of a batch, in file order, M of them with a mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eql_d2.evaluation.ground_truth import find_ids
from eql_d2.evaluation.result_checks import TOLERANCE, outside_unit_range
from eql_d2.evaluation.rle import is_rle, measure_joined_rles
from eql_d2.evaluation.rle_strings import JoinedRles, join_rles
from eql_d2.submission.checked_columns import (
    Flags,
    boxes,
    field,
    finite_numbers,
    whole_numbers,
)
from eql_d2.submission.faults import FaultBook, short
from eql_d2.submission.image_info import ImageInfo


@dataclass(frozen=True)
class Batch:
    """The columns of N records; rows that a fault was noted for hold the value in brackets.

    Attributes:
        first: Number of the first record in the file.
        records: The records as read.
        image: (N,) image index (-1).
        category: (N,) category index (-1).
        scores: (N,) (NaN).
        boxes: (N, 4) x, y, width, height (NaN, also where a record has no box).
        has_box: (N,) whether the record has a field ``bbox``.
        has_mask: (N,) whether the record has a field ``segmentation``.
        mask_hashes: M hashes of compressed RLE strings, of the masks that have the right form.
        mask_rows: (M,) their rows.
    """

    first: int
    records: Sequence[Any]
    image: NDArray[np.int64]
    category: NDArray[np.int64]
    scores: NDArray[np.float64]
    boxes: NDArray[np.float64]
    has_box: Flags
    has_mask: Flags
    mask_hashes: list[int]
    mask_rows: NDArray[np.intp]


def check_records(records: Sequence[Any], first: int, info: ImageInfo, book: FaultBook) -> Batch:
    """Note every fault that shows in a record alone, and return the columns.

    Args:
        records: Consecutive records of the file.
        first: Number of the first of them.
        info: What images and categories there are.
        book: Takes the faults.
    """
    is_object = np.array([isinstance(record, dict) for record in records], dtype=bool)
    _note(book, "record-form", ~is_object, first, lambda i: short(records[i]))
    objects = [record if isinstance(record, dict) else {} for record in records]
    fields = {key: field(objects, key) for key in ("image_id", "category_id", "score")}
    given = {key: has for key, (_, has) in fields.items()}
    lacking = is_object & ~np.logical_and.reduce(list(given.values()))
    _note(
        book, "field-missing", lacking, first, lambda i: f"no {_lacks(given, i)}: {_of(objects[i])}"
    )
    image = _check_ids(objects, "image", fields, first, info.image_ids, book)
    category = _check_ids(objects, "category", fields, first, info.category_ids, book)
    scores = _check_scores(objects, *fields["score"], first, book)
    corners, has_box = field(objects, "bbox")
    segmentations, has_mask = field(objects, "segmentation")
    _note(
        book, "geometry-missing", is_object & ~has_box & ~has_mask, first, lambda i: _of(objects[i])
    )
    sizes = np.where((image >= 0)[:, None], info.sizes[image], 0)
    found = _check_boxes(objects, corners, has_box, sizes, first, book)
    hashes, mask_rows = _check_masks(objects, segmentations, has_mask, sizes, first, book)
    return Batch(
        first, records, image, category, scores, found, has_box, has_mask, hashes, mask_rows
    )


def _note(
    book: FaultBook, code: str, bad: Flags, first: int, describe: Callable[[int], object]
) -> None:
    book.add_rows(code, np.flatnonzero(bad), first, describe)


def _of(record: dict[str, Any]) -> str:
    """Which detection it is, as far as the record says so."""
    keys = ("image_id", "category_id", "score")
    return ", ".join(f"{key} {short(record[key])}" for key in keys if key in record) or "{...}"


def _lacks(given: dict[str, Flags], row: int) -> str:
    return " and no ".join(repr(key) for key, flags in given.items() if not flags[row])


def _check_ids(
    objects: Sequence[dict[str, Any]],
    what: str,
    fields: dict[str, tuple[list[Any], Flags]],
    first: int,
    known_ids: NDArray[np.int64],
    book: FaultBook,
) -> NDArray[np.int64]:
    """(N,) index of each id in ``known_ids``; -1 where there is none."""
    values, given = fields[f"{what}_id"]
    ids, whole = whole_numbers(values)
    _note(book, f"{what}-id-form", given & ~whole, first, lambda i: _of(objects[i]))
    index, known = find_ids(known_ids, ids)
    _note(book, f"{what}-unknown", whole & ~known, first, lambda i: _of(objects[i]))
    return np.where(whole & known, index, -1)


def _check_scores(
    objects: Sequence[dict[str, Any]], values: list[Any], given: Flags, first: int, book: FaultBook
) -> NDArray[np.float64]:
    scores, finite = finite_numbers(values)
    _note(book, "score-form", given & ~finite, first, lambda i: _of(objects[i]))
    _note(book, "score-range", outside_unit_range(scores), first, lambda i: _of(objects[i]))
    return scores


def _check_boxes(
    objects: Sequence[dict[str, Any]],
    values: list[Any],
    given: Flags,
    sizes: NDArray[np.int64],
    first: int,
    book: FaultBook,
) -> NDArray[np.float64]:
    """(N, 4), NaN where there is no good box."""
    found, good = boxes(values)
    x, y, width, height = found.T
    good &= ~((width < 0) | (height < 0))

    def describe(row: int) -> str:
        size = f", image [height, width] {sizes[row].tolist()}" if sizes[row].all() else ""
        return f"{short(values[row])} ({_of(objects[row])}{size})"

    _note(book, "bbox-form", given & ~good, first, describe)
    found[~good] = np.nan
    with np.errstate(over="ignore"):
        empty = width * height == 0
        right, bottom = x + width - sizes[:, 1], y + height - sizes[:, 0]
    _note(book, "bbox-empty", good & empty, first, describe)
    reach = np.maximum(np.maximum(-x, -y), np.maximum(right, bottom))
    outside = good & (sizes > 0).all(axis=1) & (reach > TOLERANCE)
    _note(book, "bbox-outside", outside, first, describe)
    return found


def _check_masks(
    objects: Sequence[dict[str, Any]],
    values: list[Any],
    given: Flags,
    sizes: NDArray[np.int64],
    first: int,
    book: FaultBook,
) -> tuple[list[int], NDArray[np.intp]]:
    """Hashes of the M masks of the right form, and (M,) their rows."""

    def describe(row: int) -> str:
        return f"{short(values[row])} ({_of(objects[row])})"

    def note(code: str, rows: NDArray[np.intp], text: Callable[[int], object] = describe) -> None:
        book.add_rows(code, rows, first, text)

    joined = join_rles(values)
    rows = np.arange(len(values))
    if joined is None:
        form = np.fromiter(map(is_rle, values), dtype=bool, count=len(values))
        note("mask-form", np.flatnonzero(given & ~form))
        rows = np.flatnonzero(form)
        joined = join_rles([values[row] for row in rows])
        assert joined is not None
    is_list = np.array([isinstance(values[row]["counts"], list) for row in rows], dtype=bool)
    note("mask-uncompressed", rows[is_list])
    size = joined.sizes
    wrong = (size != sizes[rows]).any(axis=1) & (sizes[rows] > 0).all(axis=1)
    image_size = dict(zip(rows[wrong].tolist(), sizes[rows[wrong]].tolist(), strict=True))
    note(
        "mask-size",
        rows[wrong],
        lambda row: f"{values[row]['size']}, image {image_size[row]} ({_of(objects[row])})",
    )
    measured = measure_joined_rles(joined.text, joined.lengths)
    whole = measured.totals == size.prod(axis=1)
    note("mask-counts", rows[~whole])
    note("mask-empty", rows[whole & (measured.areas == 0)])
    return _hashes(joined), rows


def _hashes(joined: JoinedRles) -> list[int]:
    """One hash of each compressed RLE string."""
    stops = np.cumsum(joined.lengths).tolist()
    pieces = zip(stops, joined.lengths.tolist(), strict=True)
    return [hash(joined.text[stop - length : stop]) for stop, length in pieces]
