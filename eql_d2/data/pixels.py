"""The pixels of an image file: read in one way for training, testing, prediction and drawing."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eql_d2.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXIF_ORIENTATION = 0x0112
# Pillow refuses more than twice its own MAX_IMAGE_PIXELS, which it only warns of.
REFUSED_ABOVE = 2


def read_pixels(path: str | Path, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Read an image as ``(H, W, 3)`` uint8 RGB, upright, whatever its format and mode; read-only.

    For 8-bit images these are the pixels of Detectron2's ``read_image``:

    * The image is turned as its EXIF orientation says.
    * Transparency is dropped: the colours are those stored, also where nothing of them is seen.
    * Of integers with more than 8 bits the high byte of 16 is taken (65535 is white), as Pillow
      and OpenCV do for colour images of 16 bits. The scale never depends on the image's content.
    * Floating-point values are brightness from 0 to 255; what lies outside is clipped.
    * An image of these two kinds whose scale is plainly another one is refused: no pixel would
      be brighter than 1 of 255.
    * Of several frames or pages the first is read.

    Args:
        path: image file.
        size: ``(height, width)`` that the annotations say, if there are any.

    Raises:
        DataError: the file cannot be read as an image, has more pixels than Pillow opens, or has
            another size than the annotations say.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            pixels = np.asarray(_rgb(_upright(image)))
    except Image.DecompressionBombError as error:
        limit = REFUSED_ABOVE * (Image.MAX_IMAGE_PIXELS or 0)
        raise DataError(
            f"{path} has more than {limit:,} pixels, which Pillow refuses as a decompression bomb. "
            "Use a smaller copy, or cut it into tiles"
        ) from error
    except Exception as error:  # on a damaged file a decoder may raise anything
        raise DataError(
            f"{path} cannot be read as an image: {error or type(error).__name__}. Replace the "
            "file or leave it out"
        ) from error
    if size is not None and pixels.shape[:2] != size:
        height, width = pixels.shape[:2]
        raise DataError(
            f"{path} is {width} x {height} pixels (width x height, turned as its EXIF data say), "
            f"but the annotations say {size[1]} x {size[0]}: their boxes and masks would not fit. "
            "Correct width and height, or use the images that the annotations were made for"
        )
    return pixels


def _upright(image: Any) -> Any:
    """Turn a Pillow image as its EXIF orientation says; one that cannot be read says nothing."""
    from PIL import Image

    image.load()  # a TIFF turns itself here, and shall not be turned again
    turn = Image.Transpose
    turns = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_270,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_90,
    }
    method = None
    with suppress(Exception):  # damaged EXIF data raise anything, and the pixels are sound
        method = turns.get(image.getexif().get(EXIF_ORIENTATION))
    return image if method is None else image.transpose(method)


def _rgb(image: Any) -> Any:
    """Convert a Pillow image of any mode to RGB.

    Raises:
        ValueError: its values are of another scale, so that all would be black.
    """
    from PIL import Image

    if image.mode.startswith(("F", "I")):
        values = np.nan_to_num(np.asarray(image))
        if image.mode == "F":
            levels = values.clip(0, 0xFF).astype(np.uint8)
        else:
            levels = (values.clip(0, 0xFFFF) >> 8).astype(np.uint8)
        if values.any() and levels.max() <= 1:
            raise ValueError(
                f"its values, {values.min():g} to {values.max():g}, would all be black, since "
                "white is 65535 for integers and 255 for floating-point numbers; save it with 8 "
                "bits per channel"
            )
        image = Image.fromarray(levels)
    if image.mode == "RGB":  # not to copy it
        return image
    image.info.pop("transparency", None)  # Pillow would warn that it gets lost
    return image.convert("RGB")
