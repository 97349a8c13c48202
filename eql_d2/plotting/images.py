"""Writing images, without anything that would differ from run to run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eql_d2.files import write_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


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
