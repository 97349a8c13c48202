"""Which detection overlaps which object enough to matter.

Only (image, category) pairs that have both a detection and an object are visited, and only overlaps
at or above the lowest IoU threshold are kept: nothing else can influence average precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eql_d2.evaluation.rle import LARGEST_RUN

CHUNK = 1 << 16  # box overlaps computed at once: they stay in the cache
MASKS = 128  # compared in one call
WIDEST = LARGEST_RUN  # more than the width of any image


@dataclass(frozen=True)
class Overlaps:
    """E overlaps, sorted by detection, then by object.

    Attributes:
        detection: (E,) index into the detections that take part.
        truth: (E,) index into the objects.
        iou: (E,).
    """

    detection: NDArray[np.int64]
    truth: NDArray[np.int64]
    iou: NDArray[np.float64]


@dataclass(frozen=True)
class SharedPairs:
    """P pairs with D_p detections and G_p objects each, as ranges of two index arrays.

    Attributes:
        first_detection, num_detections: (P,) range in the detections, which are sorted by pair.
        first_truth, num_truths: (P,) range in ``truth_order``.
        truth_order: (G,) objects sorted by pair, in file order inside a pair.
    """

    first_detection: NDArray[np.int64]
    num_detections: NDArray[np.int64]
    first_truth: NDArray[np.int64]
    num_truths: NDArray[np.int64]
    truth_order: NDArray[np.int64]


def shared_pairs(detection_pairs: NDArray[np.int64], truth_pairs: NDArray[np.int64]) -> SharedPairs:
    """Find the pairs that have both. ``detection_pairs`` is sorted, ``truth_pairs`` is not."""
    order = np.argsort(truth_pairs, kind="stable")
    pairs, first, count = np.unique(truth_pairs[order], return_index=True, return_counts=True)
    left = np.searchsorted(detection_pairs, pairs, side="left")
    number = np.searchsorted(detection_pairs, pairs, side="right") - left
    shared = number > 0
    return SharedPairs(left[shared], number[shared], first[shared], count[shared], order)


def box_overlaps(
    pairs: SharedPairs,
    detection_boxes: NDArray[np.float64],
    truth_boxes: NDArray[np.float64],
    crowd: NDArray[np.bool_],
    minimum: float,
) -> Overlaps:
    """Box IoU, in the same arithmetic as pycocotools. Boxes are (N, 4) x, y, width, height."""
    found = []
    for detection, truth in _combinations(pairs):
        iou = _box_iou(detection_boxes[detection], truth_boxes[truth], crowd[truth])
        near = np.flatnonzero(iou >= minimum)
        found.append(Overlaps(detection[near], truth[near], iou[near]))
    return _concatenate(found)


def mask_overlaps(
    pairs: SharedPairs,
    detection_masks: Callable[[NDArray[np.int64]], list[dict[str, Any]]],
    truth_masks: Callable[[NDArray[np.int64]], list[dict[str, Any]]],
    crowd: NDArray[np.bool_],
    minimum: float,
) -> Overlaps:
    """Mask IoU by pycocotools, of many pairs in one call.

    pycocotools compares masks of one image size alone, and needs their width for nothing else. So
    the masks of each pair are given a width of their own, and many calls' overhead is saved.

    Args:
        pairs: What to compare.
        detection_masks: Gives new RLE dictionaries of some detections.
        truth_masks: The same of some objects.
        crowd: (G,).
        minimum: Lowest IoU of interest, above 0.
    """
    from pycocotools import mask as coco_mask

    found = []
    for part in _pair_chunks(pairs.num_detections + pairs.num_truths):
        number, num_truths = pairs.num_detections[part], pairs.num_truths[part]
        detection = _ranges(pairs.first_detection[part], number)
        truth = pairs.truth_order[_ranges(pairs.first_truth[part], num_truths)]
        detected, objects = detection_masks(detection), truth_masks(truth)
        for masks, sizes in ((detected, number), (objects, num_truths)):
            widths = np.repeat(np.arange(WIDEST, WIDEST + len(sizes)), sizes).tolist()
            for mask, width in zip(masks, widths, strict=True):
                mask["size"] = (mask["size"][0], width)
        ious = coco_mask.iou(detected, objects, crowd[truth].tolist())
        row, column = np.nonzero(ious >= minimum)
        found.append(Overlaps(detection[row], truth[column], ious[row, column]))
    return _concatenate(found)


@dataclass(frozen=True)
class Extents:
    """What is known of N masks before they are compared: :class:`~eql_d2.evaluation.rle.RleSizes`.

    Attributes:
        areas: (N,).
        spans: (N, 2).
    """

    areas: NDArray[np.float64]
    spans: NDArray[np.int32]


def comparable(
    pairs: SharedPairs,
    detections: Extents,
    truths: Extents,
    crowd: NDArray[np.bool_],
    minimum: float,
) -> NDArray[np.bool_]:
    """(D,) detections whose mask IoU with an object can be ``minimum``, by their extents.

    The intersection is at most the smaller area, and at most the pixels that both spans have. With
    a crowd the IoU is the share of the detection alone. Masks with a span of -1 can always match.
    """
    result = np.zeros(len(detections.areas), dtype=bool)
    slack = minimum * (1 - 1e-9)  # the division that gives the IoU is rounded
    # most / (a + b - most) >= slack, and most / a >= slack for a crowd, without the division
    own = np.where(crowd, 0.0, truths.areas)
    weight = np.where(crowd, 1.0, 1.0 + slack)
    starts, stops = detections.spans.T.copy()
    truth_starts, truth_stops = truths.spans.T.copy()
    any_unknown = min(starts.min(initial=0), truth_starts.min(initial=0)) < 0
    for detection, truth in _combinations(pairs):
        area = detections.areas[detection]
        shared = np.minimum(stops[detection], truth_stops[truth])
        shared -= np.maximum(starts[detection], truth_starts[truth])
        most = np.minimum(np.minimum(area, truths.areas[truth]), shared)
        possible = (most * weight[truth] >= slack * (area + own[truth])) & (shared > 0)
        if any_unknown:
            possible |= (starts[detection] < 0) | (truth_starts[truth] < 0)
        result[detection[possible]] = True
    return result


def _pair_chunks(num_masks: NDArray[np.int64]) -> Iterator[slice]:
    """Ranges of whole pairs with about MASKS masks each."""
    chunk = np.cumsum(num_masks) // MASKS
    starts = np.flatnonzero(np.diff(chunk, prepend=-1)).tolist()
    return map(slice, starts, [*starts[1:], len(num_masks)])


def _combinations(
    pairs: SharedPairs,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Every (detection, object) of every pair, in chunks of whole detections, objects fastest."""
    detection = _ranges(pairs.first_detection, pairs.num_detections)
    first_truth = np.repeat(pairs.first_truth, pairs.num_detections)
    num_truths = np.repeat(pairs.num_truths, pairs.num_detections)
    done = np.cumsum(num_truths)
    start = 0
    while start < len(detection):
        before = done[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(done, before + CHUNK, side="right")))
        part = slice(start, stop)
        truth = pairs.truth_order[_ranges(first_truth[part], num_truths[part])]
        yield np.repeat(detection[part], num_truths[part]), truth
        start = stop


def _ranges(first: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.int64]:
    """``first[0], first[0] + 1, ...`` (``count[0]`` numbers), then those of ``first[1]``, ..."""
    shift = first - (np.cumsum(count) - count)
    return np.arange(int(count.sum())) + np.repeat(shift, count)


@np.errstate(over="ignore", invalid="ignore")  # 1e300 pixels: area infinite, IoU 0
def _box_iou(
    a: NDArray[np.float64], b: NDArray[np.float64], crowd: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """IoU of (N, 4) boxes with (N, 4) boxes, row by row; with a crowd it is the share of ``a``."""
    width = np.minimum(a[:, 2] + a[:, 0], b[:, 2] + b[:, 0]) - np.maximum(a[:, 0], b[:, 0])
    height = np.minimum(a[:, 3] + a[:, 1], b[:, 3] + b[:, 1]) - np.maximum(a[:, 1], b[:, 1])
    apart = (width <= 0) | (height <= 0)
    intersection = width * height
    area_a = a[:, 2] * a[:, 3]
    union = np.where(crowd, area_a, area_a + b[:, 2] * b[:, 3] - intersection)
    return np.divide(intersection, union, out=np.zeros(len(a)), where=~apart)


def _concatenate(found: list[Overlaps]) -> Overlaps:
    if not found:
        none = np.zeros(0, dtype=np.int64)
        return Overlaps(none, none, np.zeros(0))
    return Overlaps(
        np.concatenate([part.detection for part in found]),
        np.concatenate([part.truth for part in found]),
        np.concatenate([part.iou for part in found]),
    )
