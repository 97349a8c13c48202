"""Make a submission file: checked, cut to the highest scores, optionally rounded, json or zip.

Two passes over the results file, in batches: the first checks, the second writes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from eql_d2.errors import ResultsError, UserError
from eql_d2.evaluation.ground_truth import find_ids
from eql_d2.files import atomic_path, check_output_file
from eql_d2.submission.ap_change import largest_ap_change
from eql_d2.submission.checked_columns import field, finite_numbers, whole_numbers
from eql_d2.submission.image_info import ImageInfo, read_image_info
from eql_d2.submission.record_checks import Batch
from eql_d2.submission.submission_file import (
    BOX_DECIMALS,
    SCORE_DIGITS,
    SUFFIXES,
    RecordFormat,
    SubmissionFile,
    open_submission,
)
from eql_d2.submission.top_scores import TopScores
from eql_d2.submission.validation import (
    MAX_DETECTIONS,
    Validation,
    batches,
    validate_results,
)

MENDED = ("too-many-detections", "mask-uncompressed")  # faults that packing does away with


@dataclass(frozen=True)
class Submission:
    """A submission file and what was done to make it.

    Attributes:
        path: The file.
        num_records: Detections in it.
        num_left_out: Detections that were over the limit of an image.
        most_of_an_image: The largest number of detections of one image in it.
        num_bytes: Its size.
        num_json_bytes: The size of the json, which a zip holds in compressed form.
        sha256: Of the file.
        kinds: "bbox", "segm" or both: what its records hold.
        changes: In words, what is not as in the results file.
        largest_ap_change: In percent points, over all metrics; None if it was not measured.
        validation: The report on the results file.
    """

    path: Path
    num_records: int
    num_left_out: int
    most_of_an_image: int
    num_bytes: int
    num_json_bytes: int
    sha256: str
    kinds: tuple[str, ...]
    changes: tuple[str, ...]
    largest_ap_change: float | None
    validation: Validation

    def __str__(self) -> str:
        """The file in words: size, counts, what was changed, sha256."""
        left_out = f" ({self.num_left_out} over the limit left out)" if self.num_left_out else ""
        size = f"{self.num_bytes} bytes"
        if self.num_bytes != self.num_json_bytes:
            size += f" ({self.num_json_bytes} bytes of json in it)"
        lines = [
            f"{self.path}: {self.num_records} detections{left_out} in "
            f"{self.validation.num_images} images, {size}",
            *self.changes,
        ]
        if self.largest_ap_change is not None:
            change = f"{self.largest_ap_change:.2g}"
            lines.append(
                f"no metric changed by more than {change} percent points: both were scored"
            )
        return "\n".join([*lines, f"sha256 {self.sha256}"])


def pack_submission(
    annotations: str | os.PathLike[str],
    results: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    iou_types: Sequence[str] = (),
    max_detections: int = MAX_DETECTIONS,
    rounded: bool = False,
    prove: bool = False,
    ignore: Sequence[str] = (),
) -> Submission:
    """Check a results file and write its highest scores, in file order, into ``output``.

    Args:
        annotations: COCO or LVIS json, or image info of a test split.
        results: File (plain, gzip or zip).
        output: Ends with .json or .zip; appears when it is whole.
        iou_types: "bbox", "segm" or both: what to keep of each record (default: all there is).
        max_detections: Of an image, highest scores first; 0 is no limit.
        rounded: Write shorter numbers; see :class:`RecordFormat`.
        prove: Score both files; refuse a change of 1e-4 percent points (needs more memory).
        ignore: Errors to let pass, as for :func:`validate_results`.

    Raises:
        UserError: (DataError, ResultsError) an argument or file is wrong, or AP changes too much.
    """
    target = Path(output)
    _check_paths(target, (annotations, results))
    info = _read_info(annotations, need_objects=prove)
    tops = TopScores(len(info.image_ids), max_detections)
    validation, float32_scores = _validate(info, results, tops, iou_types, max_detections, ignore)
    style = RecordFormat(tuple(iou_types) or validation.kinds, rounded, float32_scores)
    with atomic_path(target) as partial:
        with open_submission(partial, target, style) as file:
            _write(results, info, tops, file, validation.num_records - tops.num_left_out)
        packed = _describe(target, partial, file, style, validation, tops.most_kept)
        if not prove:
            return packed
        change = largest_ap_change(annotations, results, partial, style.kinds, max_detections)
    return replace(packed, largest_ap_change=change)


def _describe(
    target: Path,
    partial: Path,
    file: SubmissionFile,
    style: RecordFormat,
    validation: Validation,
    most_of_an_image: int,
) -> Submission:
    """What is in the file, which still lies at ``partial``; no change of AP is known yet."""
    return Submission(
        path=target,
        num_records=file.num_records,
        num_left_out=validation.num_records - file.num_records,
        most_of_an_image=most_of_an_image,
        num_bytes=partial.stat().st_size,
        num_json_bytes=file.num_bytes,
        sha256=_sha256(partial),
        kinds=tuple(style.kinds),
        changes=_changes(validation, style),
        largest_ap_change=None,
        validation=validation,
    )


def _read_info(annotations: str | os.PathLike[str], *, need_objects: bool) -> ImageInfo:
    info = read_image_info(annotations)
    if need_objects and not info.has_labels:
        raise UserError(f"{annotations} has no objects: AP cannot be measured with it")
    return info


def _check_paths(target: Path, inputs: Sequence[str | os.PathLike[str]]) -> None:
    if target.suffix.lower() not in SUFFIXES:
        raise UserError(f"the output must end with {' or '.join(SUFFIXES)}, got {target.name!r}")
    check_output_file(target, "output", *inputs)


def _validate(
    info: ImageInfo,
    results: str | os.PathLike[str],
    tops: TopScores,
    iou_types: Sequence[str],
    max_detections: int,
    ignore: Sequence[str],
) -> tuple[Validation, bool]:
    """The first pass: the report, and whether all scores are float32 numbers."""
    float32_scores = True

    def observe(batch: Batch) -> None:
        nonlocal float32_scores
        tops.add(batch.image, batch.scores)
        float32_scores &= bool((batch.scores.astype(np.float32) == batch.scores).all())

    validation = validate_results(
        info,
        results,
        iou_types=iou_types,
        max_detections=max_detections,
        ignore=[*ignore, *MENDED],
        observe=observe,
    )
    validation.raise_if_errors()
    return validation, float32_scores


def _write(
    results: str | os.PathLike[str],
    info: ImageInfo,
    tops: TopScores,
    file: SubmissionFile,
    expected: int,
) -> None:
    """The second pass; ``expected`` is how many records the first one says there will be."""
    for records in batches(results):
        image, known = find_ids(info.image_ids, whole_numbers(field(records, "image_id")[0])[0])
        if not known.all():
            raise ResultsError(f"{results} changed while it was being read")
        kept = tops.keep(image, finite_numbers(field(records, "score")[0])[0])
        file.add([record for record, keep in zip(records, kept.tolist(), strict=True) if keep])
    if file.num_records != expected:
        raise ResultsError(f"{results} changed while it was being read")


def _changes(validation: Validation, style: RecordFormat) -> tuple[str, ...]:
    """In words, what is not as in the results file."""
    lines = []
    dropped = [name for name in validation.kinds if name not in style.kinds]
    fields = {"bbox": "bbox", "segm": "segmentation"}
    lines += [f"without the field {fields[name]}" for name in dropped]
    if any(fault.code == "mask-uncompressed" for fault in validation.faults):
        lines.append("RLEs with lists of counts are compressed")
    if style.rounds_scores:
        lines.append(
            f"scores have {SCORE_DIGITS} significant digits: all are float32 numbers, so their "
            "order, and which are equal, stays the same"
        )
    elif style.rounded:
        lines.append("scores are not rounded: they have more digits than float32 numbers")
    if style.rounds_boxes:
        lines.append(f"boxes have {BOX_DECIMALS} decimals")
    return tuple(lines)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
