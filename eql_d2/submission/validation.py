"""Say whether a results file can be scored or submitted, and name everything that is wrong with it.

The file is read once, in batches: the memory does not grow with it beyond 8 bytes a record.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from eql_d2.errors import ResultsError, UserError
from eql_d2.evaluation.record_stream import stream_records
from eql_d2.submission.faults import KINDS, Fault, FaultBook
from eql_d2.submission.image_info import ImageInfo, read_image_info
from eql_d2.submission.record_checks import Batch, check_records
from eql_d2.submission.tallies import (
    BoxTally,
    FieldTally,
    ImageTally,
    LabelTally,
    RepetitionTally,
)

BATCH = 8192  # records of a list in memory that are checked at once
MAX_DETECTIONS = 300  # an image, over all categories: LVIS's own limit
IGNORABLE = tuple(code for code, kind in KINDS.items() if kind.ignorable)

Annotations = str | os.PathLike[str] | dict[str, Any] | ImageInfo
Tally = FieldTally | ImageTally | LabelTally | BoxTally | RepetitionTally
Results = str | os.PathLike[str] | Sequence[Any]


@dataclass(frozen=True)
class Validation:
    """What is in a results file and what is wrong with it.

    Attributes:
        subject: The file.
        num_records: Detections in it.
        num_images: Images with a detection.
        total_images: Images in the annotations.
        num_categories: Categories with a detection.
        total_categories: Categories in the annotations.
        kinds: "bbox", "segm" or both: what the records hold.
        labels_known: Whether the annotations say which categories an image shows.
        faults: Errors first.
    """

    subject: str
    num_records: int
    num_images: int
    total_images: int
    num_categories: int
    total_categories: int
    kinds: tuple[str, ...]
    labels_known: bool
    faults: tuple[Fault, ...]

    @property
    def errors(self) -> tuple[Fault, ...]:
        """The faults that forbid scoring or submitting the file."""
        return tuple(fault for fault in self.faults if not fault.warning)

    @property
    def warnings(self) -> tuple[Fault, ...]:
        """The faults that the file passes with."""
        return tuple(fault for fault in self.faults if fault.warning)

    def __str__(self) -> str:
        """The whole report as text."""
        holds = " and ".join({"bbox": "boxes", "segm": "masks"}[kind] for kind in self.kinds)
        lines = [
            f"{self.subject}: {self.num_records} detections ({holds or 'no boxes, no masks'}) in "
            f"{self.num_images} of {self.total_images} images, of {self.num_categories} of "
            f"{self.total_categories} categories",
            *(str(fault) for fault in self.faults),
        ]
        if not self.labels_known:
            lines.append(
                "the annotations have no objects: category ids were not compared with them"
            )
        counts = f"{len(self.errors)} kinds of errors, {len(self.warnings)} of warnings"
        return "\n".join([*lines, f"{'NOT VALID' if self.errors else 'valid'}: {counts}"])

    def to_dict(self) -> dict[str, Any]:
        """The report with json types."""
        return {"valid": not self.errors, **asdict(self)}

    def raise_if_errors(self) -> None:
        """Refuse a file with errors.

        Raises:
            ResultsError: With the whole report.
        """
        if self.errors:
            raise ResultsError(str(self))


def validate_results(
    annotations: Annotations,
    results: Results,
    *,
    iou_types: Sequence[str] = (),
    max_detections: int = MAX_DETECTIONS,
    ignore: Sequence[str] = (),
    observe: Callable[[Batch], None] | None = None,
) -> Validation:
    """Check a results file, or its records, against annotations or an image-info file.

    Args:
        annotations: COCO or LVIS json, as a file, parsed or read.
        results: File (plain, gzip or zip) or records.
        iou_types: Of "bbox" and "segm", what every record must have. What one record has, all
            must have in any case.
        max_detections: Of an image; 0 is no limit.
        ignore: Codes of :data:`IGNORABLE` errors to report as warnings.
        observe: Is given every batch, in order.

    Raises:
        DataError: The annotations cannot be used.
        ResultsError: The results are not one json list (a cut or broken file).
        UserError: Another argument is wrong.
    """
    _check_arguments(iou_types, max_detections, ignore)
    info = annotations if isinstance(annotations, ImageInfo) else read_image_info(annotations)
    book = FaultBook()
    fields, images = FieldTally(iou_types), ImageTally(info, max_detections)
    tallies: tuple[Tally, ...] = (
        fields,
        images,
        LabelTally(info),
        BoxTally(info),
        RepetitionTally(info),
    )
    num_records, num_categories = _read_through(results, info, book, tallies, observe)
    totals = {"records": num_records, "images": len(info.image_ids), "files": 1}
    faults = book.faults(totals, ignore)
    return _summarize(results, info, num_records, num_categories, fields, images, faults)


def _summarize(
    results: Results,
    info: ImageInfo,
    num_records: int,
    num_categories: int,
    fields: FieldTally,
    images: ImageTally,
    faults: tuple[Fault, ...],
) -> Validation:
    return Validation(
        subject=f"{results}" if isinstance(results, (str, os.PathLike)) else "the results",
        num_records=num_records,
        num_images=int((images.counts > 0).sum()),
        total_images=len(info.image_ids),
        num_categories=num_categories,
        total_categories=len(info.category_ids),
        kinds=tuple(kind for kind, count in fields.with_field.items() if count),
        labels_known=info.has_labels,
        faults=faults,
    )


def _check_arguments(iou_types: Sequence[str], max_detections: int, ignore: Sequence[str]) -> None:
    if isinstance(iou_types, str) or not set(iou_types) <= {"bbox", "segm"}:
        raise UserError(f"iou_types must be some of ('bbox', 'segm'), got {iou_types!r}")
    if max_detections < 0:
        raise UserError(f"max_detections must be at least 0 (no limit), got {max_detections}")
    unknown = sorted(set(ignore) - set(IGNORABLE))
    if unknown:
        raise UserError(f"cannot ignore {', '.join(unknown)}; possible: {', '.join(IGNORABLE)}")


def _read_through(
    results: Results,
    info: ImageInfo,
    book: FaultBook,
    tallies: Sequence[Tally],
    observe: Callable[[Batch], None] | None,
) -> tuple[int, int]:
    """Check every batch, alone and together: all faults are in ``book`` afterwards.

    Returns:
        The number of records and of the categories they have.
    """
    categories = np.zeros(len(info.category_ids), dtype=bool)
    num_records = 0
    for records in batches(results):
        batch = check_records(records, num_records, info, book)
        num_records += len(records)
        categories[batch.category[batch.category >= 0]] = True
        for tally in tallies:
            tally.add(batch)
        if observe is not None:
            observe(batch)
    book.add("no-records", int(num_records == 0))
    for tally in tallies:
        tally.report(book)
    return num_records, int(categories.sum())


def batches(results: Results) -> Iterator[Sequence[Any]]:
    """The records of a results file, or of a list, a few thousand at a time."""
    if isinstance(results, (str, os.PathLike)):
        yield from stream_records(results)
    elif isinstance(results, (list, tuple)):
        for first in range(0, len(results), BATCH):
            yield results[first : first + BATCH]
    else:
        raise ResultsError(f"expected a list of detections, got {type(results).__name__}")
