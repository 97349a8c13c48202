"""The text of a submission file and how it gets onto the disk."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from eql_d2.evaluation.rle import compressed_counts
from eql_d2.submission.checked_columns import boxes, field

SUFFIXES = (".json", ".zip")
SCORE_DIGITS = 9  # significant decimal digits tell all float32 numbers apart
BOX_DECIMALS = 6  # of a pixel; finer than float32 from 16 pixels on
EARLIEST_DATE = (1980, 1, 1, 0, 0, 0)  # a zip of the same detections has the same bytes


@dataclass(frozen=True)
class RecordFormat:
    """How a record is written.

    Rounding of scores changes nothing: 9 significant digits keep the order of float32 numbers and
    which are equal, and only the order of scores enters AP. If a score of the file is no float32
    number, all scores stay as they are. Boxes get 6 decimals: from 16 pixels on that is less than
    the distance of float32 numbers. An IoU next to a threshold can still fall on its other side;
    :mod:`eql_d2.submission.ap_change` measures what that does.

    Attributes:
        kinds: Of "bbox" and "segm", what is written.
        rounded: Whether numbers are shortened.
        float32_scores: Whether all scores of the file are float32 numbers.
    """

    kinds: Sequence[str]
    rounded: bool
    float32_scores: bool

    @property
    def rounds_scores(self) -> bool:
        """Whether scores are shortened."""
        return self.rounded and self.float32_scores

    @property
    def rounds_boxes(self) -> bool:
        """Whether boxes are shortened."""
        return self.rounded and "bbox" in self.kinds

    def encode(self, records: Sequence[dict[str, Any]]) -> list[bytes]:
        """Each record, which must be valid, as json."""
        to_json = _encoder()
        scores = field(records, "score")[0]
        if self.rounds_scores:
            scores = [float(f"{score:.{SCORE_DIGITS}g}") for score in scores]
        corners = field(records, "bbox")[0] if "bbox" in self.kinds else []
        if self.rounds_boxes:
            corners = round_boxes(boxes(corners)[0]).tolist()
        lines = []
        for i, record in enumerate(records):
            new: dict[str, Any] = {
                "image_id": int(record["image_id"]),
                "category_id": int(record["category_id"]),
                "score": scores[i],
            }
            if "bbox" in self.kinds:
                new["bbox"] = corners[i]
            if "segm" in self.kinds:
                rle = record["segmentation"]
                counts = compressed_counts(rle).decode("ascii")
                new["segmentation"] = {"size": list(rle["size"]), "counts": counts}
            lines.append(to_json(new))
        return lines


def round_boxes(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 4) boxes with BOX_DECIMALS; a side that is not zero does not become zero."""
    result = np.round(corners, BOX_DECIMALS)
    sides = result[:, 2:]
    sides[(sides == 0) & (corners[:, 2:] > 0)] = 10.0**-BOX_DECIMALS
    return result


def _encoder() -> Callable[[Any], bytes]:
    """The fastest way at hand from an object to json without needless spaces."""
    try:
        import orjson
    except ImportError:
        encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
        return lambda value: encode(value).encode("ascii")
    return orjson.dumps


class SubmissionFile:
    """Takes records and writes them as one json list, one record a line.

    Attributes:
        num_records: Written so far.
        num_bytes: Of json, written so far.
    """

    def __init__(self, stream: IO[bytes], style: RecordFormat) -> None:
        self.num_records = self.num_bytes = 0
        self._stream = stream
        self._style = style
        self._put(b"[")

    def add(self, records: Sequence[dict[str, Any]]) -> None:
        """Append valid records."""
        if records:
            lines = b",\n".join(self._style.encode(records))
            self._put((b",\n" if self.num_records else b"\n") + lines)
            self.num_records += len(records)

    def close(self) -> None:
        """End the list."""
        self._put(b"\n]\n")

    def _put(self, data: bytes) -> None:
        self._stream.write(data)
        self.num_bytes += len(data)


@contextlib.contextmanager
def open_submission(partial: Path, target: Path, style: RecordFormat) -> Iterator[SubmissionFile]:
    """Write ``partial`` in the form that the name of ``target`` says: json, or a zip with it."""
    with contextlib.ExitStack() as stack:
        file: IO[bytes]
        if target.suffix.lower() == ".zip":
            archive = stack.enter_context(zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED))
            entry = zipfile.ZipInfo(f"{target.stem}.json", EARLIEST_DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16  # readable when unpacked
            file = stack.enter_context(archive.open(entry, "w", force_zip64=True))
            file = stack.enter_context(io.BufferedWriter(file, 1 << 20))
        else:
            file = stack.enter_context(partial.open("wb"))
        submission = SubmissionFile(file, style)
        yield submission
        submission.close()
