"""Read COCO or LVIS annotations into a :class:`GroundTruth`."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eql_d2.errors import DataError
from eql_d2.evaluation.columns import (
    Problems,
    box_column,
    column,
    integer_column,
    number_column,
)
from eql_d2.evaluation.ground_truth import GROUPS, GroundTruth, find_ids
from eql_d2.evaluation.json_file import read_json
from eql_d2.evaluation.rle import usable_segmentation

logger = logging.getLogger("eql_d2.evaluation")


def read_ground_truth(
    annotations: str | os.PathLike[str] | dict[str, Any],
    *,
    need_masks: bool,
    keep_empty: bool = False,
) -> GroundTruth:
    """Read annotations from a file or a parsed json.

    An image without ``neg_category_ids`` counts as exhaustively annotated: every category that has
    no object there is known to be absent. That is what plain COCO files mean.

    As in the official LVIS code, objects with an area of zero and objects of unknown images or
    categories do not take part, ``ignore`` is honoured and ``iscrowd`` is not. Only where no
    image has LVIS fields, ``iscrowd`` means what it means in COCO.

    Args:
        annotations: File, or its parsed json.
        need_masks: Read the segmentations too.
        keep_empty: Keep objects with an area of zero, which count in COCO.

    Raises:
        DataError: The annotations lack what is needed; all problems of a kind are told at once.
    """
    parts, subject = _load(annotations)
    images = parts["images"]
    image_ids, sizes, order = _read_images(images, subject, need_sizes=need_masks)
    category_ids, names, groups = _read_categories(parts["categories"], subject)
    exhaustive = np.array(["neg_category_ids" not in image for image in images], bool)
    if exhaustive.any():
        what = "images have no neg_category_ids: taken as exhaustively annotated"
        logger.info("%s: %d of %d %s", subject, exhaustive.sum(), len(images), what)
    ids = (image_ids, category_ids)
    objects = _read_objects(parts["annotations"], subject, *ids, need_masks, keep_empty)
    crowd = objects.pop("crowd") & exhaustive.all()
    objects["ignored"] |= crowd
    return GroundTruth(
        image_ids=image_ids,
        sizes=sizes,
        category_ids=category_ids,
        names=names,
        groups=groups,
        crowd=crowd,
        without_mask=_without_mask(objects["segmentations"], sizes[objects["image"]], subject),
        exhaustive=exhaustive[order],
        negative_pairs=_image_pairs(images, "neg_category_ids", subject, *ids),
        not_exhaustive_pairs=_image_pairs(images, "not_exhaustive_category_ids", subject, *ids),
        **objects,
    )


def _load(
    annotations: str | os.PathLike[str] | dict[str, Any],
) -> tuple[dict[str, list[Any]], str]:
    """The three lists of an annotation file, and what to call it in messages."""
    if isinstance(annotations, dict):
        parsed, subject = annotations, "the annotations"
    else:
        parsed = read_json(annotations, "annotation file", DataError)
        subject = f"annotation file {annotations}"
    if not isinstance(parsed, dict):
        raise DataError(f"{subject}: expected a json object, got {type(parsed).__name__}")
    for key in ("images", "annotations", "categories"):
        if not isinstance(parsed.get(key), list):
            hint = " (a test split cannot be scored locally)" if key == "annotations" else ""
            raise DataError(f"{subject}: has no list {key!r}{hint}")
    return parsed, subject


def _unique_ids(
    records: list[Any], what: str, subject: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sorted ids of images or categories, and the order that sorts the records."""
    problems = Problems(subject, what, len(records), DataError)
    values = column(records, "id", problems)
    ids = None if values is None else integer_column(values, "id", problems)
    problems.raise_if_any()
    assert ids is not None
    order = np.argsort(ids, kind="stable")
    repeated = order[1:][ids[order][1:] == ids[order][:-1]]
    problems.add("the id is repeated", repeated, lambda i: int(ids[i]))
    problems.raise_if_any()
    return ids[order], order


def _read_images(
    images: list[Any], subject: str, *, need_sizes: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Sorted ids, (I, 2) height and width (zeros if not given), and the order that sorts them."""
    image_ids, order = _unique_ids(images, "images", subject)
    problems = Problems(subject, "images", len(images), DataError)
    sides = [
        integer_column([image.get(key, 0) for image in images], key, problems)
        for key in ("height", "width")
    ]
    problems.raise_if_any()
    sizes = np.stack([side for side in sides if side is not None], axis=1)
    if need_sizes:
        lacking = np.flatnonzero((sizes <= 0).any(axis=1))
        problems.add(
            "no 'height' and 'width' above 0, which mask AP needs", lacking, lambda i: images[i]
        )
        problems.raise_if_any()
    return image_ids, sizes[order], order


def _read_categories(
    categories: list[Any], subject: str
) -> tuple[NDArray[np.int64], tuple[str, ...], tuple[str, ...] | None]:
    category_ids, order = _unique_ids(categories, "categories", subject)
    ordered = [categories[i] for i in order]
    names = tuple(str(c.get("name", c["id"])) for c in ordered)
    frequencies = [c.get("frequency") for c in ordered]
    if all(frequency is None for frequency in frequencies):
        return category_ids, names, None
    problems = Problems(subject, "categories", len(categories), DataError)
    bad = [i for i, frequency in enumerate(frequencies) if frequency not in GROUPS]
    problems.add("'frequency' is not r, c or f", bad, lambda i: ordered[i])
    problems.raise_if_any()
    return category_ids, names, tuple(str(frequency) for frequency in frequencies)


def _image_pairs(
    images: list[Any],
    key: str,
    subject: str,
    image_ids: NDArray[np.int64],
    category_ids: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Sorted pairs that the images list under ``key``; unknown categories are left out."""
    problems = Problems(subject, "images", len(images), DataError)
    bad = [i for i, image in enumerate(images) if not isinstance(image.get(key, []), list)]
    problems.add(f"{key!r} is not a list", bad, lambda i: images[i][key])
    problems.raise_if_any()
    ids = [image["id"] for image in images for _ in image.get(key, ())]
    listed = [category for image in images for category in image.get(key, ())]
    problems = Problems(subject, f"entries of {key}", len(listed), DataError)
    listed_ids = integer_column(listed, "category_id", problems)
    problems.raise_if_any()
    assert listed_ids is not None
    image, _ = find_ids(image_ids, np.array(ids, dtype=np.int64))
    category, known = find_ids(category_ids, listed_ids)
    return np.unique((category * len(image_ids) + image)[known])


def _read_objects(
    records: list[Any],
    subject: str,
    image_ids: NDArray[np.int64],
    category_ids: NDArray[np.int64],
    need_masks: bool,
    keep_empty: bool,
) -> dict[str, Any]:
    """The columns of ``annotations``, only of objects that take part."""
    problems = Problems(subject, "annotations", len(records), DataError)
    columns = {key: column(records, key, problems) for key in ("image_id", "category_id", "bbox")}
    segmentations = column(records, "segmentation", problems) if need_masks else None
    problems.raise_if_any()
    image_id = integer_column(columns["image_id"] or [], "image_id", problems)
    category_id = integer_column(columns["category_id"] or [], "category_id", problems)
    boxes = box_column(columns["bbox"] or [], problems)
    area = _areas(records, boxes, problems)
    problems.raise_if_any()
    assert image_id is not None
    assert category_id is not None
    assert boxes is not None
    assert area is not None
    image, known_image = find_ids(image_ids, image_id)
    category, known_category = find_ids(category_ids, category_id)
    known = known_image & known_category
    _warn(subject, ~known, "name an unknown image or category; left out")
    kept = np.flatnonzero(known & ((area > 0) | keep_empty))
    kept_segmentations = None if segmentations is None else [segmentations[i] for i in kept]
    return {
        "image": image[kept],
        "category": category[kept],
        "boxes": boxes[kept],
        "areas": area[kept],
        "ignored": _flags(records, "ignore")[kept],
        "crowd": _flags(records, "iscrowd")[kept],
        "segmentations": kept_segmentations,
    }


def _flags(records: Sequence[Any], key: str) -> NDArray[np.bool_]:
    return np.array([bool(record.get(key, 0)) for record in records], dtype=bool)


def _areas(
    records: list[Any], boxes: NDArray[np.float64] | None, problems: Problems
) -> NDArray[np.float64] | None:
    """The file's areas; the box's area where the file has none."""
    missing = np.array(["area" not in record for record in records], dtype=bool)
    area = number_column([record.get("area", 0) for record in records], "area", problems)
    if missing.any() and area is not None and boxes is not None:
        logger.info("%d annotations have no area: the area of their box is used", missing.sum())
        area = np.where(missing, boxes[:, 2] * boxes[:, 3], area)
    return area


def _without_mask(
    segmentations: list[Any] | None, sizes: NDArray[np.int64], subject: str
) -> NDArray[np.bool_]:
    """Objects whose segmentation cannot become a mask of their image's size (H, W)."""
    if segmentations is None:
        return np.zeros(len(sizes), dtype=bool)
    unusable = [
        not usable_segmentation(segmentation, height, width)
        for segmentation, (height, width) in zip(segmentations, sizes.tolist(), strict=True)
    ]
    result = np.array(unusable, dtype=bool)
    _warn(subject, result, "have no usable segmentation; ignored for mask AP")
    return result


def _warn(subject: str, affected: NDArray[np.bool_], what: str) -> None:
    if affected.any():
        count = int(affected.sum())
        logger.warning("%s: %d of %d annotations %s", subject, count, len(affected), what)
