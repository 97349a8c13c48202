"""Counting images and instances in the content of a COCO or LVIS annotation file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eql_d2.errors import DataError


@dataclass(frozen=True)
class Counts:
    """What an annotation file says about its categories, which are sorted by id."""

    category_ids: list[int]
    names: list[str]
    image_count: list[int]
    instance_count: list[int]
    num_images: int


def count_annotations(content: dict[str, Any], path: str | Path) -> Counts:
    """Count the images and the instances of every category.

    Crowd regions (``iscrowd``) are no instances, as COCO has it. Annotations of images that the
    file does not list are not counted.

    Args:
        content: the parsed file.
        path: its name, for messages.

    Raises:
        DataError: a list or a key that counting needs is missing, a category id stands twice, or
            annotations name categories that the file does not list.
    """
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise DataError(f"{path} has no list named {key!r}; it is no COCO or LVIS file")
    try:
        names = {c["id"]: c["name"] for c in content["categories"]}
        images = {i["id"] for i in content["images"]}
        pairs = Counter(
            (a["image_id"], a["category_id"])
            for a in content["annotations"]
            if not a.get("iscrowd") and a["image_id"] in images
        )
        ids = sorted(names)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is no valid annotation file: {type(error).__name__} {error} while counting. "
            "Images and categories need 'id' (categories also 'name'), annotations need "
            "'image_id' and 'category_id'"
        ) from None
    if len(names) != len(content["categories"]):
        raise DataError(f"{path} lists a category id twice")
    unknown = sorted({c for _, c in pairs} - set(names), key=str)
    if unknown:
        raise DataError(
            f"{path} has annotations of {len(unknown)} category ids that it does not list, "
            f"e.g. {unknown[:5]}"
        )
    image_count: Counter[int] = Counter()
    instance_count: Counter[int] = Counter()
    for (_, category), instances in pairs.items():
        image_count[category] += 1
        instance_count[category] += instances
    return Counts(
        category_ids=ids,
        names=[str(names[i]) for i in ids],
        image_count=[image_count[i] for i in ids],
        instance_count=[instance_count[i] for i in ids],
        num_images=len({image for image, _ in pairs}),
    )
