"""Boundary IoU (Cheng et al., CVPR 2021): how well two masks agree near their outlines.

The boundary of a mask is its pixels within a distance of 2 % of the image's diagonal from a pixel
outside, where everything beyond the image counts as outside. A detection and an object overlap by
the smaller of mask IoU and boundary IoU, which is also what the LVIS challenge of 2021 used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eql_d2.evaluation.overlaps import Overlaps

DILATION_RATIO = 0.02  # width of the boundary in units of the image's diagonal


@dataclass(frozen=True)
class Region:
    """The pixels of a mask inside its bounding box.

    Attributes:
        top, left: Place of the box in the image.
        pixels: (h, w) bool.
        area: Pixels that are True.
    """

    top: int
    left: int
    pixels: NDArray[np.bool_]
    area: int


def boundary_width(height: int, width: int) -> int:
    """Pixels from the outline to the inner edge of the boundary in an image of this size."""
    return max(1, round(DILATION_RATIO * math.sqrt(height**2 + width**2)))


def inner_boundary(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """The pixels of ``mask`` (H, W) that ``width`` erosions by a 3 x 3 square would take away."""
    return mask & ~_erode_rows(_erode_rows(mask, width).T, width).T


def _erode_rows(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """Pixels (H, W) with all neighbours up to ``width`` rows above and below, False outside."""
    size = 2 * width + 1
    result, span = np.pad(mask, ((width, width), (0, 0))), 1
    while span < size:  # each pixel stands for the ``span`` pixels from it downwards
        step = min(span, size - span)
        result, span = result[:-step] & result[step:], span + step
    return result


def boundary_region(rle: dict[str, Any]) -> Region:
    """The boundary of a mask that is not empty."""
    from pycocotools import mask as coco_mask

    left, top, width, height = (int(x) for x in coco_mask.toBbox(rle))
    mask = coco_mask.decode(rle)[top : top + height, left : left + width].astype(bool)
    pixels = inner_boundary(mask, boundary_width(*rle["size"]))
    return Region(top, left, pixels, int(np.count_nonzero(pixels)))


def region_iou(a: Region, b: Region) -> float:
    """Intersection over union of two regions of one image."""
    top, left = max(a.top, b.top), max(a.left, b.left)
    bottom = min(a.top + a.pixels.shape[0], b.top + b.pixels.shape[0])
    right = min(a.left + a.pixels.shape[1], b.left + b.pixels.shape[1])
    if bottom <= top or right <= left:
        return 0.0
    part_a, part_b = (
        r.pixels[top - r.top : bottom - r.top, left - r.left : right - r.left] for r in (a, b)
    )
    both = int(np.count_nonzero(part_a & part_b))
    return both / (a.area + b.area - both)


def boundary_overlaps(
    mask_overlaps: Overlaps,
    detection_masks: Callable[[NDArray[np.int64]], Sequence[dict[str, Any]]],
    truth_masks: Callable[[NDArray[np.int64]], Sequence[dict[str, Any]]],
    crowd: NDArray[np.bool_],
    minimum: float,
) -> Overlaps:
    """The smaller of mask and boundary IoU, where it is at least ``minimum``.

    Only masks that overlap by at least ``minimum`` are looked at. Crowds keep their mask IoU.

    Args:
        mask_overlaps: From :func:`eql_d2.evaluation.overlaps.mask_overlaps`.
        detection_masks: Gives the RLEs of some detections.
        truth_masks: Gives the RLEs of some objects.
        crowd: (G,).
        minimum: Lowest IoU of interest.
    """
    iou = mask_overlaps.iou.copy()
    objects: dict[int, Region] = {}
    last, region = -1, None
    for i in np.flatnonzero(~crowd[mask_overlaps.truth]).tolist():
        detection, truth = int(mask_overlaps.detection[i]), int(mask_overlaps.truth[i])
        if truth not in objects:
            if len(objects) >= 1000:  # those of a pair come together; older ones do not come back
                objects.clear()
            objects[truth] = boundary_region(truth_masks(np.array([truth]))[0])
        if detection != last or region is None:
            last, region = detection, boundary_region(detection_masks(np.array([detection]))[0])
        iou[i] = min(iou[i], region_iou(region, objects[truth]))
    near = iou >= minimum
    return Overlaps(mask_overlaps.detection[near], mask_overlaps.truth[near], iou[near])
