"""Parts of images with drawn objects, as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eql_d2.plotting.instances import draw_instances
from eql_d2.plotting.masks import mask_pixels

PICTURE_SIDE = 480  # pixels of the longer side, at most
LEAST_SIDE = 340  # smaller ones are enlarged, so that labels can be read
CONTEXT = 1.0  # how much of an object's size is shown around it, at least


def window_around(boxes: Sequence[Sequence[float]], height: int, width: int) -> tuple[int, ...]:
    """Left, top, right and bottom of the part of an image around boxes, with their surroundings."""
    corners = np.array([[x, y, x + w, y + h] for x, y, w, h in boxes])
    low, high = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
    reach = max(CONTEXT * float((high - low).max()), 24.0)
    left, top = np.floor(np.maximum(low - reach, 0)).astype(int)
    right, bottom = np.ceil(np.minimum(high + reach, (width, height))).astype(int)
    return int(left), int(top), int(right), int(bottom)


def draw_window(
    pixels: NDArray[np.uint8],
    window: tuple[int, ...],
    boxes: Sequence[Sequence[float]],
    names: Sequence[str],
    scores: Sequence[float] | None,
    segmentations: Sequence[Any],
    categories: Sequence[int],
) -> str:
    """Draw into the window of an image; the result is a data URI."""
    left, top, right, bottom = window
    masks = [mask_pixels(s, *pixels.shape[:2]) for s in segmentations]
    cut = [None if m is None else m[top:bottom, left:right] for m in masks]
    moved = [[x - left, y - top, w, h] for x, y, w, h in boxes]
    part = np.ascontiguousarray(pixels[top:bottom, left:right])
    scale = max(1, -(-LEAST_SIDE // max(part.shape)))
    return data_uri(
        draw_instances(part, moved, names, scores, cut, categories=categories, scale=scale)
    )


def data_uri(pixels: NDArray[np.uint8]) -> str:
    """Return (H, W, 3) uint8 RGB as a JPEG of at most PICTURE_SIDE pixels a side, in a data URI."""
    from PIL import Image

    picture = Image.fromarray(pixels)
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=88, subsampling=0, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
