"""Annotations and results of the size and profile of LVIS v1 val, to measure evaluation with.

Categories are as frequent, and have as many objects an image, as a table of real counts says;
images list absent and not exhaustively annotated categories as LVIS does; masks are polygons in
the annotations and RLE in the results. Objects and detections take their shapes from a pool, which
makes millions of them in seconds: detections of an object are moved and scaled copies of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eql_d2.files import atomic_text_file

SIZES = ((480, 640), (427, 640), (640, 480), (640, 427))  # the most frequent of LVIS: H, W
SHAPES = 500  # of each image size; with VARIANTS copies each
VARIANTS = 6  # number 0 is the object, the others are detections of it
MEDIAN_SIDE, SIDE_SPREAD = 26.0, 1.0  # pixels and log-normal sigma, measured on LVIS
POLYGON_POINTS = (12, 60)
NEGATIVES, NOT_EXHAUSTIVE = 9.4, 0.16  # categories an image, the means of LVIS
ON_OBJECTS = 2  # detections of each object
IN_LABELLED = 0.3  # share of the other detections whose category is listed in their image


@dataclass(frozen=True)
class Shape:
    """One variant of a shape: polygon, (4,) box, pixels, and its RLE as json text."""

    polygon: list[float]
    box: NDArray[np.float64]
    area: int
    rle: str


@dataclass(frozen=True)
class Image:
    """What one image holds: its objects as (category, shape) and the categories it lists."""

    image_id: int
    size: int  # index into SIZES
    objects: list[tuple[int, int]]
    negative: list[int]
    not_exhaustive: list[int]


def generate(
    directory: str | os.PathLike[str],
    table: dict[str, Any],
    num_images: int,
    *,
    detections_per_image: int = 300,
    seed: int = 0,
) -> tuple[Path, Path]:
    """Write an annotation file and a results file; the same bytes for the same arguments.

    Args:
        directory: Where to write. Files of an earlier call with the same arguments are kept.
        table: ``num_images`` and ``categories`` with id, name, frequency, image_count and
            instance_count, as ``eql_d2.categories.bundled.read_table`` gives them.
        num_images: Images to make.
        detections_per_image: Records of each image in the results.
        seed: Of the random numbers.

    Returns: the paths of the annotations and of the results.
    """
    name = f"{num_images}_images_{detections_per_image}_detections_seed_{seed}"
    annotations = Path(directory) / f"{name}_annotations.json"
    results = Path(directory) / f"{name}_results.json"
    rng = np.random.default_rng(seed)
    pool = [_pool(rng, height, width) for height, width in SIZES]
    images = _images(rng, table, num_images)
    if not annotations.exists():
        with atomic_text_file(annotations) as file:
            file.write(json.dumps(_annotations(table, images, pool)))
    if not results.exists():
        rng = np.random.default_rng((seed, 1))
        with atomic_text_file(results) as file:
            separator = "[\n"
            for lines in _records(rng, table, images, pool, detections_per_image):
                file.write(separator + ",\n".join(lines))
                separator = ",\n"
            file.write("\n]\n" if images else "[]\n")
    return annotations, results


def _pool(rng: np.random.Generator, height: int, width: int) -> list[list[Shape]]:
    """SHAPES x VARIANTS shapes inside an image of this size."""
    sides = np.exp(rng.normal(np.log(MEDIAN_SIDE), SIDE_SPREAD, (SHAPES, 2)))
    radii = np.clip(sides, 5, np.array([width, height]) * 0.9) / 2
    centres = radii + rng.random((SHAPES, 2)) * (np.array([width, height]) - 2 * radii)
    pool = []
    for radius, centre in zip(radii, centres, strict=True):
        points = int(rng.integers(*POLYGON_POINTS))
        angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
        ring = np.stack((np.cos(angle), np.sin(angle)), axis=1) * rng.uniform(0.6, 1, (points, 1))
        variants = []
        for variant in range(VARIANTS):
            spread = 0.05 * variant
            scale = 1 + rng.normal(0, spread, 2)
            moved = centre + radius * (ring * scale + rng.normal(0, spread, 2))
            variants.append(_shape(moved, height, width))
        pool.append(variants)
    return pool


def _shape(points: NDArray[np.float64], height: int, width: int) -> Shape:
    """The shape of (P, 2) points x, y."""
    from pycocotools import mask as coco_mask

    polygon = np.clip(points, 0, (width, height)).round(2)
    rle = coco_mask.frPyObjects([polygon.ravel().tolist()], height, width)[0]
    low, high = polygon.min(axis=0), polygon.max(axis=0)
    text = json.dumps({"size": [height, width], "counts": rle["counts"].decode()})
    area = int(coco_mask.area(rle))
    return Shape(polygon.ravel().tolist(), np.concatenate((low, high - low)), area, text)


def _images(rng: np.random.Generator, table: dict[str, Any], num_images: int) -> list[Image]:
    categories = table["categories"]
    count = np.array([c["image_count"] for c in categories], dtype=np.float64)
    instances = np.array([c["instance_count"] for c in categories], dtype=np.float64)
    negative_share = (count + 50) / (count + 50).sum() * NEGATIVES
    per_image = np.maximum(instances, 1) / np.maximum(count, 1)
    present: list[list[tuple[int, int]]] = [[] for _ in range(num_images)]
    negative: list[list[int]] = [[] for _ in range(num_images)]
    partial: list[list[int]] = [[] for _ in range(num_images)]
    for k in range(len(categories)):
        shows = rng.random(num_images) < count[k] / table["num_images"]
        for image in np.flatnonzero(shows):
            number = int(rng.geometric(1 / per_image[k]))
            present[image] += [(k, int(shape)) for shape in rng.integers(SHAPES, size=number)]
            if rng.random() < NOT_EXHAUSTIVE * table["num_images"] / count.sum():
                partial[image].append(k)
        for image in np.flatnonzero(~shows & (rng.random(num_images) < negative_share[k])):
            negative[image].append(k)
    ids = np.sort(rng.choice(30 * max(num_images, 1), num_images, replace=False)) + 1
    sizes = rng.integers(len(SIZES), size=num_images)
    return [
        Image(int(ids[i]), int(sizes[i]), present[i], negative[i], partial[i])
        for i in range(num_images)
    ]


def _annotations(
    table: dict[str, Any], images: list[Image], pool: list[list[list[Shape]]]
) -> dict[str, Any]:
    ids = [category["id"] for category in table["categories"]]
    keys = ("id", "name", "frequency", "image_count", "instance_count")
    annotations: list[dict[str, Any]] = []
    for image in images:
        for category, number in image.objects:
            shape = pool[image.size][number][0]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image.image_id,
                    "category_id": ids[category],
                    "bbox": shape.box.round(2).tolist(),
                    "area": shape.area,
                    "segmentation": [shape.polygon],
                }
            )
    return {
        "images": [
            {
                "id": image.image_id,
                "height": SIZES[image.size][0],
                "width": SIZES[image.size][1],
                "neg_category_ids": [ids[k] for k in image.negative],
                "not_exhaustive_category_ids": [ids[k] for k in image.not_exhaustive],
            }
            for image in images
        ],
        "annotations": annotations,
        "categories": [{key: c[key] for key in keys if key in c} for c in table["categories"]],
    }


def _records(
    rng: np.random.Generator,
    table: dict[str, Any],
    images: list[Image],
    pool: list[list[list[Shape]]],
    number: int,
) -> Iterator[list[str]]:
    """The lines of each image: some on its objects, the rest anywhere."""
    ids = np.array([category["id"] for category in table["categories"]])
    share = np.sqrt([category["image_count"] + 1 for category in table["categories"]])
    share = np.cumsum(share / share.sum())
    boxes = [np.array([[shape.box for shape in row] for row in part]) for part in pool]
    for image in images:
        objects = np.array(image.objects * ON_OBJECTS, dtype=np.int64).reshape(-1, 2)[:number]
        rest = number - len(objects)
        category = np.searchsorted(share, rng.random(rest))
        listed = np.array([*(k for k, _ in image.objects), *image.negative], dtype=np.int64)
        if len(listed):
            chosen = rng.random(rest) < IN_LABELLED
            category[chosen] = rng.choice(listed, int(chosen.sum()))
        category = ids[np.concatenate((objects[:, 0], category))]
        shape = np.concatenate((objects[:, 1], rng.integers(SHAPES, size=rest)))
        variant = rng.integers(1, VARIANTS, size=number)
        score = np.concatenate((rng.beta(2, 2, len(objects)), rng.beta(0.5, 8, rest)))
        box = boxes[image.size][shape, variant] + rng.random((number, 4)) * 0.5
        yield [
            f'{{"image_id": {image.image_id}, "category_id": {c}, "score": {s!r}, "bbox": {b}, '
            f'"segmentation": {pool[image.size][i][v].rle}}}'
            for c, s, b, i, v in zip(
                category.tolist(),
                score.astype(np.float32).tolist(),
                box.astype(np.float32).tolist(),
                shape.tolist(),
                variant.tolist(),
                strict=True,
            )
        ]
