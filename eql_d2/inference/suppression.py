"""Non-maximum suppression within each of many categories, most of which have few boxes.

Calling ``torchvision.ops.nms`` for each category costs more than the comparing. So all pairs of
boxes of small categories are compared together. Only where an overlap is the threshold's to within
rounding, ``nms`` itself decides, so that the result is always its own, on any processor.

Shape legend: N boxes, P pairs of boxes of one category.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import nms

# Categories of up to so many boxes are compared together.
FEW_BOXES = 16
# Relative rounding of an overlap in float32, generously: a handful of operations of 6e-8 each,
# none of which cancels. Other types round no more, or (half precision) go to nms.
ROUNDING = 1e-5


def nms_per_category(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> Tensor:
    """Return the indices, ascending, that survive NMS within each category.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N,); where equal, the one that stands first goes first.
        labels: (N,) int64.
        threshold: IoU above which the lower-scored box goes.
    """
    order = torch.sort(scores, descending=True, stable=True).indices
    order = order[torch.sort(labels[order], stable=True).indices]
    boxes, scores = boxes[order], scores[order]
    sizes = torch.unique_consecutive(labels[order], return_counts=True)[1]
    category = torch.repeat_interleave(torch.arange(len(sizes), device=sizes.device), sizes)
    first, second = _pairs(category, sizes)
    over, unsure = _compare(boxes[first], boxes[second], threshold)
    left_to_nms = sizes > FEW_BOXES
    left_to_nms[category[first[unsure]]] = True
    dropped = _dropped(first[over], second[over])
    keep = torch.ones_like(order, dtype=torch.bool)
    keep[torch.tensor(dropped, dtype=torch.int64, device=keep.device)] = False
    stops = torch.cumsum(sizes, 0)
    for index in left_to_nms.nonzero()[:, 0].tolist():
        group = slice(int(stops[index] - sizes[index]), int(stops[index]))
        survivors = nms(boxes[group], scores[group], threshold)
        keep[group] = False
        keep[group][survivors] = True
    return torch.sort(order[keep]).values


def _pairs(category: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """(P,) both places of all pairs within small categories, the better box first."""
    place = (sizes <= FEW_BOXES)[category].nonzero()[:, 0]
    category = category[place]
    first, second = [place[:0]], [place[:0]]
    for distance in range(1, min(FEW_BOXES, len(place))):
        same = (category[distance:] == category[:-distance]).nonzero()[:, 0]
        if not len(same):
            break
        first.append(place[same])
        second.append(place[same + distance])
    return torch.cat(first), torch.cat(second)


def _compare(one: Tensor, other: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """(P,) pairs that overlap by more than the threshold for sure, and those nearer than that."""
    if one.dtype not in (torch.float32, torch.float64):
        unsure = torch.ones(len(one), dtype=torch.bool, device=one.device)
        return ~unsure, unsure
    corner = torch.maximum(one[:, :2], other[:, :2])
    sides = (torch.minimum(one[:, 2:], other[:, 2:]) - corner).clamp(min=0)
    shared = sides[:, 0] * sides[:, 1]
    sides_of_one, sides_of_other = one[:, 2:] - one[:, :2], other[:, 2:] - other[:, :2]
    areas = sides_of_one.prod(1) + sides_of_other.prod(1)
    overlap = shared / (areas - shared)
    # Written so that NaN, and boxes without or with negative sides, are never sure.
    usual = ((sides_of_one > 0) & (sides_of_other > 0)).all(1)
    over = usual & (overlap > threshold * (1 + ROUNDING))
    under = usual & (overlap < threshold * (1 - ROUNDING))
    return over, ~(over | under)


def _dropped(first: Tensor, second: Tensor) -> list[int]:
    """Places of boxes that a box which is kept overlaps; pairs by the better one come first."""
    order = torch.argsort(first)
    pairs = zip(first[order].tolist(), second[order].tolist(), strict=True)
    dropped: set[int] = set()
    for better, worse in pairs:
        if better not in dropped:
            dropped.add(worse)
    return list(dropped)
