"""The best detections of an image, identical to those of torchvision's ROI heads and faster.

Shape legend: R ROIs of one image, K foreground categories.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import boxes as box_ops

from eql_d2.inference import Selection, select_detections

# Boxes narrower or lower than this are dropped, as torchvision does. Pixels.
MIN_BOX_SIZE = 1e-2
# torchvision's label of the first category; background is 0.
FIRST_LABEL = 1


def select_boxes(
    scores: Tensor,
    deltas: Tensor,
    proposals: Tensor,
    image_size: tuple[int, int],
    coder: BoxCoder,
    *,
    score_threshold: float,
    nms_threshold: float,
    max_detections: int,
) -> Selection:
    """Decode and keep the best detections of one image.

    Args:
        scores: ``(R, K)`` foreground probabilities.
        deltas: ``(R, K, 4)`` box regression, or ``(R, 1, 4)`` when class-agnostic.
        proposals: ``(R, 4)`` xyxy boxes, pixels.
        image_size: height and width, pixels; boxes are clipped to it.
        coder: decodes regression into boxes.
        score_threshold: candidates need a score above it.
        nms_threshold: IoU above which the lower-scored box of one category is dropped.
        max_detections: over all categories.
    """

    def decode(rois: Tensor, categories: Tensor) -> Tensor:
        columns = categories if deltas.shape[1] > 1 else torch.zeros_like(categories)
        boxes = coder.decode_single(deltas[rois, columns], proposals[rois])
        return box_ops.clip_boxes_to_image(boxes, image_size)

    return select_detections(
        scores,
        decode,
        score_threshold=score_threshold,
        nms_threshold=nms_threshold,
        max_detections=max_detections,
        min_side=MIN_BOX_SIZE,
        first_label=FIRST_LABEL,
    )
