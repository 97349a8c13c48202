"""Masks of annotations and of predictions as pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eql_d2.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def mask_pixels(segmentation: Any, height: int, width: int) -> NDArray[np.uint8] | None:
    """Decode a segmentation for drawing; all of it is checked, since it may come from any file.

    Args:
        segmentation: polygons, an RLE dictionary, or nothing. Unlike in annotations, an RLE
            without a single pixel is no fault: a half-trained model predicts such masks.
        height: of the image, pixels.
        width: of the image, pixels.

    Returns:
        ``(height, width)`` uint8 of 0 and 1, or ``None`` where there is nothing to draw.

    Raises:
        DataError: the segmentation is damaged, or made for an image of another size.
    """
    from eql_d2.data import decode_mask

    if not segmentation:
        return None
    try:
        return decode_mask(segmentation, height, width, may_be_empty=True)
    except ValueError as error:
        raise DataError(
            f"a mask of an image of size [{height}, {width}] (height, width): {error}"
        ) from None
