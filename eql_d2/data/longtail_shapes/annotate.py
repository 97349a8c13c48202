"""The LVIS annotation file of a painted split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eql_d2.categories import groups_by_counts
from eql_d2.data.longtail_shapes.plan import Category, Parameters
from eql_d2.data.longtail_shapes.scene import Painted
from eql_d2.data.masks import encode_rle

NEGATIVE_SHARE = 1 / 3
UNLABELLED_SHARE = 0.1


class AnnotationBuilder:
    """Collects the annotations of a split, image by image.

    Category ids are 1..K in the alphabetic order of the names, as LVIS does, so that an id says
    nothing about a category's frequency.
    """

    def __init__(self, categories: Sequence[Category]) -> None:
        self.names = [c.name for c in categories]
        alphabetic = sorted(range(len(categories)), key=lambda rank: self.names[rank])
        self.ids = {rank: i for i, rank in enumerate(alphabetic, 1)}
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(
        self, file_name: str, size: int, painted: Sequence[Painted], rng: np.random.Generator
    ) -> None:
        """Add an image with its objects.

        Of a category with two objects the second now and then stays without annotation; then, and
        only then, the image counts as not exhaustively annotated for it. A third of the absent
        categories are named as known to be absent.
        """
        image_id = len(self.images) + 1
        objects = Counter(p.category for p in painted)
        partial = {c for c, n in objects.items() if n > 1 and rng.random() < UNLABELLED_SHARE}
        absent = [rank for rank in self.ids if rank not in objects]
        number = int(np.ceil(NEGATIVE_SHARE * len(absent)))
        negative = rng.choice(absent, number, replace=False).tolist() if absent else []
        self.images.append(
            {
                "id": image_id,
                "file_name": file_name,
                "height": size,
                "width": size,
                "neg_category_ids": sorted(self.ids[c] for c in negative),
                "not_exhaustive_category_ids": sorted(self.ids[c] for c in partial),
            }
        )
        labelled: set[int] = set()
        for item in painted:
            if item.category in partial and item.category in labelled:
                continue
            labelled.add(item.category)
            self.annotations.append(self._annotation(item, image_id))

    def content(self, parameters: Parameters, train_images: Mapping[int, int]) -> dict[str, Any]:
        """Return the file's content.

        Args:
            parameters: of the set.
            train_images: images of each category, by rank, in the *training* set; they decide on
                ``frequency`` in both splits, as in LVIS.
        """
        pairs = {(a["image_id"], a["category_id"]) for a in self.annotations}
        image_count = Counter(category for _, category in pairs)
        instance_count = Counter(a["category_id"] for a in self.annotations)
        frequency = groups_by_counts([train_images[rank] for rank in self.ids])
        categories = [
            {
                "id": category_id,
                "name": self.names[rank],
                "frequency": letter,
                "image_count": image_count[category_id],
                "instance_count": instance_count[category_id],
            }
            for (rank, category_id), letter in zip(self.ids.items(), frequency, strict=True)
        ]
        info = {"description": "longtail_shapes, a generated data set", **vars(parameters)}
        return {
            "info": info,
            "categories": categories,
            "images": self.images,
            "annotations": self.annotations,
        }

    def _annotation(self, item: Painted, image_id: int) -> dict[str, Any]:
        rows = np.flatnonzero(item.mask.any(axis=1))
        columns = np.flatnonzero(item.mask.any(axis=0))
        x, y = int(columns[0]), int(rows[0])
        return {
            "id": len(self.annotations) + 1,
            "image_id": image_id,
            "category_id": self.ids[item.category],
            "bbox": [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1],
            "area": int(item.mask.sum()),
            "iscrowd": 0,
            "segmentation": encode_rle(item.mask),
        }
