"""Reading and writing images, without anything that would differ from run to run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eql_d2.errors import DataError
from eql_d2.files import write_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


def read_image(path: str | Path, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Read an image as ``(H, W, 3)`` uint8 RGB, whatever its mode.

    Args:
        path: image file.
        size: expected ``(height, width)`` from an annotation file. The EXIF orientation is applied
            unless the stored orientation is the one that fits.

    Raises:
        DataError: the file cannot be read as an image, or has another size.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as stored:
            upright = ImageOps.exif_transpose(stored)
            image = stored if size == (stored.height, stored.width) else upright
            pixels = np.array(_to_rgb(image), dtype=np.uint8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from error
    if size is not None and pixels.shape[:2] != size:
        raise DataError(
            f"{path} is {pixels.shape[0]} x {pixels.shape[1]} pixels (height x width), but its "
            f"annotations are for {size[0]} x {size[1]}"
        )
    return pixels


def _to_rgb(image: Any) -> Any:
    """Convert any mode to RGB; transparency is laid on white, 16 bits are scaled, not clipped."""
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, dtype=np.float64)
        top = max(values.max(initial=0.0), 255.0)
        return Image.fromarray((values.clip(0) * (255.0 / top)).astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def write_png(pixels: NDArray[np.uint8], path: str | Path) -> None:
    """Write ``(H, W, 3)`` uint8 RGB as a PNG; equal pixels give equal bytes."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    write_bytes(path, buffer.getvalue())


def load_font(size: int) -> Any:
    """Return DejaVu Sans, which matplotlib brings to every machine, at ``size`` pixels."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)
