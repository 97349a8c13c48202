"""Pictures of a data set: ground truth alone, or predictions next to it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from eql_d2.categories import GROUP_NAMES
from eql_d2.data import read_pixels
from eql_d2.errors import ResultsError
from eql_d2.files import safe_stem
from eql_d2.json_files import read_json
from eql_d2.plotting.choice import choose_images
from eql_d2.plotting.images import load_font, write_png
from eql_d2.plotting.instances import draw_instances, shorten
from eql_d2.plotting.masks import mask_pixels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eql_d2.data import DetectionData, ImageRecord

logger = logging.getLogger("eql_d2.plotting")

# The drawing threshold found for a results file is kept within these bounds.
MIN_THRESHOLD, MAX_THRESHOLD = 0.05, 0.5
CAPTION_SIZE = 15
GAP = 8

Panel = tuple[str, "NDArray[np.uint8]"]
Results = Sequence[Mapping[str, Any]]


def save_prediction_pictures(
    data: DetectionData,
    results: str | Path | Results,
    output_dir: str | Path,
    number: int,
    *,
    groups: Sequence[str] | None = None,
    score_threshold: float | None = None,
) -> list[Path]:
    """Draw predictions next to ground truth, images with rare categories first.

    Args:
        data: the images and their ground truth.
        results: LVIS/COCO results file, or its records.
        output_dir: folder for PNG files ``<image id>_<image name>.png``.
        number: how many images, at most.
        groups: r/c/f of each category; those of ``data`` where left out.
        score_threshold: lowest score drawn; :func:`drawing_threshold` where left out.

    Returns:
        The paths, in the order of :func:`eql_d2.plotting.choice.choose_images`.

    Raises:
        ResultsError: the results are no records of ``data``.
        DataError: an image cannot be read.
    """
    records = _read_results(results)
    groups = groups or data.statistics.groups
    if score_threshold is None:
        num_objects = sum(len(image.instances) for image in data.images)
        score_threshold = drawing_threshold([r["score"] for r in records], num_objects)
    records = [r for r in records if r["score"] >= score_threshold]
    paths = []
    for image in choose_images(data.images, groups, number):
        pixels = read_pixels(image.path, (image.height, image.width))
        own = [r for r in records if r["image_id"] == image.image_id]
        panels = [_truth_panel(image, pixels, data.names, groups)]
        panels.append(_prediction_panel(own, pixels, data, groups, score_threshold))
        paths.append(_save(image, panels, output_dir))
    return paths


def save_ground_truth_pictures(
    data: DetectionData,
    output_dir: str | Path,
    number: int,
    *,
    groups: Sequence[str] | None = None,
) -> list[Path]:
    """Draw the annotations of at most ``number`` images; arguments as above."""
    groups = data.statistics.groups if groups is None else groups
    paths = []
    for image in choose_images(data.images, groups, number):
        pixels = read_pixels(image.path, (image.height, image.width))
        paths.append(_save(image, [_truth_panel(image, pixels, data.names, groups)], output_dir))
    return paths


def drawing_threshold(scores: Sequence[float], num_objects: int) -> float:
    """Return the score above which there are as many predictions as objects, within 0.05 and 0.5.

    A detector's scores depend on its loss and on how long it was trained; a fixed threshold shows
    nothing for one and everything for another.
    """
    if num_objects <= 0 or not len(scores):
        return MAX_THRESHOLD
    ordered = np.sort(np.asarray(scores, dtype=np.float64))[::-1]
    value = float(ordered[min(num_objects, len(ordered)) - 1])
    return min(max(value, MIN_THRESHOLD), MAX_THRESHOLD)


def _read_results(results: str | Path | Results) -> Results:
    source = "the results"
    if isinstance(results, (str, Path)):
        source = str(results)
        results = read_json(results, "results file", ResultsError)
    keys = {"image_id", "category_id", "score", "bbox"}
    wrong = not isinstance(results, Sequence) or any(
        not isinstance(r, Mapping) or not keys <= r.keys() for r in results
    )
    if wrong:
        raise ResultsError(f"{source} must be a list of records with {', '.join(sorted(keys))}")
    return cast(Results, results)


def _truth_panel(
    image: ImageRecord, pixels: NDArray[np.uint8], names: Sequence[str], groups: Sequence[str]
) -> Panel:
    instances = image.instances
    categories = [i.category for i in instances]
    labels = [
        f"{_label(i.category, names, groups)}{', crowd' if i.iscrowd else ''}" for i in instances
    ]
    masks = [mask_pixels(i.segmentation, *pixels.shape[:2]) for i in instances]
    drawn = draw_instances(
        pixels, [i.bbox for i in instances], labels, masks=masks, categories=categories
    )
    return f"ground truth: {_count(instances)}", drawn


def _prediction_panel(
    records: Results,
    pixels: NDArray[np.uint8],
    data: DetectionData,
    groups: Sequence[str],
    threshold: float,
) -> Panel:
    index = {category_id: i for i, category_id in enumerate(data.category_ids)}
    unknown = {r["category_id"] for r in records} - index.keys()
    if unknown:
        raise ResultsError(f"results hold category ids that {data.json_path} lacks: {unknown}")
    records = sorted(records, key=lambda r: -r["score"])
    categories = [index[r["category_id"]] for r in records]
    drawn = draw_instances(
        pixels,
        [r["bbox"] for r in records],
        [_label(c, data.names, groups) for c in categories],
        [r["score"] for r in records],
        [mask_pixels(r.get("segmentation"), *pixels.shape[:2]) for r in records],
        categories=categories,
    )
    return f"predictions with score ≥ {threshold:.2f}: {_count(records)}", drawn


def _label(category: int, names: Sequence[str], groups: Sequence[str]) -> str:
    """Return the category's name with its group, which is what a long-tail picture is about."""
    return f"{names[category]} ({groups[category]})"


def _count(objects: Sequence[Any]) -> str:
    return f"{len(objects)} object{'' if len(objects) == 1 else 's'}"


def _save(image: ImageRecord, panels: Sequence[Panel], output_dir: str | Path) -> Path:
    path = Path(output_dir) / f"{image.image_id}_{safe_stem(image.path)}.png"
    legend = ", ".join(f"{letter} {name}" for letter, name in GROUP_NAMES.items())
    title = f"{Path(image.path).name} · image {image.image_id} · {legend}"
    write_png(side_by_side(title, panels), path)
    return path


def side_by_side(title: str, panels: Sequence[Panel]) -> NDArray[np.uint8]:
    """Put panels of equal size next to each other, with a title and a caption above each.

    Args:
        title: one line above all.
        panels: ``(caption, (H, W, 3) uint8)``; at least one, all of one size.

    Returns:
        ``(H + strip, n * W + (n - 1) * gap, 3)`` uint8; text that is too long is shortened.
    """
    from PIL import Image, ImageDraw

    height, width = panels[0][1].shape[:2]
    font = load_font(CAPTION_SIZE)
    row = sum(font.getmetrics()) + GAP // 2
    total = len(panels) * width + (len(panels) - 1) * GAP
    page = Image.new("RGB", (total, 2 * row + GAP // 2 + height), (255, 255, 255))
    draw = ImageDraw.Draw(page)
    draw.text((GAP, 2), shorten(title, font, total - 2 * GAP), fill=(0, 0, 0), font=font)
    for i, (caption, pixels) in enumerate(panels):
        left = i * (width + GAP)
        text = shorten(caption, font, width - 2 * GAP)
        draw.text((left + GAP, row + 2), text, fill=(70, 70, 70), font=font)
        page.paste(Image.fromarray(pixels), (left, 2 * row + GAP // 2))
    return np.array(page)
