"""Masks of annotations and of predictions as pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from eql_d2.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def mask_pixels(segmentation: Any, height: int, width: int) -> NDArray[np.uint8] | None:
    """Decode a segmentation for drawing.

    Args:
        segmentation: polygons, an RLE dictionary, or nothing. Unlike in annotations, an RLE
            without a single pixel is no fault: a half-trained model predicts such masks.
        height: of the image, pixels.
        width: of the image, pixels.

    Returns:
        ``(height, width)`` uint8 of 0 and 1, or ``None`` where there is nothing to draw.

    Raises:
        DataError: the RLE is of another size or damaged.
        ValueError: the polygons are broken.
    """
    from pycocotools import mask

    from eql_d2.data import decode_mask

    if not segmentation:
        return None
    if not isinstance(segmentation, Mapping):
        return decode_mask(segmentation, height, width)
    if list(segmentation.get("size", ())) != [height, width] or "counts" not in segmentation:
        raise DataError(
            f"a mask must be an RLE with counts and size {[height, width]} (height, width), got "
            f"size {segmentation.get('size')} and keys {sorted(segmentation)}"
        )
    rle = dict(segmentation)
    if isinstance(rle["counts"], list):
        rle = mask.frPyObjects(rle, height, width)
    return np.asarray(mask.decode(rle))
