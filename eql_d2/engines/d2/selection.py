"""The best detections of an image, identical to Detectron2's ``fast_rcnn_inference`` and faster.

Detectron2 decodes, checks and compares every pair of ROI and category. Here only the pairs that can
get among the best are looked at; see :mod:`eql_d2.inference.selection`.

Shape legend: R ROIs of one image, K foreground categories, C pairs of ROI and category.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eql_d2.engines.d2.compat import Box2BoxTransform, Boxes, Instances
from eql_d2.inference import select_detections

# Deltas and proposals below these give finite boxes: products stay far from float32's 3.4e38.
LARGEST_DELTA = 1e15
LARGEST_COORDINATE = 1e15


@dataclass(frozen=True)
class Limits:
    """``MODEL.ROI_HEADS.SCORE_THRESH_TEST``, ``NMS_THRESH_TEST``, ``TEST.DETECTIONS_PER_IMAGE``."""

    score_threshold: float
    nms_threshold: float
    max_detections: int


def fast_rcnn_inference(
    boxes: Sequence[Tensor],
    scores: Sequence[Tensor],
    image_shapes: Sequence[tuple[int, int]],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
) -> tuple[list[Instances], list[Tensor]]:
    """Stand in for Detectron2's function of this name; arguments and results are the same.

    Args:
        boxes: (R, 4K) or (R, 4) an image.
        scores: (R, K + 1) an image; the last column only counts in that it must be finite.
        image_shapes: height and width an image.
        score_thresh: candidates need a score above it.
        nms_thresh: IoU above which the lower-scored box of one category is dropped.
        topk_per_image: most detections of an image; negative for all.

    Returns:
        each image's detections, and the ROI of each (among those that are finite).
    """
    limits = Limits(score_thresh, nms_thresh, topk_per_image)
    results = []
    for image_boxes, image_scores, shape in zip(boxes, scores, image_shapes, strict=True):
        finite = torch.isfinite(image_boxes).all(1) & torch.isfinite(image_scores).all(1)
        if not finite.all():
            image_boxes, image_scores = image_boxes[finite], image_scores[finite]
        pairs = _DecodedBoxes(
            image_boxes.view(len(image_boxes), image_boxes.shape[1] // 4, 4), shape
        )
        results.append(_select(image_scores[:, :-1], pairs, shape, limits))
    return [instances for instances, _ in results], [rois for _, rois in results]


def select_instances(
    scores: Tensor,
    deltas: Tensor,
    proposals: Instances,
    transform: Box2BoxTransform,
    limits: Limits,
) -> tuple[Instances, Tensor]:
    """Decode and select; one image of :func:`fast_rcnn_inference` without decoding every box.

    Args:
        scores: (R, K) foreground scores.
        deltas: (R, 4K) or (R, 4) box regression.
        proposals: the image's ``proposal_boxes``.
        transform: turns deltas into boxes.
        limits: thresholds and the number of detections.
    """
    rois = proposals.proposal_boxes.tensor
    finite = _finite_rows(scores, deltas, rois, transform)
    if not finite.all():
        scores, deltas, rois = scores[finite], deltas[finite], rois[finite]
    shape = proposals.image_size
    pairs = _EncodedBoxes(_by_category(deltas), rois, transform, shape)
    return _select(scores, pairs, shape, limits)


@dataclass(frozen=True)
class _DecodedBoxes:
    boxes: Tensor  # (R, K or 1, 4)
    image_shape: tuple[int, int]

    def __call__(self, rois: Tensor, categories: Tensor) -> Tensor:
        columns = categories if self.boxes.shape[1] > 1 else torch.zeros_like(categories)
        return _clipped(self.boxes[rois, columns], self.image_shape)


@dataclass(frozen=True)
class _EncodedBoxes:
    deltas: Tensor  # (R, K or 1, 4)
    proposals: Tensor  # (R, 4)
    transform: Box2BoxTransform
    image_shape: tuple[int, int]

    def __call__(self, rois: Tensor, categories: Tensor) -> Tensor:
        columns = categories if self.deltas.shape[1] > 1 else torch.zeros_like(categories)
        boxes = self.transform.apply_deltas(self.deltas[rois, columns], self.proposals[rois])
        return _clipped(boxes, self.image_shape)


def _by_category(flat: Tensor) -> Tensor:
    """(R, 4K) or (R, 4) -> (R, K or 1, 4)."""
    return flat.reshape(len(flat), flat.shape[1] // 4, 4)


def _clipped(tensor: Tensor, image_shape: tuple[int, int]) -> Tensor:
    boxes = Boxes(tensor)
    boxes.clip(image_shape)
    return boxes.tensor


def _select(
    scores: Tensor,
    pairs: _DecodedBoxes | _EncodedBoxes,
    image_shape: tuple[int, int],
    limits: Limits,
) -> tuple[Instances, Tensor]:
    found = select_detections(
        scores,
        pairs,
        score_threshold=limits.score_threshold,
        nms_threshold=limits.nms_threshold,
        max_detections=limits.max_detections,
    )
    instances = Instances(image_shape)
    instances.pred_boxes = Boxes(found.boxes)
    instances.scores = found.scores
    instances.pred_classes = found.categories
    return instances, found.rois


def _finite_rows(
    scores: Tensor, deltas: Tensor, proposals: Tensor, transform: Box2BoxTransform
) -> Tensor:
    """(R,) ROIs whose K scores and whose boxes, as they would be decoded, are all finite.

    One pass over the numbers finds the ROIs whose sums are plainly finite; only others are decoded.
    """
    # A sum or norm of numbers of which one is not finite is not finite either.
    norms = torch.linalg.vector_norm(deltas, dim=1, dtype=torch.float32)
    plain = scores.sum(1).isfinite() & (norms < LARGEST_DELTA)
    plain &= (proposals.abs() < LARGEST_COORDINATE).all(1)
    doubtful = (~plain).nonzero()[:, 0]
    if len(doubtful):
        boxes = transform.apply_deltas(deltas[doubtful], proposals[doubtful])
        plain[doubtful] = boxes.isfinite().all(1) & scores[doubtful].isfinite().all(1)
    return plain
