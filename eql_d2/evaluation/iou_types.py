"""The overlaps of each IoU type: boxes, masks, the smaller of masks and their boundaries."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from eql_d2.evaluation.boundary import boundary_overlaps
from eql_d2.evaluation.ground_truth import GroundTruth
from eql_d2.evaluation.overlaps import (
    Overlaps,
    SharedPairs,
    box_overlaps,
    mask_overlaps,
    shared_pairs,
)
from eql_d2.evaluation.results import Detections
from eql_d2.evaluation.rle import annotation_rle, measure_rles
from eql_d2.evaluation.thresholds import IOU_THRESHOLDS


def find_overlaps(
    truth: GroundTruth,
    detections: Detections,
    kept: NDArray[np.int64],
    pairs: NDArray[np.int64],
    iou_type: str,
) -> Overlaps:
    """Overlaps that can be a match at the lowest IoU threshold.

    Args:
        truth: Annotations; with segmentations for masks.
        detections: All detections; with masks for masks.
        kept: (D,) those that take part, sorted by pair.
        pairs: (D,) the pair of each.
        iou_type: "bbox", "segm" or "boundary".
    """
    shared = shared_pairs(pairs, truth.pairs)
    minimum = IOU_THRESHOLDS[0]
    if iou_type == "bbox":
        assert detections.boxes is not None
        return box_overlaps(shared, detections.boxes[kept], truth.boxes, truth.crowd, minimum)
    masks, mask_areas = detections.masks, detections.mask_areas
    assert masks is not None
    assert mask_areas is not None
    objects, areas = _object_masks(truth, shared)

    def detection_masks(index: NDArray[np.int64]) -> list[dict[str, Any]]:
        chosen = kept[index].tolist()
        size = truth.sizes[detections.image[chosen[0]]].tolist()
        return [{"size": size, "counts": masks[i]} for i in chosen]

    def truth_masks(index: NDArray[np.int64]) -> list[dict[str, Any]]:
        return [objects[i] for i in index.tolist()]

    found = mask_overlaps(
        shared, detection_masks, truth_masks, truth.crowd, minimum, (mask_areas[kept], areas)
    )
    if iou_type == "segm":
        return found
    return boundary_overlaps(found, detection_masks, truth_masks, truth.crowd, minimum)


def _object_masks(
    truth: GroundTruth, shared: SharedPairs
) -> tuple[dict[int, dict[str, Any]], NDArray[np.float64]]:
    """The RLEs of the objects in pairs with detections, and (G,) areas, zero for the others."""
    assert truth.segmentations is not None
    sizes = truth.sizes[truth.image].tolist()
    objects = {
        i: annotation_rle(truth.segmentations[i], *sizes[i], usable=not truth.without_mask[i])
        for i in shared.truths.tolist()
    }
    areas = np.zeros(len(truth.image))
    if objects:  # pycocotools' own area() fails for more than 255 masks
        areas[shared.truths] = measure_rles([rle["counts"] for rle in objects.values()]).areas
    return objects, areas
