"""Writing a generated set to disk whole or not at all, and recognising it later."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from eql_d2.data.longtail_shapes.annotate import AnnotationBuilder
from eql_d2.data.longtail_shapes.plan import (
    Parameters,
    assign_images,
    even_image_counts,
    longtail_image_counts,
    make_categories,
)
from eql_d2.data.longtail_shapes.scene import paint_scene
from eql_d2.errors import DataError

logger = logging.getLogger("eql_d2.data")

VERSION = 1
RECORD = "parameters.json"
SPLITS = ("train", "test")


def generate_longtail_shapes(
    directory: str | Path,
    *,
    num_categories: int = 40,
    num_train_images: int = 600,
    num_test_images: int = 200,
    image_size: int = 160,
    seed: int = 0,
) -> tuple[Path, Path, Path, Path]:
    """Make the data set ``longtail_shapes``, or use the one that is there already.

    Textured shapes on noise, with exact masks of the visible pixels, in LVIS's format. Image counts
    of the training set fall log-linearly (:func:`~.plan.longtail_image_counts`): with the default
    numbers there are rare, common and frequent categories. In the test set all are equally
    frequent. Equal parameters give equal bytes (with the same versions of NumPy and Pillow).

    A set is written to a hidden folder beside ``directory`` and renamed when it is whole; it is
    recognised by its parameters and a checksum over its files. One that was damaged is made again,
    unless the folder also holds files of others, which are never touched.

    Args:
        directory: folder of the set.
        num_categories: K; the other parameters are those of :class:`~.plan.Parameters`.
        num_train_images: training images.
        num_test_images: test images.
        image_size: side of the square images, pixels.
        seed: of all that is random.

    Returns:
        Training json, training images, test json, test images.

    Raises:
        ConfigError: parameters with which no set can be made.
        DataError: ``directory`` holds something else, or cannot be written.
    """
    sizes = (num_categories, num_train_images, num_test_images, image_size)
    directory = Path(directory)
    _make(directory.resolve(), Parameters(*sizes, seed))
    train, test = (directory / split for split in SPLITS)
    return train.with_suffix(".json"), train, test.with_suffix(".json"), test


def _make(directory: Path, parameters: Parameters) -> None:
    """Make the set unless it is there."""
    if _is_there(directory, parameters):
        return
    if (directory / RECORD).exists():
        logger.warning("%s was changed or damaged since it was made; it is made again", directory)
    start = time.monotonic()
    hidden = directory.parent / f".{directory.name}.{uuid.uuid4().hex}"
    try:
        hidden.mkdir(parents=True)
        _write(hidden, parameters)
        if _is_there(directory, parameters):  # another process was faster, and may read it already
            return
        if (directory / RECORD).exists():
            damaged = hidden.with_name(f"{hidden.name}.damaged")
            directory.rename(damaged)
            shutil.rmtree(damaged, ignore_errors=True)
        hidden.rename(directory)
    except OSError as error:
        if not _is_there(directory, parameters):
            raise DataError(f"longtail_shapes cannot be written to {directory}: {error}") from None
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    logger.info("longtail_shapes made in %s: %.1f s", directory, time.monotonic() - start)


def _is_there(directory: Path, parameters: Parameters) -> bool:
    """Return whether the set is there and whole; False where nothing is, or where it is damaged.

    Raises:
        DataError: the folder holds something else, or the damaged set holds files that are not its
            own; neither is ever overwritten.
    """
    if not directory.exists():
        return False
    if not directory.is_dir():
        raise DataError(f"{directory} is a file; longtail_shapes needs a folder")
    if not any(directory.iterdir()):
        return False
    mend = "Choose another folder (DATA.LONGTAIL_SHAPES.DIR) or delete this one"
    try:
        record = json.loads((directory / RECORD).read_text("utf-8"))
        found, checksum = dict(record["made_with"]), record["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(
            f"{directory} is not empty and holds no longtail_shapes set. {mend}"
        ) from None
    wanted = _record(parameters)
    if found != wanted:
        differing = [f"{k} {found.get(k)}, not {v}" for k, v in wanted.items() if found.get(k) != v]
        raise DataError(
            f"{directory} holds a longtail_shapes set with {', '.join(differing)}. {mend}"
        )
    files = _files(parameters)
    if _checksum(directory, files) == checksum:
        return True
    strange = _strange_files(directory, files)
    if strange:
        raise DataError(
            f"the longtail_shapes set in {directory} was changed or damaged since it was made, and "
            f"cannot be made again because the folder also holds {len(strange)} files of yours, "
            f"such as {strange[0]}; move them elsewhere"
        )
    return False


def _files(parameters: Parameters) -> list[str]:
    """Return the names of the set's files below its folder, without the record."""
    numbers = (parameters.num_train_images, parameters.num_test_images)
    names = sorted(f"{split}.json" for split in SPLITS)
    for split, number in zip(SPLITS, numbers, strict=True):
        names += sorted(f"{split}/{_image_name(index)}" for index in range(number))
    return names


def _image_name(index: int) -> str:
    return f"{index + 1:06}.png"


def _strange_files(directory: Path, files: Sequence[str]) -> list[str]:
    """Return what the folder holds besides the set: files, and folders or links for the set's."""
    own = {*files, RECORD}
    found = []
    for folder, folders, names in os.walk(directory):
        place = Path(folder)
        links = [name for name in folders if (place / name).is_symlink()]
        inside = [(place / name).relative_to(directory).as_posix() for name in (*names, *links)]
        found += [name for name in inside if name not in own]
    return sorted(found)


def _record(parameters: Parameters) -> dict[str, Any]:
    return {**asdict(parameters), "version": VERSION}


def _write(directory: Path, parameters: Parameters) -> None:
    categories = make_categories(parameters.num_categories)
    train = longtail_image_counts(parameters.num_categories, parameters.num_train_images)
    test = even_image_counts(parameters.num_categories, parameters.num_test_images)
    numbers = (parameters.num_train_images, parameters.num_test_images)
    for split, counts, number in zip(SPLITS, (train, test), numbers, strict=True):
        order = np.random.default_rng([parameters.seed, SPLITS.index(split)])
        builder = AnnotationBuilder(categories)
        (directory / split).mkdir()
        for index, present in enumerate(assign_images(counts, number, order)):
            rng = np.random.default_rng([parameters.seed, SPLITS.index(split), index])
            image, painted = paint_scene(present, categories, parameters.image_size, rng)
            name = _image_name(index)
            _write_png(directory / split / name, image)
            builder.add(name, parameters.image_size, painted, rng)
        content = builder.content(parameters, dict(enumerate(train)))
        _write_json(directory / f"{split}.json", content)
    record = {"made_with": _record(parameters), "sha256": _checksum(directory, _files(parameters))}
    _write_json(directory / RECORD, record)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")


def _write_png(path: Path, image: np.ndarray[Any, Any]) -> None:
    from PIL import Image

    Image.fromarray(image).save(path, compress_level=3)


def _checksum(directory: Path, files: Sequence[str]) -> str:
    """Hash names and bytes of the files; one that is missing is left out."""
    digest = hashlib.sha256()
    for name in files:
        path = directory / name
        if path.is_file():
            digest.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
