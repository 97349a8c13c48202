"""COCO or LVIS annotations as arrays.

Shapes: I images, K categories, G annotated objects. Images and categories are sorted by id, and an
(image, category) pair is one integer ``category * I + image``, so that sorted pairs go through the
categories and, inside each, through the images in the order of the official evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from eql_d2.evaluation.rle_strings import RleStrings

GROUPS = ("r", "c", "f")


@dataclass(frozen=True)
class GroundTruth:
    """Everything of an annotation file that evaluation needs.

    Attributes:
        image_ids: (I,) sorted.
        sizes: (I, 2) height, width; zeros where the file has none.
        category_ids: (K,) sorted.
        names: K names.
        groups: K of "r", "c", "f", or None if the file's categories have no ``frequency``.
        groups_source: in words, where ``groups`` come from; "" if they are None.
        image: (G,) image index of each object, in file order.
        category: (G,) category index.
        boxes: (G, 4) x, y, width, height.
        areas: (G,) the file's ``area``, for both boxes and masks, as the official code does.
        ignored: (G,) objects that neither reward nor penalise.
        crowd: (G,) regions that may swallow any number of detections (plain COCO files only).
        masks: G compressed RLE strings of the size of the object's image, or None if masks are not
            asked for.
        mask_areas: (G,) pixels of each mask, or None; size classes go by ``areas``.
        mask_spans: (G, 2) int32, as :class:`~eql_d2.evaluation.rle.RleSizes` has them, or None.
        without_mask: (G,) objects without a usable segmentation: their mask is empty and ignored.
        exhaustive: (I,) images in which every category was looked for.
        negative_pairs: sorted pairs of ``neg_category_ids``.
        not_exhaustive_pairs: sorted pairs of ``not_exhaustive_category_ids``.
    """

    image_ids: NDArray[np.int64]
    sizes: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    names: tuple[str, ...]
    groups: tuple[str, ...] | None
    groups_source: str
    image: NDArray[np.int64]
    category: NDArray[np.int64]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    ignored: NDArray[np.bool_]
    crowd: NDArray[np.bool_]
    masks: RleStrings | None
    mask_areas: NDArray[np.float64] | None
    mask_spans: NDArray[np.int32] | None
    without_mask: NDArray[np.bool_]
    exhaustive: NDArray[np.bool_]
    negative_pairs: NDArray[np.int64]
    not_exhaustive_pairs: NDArray[np.int64]

    @property
    def pairs(self) -> NDArray[np.int64]:
        """(G,) the pair of each object."""
        return self.category * len(self.image_ids) + self.image

    def take(self, objects: NDArray[np.int64]) -> GroundTruth:
        """The same images and categories with some of the objects, in the order of the indices."""
        return replace(
            self,
            image=self.image[objects],
            category=self.category[objects],
            boxes=self.boxes[objects],
            areas=self.areas[objects],
            ignored=self.ignored[objects],
            crowd=self.crowd[objects],
            without_mask=self.without_mask[objects],
            masks=None if self.masks is None else self.masks.subset(objects),
            mask_areas=None if self.mask_areas is None else self.mask_areas[objects],
            mask_spans=None if self.mask_spans is None else self.mask_spans[objects],
        )


def find_ids(
    ids: NDArray[np.int64], values: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The index of each value in the sorted ``ids``, and whether it is there at all."""
    if len(ids) == 0:
        return np.zeros(len(values), dtype=np.int64), np.zeros(len(values), dtype=bool)
    index = np.minimum(np.searchsorted(ids, values), len(ids) - 1)
    return index, ids[index] == values
