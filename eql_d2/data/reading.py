"""From the lists of an annotation file to records, noting every problem in a report."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

from eql_d2.annotation_checks import (
    LARGEST_COORDINATE,
    far_coordinate,
    polygon_beyond_limits,
    size_problem,
)
from eql_d2.data.image_paths import ImageFinder, has_control_characters
from eql_d2.data.masks import compressed_rle, polygon_problem, segmentation_problem
from eql_d2.data.records import ImageRecord, Instance, Segmentation
from eql_d2.data.report import ProblemReport

LVIS_IMAGE_KEYS = ("neg_category_ids", "not_exhaustive_category_ids")


def read_categories(content: dict[str, Any], report: ProblemReport) -> dict[int, str]:
    """Return the names of the categories by id, in ascending order of the ids."""
    names: dict[int, str] = {}
    for position, category in _entries(content, "categories", report):
        category_id, name = category.get("id"), category.get("name")
        if type(category_id) is not int:
            report.stop("category without a whole number 'id'", f"number {position} in the list")
        elif not isinstance(name, str) or not name:
            report.stop("category without a text 'name'", f"category {category_id}")
        elif category_id in names:
            report.stop("repeated category id", f"{category_id} ({name})")
        else:
            names[category_id] = name
    if not names and not report.fatal:
        report.stop("list of categories that is empty")
    return dict(sorted(names.items()))


def read_images(
    content: dict[str, Any], finder: ImageFinder, must_exist: bool, report: ProblemReport
) -> dict[int, ImageRecord]:
    """Return the images by id, without instances, in the file's order."""
    if must_exist and not finder.root.is_dir():
        report.stop(f"image folder that does not exist: {finder.root}")
        must_exist = False
    images: dict[int, ImageRecord] = {}
    owners: dict[str, dict[str, Any]] = {}
    for position, image in _entries(content, "images", report):
        image_id = image.get("id")
        if type(image_id) is not int:
            report.stop("image without a whole number 'id'", f"number {position} in the list")
            continue
        if image_id in images:
            report.stop("repeated image id", str(image_id))
            continue
        height: Any = image.get("height")
        width: Any = image.get("width")
        problem = _size_problem(height, width)
        if problem:
            report.stop(problem, f"image {image_id}: height {height!r:.40}, width {width!r:.40}")
            height = width = 1
        path, exists = finder.find(image)
        if has_control_characters(image):
            report.stop("image whose name has control characters", _name_of(image))
        elif (path is None or (must_exist and not exists)) and finder.leads_out(image):
            kind = f"image whose name leads out of the image folder {finder.root}; give the folder "
            report.stop(f"{kind}that holds all images (/ for absolute names)", _name_of(image))
        elif path is None:
            report.stop("image with neither 'coco_url' nor 'file_name'", f"image {image_id}")
        elif must_exist and not exists:
            report.stop(f"image missing below {finder.root}", str(path))
        elif must_exist:
            _check_sharing(str(path), image, owners, report)
        images[image_id] = ImageRecord(image_id, str(path), height, width, [])
    if not images and not report.fatal:
        report.stop("list of images that is empty")
    return images


def _name_of(image: dict[str, Any]) -> str:
    name = image.get("file_name") or image.get("coco_url")
    return f"image {image['id']} ({name!r:.80})"


def _check_sharing(
    path: str, image: dict[str, Any], owners: dict[str, dict[str, Any]], report: ProblemReport
) -> None:
    """Refuse one file for two images that the annotations tell apart: x/1.jpg and y/1.jpg.

    Entries with the very same names are the annotator's own wish, such as to repeat an image.
    """
    owner = owners.setdefault(path, image)
    if any(owner.get(key) != image.get(key) for key in ("coco_url", "file_name")):
        example = f"images {owner['id']} and {image['id']} are both {path}"
        report.stop("file that was found for two images with different names", example)


def read_annotations(
    content: dict[str, Any],
    images: dict[int, ImageRecord],
    category_ids: dict[int, str],
    report: ProblemReport,
) -> Iterator[tuple[dict[str, Any], Instance]]:
    """Append the instances to their images, and yield them with the annotations they come from."""
    index = {category_id: k for k, category_id in enumerate(category_ids)}
    known_ids: set[int] = set()
    kept = unusable = 0
    for position, annotation in _entries(content, "annotations", report):
        if not _check_ids(position, annotation, known_ids, index, report):
            continue
        image = images.get(annotation["image_id"])
        if image is None:
            name = f"annotation {annotation['id']} (image {annotation['image_id']})"
            report.drop("annotation of an image that the file does not list", name)
            continue
        instance = _read_instance(annotation, index[annotation["category_id"]], image, report)
        if instance is None:
            unusable += 1
        else:
            image.instances.append(instance)
            kept += 1
            yield annotation, instance
    if kept == 0 and content.get("annotations"):
        report.stop("list of annotations of which not one can be used")
    elif unusable > kept:
        report.stop(
            f"list of annotations of which {unusable:,} are unusable and only {kept:,} are not; is "
            "it in another format? A bbox is x, y, width, height in pixels, a polygon x0, y0, x1, "
            "y1, ..."
        )


def check_lvis_fields(
    content: dict[str, Any], category_ids: dict[int, str], report: ProblemReport
) -> int:
    """Check the sets that make a file federated; return how many images have both of them."""
    having = 0
    for _, image in _entries(content, "images", ProblemReport()):
        having += all(key in image for key in LVIS_IMAGE_KEYS)
        for key in LVIS_IMAGE_KEYS:
            value = image.get(key, [])
            if not isinstance(value, list) or not all(type(c) is int for c in value):
                report.stop(f"image whose {key!r} is no list of category ids", str(image.get("id")))
            elif not all(c in category_ids for c in value):
                unknown = [c for c in value if c not in category_ids]
                example = f"image {image.get('id')}: {unknown[:3]}"
                report.drop(f"image with {key!r} that the file's categories lack", example)
    return having


def _entries(
    content: dict[str, Any], key: str, report: ProblemReport
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a list with their positions; whatever is no object stops."""
    entries = content.get(key)
    if not isinstance(entries, list):
        found = "missing" if key not in content else f"a {type(entries).__name__}"
        report.stop(f"list {key!r} that a COCO or LVIS file must have is {found}")
        return
    for position, entry in enumerate(entries):
        if isinstance(entry, dict):
            yield position, entry
        else:
            report.stop(f"entry of {key!r} that is no json object", f"number {position}")


def _check_ids(
    position: int,
    annotation: dict[str, Any],
    known_ids: set[int],
    categories: dict[int, int],
    report: ProblemReport,
) -> bool:
    """Check the three ids of an annotation; all but an unknown image stop."""
    for key in ("id", "image_id", "category_id"):
        if type(annotation.get(key)) is not int:
            example = f"number {position} in the list"
            report.stop(f"annotation without a whole number {key!r}", example)
            return False
    annotation_id, category = annotation["id"], annotation["category_id"]
    if annotation_id in known_ids:
        report.stop("repeated annotation id", str(annotation_id))
        return False
    known_ids.add(annotation_id)
    if categories and category not in categories:
        span = f"the {len(categories)} known ids are {min(categories)} to {max(categories)}"
        report.stop(
            f"annotation whose category_id matches no category ({span})",
            f"annotation {annotation_id} (category {category})",
        )
    return category in categories


def _read_instance(
    annotation: dict[str, Any], category: int, image: ImageRecord, report: ProblemReport
) -> Instance | None:
    """Return the instance, or None where its box or its segmentation cannot be used."""
    name = f"annotation {annotation['id']}"
    beyond = _beyond_limits(annotation)
    if beyond:
        report.stop("annotation with coordinates beyond the limits", f"{name} ({beyond})")
        return None
    if "bbox" not in annotation:
        report.stop("annotation without a 'bbox'", name)
        return None
    bbox = annotation["bbox"]
    problem = _box_problem(bbox, image)
    if problem:
        report.drop(f"annotation with {problem}", f"{name} ({str(bbox)[:80]})")
        return None
    segmentation, problem = _read_segmentation(annotation.get("segmentation"), image, name, report)
    if problem:
        report.drop(f"annotation with {problem}", name)
        return None
    x, y, w, h = bbox
    iscrowd = bool(annotation.get("iscrowd", False))
    return Instance(category, (float(x), float(y), float(w), float(h)), segmentation, iscrowd)


def _read_segmentation(
    value: Any, image: ImageRecord, name: str, report: ProblemReport
) -> tuple[Segmentation | None, str | None]:
    """Return a usable segmentation and None, or None and what is wrong.

    A broken polygon beside sound ones is left out alone.
    """
    if value is None or value == []:
        return None, None
    problem = segmentation_problem(value, image.height, image.width)
    if isinstance(value, dict):
        return (None, problem) if problem else (compressed_rle(value), None)
    if problem is None:
        return value, None
    if not isinstance(value, list):
        return None, problem
    sound = [p for p in value if polygon_problem(p, image.height, image.width) is None]
    if not sound:
        return None, problem
    report.drop(f"polygon, beside sound ones of its annotation: {problem}", name)
    return sound, None


def _box_problem(bbox: Any, image: ImageRecord) -> str | None:
    if not isinstance(bbox, list) or len(bbox) != 4:
        return "a bbox that is no list of four numbers"
    try:
        x, y, w, h = (float(v) if type(v) in (int, float) else math.nan for v in bbox)
    except OverflowError:
        return "a bbox far outside of its image"
    if not math.isfinite(x + y + w + h):
        return "a bbox with values that are not finite numbers"
    if w <= 0 or h <= 0:
        return "a bbox without width or height"
    if x >= image.width or y >= image.height or x + w <= 0 or y + h <= 0:
        return "a bbox outside of its image"
    if x < -image.width or y < -image.height or x + w > 2 * image.width or y + h > 2 * image.height:
        return "a bbox far larger than its image"
    return None


def _size_problem(height: Any, width: Any) -> str | None:
    if type(height) is not int or type(width) is not int:
        return "image whose 'height' or 'width' is no whole number of pixels"
    problem = size_problem(height, width)
    return problem and f"image of an impossible size, {problem}"


def _beyond_limits(annotation: dict[str, Any]) -> str | None:
    """Say in words what pycocotools could not draw, and no reader takes; see the limits."""
    bbox, polygons = annotation.get("bbox"), annotation.get("segmentation")
    with contextlib.suppress(TypeError):  # not numbers: left out later
        far = far_coordinate(bbox) if isinstance(bbox, list) and len(bbox) == 4 else None
        if far is not None:
            return f"bbox, coordinate {far:.6g}, limit {LARGEST_COORDINATE:,}"
    for polygon in polygons if isinstance(polygons, list) else ():
        with contextlib.suppress(TypeError):
            sound = isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0
            problem = polygon_beyond_limits(polygon) if sound else None
            if problem:
                return f"polygon, {problem}"
    return None
