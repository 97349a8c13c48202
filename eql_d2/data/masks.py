"""Masks of instances: polygons and run-length encodings, checked before C code sees them.

Run lengths count pixels down the columns, background first, as in COCO's mask API. pycocotools
trusts what it is given and reads or writes out of bounds for a broken encoding, so everything that
comes from a file passes :func:`segmentation_problem` first.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eql_d2.annotation_checks import polygon_beyond_limits

MIN_POINTS = 3
LONGEST_NUMBER = 6  # characters of a run length
NO_PIXEL = "a run-length encoding without a single pixel"


def decode_mask(
    segmentation: Any, height: int, width: int, *, may_be_empty: bool = False
) -> NDArray[np.uint8]:
    """Return a segmentation as a (height, width) uint8 mask of 0 and 1.

    Args:
        segmentation: polygons, or a run-length encoding with ``counts`` as str, bytes or a list.
        height: of the image, pixels.
        width: of the image, pixels.
        may_be_empty: whether a run-length encoding may lack any pixel, as predictions do.

    Raises:
        ValueError: the segmentation is broken; the message says how.
    """
    from pycocotools import mask as mask_api

    problem = segmentation_problem(segmentation, height, width)
    if problem and not (may_be_empty and problem == NO_PIXEL):
        raise ValueError(f"cannot decode this segmentation: {problem}")
    if isinstance(segmentation, dict):
        return _paint_runs(segmentation["counts"], height, width)
    polygons = [[float(v) for v in polygon] for polygon in segmentation]
    merged = mask_api.merge(mask_api.frPyObjects(polygons, height, width))
    return _paint_runs(merged["counts"], height, width)


def encode_rle(mask: NDArray[Any]) -> dict[str, Any]:
    """Encode an (H, W) bool or 0/1 mask as ``{"size": [H, W], "counts": str}``, fit for json.

    Raises:
        ValueError: the mask is not two-dimensional.
    """
    from pycocotools import mask as mask_api

    if mask.ndim != 2:
        raise ValueError(f"a mask must be (H, W), got {mask.shape}")
    rle = mask_api.encode(np.asfortranarray(mask.astype(bool), dtype=np.uint8))
    return {"size": [int(n) for n in rle["size"]], "counts": rle["counts"].decode("ascii")}


def compressed_rle(rle: dict[str, Any]) -> dict[str, Any]:
    """Return a checked run-length encoding with ``counts`` as str; compressed ones unchanged."""
    from pycocotools import mask as mask_api

    counts = rle["counts"]
    if isinstance(counts, list):
        counts = mask_api.frPyObjects({"size": rle["size"], "counts": counts}, *rle["size"])[
            "counts"
        ]
    if isinstance(counts, bytes):
        counts = counts.decode("ascii")
    return {"size": [int(n) for n in rle["size"]], "counts": counts}


def run_lengths(counts: str | bytes) -> list[int]:
    """Decompress the ``counts`` text of COCO's run-length encoding.

    Each number is written in groups of 5 bits, lowest first, as characters from ``"0"`` on, with
    bit 6 set where the number goes on and the sign in the last group's highest bit; from the third
    run on, what is written is the difference to the run before last.

    Raises:
        ValueError: a character outside the alphabet, a number that is cut off, or one of more than
            6 characters: no run of an image needs it, and pycocotools, which Detectron2 decodes
            with, takes a seventh for other bits.
    """
    text = counts if isinstance(counts, str) else counts.decode("latin-1")
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise ValueError(f"its counts contain {character!r}")
        value |= (code & 0x1F) << shift
        shift += 5
        if shift > LONGEST_NUMBER * 5:
            raise ValueError(f"its counts have a number of more than {LONGEST_NUMBER} characters")
        if code & 0x20:
            continue
        if code & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("its counts are cut off")
    return runs


def segmentation_problem(segmentation: Any, height: int, width: int) -> str | None:
    """Say what is wrong with a segmentation, or None.

    A list of polygons is wrong if any of them is; see :func:`polygon_problem`.
    """
    if isinstance(segmentation, dict):
        return _rle_problem(segmentation, height, width)
    if not isinstance(segmentation, (list, tuple)):
        return "neither a list of polygons nor a run-length encoding"
    if not segmentation:
        return "an empty list of polygons"
    return next(filter(None, (polygon_problem(p, height, width) for p in segmentation)), None)


def polygon_problem(polygon: Any, height: int, width: int) -> str | None:
    """Say what is wrong with one polygon, or None.

    A point may lie outside of the image, but by no more than the image's own size: beyond that
    rasterising costs unbounded memory, and the numbers are not pixels.
    """
    if not isinstance(polygon, (list, tuple, np.ndarray)):
        return "a polygon that is no list of numbers (a list of lists is expected)"
    if len(polygon) % 2:
        return "a polygon with an odd number of coordinates"
    if len(polygon) < 2 * MIN_POINTS:
        return f"a polygon under {MIN_POINTS} points"
    try:
        if not math.isfinite(math.fsum(polygon)):
            return "a polygon with coordinates that are not finite"
        x, y = polygon[0::2], polygon[1::2]
        inside = (
            -width <= min(x) <= max(x) <= 2 * width and -height <= min(y) <= max(y) <= 2 * height
        )
        if inside and polygon_beyond_limits(list(polygon)):
            return "a polygon with an outline that is too long"
    except (TypeError, ValueError, OverflowError):
        return "a polygon with coordinates that are not finite numbers"
    return None if inside else "a polygon far outside of its image"


def _paint_runs(counts: str | bytes | list[int], height: int, width: int) -> NDArray[np.uint8]:
    """Turn run lengths that were checked into a mask."""
    runs = counts if isinstance(counts, list) else run_lengths(counts)
    pixels = np.repeat((np.arange(len(runs)) % 2).astype(np.uint8), runs)
    return np.ascontiguousarray(pixels.reshape(width, height).T)


def _rle_problem(rle: dict[str, Any], height: int, width: int) -> str | None:
    size, counts = rle.get("size"), rle.get("counts")
    if not isinstance(size, (list, tuple)) or [*size] != [height, width]:
        return "a run-length encoding whose size is not the image's (height, width)"
    if isinstance(counts, (str, bytes)):
        try:
            counts = run_lengths(counts)
        except ValueError as error:
            return f"a run-length encoding that is broken ({error})"
    if not isinstance(counts, list) or not all(type(n) is int and n >= 0 for n in counts):
        return "a run-length encoding whose counts are not lengths of runs"
    if sum(counts) != height * width:
        return "a run-length encoding whose runs do not add up to the image"
    return None if sum(counts[1::2]) else NO_PIXEL
