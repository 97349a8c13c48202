"""torchvision's own inference beside ours, for ``tools/benchmark_inference.py``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.roi_heads import RoIHeads, paste_masks_in_image

from eql_d2.engines.tv.selection import FIRST_LABEL, select_boxes
from eql_d2.inference import encode_masks_like_torchvision
from eql_d2.inference.benchmark import (
    BOX_WEIGHTS,
    IMAGE,
    MAX_DETECTIONS,
    NMS_THRESHOLD,
    ORIGINAL,
    SCORE_THRESHOLD,
    BoxCase,
    Comparison,
    MaskCase,
    encode_whole,
)

PEER = "torchvision"


class _PostProcessing(RoIHeads):
    """torchvision's heads without layers, for their post-processing alone."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.box_coder = BoxCoder(BOX_WEIGHTS)
        self.score_thresh = SCORE_THRESHOLD
        self.nms_thresh = NMS_THRESHOLD
        self.detections_per_img = MAX_DETECTIONS


def comparisons(
    boxes: list[BoxCase], masks: list[MaskCase], device: torch.device
) -> Iterator[Comparison]:
    """Yield what there is to compare with torchvision."""
    for box_case in boxes:
        yield _box_comparison(box_case, device)
    for mask_case in masks:
        yield _mask_comparison(mask_case, device)


def _box_comparison(case: BoxCase, device: torch.device) -> Comparison:
    """Compare from the logits of a softmax whose background, first, has the logit 0."""
    heads = _PostProcessing()
    logits = torch.cat([case.logits.new_zeros(len(case.logits), 1), case.logits], 1).to(device)
    deltas = torch.cat([case.deltas.new_zeros(len(case.deltas), 4), case.deltas], 1).to(device)
    proposals = case.proposals.to(device)

    def theirs() -> tuple[Tensor, ...]:
        found = heads.postprocess_detections(logits, deltas, [proposals], [IMAGE])
        boxes, scores, labels = (tensors[0] for tensors in found)
        return boxes, scores, labels - FIRST_LABEL

    def ours() -> tuple[Tensor, ...]:
        found = select_boxes(
            torch.softmax(logits, -1)[:, FIRST_LABEL:],
            deltas.view(len(deltas), -1, 4)[:, FIRST_LABEL:],
            proposals,
            IMAGE,
            heads.box_coder,
            score_threshold=SCORE_THRESHOLD,
            nms_threshold=NMS_THRESHOLD,
            max_detections=MAX_DETECTIONS,
        )
        return found.boxes, found.scores, found.categories

    number = int((torch.softmax(logits, -1)[:, FIRST_LABEL:] > SCORE_THRESHOLD).sum())
    return Comparison("boxes", PEER, case.name, number, ours, theirs)


def _mask_comparison(case: MaskCase, device: torch.device) -> Comparison:
    samples, boxes = case.samples[:, None].to(device), case.boxes.to(device)

    def theirs() -> list[dict[str, Any]]:
        return encode_whole(paste_masks_in_image(samples, boxes, ORIGINAL)[:, 0] > 0.5)

    def ours() -> list[dict[str, Any]]:
        return encode_masks_like_torchvision(samples, boxes, *ORIGINAL)

    return Comparison("masks", PEER, case.name, len(samples), ours, theirs)
