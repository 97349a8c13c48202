"""LVIS average precision: what ``lvis.LVISEval`` computes, from arrays and only where needed.

Corners, all as in lvis 0.5.3 unless said otherwise:

* The ``max_detections`` highest scores of an image are kept, over all categories; equal scores in
  file order.
* A detection whose category is neither annotated in its image nor in ``neg_category_ids`` is left
  out; an unmatched one of ``not_exhaustive_category_ids`` is neither right nor wrong.
* Detections and objects of zero area are left out, after the limit above.
* Size classes: an object's ``area`` field; a detection's box area for boxes and mask area for masks
  (lvis takes the box area for masks if the first record has a ``bbox``; Detectron2 removes the
  ``bbox`` to avoid that, and so the numbers here are those of lvis without ``bbox``).
* Records without any ``bbox``: the boxes around the masks, with the masks' areas.
* Equal IoU: the object that comes later in the file; an ignored one only if no other fits.
* No detections at all is AP 0 (lvis stops with an IndexError). Annotation ids do not matter (lvis
  counts a match with the id 0 as a false positive).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eql_d2.errors import UserError
from eql_d2.evaluation.annotations import read_ground_truth
from eql_d2.evaluation.ground_truth import GROUPS, GroundTruth
from eql_d2.evaluation.matching import match, plan_rounds
from eql_d2.evaluation.overlaps import Overlaps, box_overlaps, mask_overlaps, shared_pairs
from eql_d2.evaluation.precision import precision_at_recalls, rank_detections
from eql_d2.evaluation.report import (
    AREA_RANGES,
    IOU_THRESHOLDS,
    CategoryRow,
    Evaluation,
    describe_support,
    mean_precision,
    summarize,
)
from eql_d2.evaluation.results import Detections, read_results
from eql_d2.evaluation.rle import annotation_rle

logger = logging.getLogger("eql_d2.evaluation")

IOU_TYPES = ("bbox", "segm")
UNLABELLED_WARNING = 0.99  # share of detections on pairs nobody looked at: ids are likely off


def evaluate(
    annotations: str | os.PathLike[str] | dict[str, Any],
    results: str | os.PathLike[str] | Sequence[dict[str, Any]],
    *,
    iou_types: Sequence[str] = IOU_TYPES,
    groups: Sequence[str] | None = None,
    max_detections: int = 300,
) -> Evaluation:
    """Score a results file against COCO or LVIS annotations.

    Args:
        annotations: File, or its parsed json.
        results: File, or its records. Neither is changed.
        iou_types: "bbox", "segm" or both.
        groups: "r", "c" or "f" for each category in the order of sorted ids; None takes the
            annotations' ``frequency``. Without both, APr, APc and APf are undefined.
        max_detections: Highest scores of an image that count, over all categories.

    Raises:
        DataError: The annotations cannot be used.
        ResultsError: The results do not fit the annotations.
        UserError: Another argument is wrong.
    """
    _check_arguments(iou_types, groups, max_detections)
    truth = read_ground_truth(annotations, need_masks="segm" in iou_types)
    if groups is not None:
        if len(groups) != len(truth.category_ids):
            raise UserError(
                f"{len(groups)} groups for {len(truth.category_ids)} categories of the annotations"
            )
        truth = replace(truth, groups=tuple(groups))
    detections = read_results(results, truth, iou_types)
    return evaluate_arrays(truth, detections, iou_types, max_detections)


def evaluate_arrays(
    truth: GroundTruth,
    detections: Detections,
    iou_types: Sequence[str] = IOU_TYPES,
    max_detections: int = 300,
) -> Evaluation:
    """:func:`evaluate` after reading."""
    limited = highest_scores(detections.image, detections.scores, max_detections)
    labelled = _labelled(truth, detections, limited)
    kept = limited[labelled]
    warnings = _warnings(len(limited), len(kept))
    num_truths = _objects_that_count(truth, truth.ignored)
    support = describe_support(num_truths > 0, truth.groups)
    metrics: dict[str, float | None] = {}
    per_category: dict[str, list[float | None]] = {}
    for kind in iou_types:
        precision = _precision(truth, detections, kept, kind)
        values = summarize(precision, truth.groups)
        metrics |= {f"{kind}/{name}": value for name, value in values.items()}
        per_category[kind] = [
            mean_precision(precision[0][:, :, k]) for k in range(len(truth.category_ids))
        ]
    rows = _category_rows(truth, detections.category[kept], per_category)
    return Evaluation(metrics, support, rows, warnings)


def highest_scores(
    image: NDArray[np.int64], scores: NDArray[np.float64], limit: int
) -> NDArray[np.int64]:
    """Indices, rising, of the ``limit`` highest scores of each image; ties in file order."""
    crowded = np.bincount(image) > limit
    if not crowded.any():
        return np.arange(len(scores))
    index = np.flatnonzero(crowded[image])
    order = index[np.lexsort((-scores[index], image[index]))]
    place = np.arange(len(order)) - np.searchsorted(image[order], image[order])
    kept = np.ones(len(scores), dtype=bool)
    kept[order[place >= limit]] = False
    return np.flatnonzero(kept)


def _check_arguments(
    iou_types: Sequence[str], groups: Sequence[str] | None, max_detections: int
) -> None:
    if isinstance(iou_types, str) or not iou_types or not set(iou_types) <= set(IOU_TYPES):
        raise UserError(f"iou_types must be some of {IOU_TYPES}, got {iou_types!r}")
    if groups is not None and not set(groups) <= set(GROUPS):
        raise UserError(f"groups must be 'r', 'c' or 'f', got {sorted(set(groups) - set(GROUPS))}")
    if max_detections < 1:
        raise UserError(f"max_detections must be at least 1, got {max_detections}")


def _labelled(
    truth: GroundTruth, detections: Detections, index: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether it is known if the image of each detection shows its category."""
    image = detections.image[index]
    pairs = detections.category[index] * len(truth.image_ids) + image
    known = np.concatenate((truth.pairs, truth.negative_pairs))
    return truth.exhaustive[image] | np.isin(pairs, known)


def _warnings(num_detections: int, num_labelled: int) -> tuple[str, ...]:
    unlabelled = num_detections - num_labelled
    if unlabelled <= UNLABELLED_WARNING * num_detections:
        return ()
    warning = (
        f"{unlabelled} of {num_detections} detections are of categories that are neither annotated "
        "nor marked absent in their image and so do not count; are the category ids shifted by one?"
    )
    logger.warning(warning)
    return (warning,)


def _objects_that_count(truth: GroundTruth, ignored: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(A, K) objects in each area range."""
    return np.stack(
        [
            np.bincount(
                truth.category[~(ignored | _outside(truth.areas, area))],
                minlength=len(truth.category_ids),
            )
            for area in AREA_RANGES
        ]
    )


def _outside(areas: NDArray[np.float64], limits: tuple[float, float]) -> NDArray[np.bool_]:
    return (areas < limits[0]) | (areas > limits[1])


def _precision(
    truth: GroundTruth, detections: Detections, kept: NDArray[np.int64], kind: str
) -> list[NDArray[np.float64]]:
    """Precision (T, 101, K) for each of the A area ranges."""
    areas = detections.box_areas if kind == "bbox" else detections.mask_areas
    assert areas is not None
    kept = kept[(areas[kept] > 0) & np.isfinite(areas[kept])]
    pairs = detections.category[kept] * len(truth.image_ids) + detections.image[kept]
    order = np.lexsort((-detections.scores[kept], pairs))
    kept, pairs = kept[order], pairs[order]
    plan = plan_rounds(_overlaps(truth, detections, kept, pairs, kind), pairs)
    ranking = rank_detections(
        detections.category[kept], detections.scores[kept], len(truth.category_ids)
    )
    exhaustive = ~np.isin(pairs, truth.not_exhaustive_pairs)
    ignored = truth.ignored | truth.without_mask if kind == "segm" else truth.ignored
    num_truths = _objects_that_count(truth, ignored)
    return [
        precision_at_recalls(
            ranking,
            exhaustive & ~_outside(areas[kept], limits),
            plan.detection,
            match(plan, ignored | _outside(truth.areas, limits), truth.crowd, IOU_THRESHOLDS),
            ignored | _outside(truth.areas, limits),
            num_truths[a],
        )
        for a, limits in enumerate(AREA_RANGES)
    ]


def _overlaps(
    truth: GroundTruth,
    detections: Detections,
    kept: NDArray[np.int64],
    pairs: NDArray[np.int64],
    kind: str,
) -> Overlaps:
    shared = shared_pairs(pairs, truth.pairs)
    if kind == "bbox":
        assert detections.boxes is not None
        boxes = detections.boxes[kept]
        return box_overlaps(shared, boxes, truth.boxes, truth.crowd, IOU_THRESHOLDS[0])
    masks, segmentations = detections.masks, truth.segmentations
    assert masks is not None
    assert segmentations is not None

    def detection_masks(index: NDArray[np.int64]) -> list[dict[str, Any]]:
        chosen = kept[index]
        size = truth.sizes[detections.image[chosen[0]]].tolist()
        return [{"size": size, "counts": masks[i]} for i in chosen]

    def truth_masks(index: NDArray[np.int64]) -> list[dict[str, Any]]:
        height, width = truth.sizes[truth.image[index[0]]].tolist()
        return [annotation_rle(segmentations[i], height, width) for i in index]

    return mask_overlaps(shared, detection_masks, truth_masks, truth.crowd, IOU_THRESHOLDS[0])


def _category_rows(
    truth: GroundTruth,
    detected: NDArray[np.int64],
    per_category: dict[str, list[float | None]],
) -> tuple[CategoryRow, ...]:
    size = len(truth.category_ids)
    images = np.bincount(np.unique(truth.pairs) // len(truth.image_ids), minlength=size)
    instances = np.bincount(truth.category, minlength=size)
    detections = np.bincount(detected, minlength=size)
    return tuple(
        CategoryRow(
            category_id=int(truth.category_ids[k]),
            name=truth.names[k],
            group=None if truth.groups is None else truth.groups[k],
            images=int(images[k]),
            instances=int(instances[k]),
            detections=int(detections[k]),
            ap={kind: values[k] for kind, values in per_category.items()},
        )
        for k in range(size)
    )
