"""The overlaps of each IoU type: boxes, masks, the smaller of masks and their boundaries."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eql_d2.evaluation.boundary import boundary_overlaps
from eql_d2.evaluation.ground_truth import GroundTruth
from eql_d2.evaluation.overlaps import (
    Extents,
    Overlaps,
    SharedPairs,
    box_overlaps,
    comparable,
    mask_overlaps,
    shared_pairs,
)
from eql_d2.evaluation.results import Detections
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
    near = _comparable(shared, truth, detections, kept)
    compared = kept[near]  # the others need no look at their masks
    sizes = truth.sizes.tolist()

    def detection_masks(index: NDArray[np.int64]) -> list[dict[str, Any]]:
        chosen = compared[index]
        return _rles(sizes, detections.image[chosen], detected.take(chosen))

    def truth_masks(index: NDArray[np.int64]) -> list[dict[str, Any]]:
        return _rles(sizes, truth.image[index], objects.take(index))

    masks = (detection_masks, truth_masks, truth.crowd, minimum)
    found = mask_overlaps(shared_pairs(pairs[near], truth.pairs), *masks)
    if iou_type == "boundary":
        found = boundary_overlaps(found, *masks)
    return replace(found, detection=near[found.detection])


def _comparable(
    shared: SharedPairs, truth: GroundTruth, detections: Detections, kept: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Indices into ``kept`` of the masks that can match an object of their pair."""
    assert detections.mask_areas is not None
    assert detections.mask_spans is not None
    assert truth.mask_areas is not None
    assert truth.mask_spans is not None
    own = Extents(detections.mask_areas[kept], detections.mask_spans[kept])
    objects = Extents(truth.mask_areas, truth.mask_spans)
    return np.flatnonzero(comparable(shared, own, objects, truth.crowd, IOU_THRESHOLDS[0]))


def _rles(
    sizes: list[list[int]], image: NDArray[np.int64], counts: list[bytes]
) -> list[dict[str, Any]]:
    """Masks of images of the (I, 2) ``sizes`` as pycocotools takes them."""
    return [{"size": sizes[i], "counts": c} for i, c in zip(image.tolist(), counts, strict=True)]
