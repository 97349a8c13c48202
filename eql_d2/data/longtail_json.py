"""From a COCO file, annotated exhaustively, to a long-tail file in LVIS's format.

What LVIS's evaluation needs besides COCO's fields, and what it means for exhaustive annotations:

* ``frequency`` of a category: its group r, c or f by its images in the *training* set;
* ``neg_category_ids`` of an image: categories known to be absent. Here that is every category
  without annotation: left empty, false detections of absent categories would go unpunished;
* ``not_exhaustive_category_ids``: categories of which the image holds more than is annotated. Here
  those with a crowd region, which LVIS does not know and which is therefore left out, besides those
  that the image names already.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from eql_d2.categories import CategoryStatistics
from eql_d2.errors import ConfigError


def split_images(
    content: dict[str, Any], test_fraction: float, seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide the images by chance into training and test content, and annotations with them.

    Annotations of images that the content does not list end up in neither.

    Args:
        content: of a COCO file.
        test_fraction: share of the images that go to the test part, rounded; at least one image
            goes to each part.
        seed: the same seed gives the same parts, however the images are ordered.

    Raises:
        ConfigError: the fraction is not between 0 and 1, or there are fewer than two images.
    """
    ids = sorted(image["id"] for image in content["images"])
    if not 0.0 < test_fraction < 1.0:
        raise ConfigError(f"the test fraction must lie between 0 and 1, got {test_fraction}")
    if len(ids) < 2:
        raise ConfigError(f"at least two images are needed for a split, there are {len(ids)}")
    random.Random(seed).shuffle(ids)
    number = min(max(round(test_fraction * len(ids)), 1), len(ids) - 1)
    return _part(content, set(ids[number:])), _part(content, set(ids[:number]))


def longtail_content(content: dict[str, Any], training: CategoryStatistics) -> dict[str, Any]:
    """Return the content with LVIS's fields, leaving the original as it is.

    Args:
        content: of a COCO file; other fields of LVIS are replaced. All annotations are counted and
            kept, so pass it through :func:`eql_d2.data.usable_content` first.
        training: statistics of the training set, whose groups become ``frequency``.
    """
    present: dict[int, set[int]] = {image["id"]: set() for image in content["images"]}
    key = "not_exhaustive_category_ids"
    crowded = {image["id"]: set(image.get(key, ())) for image in content["images"]}
    annotations = [a for a in content["annotations"] if a["image_id"] in present]
    for annotation in annotations:
        sets = crowded if annotation.get("iscrowd") else present
        sets[annotation["image_id"]].add(annotation["category_id"])
    kept = [a for a in annotations if not a.get("iscrowd")]
    image_count = Counter(category for categories in present.values() for category in categories)
    instance_count = Counter(annotation["category_id"] for annotation in kept)
    groups = dict(zip(training.category_ids, training.groups, strict=True))
    categories = [
        {
            **category,
            "frequency": groups[category["id"]],
            "image_count": image_count[category["id"]],
            "instance_count": instance_count[category["id"]],
        }
        for category in content["categories"]
    ]
    images = [
        {
            **image,
            "neg_category_ids": sorted(groups.keys() - present[image["id"]] - crowded[image["id"]]),
            key: sorted(crowded[image["id"]]),
        }
        for image in content["images"]
    ]
    return {**content, "categories": categories, "images": images, "annotations": kept}


def _part(content: dict[str, Any], image_ids: set[int]) -> dict[str, Any]:
    return {
        **content,
        "images": [i for i in content["images"] if i["id"] in image_ids],
        "annotations": [a for a in content["annotations"] if a["image_id"] in image_ids],
    }
