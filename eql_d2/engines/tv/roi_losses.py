"""Losses of the ROI heads that do not depend on the form of the classifier.

Shape legend: R ROIs, K foreground categories, M side of a predicted mask.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

Targets = list[dict[str, Tensor]]


def own_category(values: Tensor, labels: Tensor) -> Tensor:
    """Pick each ROI's entry for its category from ``(R, K or 1, ...)``; ``(R, ...)``."""
    columns = labels if values.shape[1] > 1 else torch.zeros_like(labels)
    return values[torch.arange(labels.shape[0], device=labels.device), columns]


def box_regression_loss(
    deltas: Tensor, labels: Tensor, targets: Tensor, num_classes: int, beta: float
) -> Tensor:
    """Smooth L1 over foreground ROIs and coordinates, divided by the number of *all* ROIs.

    The divisor (Fast R-CNN's, in both libraries) gives every foreground ROI the same weight,
    whatever their number. No ROIs give zero, connected to the graph.

    Args:
        deltas: ``(R, K or 1, 4)`` predictions.
        labels: ``(R,)`` in 0..K.
        targets: ``(R, 4)`` encoded boxes.
        num_classes: K.
        beta: where L1 turns quadratic; 0 is plain L1.
    """
    foreground = torch.where(labels < num_classes)[0]
    chosen = own_category(deltas[foreground], labels[foreground])
    loss = F.smooth_l1_loss(chosen, targets[foreground], beta=beta, reduction="sum")
    return loss / max(len(labels), 1)


def mask_loss(
    logits: Tensor,
    rois: list[Tensor],
    matched: list[Tensor],
    targets: Targets,
    *,
    aligned: bool,
) -> Tensor:
    """Binary cross-entropy of the mask of each foreground ROI's own category, mean over pixels.

    Args:
        logits: ``(R, K or 1, M, M)``.
        rois: foreground ROIs of each image, xyxy.
        matched: index of their ground truth in ``targets``.
        targets: ``masks`` ``(n, H, W)`` and ``labels`` of each image.
        aligned: crop with pixel centres at half-integers and binarise, as Detectron2 does; else as
            torchvision does, with soft edges.
    """
    if len(logits) == 0:
        return logits.sum() * 0
    crops, labels = [], []
    for boxes, index, target in zip(rois, matched, targets, strict=True):
        labels.append(target["labels"][index])
        positioned = torch.cat([index.to(boxes)[:, None], boxes], dim=1)
        masks = target["masks"][:, None].to(boxes)
        size = (logits.shape[-2], logits.shape[-1])
        crops.append(roi_align(masks, positioned, size, 1.0, aligned=aligned)[:, 0])
    wanted = torch.cat(crops)
    if aligned:
        wanted = (wanted >= 0.5).to(wanted.dtype)
    chosen = own_category(logits, torch.cat(labels))
    return F.binary_cross_entropy_with_logits(chosen, wanted)
