"""Counting images and instances in the content of a COCO or LVIS annotation file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
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
        DataError: a list or a key that counting needs is missing, there is no category, a category
            id is no whole number or is repeated, an annotation id is repeated, or annotations
            name categories that the file does not list.
    """
    _check_lists(content, path)
    try:
        names = _category_names(content["categories"], path)
        pairs = _pairs(content, path)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is no valid annotation file: {type(error).__name__} {error} while counting. "
            "Images and categories need 'id' (categories also 'name'), annotations need "
            "'image_id' and 'category_id'"
        ) from None
    _check_known({category for _, category in pairs} - names.keys(), path)
    image_count: Counter[int] = Counter()
    instance_count: Counter[int] = Counter()
    for (_, category), instances in pairs.items():
        image_count[category] += 1
        instance_count[category] += instances
    return Counts(
        category_ids=list(names),
        names=list(names.values()),
        image_count=[image_count[i] for i in names],
        instance_count=[instance_count[i] for i in names],
        num_images=len({image for image, _ in pairs}),
    )


def _check_lists(content: dict[str, Any], path: str | Path) -> None:
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise DataError(f"{path} has no list named {key!r}; it is no COCO or LVIS file")
    if not content["categories"]:
        raise DataError(f"{path} lists no category")


def _category_names(categories: list[dict[str, Any]], path: str | Path) -> dict[int, str]:
    """Return the names by id, in ascending order of the ids."""
    _check_whole((c["id"] for c in categories), f"{path} has a category with the id")
    names = {c["id"]: str(c["name"]) for c in categories}
    if len(names) != len(categories):
        raise DataError(f"{path} lists a category id twice")
    return dict(sorted(names.items()))


def _pairs(content: dict[str, Any], path: str | Path) -> Counter[tuple[Any, int]]:
    """Return the instances of each pair of an image and a category that occurs."""
    ids = Counter(a["id"] for a in content["annotations"] if "id" in a)
    repeated = [i for i, count in ids.items() if count > 1]
    if repeated:
        raise DataError(
            f"{path} has {len(repeated)} annotation ids more than once, e.g. {repeated[:3]!r:.80}; "
            "their objects would be counted more than once"
        )
    images = {i["id"] for i in content["images"]}
    kept = [a for a in content["annotations"] if not a.get("iscrowd") and a["image_id"] in images]
    _check_whole((a["category_id"] for a in kept), f"{path} has an annotation with the category_id")
    return Counter((a["image_id"], a["category_id"]) for a in kept)


def _check_known(unknown: set[int], path: str | Path) -> None:
    if unknown:
        raise DataError(
            f"{path} has annotations of {len(unknown)} category ids that it does not list, "
            f"e.g. {sorted(unknown)[:5]}"
        )


def _check_whole(ids: Iterable[Any], subject: str) -> None:
    """Refuse all but int: "1" and 1.0 are no ids, and True would count as 1."""
    for value in ids:
        if type(value) is not int:
            raise DataError(f"{subject} {value!r}, which is no whole number")
