"""Recall of class-agnostic box proposals, as Detectron2's evaluators define it.

The ``limit`` highest scores of an image are its proposals, whatever their category. The proposal
and the object of highest IoU are paired and set aside, then the next two, and so on, without regard
to scores. Recall is the share of objects whose IoU reaches a threshold, averaged over thresholds.

Unlike there, the objects of an image without any proposal are missed objects.

Shapes: I images, G objects, E overlaps, T thresholds, A area ranges.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from eql_d2.evaluation.ground_truth import GroundTruth
from eql_d2.evaluation.overlaps import Overlaps, box_overlaps, shared_pairs
from eql_d2.evaluation.results import Detections
from eql_d2.evaluation.selection import highest_scores
from eql_d2.evaluation.thresholds import AREA_RANGES, IOU_THRESHOLDS, outside

LIMITS = (100, 1000)  # proposals of an image


def proposal_recall(
    truth: GroundTruth,
    detections: Detections,
    rows: NDArray[np.int64],
    limits: Sequence[int] = LIMITS,
) -> NDArray[np.float64]:
    """Average recall (len(limits), A) in 0..1, NaN where no object counts.

    Args:
        truth: Annotations; ignored objects do not count.
        detections: The proposals, with boxes.
        rows: Indices of those that take part.
        limits: Highest scores of an image that are its proposals.
    """
    assert detections.boxes is not None
    result = np.full((len(limits), len(AREA_RANGES)), np.nan)
    for row, limit in enumerate(limits):
        kept = rows[highest_scores(detections.image[rows], detections.scores[rows], limit)]
        kept = kept[np.argsort(detections.image[kept], kind="stable")]
        shared = shared_pairs(detections.image[kept], truth.image)
        boxes = detections.boxes[kept]
        crowd = np.zeros_like(truth.crowd)  # crowds are ignored and so never looked at
        overlaps = box_overlaps(shared, boxes, truth.boxes, crowd, IOU_THRESHOLDS[0])
        for column, area in enumerate(AREA_RANGES):
            counts = ~(truth.ignored | outside(truth.areas, area))
            if counts.any():
                covered = best_coverage(overlaps, counts)
                reached = covered >= IOU_THRESHOLDS[:, None]
                result[row, column] = reached.sum(axis=1).mean() / counts.sum()
    return result


def best_coverage(overlaps: Overlaps, counts: NDArray[np.bool_]) -> NDArray[np.float64]:
    """IoU of each pair of a proposal and an object, the highest first, each used once.

    A pair that is the best of both its proposal and its object is taken wherever the others stand,
    so many are taken in one step.

    Args:
        overlaps: IoU of proposals and objects.
        counts: (G,) objects that take part.
    """
    some = np.flatnonzero(counts[overlaps.truth])
    order = some[np.lexsort((overlaps.detection[some], overlaps.truth[some], -overlaps.iou[some]))]
    proposal, truth, iou = (
        part[order] for part in (overlaps.detection, overlaps.truth, overlaps.iou)
    )
    taken = []
    while len(iou):
        best = np.intersect1d(
            np.unique(proposal, return_index=True)[1], np.unique(truth, return_index=True)[1]
        )
        taken.append(iou[best])
        left = ~(np.isin(proposal, proposal[best]) | np.isin(truth, truth[best]))
        proposal, truth, iou = proposal[left], truth[left], iou[left]
    return np.concatenate(taken) if taken else np.zeros(0)
