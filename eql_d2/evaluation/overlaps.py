"""Which detection overlaps which object enough to matter.

Only (image, category) pairs that have both a detection and an object are visited, and only overlaps
at or above the lowest IoU threshold are kept: nothing else can influence average precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK = 1 << 20  # box overlaps computed at once: bounds the memory
MASKS = 512  # asked for at once
SLACK = 1e-9  # for rounding where areas are compared


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
    detection_masks: Callable[[NDArray[np.int64]], Sequence[dict[str, Any]]],
    truth_masks: Callable[[NDArray[np.int64]], Sequence[dict[str, Any]]],
    crowd: NDArray[np.bool_],
    minimum: float,
    areas: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
) -> Overlaps:
    """Mask IoU by pycocotools, pair by pair.

    Args:
        pairs: From :func:`shared_pairs`.
        detection_masks: Gives the RLEs of some detections.
        truth_masks: Gives the RLEs of some objects.
        crowd: (G,).
        minimum: Lowest IoU of interest.
        areas: Pixels of each detection's mask and of each object's. With them, only detections
            near in size to an object of their pair are looked at: IoU is at most the ratio of the
            areas, so the result is the same.
    """
    from pycocotools import mask as coco_mask

    detections = _ranges(pairs.first_detection, pairs.num_detections)
    number = pairs.num_detections
    if areas is not None:
        chosen = _near_in_size(pairs, detections, *areas, crowd, minimum)
        pair = np.repeat(np.arange(len(number)), number)
        detections, number = detections[chosen], np.bincount(pair[chosen], minlength=len(number))
    sizes = number * pairs.num_truths
    ious = np.empty(int(sizes.sum()))
    place = first = 0
    for part in _pair_chunks(number + pairs.num_truths):
        truth = pairs.truth_order[_ranges(pairs.first_truth[part], pairs.num_truths[part])]
        last = first + int(number[part].sum())
        detected, first = detection_masks(detections[first:last]), last
        objects, flags = truth_masks(truth), crowd[truth].tolist()
        stop = truth_stop = 0
        counts = zip(number[part].tolist(), pairs.num_truths[part].tolist(), strict=True)
        for count, truth_count in counts:
            start, stop = stop, stop + count
            some = slice(truth_stop, truth_stop := truth_stop + truth_count)
            if count:
                iou = coco_mask.iou(detected[start:stop], objects[some], flags[some])
                ious[place : place + iou.size] = iou.ravel()
                place += iou.size
    near = np.flatnonzero(ious >= minimum)
    pair = np.searchsorted(np.cumsum(sizes), near, side="right")
    row, column = np.divmod(near - (np.cumsum(sizes) - sizes)[pair], pairs.num_truths[pair])
    truth = pairs.truth_order[pairs.first_truth[pair] + column]
    return Overlaps(detections[(np.cumsum(number) - number)[pair] + row], truth, ious[near])


def _near_in_size(
    pairs: SharedPairs,
    detections: NDArray[np.int64],
    detection_areas: NDArray[np.float64],
    truth_areas: NDArray[np.float64],
    crowd: NDArray[np.bool_],
    minimum: float,
) -> NDArray[np.bool_]:
    """Whether the pair of each of ``detections`` has an object with areas in this ratio."""
    truth = pairs.truth_order[_ranges(pairs.first_truth, pairs.num_truths)]
    truth_pair = np.repeat(np.arange(len(pairs.num_truths)), pairs.num_truths)
    order = np.lexsort((truth_areas[truth], truth_pair))
    own = detection_areas[detections]
    low = np.floor(own * (minimum * (1 - SLACK))).astype(np.int64)
    high = np.ceil(own / (minimum * (1 - SLACK))).astype(np.int64) + 1
    apart = int(max(high.max(initial=0), truth_areas.max(initial=0))) + 1
    keys = truth_pair[order] * apart + truth_areas[truth[order]].astype(np.int64)
    pair = np.repeat(np.arange(len(pairs.num_detections)), pairs.num_detections)
    found = np.searchsorted(keys, pair * apart + low) < np.searchsorted(keys, pair * apart + high)
    has_crowd = np.bincount(truth_pair, crowd[truth], minlength=len(pairs.num_truths)) > 0
    return found | has_crowd[pair]


def _pair_chunks(num_masks: NDArray[np.int64]) -> Iterator[slice]:
    """Ranges of whole pairs with about MASKS masks each."""
    chunk = np.cumsum(num_masks) // MASKS
    edges = [0, *(np.flatnonzero(np.diff(chunk)) + 1).tolist(), len(num_masks)]
    return map(slice, edges[:-1], edges[1:])


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
