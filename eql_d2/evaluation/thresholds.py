"""The IoU thresholds and area ranges of COCO and LVIS."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
# Pixels, both ends inclusive: an object of exactly 32 x 32 is small and medium, as in lvis.
AREA_RANGES = ((0.0, 1e5**2), (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e5**2))


def outside(areas: NDArray[np.float64], limits: tuple[float, float]) -> NDArray[np.bool_]:
    """Which ``areas`` are not in a range."""
    return (areas < limits[0]) | (areas > limits[1])
