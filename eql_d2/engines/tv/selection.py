"""From scores of every ROI and category to the best detections of an image.

Shape legend: R ROIs of one image, K foreground categories, D detections kept.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import boxes as box_ops
from torchvision.ops import nms

# Boxes narrower or lower than this are dropped, as torchvision does. Pixels.
MIN_BOX_SIZE = 1e-2
# First guess of how many candidates are needed for each detection kept.
CANDIDATES_PER_DETECTION = 8


def select_detections(
    scores: Tensor,
    deltas: Tensor,
    proposals: Tensor,
    image_size: tuple[int, int],
    coder: BoxCoder,
    *,
    score_threshold: float,
    nms_threshold: float,
    max_detections: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Keep the best detections of one image: threshold, NMS per category, best ``D``.

    NMS looks at candidates by descending score, and nothing behind the D-th survivor can change
    the result. So only the best candidates are decoded and compared, and more only where these
    leave fewer than D. With LVIS's threshold of 1e-4 and 1203 categories that is about 1 % of the
    pairs of ROI and category.

    Args:
        scores: ``(R, K)`` foreground probabilities.
        deltas: ``(R, K, 4)`` box regression, or ``(R, 1, 4)`` when class-agnostic.
        proposals: ``(R, 4)`` xyxy boxes, pixels.
        image_size: height and width, pixels; boxes are clipped to it.
        coder: decodes regression into boxes.
        score_threshold: candidates need a score above it.
        nms_threshold: IoU above which the lower-scored box of one category is dropped.
        max_detections: D, over all categories.

    Returns:
        boxes ``(<= D, 4)`` xyxy, scores ``(<= D,)``, descending, and categories ``(<= D,)``.
    """
    rois, categories = torch.where(scores > score_threshold)
    values = scores[rois, categories]
    order = torch.sort(values, descending=True, stable=True).indices
    rois, categories, values = rois[order], categories[order], values[order]
    count = CANDIDATES_PER_DETECTION * max_detections
    while True:
        columns = categories[:count] if deltas.shape[1] > 1 else torch.zeros_like(rois[:count])
        boxes = coder.decode(deltas[rois[:count], columns], [proposals[rois[:count]]])
        boxes = box_ops.clip_boxes_to_image(boxes.reshape(-1, 4), image_size)
        large = box_ops.remove_small_boxes(boxes, MIN_BOX_SIZE)
        kept = large[nms_per_category(boxes[large], categories[large], nms_threshold)]
        if len(kept) >= max_detections or count >= len(values):
            kept = kept[:max_detections]
            return boxes[kept], values[kept], categories[kept]
        count *= 4


def nms_per_category(boxes: Tensor, categories: Tensor, threshold: float) -> Tensor:
    """Return indices that survive NMS within each category.

    Categories are kept apart by shifting their boxes, in float64: in float32 a shift of a thousand
    categories would round coordinates to an eighth of a pixel.

    Args:
        boxes: ``(N, 4)`` xyxy, by descending score.
        categories: ``(N,)`` int64.
        threshold: IoU above which the later box goes.
    """
    if len(boxes) == 0:
        return categories.new_zeros(0)
    exact = boxes.to(torch.float64)
    shifted = exact + (categories * (exact.max() + 1)).unsqueeze(1)
    ranks = torch.arange(len(boxes), 0, -1, dtype=torch.float64, device=boxes.device)
    return nms(shifted, ranks, threshold)
