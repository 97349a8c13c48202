"""What a results file is checked against: images, categories and, where given, what is labelled.

The file is read piece by piece: the polygons of a whole annotation file are never in memory.
Shapes: I images, K categories; an (image, category) pair is one integer ``category * I + image``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eql_d2.errors import DataError
from eql_d2.evaluation.annotations import read_ground_truth
from eql_d2.evaluation.ground_truth import find_ids
from eql_d2.submission.checked_columns import whole_numbers
from eql_d2.submission.object_stream import stream_members

IMAGE_KEYS = ("id", "height", "width", "neg_category_ids", "not_exhaustive_category_ids")
CATEGORY_KEYS = ("id", "name", "frequency")


@dataclass(frozen=True)
class ImageInfo:
    """Images and categories that results may speak of.

    Attributes:
        image_ids: (I,) sorted.
        sizes: (I, 2) height, width; zeros where the file has none.
        category_ids: (K,) sorted.
        exhaustive: (I,) images in which every category was looked for (plain COCO).
        object_pairs: sorted pairs that have an object; None if the file has no annotations, as
            image-info files of test splits have none.
        negative_pairs: sorted pairs of ``neg_category_ids``.
    """

    image_ids: NDArray[np.int64]
    sizes: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    exhaustive: NDArray[np.bool_]
    object_pairs: NDArray[np.int64] | None
    negative_pairs: NDArray[np.int64]

    @property
    def has_labels(self) -> bool:
        """Whether it is known which images show which category."""
        return self.object_pairs is not None


def read_image_info(annotations: str | os.PathLike[str] | dict[str, Any]) -> ImageInfo:
    """Read an annotation file, or an image-info file of a test split, or its parsed json.

    Raises:
        DataError: The file cannot be read or has no images or categories.
    """
    if isinstance(annotations, dict):
        subject, members = "the annotations", _members_of(annotations)
    else:
        subject, members = f"annotation file {annotations}", stream_members(annotations)
    parts: dict[str, list[Any]] = {}
    pairs: dict[str, list[NDArray[np.int64]]] = {"image_id": [], "category_id": []}
    for key, items in members:
        if key == "annotations":
            parts.setdefault(key, [])
            for name, columns in pairs.items():
                columns.append(_ids(items, name, subject))
        elif key in ("images", "categories"):
            keys = IMAGE_KEYS if key == "images" else CATEGORY_KEYS
            parts.setdefault(key, []).extend(_slim(item, keys) for item in items)
    has_annotations = "annotations" in parts
    parts["annotations"] = []
    try:
        truth = read_ground_truth(parts, need_masks=False)
    except DataError as error:
        raise DataError(str(error).replace("the annotations", subject, 1)) from error
    object_pairs = None
    if has_annotations and any(len(column) for column in pairs["image_id"]):
        image, known_image = find_ids(truth.image_ids, np.concatenate(pairs["image_id"]))
        category, known = find_ids(truth.category_ids, np.concatenate(pairs["category_id"]))
        object_pairs = np.unique((category * len(truth.image_ids) + image)[known & known_image])
    return ImageInfo(
        image_ids=truth.image_ids,
        sizes=truth.sizes,
        category_ids=truth.category_ids,
        exhaustive=truth.exhaustive,
        object_pairs=object_pairs,
        negative_pairs=truth.negative_pairs,
    )


def _members_of(annotations: dict[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    """The lists of a parsed annotation file."""
    for key, value in annotations.items():
        if isinstance(value, list):
            yield key, value


def _slim(item: Any, keys: tuple[str, ...]) -> Any:
    """The record with ``keys`` only: addresses and definitions take most of the memory."""
    return {key: item[key] for key in keys if key in item} if isinstance(item, dict) else item


def _ids(items: list[Any], key: str, subject: str) -> NDArray[np.int64]:
    values = [item.get(key) if isinstance(item, dict) else None for item in items]
    numbers, good = whole_numbers(values)
    if not good.all():
        example = items[int(np.flatnonzero(~good)[0])]
        raise DataError(f"{subject}: an annotation without an integer {key!r}: {example!r:.80}")
    return numbers
