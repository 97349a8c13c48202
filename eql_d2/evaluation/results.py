"""Read a results file into arrays, batch by batch, and refuse what cannot be scored.

Shapes: N detections, I images, K categories.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eql_d2.errors import ResultsError
from eql_d2.evaluation.columns import (
    Problems,
    box_column,
    column,
    integer_column,
    number_column,
)
from eql_d2.evaluation.ground_truth import GroundTruth, find_ids
from eql_d2.evaluation.record_stream import stream_records
from eql_d2.evaluation.rle import is_rle, measure_joined_rles
from eql_d2.evaluation.rle_strings import RleStrings, join_rles
from eql_d2.json_files import paused_garbage_collection

BATCH = 10_000  # records looked at together where they are in memory already
OWN_IDS = "ids must be the data set's own (LVIS: from 1), not a model's indices from 0"
NO_RLE = "'segmentation' is not an RLE {'size': [height, width], 'counts': ...}"


@dataclass(frozen=True)
class Detections:
    """All detections, in the order of the file.

    Attributes:
        image: (N,) image index.
        category: (N,) category index.
        scores: (N,).
        boxes: (N, 4) x, y, width, height, or None if only masks are asked for.
        box_areas: (N,) width x height; the mask's area where the file has masks only, as the
            official code does.
        masks: N compressed RLE strings, or None if only boxes are asked for.
        mask_areas: (N,) pixels of each mask, or None.
        mask_spans: (N, 2) int32, as :class:`~eql_d2.evaluation.rle.RleSizes` has them, or None.
        boxes_from_masks: Whether the file has masks only and ``boxes`` are those around them.
    """

    image: NDArray[np.int64]
    category: NDArray[np.int64]
    scores: NDArray[np.float64]
    boxes: NDArray[np.float64] | None
    box_areas: NDArray[np.float64] | None
    masks: RleStrings | None
    mask_areas: NDArray[np.float64] | None
    mask_spans: NDArray[np.int32] | None
    boxes_from_masks: bool = False

    def __len__(self) -> int:
        return len(self.scores)


def read_results(
    results: str | os.PathLike[str] | Sequence[Any],
    truth: GroundTruth,
    iou_types: Sequence[str],
) -> Detections:
    """Read detections from a results file or from its parsed records (left unchanged).

    A file is read as :func:`stream_records` does, and only arrays of it are kept.

    Raises:
        ResultsError: The file is not a json list of records, or records do not fit ``truth``.
            All kinds of problems are counted, with the first examples.
    """
    if isinstance(results, (str, os.PathLike)):
        reader = _Reader(f"{results}", truth, iou_types)
        batches = stream_records(results)
    elif isinstance(results, (list, tuple)):
        reader = _Reader("the results", truth, iou_types)
        batches = _batches(results)
    else:
        raise ResultsError(
            f"the results: expected a json list of detections, got {type(results).__name__}"
        )
    with paused_garbage_collection():
        for batch in batches:
            reader.add(batch)
    return reader.finish()


def _batches(records: Sequence[Any]) -> Iterator[list[Any]]:
    for first in range(0, len(records), BATCH):
        yield list(records[first : first + BATCH])


class _Reader:
    """Collects the columns of all batches and what is wrong with them.

    Problems are of stages that rest on each other. Only those of the first stage with any are told,
    and no later stage is looked at once there is one. What is told does not depend on the size of
    batches, but for one thing: a key that a record lacks is not checked in the rest of its batch.
    """

    def __init__(self, subject: str, truth: GroundTruth, iou_types: Sequence[str]) -> None:
        self._truth = truth
        self._iou_types = iou_types
        new = lambda: Problems(subject, "records", 0, ResultsError)  # noqa: E731
        self._columns, self._ids, self._masks = new(), new(), [new() for _ in range(4)]
        self._boxless = new()  # wrong only where other records have a box
        self._has_boxes = False
        self._kept: dict[str, list[NDArray[Any]]] = {}
        self._strings = RleStrings()

    def add(self, records: list[Any]) -> None:
        """Take in one batch."""
        for problems in (self._columns, self._boxless, self._ids, *self._masks):
            problems.first = problems.total
            problems.total += len(records)
        image_id = self._numbers(records, "image_id", integer_column)
        category_id = self._numbers(records, "category_id", integer_column)
        self._keep("scores", self._numbers(records, "score", number_column))
        if "bbox" in self._iou_types:
            self._add_boxes(records)
        if not self._columns:
            image = self._add_indices(image_id, category_id)
            if not self._ids and ("segm" in self._iou_types or not self._has_boxes):
                self._add_masks(records, self._truth.sizes[image])

    def finish(self) -> Detections:
        """All batches in one, or the exception."""
        if self._has_boxes:
            self._columns.absorb(self._boxless)
        for problems in (self._columns, self._ids, *self._masks):
            problems.raise_if_any()
        has_masks = "segm" in self._iou_types or ("bbox" in self._iou_types and bool(self._boxless))
        boxes = box_areas = mask_areas = mask_spans = None
        if has_masks:
            mask_areas = self._take("mask_areas", np.float64)
            mask_spans = self._take("mask_spans", np.int32).reshape(-1, 2)
        if "bbox" in self._iou_types:
            boxes = self._take("boxes", np.float64).reshape(-1, 4)
            with np.errstate(over="ignore"):  # infinite, as in pycocotools: its IoU is 0
                box_areas = mask_areas if self._boxless else boxes[:, 2] * boxes[:, 3]
        return Detections(
            image=self._take("image", np.int64),
            category=self._take("category", np.int64),
            scores=self._take("scores", np.float64),
            boxes=boxes,
            box_areas=box_areas,
            masks=self._strings if has_masks else None,
            mask_areas=mask_areas,
            mask_spans=mask_spans,
            boxes_from_masks="bbox" in self._iou_types and bool(self._boxless),
        )

    def _keep(self, key: str, array: NDArray[Any]) -> None:
        self._kept.setdefault(key, []).append(array)

    def _take(self, key: str, dtype: type) -> NDArray[Any]:
        parts = self._kept.pop(key, [])
        return np.concatenate(parts) if parts else np.zeros(0, dtype=dtype)

    def _numbers(
        self,
        records: Sequence[Any],
        key: str,
        convert: Callable[[Sequence[Any], str, Problems], NDArray[Any] | None],
    ) -> NDArray[Any]:
        """The column ``key``; empty after noting the problems that forbid it."""
        values = column(records, key, self._columns)
        array = None if values is None else convert(values, key, self._columns)
        return np.zeros(0) if array is None else array

    def _add_boxes(self, records: list[Any]) -> None:
        before = self._boxless.count
        values = column(records, "bbox", self._boxless)
        self._has_boxes |= self._boxless.count - before < len(records)
        boxes = None if values is None else box_column(values, self._columns)
        if boxes is not None:
            self._keep("boxes", boxes)

    def _add_indices(
        self, image_id: NDArray[np.int64], category_id: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """The image of each detection."""
        image, known_image = find_ids(self._truth.image_ids, image_id)
        category, known_category = find_ids(self._truth.category_ids, category_id)
        for key, hint, ids, known in (
            ("image_id", "", image_id, known_image),
            ("category_id", f"; {OWN_IDS}", category_id, known_category),
        ):
            self._ids.add(
                f"{key!r} is not in the annotations{hint}",
                np.flatnonzero(~known),
                ids.tolist().__getitem__,
            )
        self._keep("image", image)
        self._keep("category", category)
        return image

    def _add_masks(self, records: list[Any], sizes: NDArray[np.int64]) -> None:
        """Keep RLE strings, each proven to describe its image's pixels, and their areas."""
        lacking, form, size, total = self._masks
        reason = ", which mask AP needs; for box AP alone give --iou-types bbox"
        values = column(records, "segmentation", lacking, reason)
        if lacking or values is None:
            return
        rles = join_rles(values)
        if rles is None:
            where = [i for i, value in enumerate(values) if not is_rle(value)]
            form.add(NO_RLE, where, values.__getitem__)
        if form or rles is None:
            return
        given = rles.sizes
        differs = (given != sizes).any(axis=1) & (sizes > 0).all(axis=1)
        size.add(
            "the RLE has another size than the image",
            np.flatnonzero(differs),
            lambda i: f"{given[i].tolist()}, image {sizes[i].tolist()}",
        )
        if size:
            return
        measured = measure_joined_rles(rles.text, rles.lengths)
        total.add(
            "the RLE's counts do not add up to height x width",
            np.flatnonzero(measured.totals != given.prod(axis=1)),
            lambda i: values[i]["counts"],
        )
        if total:
            return
        self._strings.append(rles)
        self._keep("mask_areas", measured.areas.astype(np.float64))
        self._keep("mask_spans", measured.spans.astype(np.int32))  # below LARGEST_RUN
        if not self._has_boxes and "bbox" in self._iou_types:
            self._keep("boxes", rles.boxes())
