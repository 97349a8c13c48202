"""Predictions for a folder of images: drawn pictures and one COCO json."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eql_d2.data import read_pixels
from eql_d2.errors import DataError, UserError
from eql_d2.files import atomic_text_file, check_output_folder, terminal_text
from eql_d2.plotting.images import EXTENSIONS, write_png
from eql_d2.plotting.instances import draw_instances
from eql_d2.plotting.masks import mask_pixels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eql_d2.categories import CategoryStatistics
    from eql_d2.evaluation import ImageDetections

    Predictor = Callable[[NDArray[np.uint8]], ImageDetections]

logger = logging.getLogger("eql_d2.plotting")

PREDICTIONS_FILE = "predictions.json"


@dataclass
class PredictionSummary:
    """What :func:`predict_images` did: paths of the pictures, and what was wrong with others."""

    pictures: list[Path] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    num_objects: int = 0


def list_images(source: str | Path, output_dir: str | Path) -> tuple[Path, list[Path]]:
    """Find the images to predict on, and refuse an output folder that could harm them.

    Args:
        source: an image, or a folder searched with its subfolders. What lies in the output folder
            or in hidden folders is no input.
        output_dir: where results will be written.

    Returns:
        The folder that names are relative to, and the images in the order of their names.

    Raises:
        UserError: nothing there, no image in the folder, or ``output_dir`` is the inputs' folder
            or cannot be written to.
    """
    source, output = Path(source), Path(os.path.realpath(output_dir))
    if not source.exists():
        raise UserError(f"--input {source} does not exist; give an image or a folder of images")
    root = source if source.is_dir() else source.parent
    if output == root.resolve():
        raise UserError(f"--output {output_dir} is the folder of the input; choose another one")
    check_output_folder(output_dir, "--output")
    if source.is_file():
        return root, [source]
    found = sorted(
        path
        for path in source.rglob("*")
        if path.suffix.lower() in EXTENSIONS
        and path.is_file()
        and not path.resolve().is_relative_to(output)
        and not any(part.startswith(".") for part in path.relative_to(source).parts)
    )
    if not found:
        raise UserError(f"--input {source} holds no image ({', '.join(EXTENSIONS)})")
    return root, found


def predict_images(
    predictor: Predictor,
    root: Path,
    images: Sequence[Path],
    statistics: CategoryStatistics,
    output_dir: str | Path,
) -> PredictionSummary:
    """Predict, draw and describe every image; unreadable ones are reported and skipped.

    ``output_dir`` gets a picture ``<name>_<extension>_prediction.png`` an image, in subfolders as
    under ``root``, and ``predictions.json`` in COCO's form: ``images`` (id, file_name relative to
    ``root``, width, height), ``categories`` (the dataset's ids, name, frequency) and
    ``annotations`` (id, image_id, category_id, bbox, area, score, iscrowd, segmentation as RLE).

    Args:
        predictor: ``(H, W, 3)`` uint8 RGB -> detections, best first.
        root: folder that file names are relative to.
        images: image files below ``root``.
        statistics: the categories of the model.
        output_dir: folder, made where it does not exist.
    """
    output = Path(output_dir)
    summary, content = PredictionSummary(), _coco_header(statistics)
    for number, path in enumerate(images, 1):
        try:
            pixels = read_pixels(path)
        except DataError as error:
            summary.skipped.append(str(error))
            reason = terminal_text(str(error))
            logger.warning("[%d/%d] skipped: %s", number, len(images), reason)
            continue
        detections, name = predictor(pixels), path.relative_to(root)
        _append(content, name.as_posix(), pixels.shape[:2], detections, statistics)
        target = output / name.parent / f"{path.stem}_{path.suffix[1:]}_prediction.png"
        write_png(draw_detections(pixels, detections, statistics.names), target)
        summary.pictures.append(target)
        summary.num_objects += len(detections.scores)
        shown, count = terminal_text(str(name)), len(detections.scores)
        logger.info("[%d/%d] %s: %d objects", number, len(images), shown, count)
    with atomic_text_file(output / PREDICTIONS_FILE) as file:
        json.dump(content, file)
    return summary


def draw_detections(
    pixels: NDArray[np.uint8], detections: ImageDetections, names: Sequence[str]
) -> NDArray[np.uint8]:
    """Draw a model's detections; arguments and result as :func:`draw_instances`."""
    height, width = pixels.shape[:2]
    masks = detections.masks
    return draw_instances(
        pixels,
        detections.boxes,
        [names[c] for c in detections.categories],
        detections.scores,
        None if masks is None else [mask_pixels(mask, height, width) for mask in masks],
        categories=detections.categories,
    )


def _coco_header(statistics: CategoryStatistics) -> dict[str, Any]:
    columns = zip(statistics.category_ids, statistics.names, statistics.groups, strict=True)
    return {
        "info": {"description": "predictions of eql_d2"},
        "images": [],
        "categories": [{"id": i, "name": name, "frequency": group} for i, name, group in columns],
        "annotations": [],
    }


def _append(
    content: dict[str, Any],
    file_name: str,
    size: tuple[int, ...],
    detections: ImageDetections,
    statistics: CategoryStatistics,
) -> None:
    """Add one image and its detections to the COCO json in place; ids count from 1."""
    image_id = len(content["images"]) + 1
    height, width = size
    content["images"].append(
        {"id": image_id, "file_name": file_name, "width": width, "height": height}
    )
    for i, (box, score) in enumerate(zip(detections.boxes, detections.scores, strict=True)):
        annotation = {
            "id": len(content["annotations"]) + 1,
            "image_id": image_id,
            "category_id": statistics.category_ids[int(detections.categories[i])],
            "bbox": [round(float(v), 3) for v in box],
            "area": round(float(box[2] * box[3]), 3),
            "iscrowd": 0,
            "score": float(score),
        }
        if detections.masks is not None:
            annotation["segmentation"] = detections.masks[i]
            annotation["area"] = _mask_area(detections.masks[i])
        content["annotations"].append(annotation)


def _mask_area(rle: dict[str, Any]) -> float:
    from pycocotools import mask

    counts = rle["counts"]
    encoded = counts.encode("ascii") if isinstance(counts, str) else counts
    return float(mask.area({"size": rle["size"], "counts": encoded}))
