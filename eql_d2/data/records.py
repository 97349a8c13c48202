"""Detection data in memory: images, their instances, and the statistics of both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eql_d2.categories import CategoryStatistics

Segmentation = list[list[float]] | dict[str, Any]


@dataclass(slots=True)
class Instance:
    """One annotated object.

    Attributes:
        category: contiguous index, 0..K-1.
        bbox: x, y of the upper left corner, width and height, in pixels.
        segmentation: polygons (each x0, y0, x1, y1, ...), or a compressed run-length encoding
            ``{"size": [H, W], "counts": str}``, or None where the file gives none.
        iscrowd: a region with many objects; no training target and not counted in statistics.
    """

    category: int
    bbox: tuple[float, float, float, float]
    segmentation: Segmentation | None
    iscrowd: bool


@dataclass(slots=True)
class ImageRecord:
    """One image. ``path`` is where it lies; ``height`` and ``width`` are in pixels."""

    image_id: int
    path: str
    height: int
    width: int
    instances: list[Instance]


@dataclass(frozen=True)
class DetectionData:
    """An annotation file that was read and checked.

    Attributes:
        json_path: the file.
        images: all its images, also those without instances, in the file's order.
        statistics: counts of the instances that were kept, without crowd regions.
        federated: images say which categories are known to be absent and which are not annotated
            exhaustively, as LVIS does. Images that say neither are exhaustively annotated.
        frequency: K letters ``"r"``, ``"c"`` or ``"f"`` where every category of the file says
            to which of these groups it belongs, as LVIS does; else None.
    """

    json_path: Path
    images: list[ImageRecord]
    statistics: CategoryStatistics
    federated: bool
    frequency: tuple[str, ...] | None = None

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The file's own ids in contiguous order: ``category_ids[instance.category]``."""
        return self.statistics.category_ids

    @property
    def names(self) -> tuple[str, ...]:
        """Category names in contiguous order."""
        return self.statistics.names

    @property
    def has_masks(self) -> bool:
        """Whether every instance that is no crowd region has a segmentation."""
        instances = (i for image in self.images for i in image.instances)
        return all(i.iscrowd or i.segmentation is not None for i in instances)
