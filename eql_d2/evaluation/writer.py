"""Detections of one image, and the file that collects those of all images while they are made."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from eql_d2.errors import ResultsError
from eql_d2.files import atomic_text_file


@dataclass(frozen=True)
class ImageDetections:
    """What a detector found in one image.

    Attributes:
        boxes: (N, 4) x, y, width, height in pixels of the original image.
        scores: (N,).
        categories: (N,) contiguous category indices, 0..K-1.
        masks: N RLE dictionaries ``{"size": [height, width], "counts": str}``, or None if the
            detector makes boxes only.
    """

    boxes: NDArray[np.floating[Any]]
    scores: NDArray[np.floating[Any]]
    categories: NDArray[np.integer[Any]]
    masks: Sequence[dict[str, Any]] | None = None

    def __post_init__(self) -> None:
        """Check that all parts speak of the same detections."""
        n = len(self.scores)
        shapes = (np.shape(self.boxes), np.shape(self.scores), np.shape(self.categories))
        if shapes != ((n, 4), (n,), (n,)) or (self.masks is not None and len(self.masks) != n):
            raise ValueError(
                "boxes, scores, categories must have the shapes (N, 4), (N,), (N,) and masks N "
                f"entries; got {shapes} and {None if self.masks is None else len(self.masks)} masks"
            )

    def __len__(self) -> int:
        return len(self.scores)


class ResultsWriter:
    """Writes an LVIS results file, one record a line, while detections arrive.

    Use as a context manager. The file gets its name when the block ends without an error; until
    then an older file of that name stays as it is.

    Args:
        path: The results file.
        category_ids: The data set's own id of each contiguous category index.
    """

    def __init__(self, path: str | os.PathLike[str], category_ids: Sequence[int]) -> None:
        self.path = Path(path)
        self._category_ids = [int(category_id) for category_id in category_ids]
        self._stack = contextlib.ExitStack()
        self._file: TextIO | None = None
        self._num_records = 0

    def __enter__(self) -> ResultsWriter:
        self._file = self._stack.enter_context(atomic_text_file(self.path))
        self._file.write("[")
        return self

    def add(self, image_id: int, detections: ImageDetections) -> None:
        """Append the detections of one image.

        Raises:
            ResultsError: A score or box is not finite, or a category is not in 0..K-1.
        """
        if self._file is None:
            raise RuntimeError("ResultsWriter.add outside of its `with` block")
        self._check(image_id, detections)
        lines = []
        boxes = np.asarray(detections.boxes, dtype=np.float64).tolist()
        scores = np.asarray(detections.scores, dtype=np.float64).tolist()
        for i, category in enumerate(np.asarray(detections.categories).tolist()):
            record: dict[str, Any] = {
                "image_id": int(image_id),
                "category_id": self._category_ids[category],
                "score": scores[i],
                "bbox": boxes[i],
            }
            if detections.masks is not None:
                record["segmentation"] = _plain_rle(detections.masks[i])
            lines.append(json.dumps(record))
        if lines:
            self._file.write(("\n" if self._num_records == 0 else ",\n") + ",\n".join(lines))
            self._num_records += len(lines)

    def _check(self, image_id: int, detections: ImageDetections) -> None:
        if not (np.isfinite(detections.scores).all() and np.isfinite(detections.boxes).all()):
            raise ResultsError(
                f"the detections of image {image_id} have a score or box that is not finite; "
                "the model's weights have most likely diverged"
            )
        outside = (detections.categories < 0) | (detections.categories >= len(self._category_ids))
        if np.any(outside):
            raise ResultsError(
                f"the detections of image {image_id} have category index "
                f"{detections.categories[outside][0]}; expected 0..{len(self._category_ids) - 1}"
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._file is not None
        file, self._file = self._file, None
        if kind is not None:
            self._stack.__exit__(kind, error, traceback)
            return
        with self._stack:  # closes and removes the file if its end cannot be written
            file.write("\n]\n")


def _plain_rle(rle: dict[str, Any]) -> dict[str, Any]:
    """The RLE with json types: pycocotools gives its counts as bytes."""
    counts = rle["counts"]
    return {
        "size": [int(side) for side in rle["size"]],
        "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts,
    }


def concatenate_results(
    shards: Sequence[str | os.PathLike[str]], path: str | os.PathLike[str]
) -> None:
    """Join results files of :class:`ResultsWriter` (one a process) into one, line by line."""
    with atomic_text_file(path) as out:
        out.write("[")
        separator = "\n"
        for shard in shards:
            with open(shard, encoding="utf-8") as file:
                for line in file:
                    record = line.strip().rstrip(",")
                    if record not in ("[", "]", ""):
                        out.write(separator + record)
                        separator = ",\n"
        out.write("\n]\n")
