"""Read a results file into arrays and refuse what cannot be scored.

Shapes: N detections, I images, K categories.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eql_d2.errors import ResultsError
from eql_d2.evaluation.columns import (
    Problems,
    box_column,
    column,
    integer_column,
    number_column,
)
from eql_d2.evaluation.ground_truth import GroundTruth, find_ids
from eql_d2.evaluation.json_file import paused_garbage_collection, read_json
from eql_d2.evaluation.rle import compressed_counts, is_rle, measure_rles


@dataclass(frozen=True)
class Detections:
    """All detections, in the order of the file.

    Attributes:
        image: (N,) image index.
        category: (N,) category index.
        scores: (N,).
        boxes: (N, 4) x, y, width, height, or None if only masks are asked for.
        box_areas: (N,) width x height; the mask's area where the file has masks only, as the
            official code does.
        masks: N compressed RLE strings, or None if only boxes are asked for.
        mask_areas: (N,) pixels of each mask, or None.
    """

    image: NDArray[np.int64]
    category: NDArray[np.int64]
    scores: NDArray[np.float64]
    boxes: NDArray[np.float64] | None
    box_areas: NDArray[np.float64] | None
    masks: list[bytes] | None
    mask_areas: NDArray[np.float64] | None

    def __len__(self) -> int:
        return len(self.scores)


def read_results(
    results: str | os.PathLike[str] | Sequence[Any],
    truth: GroundTruth,
    iou_types: Sequence[str],
) -> Detections:
    """Read detections from a results file or from its parsed records (left unchanged).

    Raises:
        ResultsError: The file is not a json list of records, or records do not fit ``truth``.
            All kinds of problems are counted, with the first examples.
    """
    if isinstance(results, (str, os.PathLike)):
        records, subject = read_json(results, "results file", ResultsError), f"{results}"
    else:
        records, subject = results, "the results"
    if not isinstance(records, (list, tuple)):
        raise ResultsError(
            f"{subject}: expected a json list of detections, got {type(records).__name__}"
        )
    problems = Problems(subject, "records", len(records), ResultsError)
    with paused_garbage_collection():
        return _detections(records, problems, truth, iou_types)


def _detections(
    records: Sequence[Any], problems: Problems, truth: GroundTruth, iou_types: Sequence[str]
) -> Detections:
    image_id = _numbers(records, "image_id", problems, integer_column)
    category_id = _numbers(records, "category_id", problems, integer_column)
    scores = _numbers(records, "score", problems, number_column)
    has_boxes = any("bbox" in record for record in records if isinstance(record, dict))
    boxes = box_areas = masks = mask_areas = None
    if "bbox" in iou_types and (has_boxes or not records):
        boxes = _boxes(records, problems)
    problems.raise_if_any()
    image, category = _find(truth, image_id, category_id, problems)
    problems.raise_if_any()
    if "segm" in iou_types or ("bbox" in iou_types and boxes is None):
        masks, mask_areas = _masks(records, truth.sizes[image], problems)
    if boxes is not None:
        box_areas = boxes[:, 2] * boxes[:, 3]
    elif "bbox" in iou_types and masks is not None:
        boxes, box_areas = _boxes_of_masks(records, masks), mask_areas
    return Detections(image, category, scores, boxes, box_areas, masks, mask_areas)


def _numbers(
    records: Sequence[Any],
    key: str,
    problems: Problems,
    convert: Callable[[Sequence[Any], str, Problems], NDArray[Any] | None],
) -> NDArray[Any]:
    """The column ``key``; empty after noting the problems that forbid it."""
    values = column(records, key, problems)
    array = None if values is None else convert(values, key, problems)
    return np.zeros(0) if array is None else array


def _boxes(records: Sequence[Any], problems: Problems) -> NDArray[np.float64] | None:
    values = column(records, "bbox", problems)
    return None if values is None else box_column(values, problems)


def _find(
    truth: GroundTruth,
    image_id: NDArray[np.int64],
    category_id: NDArray[np.int64],
    problems: Problems,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Image and category index of each detection."""
    image, known_image = find_ids(truth.image_ids, image_id)
    category, known_category = find_ids(truth.category_ids, category_id)
    for key, ids, known in (
        ("image_id", image_id, known_image),
        ("category_id", category_id, known_category),
    ):
        problems.add(
            f"{key!r} is not in the annotations",
            np.flatnonzero(~known),
            ids.tolist().__getitem__,
        )
    return image, category


def _masks(
    records: Sequence[Any], sizes: NDArray[np.int64], problems: Problems
) -> tuple[list[bytes], NDArray[np.float64]]:
    """Compressed RLE strings, each proven to describe its image's pixels, and their areas."""
    values = column(records, "segmentation", problems, ", which mask AP needs")
    problems.raise_if_any()
    assert values is not None
    not_rle = [i for i, value in enumerate(values) if not is_rle(value)]
    problems.add(
        "'segmentation' is not an RLE {'size': [height, width], 'counts': ...}",
        not_rle,
        lambda i: values[i],
    )
    problems.raise_if_any()
    given = np.array([value["size"] for value in values]).reshape(-1, 2)
    wrong = np.flatnonzero((given != sizes).any(axis=1) & (sizes > 0).all(axis=1))
    problems.add(
        "the RLE has another size than the image",
        wrong,
        lambda i: f"{given[i].tolist()}, image {sizes[i].tolist()}",
    )
    problems.raise_if_any()
    masks = [compressed_counts(value) for value in values]
    measured = measure_rles(masks)
    broken = np.flatnonzero(measured.totals != given.prod(axis=1))
    problems.add("the RLE's counts do not add up to height x width", broken, lambda i: masks[i])
    problems.raise_if_any()
    return masks, measured.areas.astype(np.float64)


def _boxes_of_masks(records: Sequence[Any], masks: list[bytes]) -> NDArray[np.float64]:
    """(N, 4) smallest boxes around the masks."""
    from pycocotools import mask as coco_mask

    rles = [
        {"size": list(record["segmentation"]["size"]), "counts": counts}
        for record, counts in zip(records, masks, strict=True)
    ]
    return coco_mask.toBbox(rles).reshape(-1, 4)
