"""The best and the worst rare categories, with pictures of what was made of them."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from eql_d2.data import DetectionData, ImageRecord, Instance, decode_mask, read_pixels
from eql_d2.errors import ResultsError
from eql_d2.evaluation.columns import is_box, is_finite_number
from eql_d2.evaluation.record_stream import stream_records
from eql_d2.evaluation.rle import is_rle
from eql_d2.reporting.categories import kind_shown, known_categories
from eql_d2.reporting.example_pictures import draw_window, window_around
from eql_d2.reporting.runs import Side

NUM_CATEGORIES = 3  # best and worst each
LOCATED = 0.5  # box IoU from which a detection is about an object

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Panel:
    """A picture: its title, what it says in words, and the image as a data URI."""

    title: str
    words: str
    image: str


@dataclass(frozen=True)
class Example:
    """A category with its numbers, mean over all runs, and pictures of one of its images."""

    category_id: int
    name: str
    ap: float
    ap_of: dict[str, float]
    test_images: int
    panels: tuple[Panel, ...]


def choose_categories(
    sides: Sequence[Side], number: int = NUM_CATEGORIES
) -> tuple[list[int], list[int]]:
    """Choose the rare categories of highest and lowest AP, mean over configurations.

    Among equals those with more test objects come first: there is more evidence for them. No
    category is in both lists.
    """
    kind = kind_shown(sides)
    if kind is None:
        return [], []
    ap = _mean_ap(sides, kind)
    categories = known_categories(sides)
    rare = [i for i in ap if categories[i].group == "r"]
    best = sorted(rare, key=lambda i: (-ap[i], -categories[i].instances, i))[:number]
    left = [i for i in rare if i not in best]
    worst = sorted(left, key=lambda i: (ap[i], -categories[i].instances, i))[:number]
    return best, worst


def _mean_ap(sides: Sequence[Side], kind: str) -> dict[int, float]:
    each = [side.category_ap(kind) for side in sides]
    ids = dict.fromkeys(i for values in each for i in values)
    return {i: fmean(values[i] for values in each if i in values) for i in ids}


def make_examples(
    sides: Sequence[Side], data: DetectionData, category_ids: Sequence[int], *, found: bool
) -> list[Example]:
    """Draw one image of each category: ground truth, and the first run of every configuration.

    Args:
        sides: Configurations; those without a results file have no picture.
        data: The test images.
        category_ids: Which categories; those without an object are left out.
        found: Take the image in which the category is detected with the highest score, mean over
            configurations; else, and among equals, that in which its object is largest.

    Raises:
        DataError: An image cannot be read.
        ResultsError: A results file cannot be read.
    """
    kind = kind_shown(sides)
    assert kind is not None
    ap, categories = _mean_ap(sides, kind), known_categories(sides)
    index = {category_id: k for k, category_id in enumerate(data.category_ids)}
    images = {i: _images_with(data.images, index[i]) for i in category_ids if i in index}
    records = _records_of_sides(sides, images.values(), index)
    examples = []
    for i, some in images.items():
        if not some:
            continue
        image = max(some, key=lambda m: _mean_score(m, i, index, records)) if found else some[0]
        examples.append(
            Example(
                category_id=i,
                name=categories[i].name,
                ap=ap[i],
                ap_of={side.name: side.category_ap(kind).get(i, math.nan) for side in sides},
                test_images=categories[i].images,
                panels=_panels(data, image, index[i], records, index),
            )
        )
    return examples


def _records_of_sides(
    sides: Sequence[Side], images: Iterable[list[ImageRecord]], category_ids: Container[int]
) -> dict[str, dict[int, list[Record]]]:
    """For each side with a results file, the records of the first, by image."""
    files = {side.name: next((r.results for r in side.runs if r.results), None) for side in sides}
    wanted = {image.image_id for some in images for image in some}
    return {
        name: _records(path, wanted, category_ids)
        for name, path in files.items()
        if path is not None
    }


def _images_with(images: Iterable[ImageRecord], category: int) -> list[ImageRecord]:
    """The images with an object of the category, where it fills the largest share first."""
    found = [
        (max(i.bbox[2] * i.bbox[3] for i in own) / (image.height * image.width), image)
        for image in images
        if (own := [i for i in image.instances if i.category == category and not i.iscrowd])
    ]
    return [image for _, image in sorted(found, key=lambda pair: -pair[0])]


def _mean_score(
    image: ImageRecord,
    category_id: int,
    index: Mapping[int, int],
    records: Mapping[str, Mapping[int, Sequence[Record]]],
) -> float:
    """Score with which the objects of a category are found, mean over objects and sides."""
    k = index[category_id]
    scores = []
    for by_image in records.values():
        here = by_image.get(image.image_id, ())
        for thing in image.instances:
            if thing.category == k and not thing.iscrowd:
                own, _ = _answers(here, thing, index, k)
                scores.append(0.0 if own is None else own["score"])
    return fmean(scores) if scores else 0.0


def _records(path: Path, images: set[int], category_ids: Container[int]) -> dict[int, list[Record]]:
    """The records of some images, by image; the file is never in memory as a whole."""
    found: dict[int, list[Record]] = {}
    for batch in stream_records(path):
        for record in batch:
            try:
                drawn = record["image_id"] in images and record["category_id"] in category_ids
                if drawn:
                    around = _box_around(s) if (s := record.get("segmentation")) else None
                    record.setdefault("bbox", around)
                    if not is_box(record["bbox"]) or not is_finite_number(record["score"]):
                        raise ValueError("no box and score")
            except (KeyError, TypeError, ValueError, MemoryError) as error:
                raise ResultsError(
                    f"results file {path} holds {record!r:.80}, which is no detection ({error}); "
                    "tools/validate_results.py tells all that is wrong with it"
                ) from error
            if drawn:
                found.setdefault(record["image_id"], []).append(record)
    return found


def _box_around(segmentation: Mapping[str, Any]) -> list[float]:
    """The box (x, y, width, height) around the mask of a record that has no box of its own.

    Raises:
        ValueError: it is no RLE.
    """
    if not is_rle(segmentation):
        raise ValueError("no RLE")
    rows, columns = np.nonzero(decode_mask(segmentation, *segmentation["size"], may_be_empty=True))
    if len(rows) == 0:
        return [0.0, 0.0, 0.0, 0.0]
    x, y = int(columns.min()), int(rows.min())
    return [float(x), float(y), float(columns.max() + 1 - x), float(rows.max() + 1 - y)]


def _panels(
    data: DetectionData,
    image: ImageRecord,
    category: int,
    records: Mapping[str, Mapping[int, Sequence[Record]]],
    index: Mapping[int, int],
) -> tuple[Panel, ...]:
    pixels = read_pixels(image.path, (image.height, image.width))
    objects = [i for i in image.instances if i.category == category and not i.iscrowd]
    window = window_around([i.bbox for i in objects], image.height, image.width)
    truth = draw_window(
        pixels, window, [i.bbox for i in objects], [data.names[category]] * len(objects), None,
        [i.segmentation for i in objects], [category] * len(objects),
    )  # fmt: skip
    count = f"{len(objects)} object{'s' if len(objects) > 1 else ''}, {Path(image.path).name}"
    panels = [Panel("ground truth", count, truth)]
    for name, by_image in records.items():
        here = by_image.get(image.image_id, ())
        answers = [_answers(here, thing, index, category) for thing in objects]
        drawn = [r for own, best in answers if (r := own or best) is not None]
        classes = [index[record["category_id"]] for record in drawn]
        picture = draw_window(
            pixels, window, [r["bbox"] for r in drawn], [data.names[k] for k in classes],
            [r["score"] for r in drawn], [r.get("segmentation") for r in drawn], classes,
        )  # fmt: skip
        words = "; ".join(dict.fromkeys(_words(*pair, data.names, index) for pair in answers))
        panels.append(Panel(name, words, picture))
    return tuple(panels)


def _answers(
    records: Sequence[Record], thing: Instance, index: Mapping[int, int], category: int
) -> tuple[Record | None, Record | None]:
    """The best-scored detection on an object: of its own category, and of any."""
    here = [record for record in records if box_iou(record["bbox"], thing.bbox) >= LOCATED]
    right = [record for record in here if index[record["category_id"]] == category]
    own, best = (max(part, key=lambda r: r["score"], default=None) for part in (right, here))
    return own, best


def _words(
    own: Record | None, best: Record | None, names: Sequence[str], index: Mapping[int, int]
) -> str:
    if best is None:
        return "not found"
    other = f"{names[index[best['category_id']]]}, score {best['score']:.2f}"
    if own is None:
        return f"taken for {other}"
    found = f"found, score {own['score']:.2f}"
    return found if best["score"] <= own["score"] else f"{found}; ahead of it {other}"


def box_iou(first: Sequence[float], second: Sequence[float]) -> float:
    """Intersection over union of two boxes x, y, width, height."""
    sides = [
        min(first[i] + first[i + 2], second[i] + second[i + 2]) - max(first[i], second[i])
        for i in (0, 1)
    ]
    inside = max(sides[0], 0.0) * max(sides[1], 0.0)
    union = first[2] * first[3] + second[2] * second[3] - inside
    return inside / union if union > 0 else 0.0
