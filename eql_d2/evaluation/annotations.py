"""Read COCO or LVIS annotations into a :class:`GroundTruth`."""

from __future__ import annotations

import logging
import os
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eql_d2.annotation_checks import LARGEST_SIDE, MOST_PIXELS, repeated_names
from eql_d2.errors import DataError
from eql_d2.evaluation.columns import (
    Problems,
    column,
    integer_column,
)
from eql_d2.evaluation.ground_truth import GROUPS, GroundTruth, find_ids
from eql_d2.evaluation.objects import object_masks, read_objects
from eql_d2.json_files import read_json

logger = logging.getLogger("eql_d2.evaluation")


def read_ground_truth(
    annotations: str | os.PathLike[str] | dict[str, Any],
    *,
    need_masks: bool,
    need_groups: bool = True,
    keep_empty: bool = False,
) -> GroundTruth:
    """Read annotations from a file or a parsed json.

    Evaluation keeps what the official ``lvis`` scores, so that the numbers are the official ones;
    training (:mod:`eql_d2.data.reading`) leaves out what cannot be trained on. Where they differ:

    * A box outside the image or far larger than it: here an object; training leaves it out.
    * A box without width or height: here an object if its ``area`` is above 0; training leaves it
      out. An ``area`` of 0: left out here (but see ``keep_empty``); training does not read areas.
    * Run lengths without a pixel: here an object that no mask can match; training leaves it out.
    * A polygon under 3 points, text for a segmentation, run lengths that do not fit the image: here
      an object for boxes, and ignored for masks; training leaves the object out.
    * A broken polygon beside sound ones: ignored for masks here; training uses the sound ones.
    * No segmentation: ignored for masks here; training keeps the object, for boxes alone.
    * ``iscrowd``: see below; in training never a target, in LVIS files too. ``ignore`` is not read
      by training.
    * A category that the file does not list: left out here, with a warning; training refuses it.
    * An annotation's ``id`` that is no integer, a category's ``name`` that is no text, and, for
      boxes alone, an image without a size: taken here; training refuses them.

    Both leave out a box that is not four finite numbers with sides from 0, and an image that the
    file does not list, and count them in a warning. Both keep a polygon outside the image, whose
    mask is empty. An unusable ``area`` is the box's here.

    Args:
        annotations: File, or its parsed json.
        need_masks: Keep segmentations.
        need_groups: Refuse categories whose ``frequency`` is missing on some or none of r, c, f;
            False reads such a file as one without groups.
        keep_empty: Keep objects with an area of zero, which count in COCO.

    An image without ``neg_category_ids`` counts as exhaustively annotated: every category that has
    no object there is known to be absent. That is what plain COCO files mean.

    As in the official LVIS code, objects with an area of zero and objects of unknown images or
    categories do not take part, ``ignore`` is honoured and ``iscrowd`` is not. Only where no
    image has LVIS fields, ``iscrowd`` means what it means in COCO.

    Raises:
        DataError: The annotations lack what is needed, an id is repeated, or a size, a coordinate
            or an outline is beyond :mod:`eql_d2.annotation_checks`, which training refuses as well;
            all problems of a kind are told at once.
    """
    parts, subject = _load(annotations)
    images = _read_images(parts["images"], subject, need_sizes=need_masks)
    categories = _read_categories(parts["categories"], subject, need_groups)
    exhaustive = _find_exhaustive(parts["images"], subject)
    ids = (images.ids, categories.ids)
    objects = read_objects(
        parts["annotations"], subject, *ids, need_masks=need_masks, keep_empty=keep_empty
    )
    return _assemble(parts["images"], images, categories, exhaustive, objects, subject)


class _Images(NamedTuple):
    """Sorted ids, (I, 2) height and width (zeros if not given), and the order that sorts them."""

    ids: NDArray[np.int64]
    sizes: NDArray[np.int64]
    order: NDArray[np.int64]


class _Categories(NamedTuple):
    """Sorted ids, their names, and "r", "c" or "f" for each; None where no groups are known."""

    ids: NDArray[np.int64]
    names: tuple[str, ...]
    groups: tuple[str, ...] | None


def _assemble(
    records: list[Any],
    images: _Images,
    categories: _Categories,
    exhaustive: NDArray[np.bool_],
    objects: dict[str, Any],
    subject: str,
) -> GroundTruth:
    """Put the parts together; ``records`` and ``exhaustive`` are of the images in file order."""
    ids = (images.ids, categories.ids)
    crowd = objects.pop("crowd") & exhaustive.all()
    objects["ignored"] |= crowd
    sizes = images.sizes[objects["image"]]
    objects |= object_masks(objects.pop("segmentations"), objects.pop("ids"), sizes, subject)
    return GroundTruth(
        image_ids=images.ids,
        sizes=images.sizes,
        category_ids=categories.ids,
        names=categories.names,
        groups=categories.groups,
        groups_source="" if categories.groups is None else f"the frequency field of {subject}",
        crowd=crowd,
        exhaustive=exhaustive[images.order],
        negative_pairs=_image_pairs(records, "neg_category_ids", subject, *ids),
        not_exhaustive_pairs=_image_pairs(records, "not_exhaustive_category_ids", subject, *ids),
        **objects,
    )


def _load(
    annotations: str | os.PathLike[str] | dict[str, Any],
) -> tuple[dict[str, list[Any]], str]:
    """The three lists of an annotation file, and what to call it in messages."""
    if isinstance(annotations, dict):
        parsed, subject = annotations, "the annotations"
    else:
        parsed = read_json(annotations, "annotation file", DataError)
        subject = f"annotation file {annotations}"
    if not isinstance(parsed, dict):
        raise DataError(f"{subject}: expected a json object, got {type(parsed).__name__}")
    for key in ("images", "annotations", "categories"):
        if not isinstance(parsed.get(key), list):
            hint = " (a test split cannot be scored locally)" if key == "annotations" else ""
            raise DataError(f"{subject}: has no list {key!r}{hint}")
    return parsed, subject


def _unique_ids(
    records: list[Any], what: str, subject: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sorted ids of images or categories, and the order that sorts the records."""
    problems = Problems(subject, what, len(records), DataError)
    values = column(records, "id", problems)
    ids = None if values is None else integer_column(values, "id", problems)
    problems.raise_if_any()
    assert ids is not None
    order = np.argsort(ids, kind="stable")
    repeated = order[1:][ids[order][1:] == ids[order][:-1]]
    problems.add("the id is repeated", repeated, lambda i: int(ids[i]))
    problems.raise_if_any()
    return ids[order], order


def _read_images(images: list[Any], subject: str, *, need_sizes: bool) -> _Images:
    image_ids, order = _unique_ids(images, "images", subject)
    problems = Problems(subject, "images", len(images), DataError)
    sides = [
        integer_column([image.get(key, 0) for image in images], key, problems)
        for key in ("height", "width")
    ]
    problems.raise_if_any()
    sizes = np.stack([side for side in sides if side is not None], axis=1)
    wrong = ((sizes < 0) | (sizes > LARGEST_SIDE)).any(axis=1) | (sizes.prod(axis=1) > MOST_PIXELS)
    problems.add(
        f"impossible 'height' and 'width': at most {LARGEST_SIDE:,} pixels each, and "
        f"{MOST_PIXELS:,} pixels in all",
        np.flatnonzero(wrong),
        lambda i: {key: images[i].get(key) for key in ("id", "height", "width")},
    )
    problems.raise_if_any()
    if need_sizes:
        lacking = np.flatnonzero((sizes <= 0).any(axis=1))
        problems.add(
            "no 'height' and 'width' above 0, which mask AP needs", lacking, lambda i: images[i]
        )
        problems.raise_if_any()
    return _Images(image_ids, sizes[order], order)


def _find_exhaustive(images: list[Any], subject: str) -> NDArray[np.bool_]:
    """(I,) which images, in file order, are taken as exhaustively annotated."""
    exhaustive = np.array(["neg_category_ids" not in image for image in images], bool)
    if exhaustive.any():
        what = "images have no neg_category_ids: taken as exhaustively annotated"
        logger.info("%s: %d of %d %s", subject, exhaustive.sum(), len(images), what)
    return exhaustive


def _read_categories(categories: list[Any], subject: str, need_groups: bool) -> _Categories:
    category_ids, order = _unique_ids(categories, "categories", subject)
    ordered = [categories[i] for i in order]
    names = tuple(str(c.get("name", c["id"])) for c in ordered)
    repeated = repeated_names(dict(zip(category_ids.tolist(), names, strict=True)))
    if repeated:
        logger.warning("%s: %s", subject, repeated)
    frequencies = [c.get("frequency") for c in ordered]
    if all(frequency is None for frequency in frequencies):
        return _Categories(category_ids, names, None)
    bad = [i for i, frequency in enumerate(frequencies) if frequency not in GROUPS]
    if bad and not need_groups:
        return _Categories(category_ids, names, None)
    problems = Problems(subject, "categories", len(categories), DataError)
    hint = "fix it, or give the groups (--groups-from TRAINING_JSON)"
    problems.add(f"'frequency' is not r, c or f; {hint}", bad, lambda i: ordered[i])
    problems.raise_if_any()
    groups = tuple(str(frequency) for frequency in frequencies)
    return _Categories(category_ids, names, groups)


def _image_pairs(
    images: list[Any],
    key: str,
    subject: str,
    image_ids: NDArray[np.int64],
    category_ids: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Sorted pairs that the images list under ``key``; unknown categories are left out."""
    problems = Problems(subject, "images", len(images), DataError)
    bad = [i for i, image in enumerate(images) if not isinstance(image.get(key, []), list)]
    problems.add(f"{key!r} is not a list", bad, lambda i: images[i][key])
    problems.raise_if_any()
    ids = [image["id"] for image in images for _ in image.get(key, ())]
    listed = [category for image in images for category in image.get(key, ())]
    problems = Problems(subject, f"entries of {key}", len(listed), DataError)
    listed_ids = integer_column(listed, "category_id", problems)
    of_images = integer_column(ids, "id", problems)
    problems.raise_if_any()
    assert listed_ids is not None
    assert of_images is not None
    image, _ = find_ids(image_ids, of_images)
    category, known = find_ids(category_ids, listed_ids)
    return np.unique((category * len(image_ids) + image)[known])
