"""Loading a COCO or LVIS annotation file, all of it checked before anything is trained."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from eql_d2.annotation_checks import repeated_names
from eql_d2.categories import GROUP_NAMES, CategoryStatistics, read_annotation_file
from eql_d2.data.image_paths import ImageFinder
from eql_d2.data.reading import (
    check_lvis_fields,
    read_annotations,
    read_categories,
    read_images,
)
from eql_d2.data.records import DetectionData, ImageRecord, Instance
from eql_d2.data.report import ProblemReport
from eql_d2.errors import DataError
from eql_d2.json_files import paused_garbage_collection

logger = logging.getLogger("eql_d2.data")


def load_detection_data(
    json_path: str | Path, image_root: str | Path, *, check_images: bool = True
) -> DetectionData:
    """Read an LVIS v0.5, LVIS v1 or plain COCO annotation file.

    Category ids may be sparse; they become 0..K-1 in ascending order. Nothing depends on the
    file's name. Images without ``neg_category_ids`` and ``not_exhaustive_category_ids`` are
    exhaustively annotated.

    What can be left out without changing what the rest means is left out, counted and logged:

    * annotations of images that the file does not list;
    * annotations whose box is not finite, has no area, lies outside of the image or is far larger;
    * annotations with a sound box but a segmentation that is broken (polygons under 3 points,
      run lengths that do not fit the image, ...): half an object would train the mask head on
      nothing. A broken polygon beside sound ones is left out alone. An annotation *without*
      segmentation is kept, for box-only data.

    Crowd regions stay in the records with ``iscrowd`` set, and count for no statistics.

    Args:
        json_path: annotation file.
        image_root: folder below which the images lie; see
            :class:`eql_d2.data.image_paths.ImageFinder` for the places looked at.
        check_images: whether every image must exist.

    Raises:
        DataError: one report of all that is wrong, by kind, with counts and first examples: the
            file cannot be read, keys are missing, ids are repeated or match no category, images are
            missing on disk, have names that lead out of ``image_root`` or impossible sizes,
            coordinates are beyond the limits of :mod:`eql_d2.annotation_checks`, or more
            annotations are unusable than usable.
    """
    content = read_annotation_file(json_path)
    return check_content(content, json_path, image_root, check_images=check_images)


def check_content(
    content: dict[str, Any],
    json_path: str | Path,
    image_root: str | Path,
    *,
    check_images: bool = True,
) -> DetectionData:
    """Do what :func:`load_detection_data` does with a file that was parsed already.

    The segmentations of the result are those of ``content``, not copies.

    Raises:
        DataError: as :func:`load_detection_data`.
    """
    finder = ImageFinder(image_root)
    return _check(content, Path(json_path), finder, check_images, lambda *_: None)


def usable_content(content: dict[str, Any], json_path: str | Path) -> dict[str, Any]:
    """Return the content with only those annotations that :func:`load_detection_data` keeps.

    Of an annotation with broken polygons beside sound ones the sound ones are kept. An object that
    is left out is still there to be seen, so its category joins the image's
    ``not_exhaustive_category_ids``. All is counted and logged; the original stays as it is. Images
    are not looked for.

    Raises:
        DataError: as :func:`load_detection_data`.
    """
    kept: list[dict[str, Any]] = []

    def keep(annotation: dict[str, Any], instance: Instance) -> None:
        polygons = instance.segmentation
        if isinstance(polygons, list) and polygons is not annotation["segmentation"]:
            annotation = {**annotation, "segmentation": polygons}
        kept.append(annotation)

    _check(content, Path(json_path), ImageFinder("."), False, keep)
    kept_ids = {annotation["id"] for annotation in kept}
    unseen: dict[int, set[int]] = {}
    for annotation in content["annotations"]:
        if annotation["id"] not in kept_ids:
            unseen.setdefault(annotation["image_id"], set()).add(annotation["category_id"])
    key = "not_exhaustive_category_ids"
    images = [
        {**image, key: sorted({*image.get(key, ()), *unseen[image["id"]]})}
        if image["id"] in unseen
        else image
        for image in content["images"]
    ]
    return {**content, "images": images, "annotations": kept}


def _check(
    content: dict[str, Any],
    path: Path,
    finder: ImageFinder,
    check_images: bool,
    keep: Callable[[dict[str, Any], Instance], None],
) -> DetectionData:
    """Check everything; call ``keep`` with each usable annotation."""
    report = ProblemReport()
    with paused_garbage_collection():
        names = read_categories(content, report)
        images = read_images(content, finder, check_images, report)
        for annotation, instance in read_annotations(content, images, names, report):
            keep(annotation, instance)
        num_federated = check_lvis_fields(content, names, report)
        if report.fatal:
            raise DataError(report.message(f"{path} cannot be used as it is:"))
        data = DetectionData(
            json_path=path,
            images=list(images.values()),
            statistics=_statistics(names, images.values()),
            federated=num_federated > 0,
            frequency=_frequency(content["categories"]),
        )
    _log(data, num_federated, report)
    return data


def _frequency(categories: list[dict[str, Any]]) -> tuple[str, ...] | None:
    """Return the categories' ``frequency`` in the order of their ids; None where any has none."""
    letters = [c.get("frequency") for c in sorted(categories, key=lambda c: c["id"])]
    known = tuple(GROUP_NAMES)
    return tuple(map(str, letters)) if all(letter in known for letter in letters) else None


def _statistics(names: dict[int, str], images: Iterable[ImageRecord]) -> CategoryStatistics:
    image_count = [0] * len(names)
    instance_count = [0] * len(names)
    num_images = 0
    for image in images:
        found = [i.category for i in image.instances if not i.iscrowd]
        num_images += bool(found)
        for category in found:
            instance_count[category] += 1
        for category in set(found):
            image_count[category] += 1
    return CategoryStatistics.from_counts(
        names=list(names.values()),
        category_ids=list(names),
        image_count=image_count,
        instance_count=instance_count,
        num_images=num_images,
    )


def _log(data: DetectionData, num_federated: int, report: ProblemReport) -> None:
    count = int(data.statistics.instance_count.sum())
    logger.info(
        "%s: %s images, %s of them annotated, %s instances of %d categories",
        data.json_path,
        f"{len(data.images):,}",
        f"{data.statistics.num_images:,}",
        f"{count:,}",
        len(data.statistics),
    )
    repeated = repeated_names(dict(zip(data.category_ids, data.names, strict=True)))
    if repeated:
        logger.warning("%s: %s", data.json_path, repeated)
    if num_federated < len(data.images):
        logger.info(
            "%s: %s of %s images have no neg_category_ids and not_exhaustive_category_ids and are "
            "taken as exhaustively annotated",
            data.json_path,
            f"{len(data.images) - num_federated:,}",
            f"{len(data.images):,}",
        )
    if report.dropped:
        dropped = "; ".join(report.lines(report.dropped))
        logger.warning("%s: left out: %s", data.json_path, dropped)
