"""The objects of an annotation file as columns: those that the official evaluation scores.

Training leaves out others; :func:`eql_d2.evaluation.annotations.read_ground_truth` says which.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eql_d2.annotation_checks import LARGEST_COORDINATE, polygon_beyond_limits
from eql_d2.errors import DataError
from eql_d2.evaluation.annotation_masks import read_masks
from eql_d2.evaluation.columns import (
    Problems,
    box_column,
    column,
    integer_column,
    is_box,
    is_finite_number,
    number_column,
)
from eql_d2.evaluation.ground_truth import find_ids
from eql_d2.evaluation.rle import is_polygons

logger = logging.getLogger("eql_d2.evaluation")


def read_objects(
    records: list[Any],
    subject: str,
    image_ids: NDArray[np.int64],
    category_ids: NDArray[np.int64],
    *,
    need_masks: bool,
    keep_empty: bool,
) -> dict[str, Any]:
    """The columns of ``annotations``, only of objects that take part.

    Objects without area are kept if ``keep_empty``; those without a usable box never.

    Raises:
        DataError: A column cannot be read, an annotation id is repeated, or a coordinate or an
            outline is beyond :mod:`eql_d2.annotation_checks`, which training refuses as well.
    """
    problems = Problems(subject, "annotations", len(records), DataError)
    columns = {key: column(records, key, problems) for key in ("image_id", "category_id", "bbox")}
    problems.raise_if_any()
    _check_repeated_ids(records, problems)
    segmentations = _segmentations(records, problems) if need_masks else None
    image_id = integer_column(columns["image_id"] or [], "image_id", problems)
    category_id = integer_column(columns["category_id"] or [], "category_id", problems)
    boxes, boxed = _boxes(columns["bbox"] or [], subject, problems)
    problems.raise_if_any()
    assert image_id is not None
    assert category_id is not None
    area = _areas(records, boxes, subject)
    image, known_image = find_ids(image_ids, image_id)
    category, known_category = find_ids(category_ids, category_id)
    known = known_image & known_category
    _check_boxes(records, np.where(known[:, None], boxes, 0), problems)
    _warn(subject, ~known, "name an unknown image or category; left out")
    kept = np.flatnonzero(known & boxed & ((area > 0) | keep_empty))
    kept_segmentations = None if segmentations is None else [segmentations[i] for i in kept]
    return {
        "image": image[kept],
        "category": category[kept],
        "boxes": boxes[kept],
        "areas": area[kept],
        "ignored": _flags(records, "ignore")[kept],
        "crowd": _flags(records, "iscrowd")[kept],
        "segmentations": kept_segmentations,
        "ids": [records[i].get("id") for i in kept],
    }


def _check_repeated_ids(records: list[Any], problems: Problems) -> None:
    """Refuse repeated ids: no number would equal the official one, which is wrong as well.

    The official code looks objects up by id, so the last one of an id is scored once for each and
    the others never; pycocotools marks a detection's object by id. Annotations without an id, which
    nothing here needs, are no problem.
    """
    ids = [i for record in records if (i := record.get("id")) is not None]
    try:
        if len(set(ids)) == len(ids):
            return
        seen: dict[Any, int] = {}
        first = [seen.setdefault(record.get("id"), i) for i, record in enumerate(records)]
    except TypeError:  # lists and objects cannot be compared
        where = [i for i, r in enumerate(records) if isinstance(r.get("id"), (list, dict))]
        problems.add("'id' is not an integer", where, lambda i: records[i]["id"])
    else:
        repeated = [i for i, place in enumerate(first) if place != i]
        where = [i for i in repeated if records[i].get("id") is not None]
        what = "the id is repeated; give every annotation its own"
        problems.add(what, where, lambda i: records[i]["id"])
    problems.raise_if_any()


def _check_boxes(records: list[Any], boxes: NDArray[np.float64], problems: Problems) -> None:
    """Refuse boxes beyond the limit."""
    far = np.flatnonzero((np.abs(boxes) > LARGEST_COORDINATE).any(axis=1))
    what = f"'bbox' has a coordinate beyond the limit of {LARGEST_COORDINATE:,} pixels"
    name = lambda i: f"annotation {records[i].get('id')}: {np.abs(boxes[i]).max():.6g}"  # noqa: E731
    problems.add(what, far, name)
    problems.raise_if_any()


def _check_polygons(
    segmentations: Sequence[Any], ids: Sequence[Any], usable: NDArray[np.bool_], subject: str
) -> None:
    """Refuse polygons that pycocotools could not draw; they are among those that are not usable."""
    beyond: dict[int, str] = {}
    for i in np.flatnonzero(~usable).tolist():
        parts = segmentations[i] if is_polygons(segmentations[i]) else ()
        problem = next(filter(None, map(polygon_beyond_limits, parts)), None)
        if problem is not None:
            beyond[i] = problem
    problems = Problems(subject, "annotations", len(segmentations), DataError)
    what = "'segmentation' has a polygon beyond the limits"
    problems.add(what, list(beyond), lambda i: f"annotation {ids[i]}: {beyond[i]}")
    problems.raise_if_any()


def _flags(records: Sequence[Any], key: str) -> NDArray[np.bool_]:
    return np.array([bool(record.get(key, 0)) for record in records], dtype=bool)


def _segmentations(records: list[Any], problems: Problems) -> list[Any] | None:
    """The segmentations, None where a record lacks one; a problem if all do."""
    if any("segmentation" in record for record in records):
        return [record.get("segmentation") for record in records]
    return column(records, "segmentation", problems)


def _boxes(
    values: list[Any], subject: str, problems: Problems
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(N, 4) boxes, zeros where unusable, and which are usable; a problem if most are not."""
    found = Problems(subject, "annotations", len(values), DataError)
    boxes = box_column(values, found)
    if boxes is not None:
        return boxes, np.ones(len(boxes), dtype=bool)
    usable = np.array([is_box(value) for value in values], dtype=bool)
    if 2 * usable.sum() < len(values):
        problems.absorb(found)
    else:
        _warn(subject, ~usable, "have no usable bbox; left out")
    nothing = [0.0] * 4
    filled = [value if good else nothing for value, good in zip(values, usable, strict=True)]
    return np.array(filled, dtype=np.float64), usable


def _areas(records: list[Any], boxes: NDArray[np.float64], subject: str) -> NDArray[np.float64]:
    """The file's areas; the box's area where the file has none, or none that is a number."""
    values = [record.get("area") for record in records]
    area = number_column(values, "area", Problems(subject, "annotations", len(values), DataError))
    if area is not None:
        return area
    usable = np.array([is_finite_number(value) for value in values], dtype=bool)
    missing = int((~usable).sum())
    logger.info("%s: %d annotations have no area: their box's is used", subject, missing)
    area = boxes[:, 2] * boxes[:, 3]
    area[usable] = [value for value, good in zip(values, usable, strict=True) if good]
    return area


def object_masks(
    segmentations: list[Any] | None, ids: Sequence[Any], sizes: NDArray[np.int64], subject: str
) -> dict[str, Any]:
    """The fields of :class:`GroundTruth` for masks of images of (G, 2) ``sizes``.

    Args:
        segmentations: G, or None if masks are not asked for.
        ids: G annotation ids, for messages.
        sizes: (G, 2).
        subject: The file, for messages.

    Raises:
        DataError: A polygon is beyond the limits.
    """
    if segmentations is None:
        nothing = np.zeros(len(sizes), dtype=bool)
        return {"masks": None, "mask_areas": None, "mask_spans": None, "without_mask": nothing}
    masks, measured, usable = read_masks(segmentations, sizes)
    _check_polygons(segmentations, ids, usable, subject)
    _warn(subject, ~usable, "have no usable segmentation; ignored for mask AP")
    return {
        "masks": masks,
        "mask_areas": measured.areas.astype(np.float64),
        "mask_spans": measured.spans.astype(np.int32),
        "without_mask": ~usable,
    }


def _warn(subject: str, affected: NDArray[np.bool_], what: str) -> None:
    if affected.any():
        count = int(affected.sum())
        logger.warning("%s: %d of %d annotations %s", subject, count, len(affected), what)
