"""Lists of images to evaluate on, such as LVIS minival."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eql_d2.errors import DataError
from eql_d2.evaluation.columns import Problems, integer_column
from eql_d2.evaluation.ground_truth import find_ids
from eql_d2.json_files import read_json

logger = logging.getLogger("eql_d2.evaluation")


def read_image_ids(path: str | os.PathLike[str]) -> NDArray[np.int64]:
    """Image ids from a json list of ids, from annotations, or from text with one id a line.

    A name that ends with .json, .gz or .zip says that it is json, perhaps compressed.

    Raises:
        DataError: The file is none of these, or lists no image.
    """
    if Path(path).suffix.lower() in (".json", ".gz", ".zip"):
        values = _json_ids(read_json(path, "image list", DataError), path)
    else:
        values = _text_ids(path)
    problems = Problems(f"image list {path}", "entries", len(values), DataError)
    ids = integer_column(values, "image id", problems)
    problems.raise_if_any()
    assert ids is not None
    if len(ids) == 0:
        raise DataError(f"image list {path}: lists no image")
    return np.unique(ids)


def _json_ids(parsed: Any, path: str | os.PathLike[str]) -> list[Any]:
    if isinstance(parsed, dict) and isinstance(parsed.get("images"), list):
        parsed = [i.get("id") if isinstance(i, dict) else i for i in parsed["images"]]
    if not isinstance(parsed, list):
        raise DataError(
            f"image list {path}: expected a json list of image ids or annotations with 'images', "
            f"got {type(parsed).__name__}"
        )
    return parsed


def _text_ids(path: str | os.PathLike[str]) -> list[Any]:
    try:
        words = Path(path).read_text(encoding="utf-8-sig").split()
    except (OSError, UnicodeDecodeError) as problem:
        raise DataError(f"image list {path} cannot be read: {problem}") from problem
    # No longer ones: Python refuses to make a number of more than 4,300 digits.
    return [int(word) if word.isdecimal() and len(word) < 100 else word for word in words]


def find_images(image_ids: NDArray[np.int64], listed: Iterable[int]) -> NDArray[np.bool_]:
    """(I,) whether each image is listed.

    Args:
        image_ids: (I,) sorted, of the annotations.
        listed: Ids in any order. Those that are not in the annotations are counted in the log: of
            the 5,000 images of COCO val2017, 4,809 are in LVIS v1 val.

    Raises:
        DataError: No listed image is in the annotations.
    """
    ids = np.unique(np.array([*listed], dtype=np.int64))
    index, known = find_ids(image_ids, ids)
    if not known.any():
        raise DataError(
            f"none of the {len(ids)} listed images is in the annotations: first listed "
            f"{ids[:3].tolist()}, first annotated {image_ids[:3].tolist()}"
        )
    chosen = np.zeros(len(image_ids), dtype=bool)
    chosen[index[known]] = True
    logger.info("evaluated on %d of %d images", chosen.sum(), len(image_ids))
    if not known.all():
        what = "%d of %d listed images are not in the annotations; left out"
        logger.warning(what, (~known).sum(), len(ids))
    return chosen
