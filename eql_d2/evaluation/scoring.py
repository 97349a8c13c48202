"""From detections and objects as arrays to an :class:`Evaluation`.

Shapes: T IoU thresholds, K categories, A area ranges.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eql_d2.evaluation.ground_truth import GroundTruth
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
from eql_d2.evaluation.results import Detections
from eql_d2.evaluation.rle import annotation_rle

logger = logging.getLogger("eql_d2.evaluation")

UNLABELLED_WARNING = 0.99  # share of detections on pairs nobody looked at: ids are likely off
SHIFT_WARNING = 3  # times as many detections on known pairs after a shift of the category ids
LEAST_DETECTIONS = 20  # on known pairs after the shift; fewer prove nothing


def evaluate_arrays(
    truth: GroundTruth,
    detections: Detections,
    iou_types: Sequence[str],
    max_detections: int,
) -> Evaluation:
    """Score detections; the arguments are those of :func:`eql_d2.evaluation.evaluate`."""
    limited = highest_scores(detections.image, detections.scores, max_detections)
    image, category = detections.image[limited], detections.category[limited]
    kept = limited[_labelled(truth, image, category)]
    warnings = _warnings(truth, image, category, len(kept))
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


def _labelled(
    truth: GroundTruth, image: NDArray[np.int64], category: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether it is known if each image shows the category beside it."""
    known = np.concatenate((truth.pairs, truth.negative_pairs))
    return truth.exhaustive[image] | np.isin(category * len(truth.image_ids) + image, known)


def _present(
    truth: GroundTruth, image: NDArray[np.int64], category: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether each image has an object of the category beside it."""
    return np.isin(category * len(truth.image_ids) + image, truth.pairs)


def _warnings(
    truth: GroundTruth, image: NDArray[np.int64], category: NDArray[np.int64], num_labelled: int
) -> tuple[str, ...]:
    """Category ids that are off by one give an AP near zero and no other sign.

    What tells is how many detections are of categories that their image has objects of. That an
    image was searched for a category tells nothing: in COCO's data it was searched for all.
    """
    lines = []
    num_present = int(_present(truth, image, category).sum())
    for shift in (-1, 1):
        shifted = category + shift
        inside = (shifted >= 0) & (shifted < len(truth.category_ids))
        would = int(_present(truth, image[inside], shifted[inside]).sum())
        if would > max(SHIFT_WARNING * num_present, LEAST_DETECTIONS):
            lines.append(
                f"{num_present} of {len(image)} detections are of categories that their image has "
                f"objects of; with category ids {shift:+d} it would be {would}; are the category "
                "ids shifted by one?"
            )
    if not lines and num_labelled < (1 - UNLABELLED_WARNING) * len(image):
        lines.append(
            f"{len(image) - num_labelled} of {len(image)} detections are of categories that are "
            "neither annotated nor marked absent in their image and so do not count; are these "
            "the category ids of the annotations?"
        )
    for line in lines:
        logger.warning(line)
    return tuple(lines)


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
