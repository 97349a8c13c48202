"""Detectron2's own inference beside ours, for ``tools/benchmark_inference.py``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from eql_d2.engines.d2.compat import (
    Box2BoxTransform,
    Boxes,
    Instances,
    paste_masks_in_image,
    stock_fast_rcnn_inference,
)
from eql_d2.engines.d2.selection import Limits, select_instances
from eql_d2.inference import encode_masks
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

PEER = "Detectron2"
LIMITS = Limits(SCORE_THRESHOLD, NMS_THRESHOLD, MAX_DETECTIONS)


def comparisons(
    boxes: list[BoxCase], masks: list[MaskCase], device: torch.device
) -> Iterator[Comparison]:
    """Yield what there is to compare with Detectron2."""
    for box_case in boxes:
        yield _box_comparison(box_case, device)
    for mask_case in masks:
        yield _mask_comparison(mask_case, device)


def _box_comparison(case: BoxCase, device: torch.device) -> Comparison:
    transform = Box2BoxTransform(BOX_WEIGHTS)
    scores, deltas = case.logits.sigmoid().to(device), case.deltas.to(device)
    proposals = Instances(IMAGE)
    proposals.proposal_boxes = Boxes(case.proposals.to(device))

    def theirs() -> tuple[Tensor, ...]:
        with_background = torch.cat([scores, scores.new_zeros(len(scores), 1)], 1)
        decoded = transform.apply_deltas(deltas, proposals.proposal_boxes.tensor)
        limits = (SCORE_THRESHOLD, NMS_THRESHOLD, MAX_DETECTIONS)
        found, rois = stock_fast_rcnn_inference([decoded], [with_background], [IMAGE], *limits)
        return _fields(found[0], rois[0])

    def ours() -> tuple[Tensor, ...]:
        return _fields(*select_instances(scores, deltas, proposals, transform, LIMITS))

    number = int((scores > SCORE_THRESHOLD).sum())
    return Comparison("boxes", PEER, case.name, number, ours, theirs)


def _fields(instances: Instances, rois: Tensor) -> tuple[Tensor, ...]:
    return instances.pred_boxes.tensor, instances.scores, instances.pred_classes, rois


def _mask_comparison(case: MaskCase, device: torch.device) -> Comparison:
    samples, boxes = case.samples.to(device), case.boxes.to(device)

    def theirs() -> list[dict[str, Any]]:
        return encode_whole(paste_masks_in_image(samples, boxes, ORIGINAL))

    def ours() -> list[dict[str, Any]]:
        return encode_masks(samples, boxes, *ORIGINAL)

    return Comparison("masks", PEER, case.name, len(samples), ours, theirs)
