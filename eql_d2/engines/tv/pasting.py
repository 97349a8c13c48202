"""From a predicted mask on a box to a mask of the image."""

from __future__ import annotations

import numpy as np

THRESHOLD = 0.5


def paste_mask(probabilities: np.ndarray, box: np.ndarray, height: int, width: int) -> np.ndarray:
    """Interpolate a mask bilinearly at the image's pixel centres and threshold it.

    Only pixels of the box are computed. Bilinear sampling is separable, so it is two small matrix
    products; outside the outermost samples the mask falls off to 0.

    Args:
        probabilities: ``(M, M)`` float, the mask on its box.
        box: xyxy, float, pixels of the image.
        height: of the image, pixels.
        width: of the image, pixels.

    Returns:
        ``(height, width)`` uint8, 1 where the mask is at least 0.5.
    """
    rows = slice(max(int(np.floor(box[1])), 0), min(int(np.ceil(box[3])), height))
    columns = slice(max(int(np.floor(box[0])), 0), min(int(np.ceil(box[2])), width))
    mask = np.zeros((height, width), np.uint8)
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return mask
    vertical = _weights(rows, box[1], box[3], probabilities.shape[0])
    horizontal = _weights(columns, box[0], box[2], probabilities.shape[1])
    mask[rows, columns] = vertical @ probabilities @ horizontal.T >= THRESHOLD
    return mask


def _weights(pixels: slice, start: float, stop: float, samples: int) -> np.ndarray:
    """Return ``(pixels, samples)`` linear interpolation weights along one axis."""
    centres = np.arange(pixels.start, pixels.stop, dtype=np.float32) + 0.5
    positions = (centres - start) / max(stop - start, 1e-6) * samples - 0.5
    distance = np.abs(positions[:, None] - np.arange(samples, dtype=np.float32))
    return np.clip(1 - distance, 0, None).astype(np.float32)
