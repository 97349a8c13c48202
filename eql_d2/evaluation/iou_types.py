"""The overlaps of each IoU type: boxes, masks, the smaller of masks and their boundaries."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eql_d2.evaluation.boundary import boundary_overlaps
from eql_d2.evaluation.ground_truth import GroundTruth
from eql_d2.evaluation.overlaps import (
    Overlaps,
    SharedPairs,
    alike,
    box_overlaps,
    mask_overlaps,
    shared_pairs,
)
from eql_d2.evaluation.results import Detections
from eql_d2.evaluation.rle import measure_rles
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
        truth: Annotations; with masks for masks.
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
    assert detections.masks is not None
    assert truth.masks is not None
    detected, objects = detections.masks, truth.masks
    near = _alike_in_area(shared, truth, detections, kept)
    compared = kept[near]  # the others need no look at their masks

    def detection_masks(index: NDArray[np.int64]) -> list[dict[str, Any]]:
        chosen = compared[index]
        return _rles(truth.sizes[detections.image[chosen]], detected.take(chosen))

    def truth_masks(index: NDArray[np.int64]) -> list[dict[str, Any]]:
        return _rles(truth.sizes[truth.image[index]], objects.take(index))

    masks = (detection_masks, truth_masks, truth.crowd, minimum)
    found = mask_overlaps(shared_pairs(pairs[near], truth.pairs), *masks)
    if iou_type == "boundary":
        found = boundary_overlaps(found, *masks)
    return replace(found, detection=near[found.detection])


def _alike_in_area(
    shared: SharedPairs, truth: GroundTruth, detections: Detections, kept: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Indices into ``kept`` of the masks whose area allows a match with an object of their pair."""
    assert detections.mask_areas is not None
    assert truth.masks is not None
    areas = np.zeros(len(truth.image))
    areas[shared.truths] = measure_rles(truth.masks.take(shared.truths)).areas
    own = detections.mask_areas[kept]
    return np.flatnonzero(alike(shared, own, areas, truth.crowd, IOU_THRESHOLDS[0]))


def _rles(sizes: NDArray[np.int64], counts: list[bytes]) -> list[dict[str, Any]]:
    """Masks of (N, 2) ``sizes`` as pycocotools takes them."""
    return [{"size": s, "counts": c} for s, c in zip(sizes.tolist(), counts, strict=True)]
