"""What can be wrong with a results file, and the book in which it is counted."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eql_d2.evaluation.results import OWN_IDS

NUM_EXAMPLES = 3  # the first ones of each kind are kept
LONGEST_TEXT = 100  # characters of a value that is shown
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, LONGEST_TEXT, LONGEST_TEXT


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        unit: What is counted: "records" or "images".
        text: What is wrong with them.
        mend: What it usually comes from or what to do; empty if plain.
        warning: The file can be scored as it is, and the number may still be a wrong one.
        ignorable: The user may know better: the records are well-formed.
    """

    unit: str
    text: str
    mend: str = ""
    warning: bool = False
    ignorable: bool = False


FORM_OF_MASK = "'segmentation' is not an RLE {'size': [height, width], 'counts': '...'}"
KINDS = {
    "no-records": Kind("files", "no detections", "the official evaluation stops at an empty list"),
    "record-form": Kind("records", "not a json object"),
    "field-missing": Kind("records", "no 'image_id', 'category_id' or 'score'"),
    "geometry-missing": Kind("records", "neither 'bbox' nor 'segmentation'"),
    "bbox-missing": Kind(
        "records",
        "no 'bbox', which is asked for or which other records have",
        "the official evaluation expects of all records what the first one has",
    ),
    "mask-missing": Kind(
        "records",
        "no 'segmentation', which is asked for or which other records have",
        "the official evaluation expects of all records what the first one has",
    ),
    "image-id-form": Kind("records", "'image_id' is not an integer"),
    "image-unknown": Kind(
        "records",
        "'image_id' is not in the annotations",
        "results of another split? the official evaluation refuses them",
    ),
    "category-id-form": Kind("records", "'category_id' is not an integer"),
    "category-unknown": Kind(
        "records",
        "'category_id' is not in the annotations",
        OWN_IDS,
    ),
    "score-form": Kind("records", "'score' is not a finite number"),
    "score-range": Kind("records", "'score' is not within 0..1", ignorable=True),
    "bbox-form": Kind(
        "records",
        "'bbox' is not [x, y, width, height] with finite numbers and sides >= 0",
    ),
    "bbox-outside": Kind(
        "records",
        "'bbox' reaches out of the image",
        "boxes must be x, y, width, height in pixels of the original image",
        ignorable=True,
    ),
    "mask-form": Kind("records", FORM_OF_MASK, "results need RLE; polygons are for annotations"),
    "mask-uncompressed": Kind(
        "records",
        "the RLE's counts are a list",
        "the official evaluation reads compressed counts only; pack_submission.py compresses them",
        ignorable=True,
    ),
    "mask-size": Kind(
        "records",
        "the RLE has another size than the image",
        "size is [height, width] of the original image, not of the resized one",
    ),
    "mask-counts": Kind("records", "the RLE's counts do not add up to height x width"),
    "too-many-detections": Kind(
        "images",
        "more detections than the limit",
        "pack_submission.py keeps the highest scores",
        ignorable=True,
    ),
    "category-shift": Kind(
        "records",
        "the category ids are shifted: categories that their image has objects of would get far "
        "more of the scores with other ids",
        "LVIS ids start at 1; change every category_id in the way that fits",
        ignorable=True,
    ),
    "unlabelled": Kind(
        "records",
        "categories that are neither annotated nor marked absent in their image; these records "
        "do not count, and they are nearly all",
        "is the model untrained, or are these not the category ids of the annotations?",
        warning=True,
    ),
    "bbox-empty": Kind(
        "records", "'bbox' has no area; left out of AP but takes up a place", warning=True
    ),
    "bbox-corners": Kind(
        "records",
        "every 'bbox' reads as two corners x1, y1, x2, y2",
        "convert to x, y, width, height",
        warning=True,
    ),
    "bbox-relative": Kind(
        "records", "every 'bbox' lies within 0..1", "multiply by the image's sides", warning=True
    ),
    "mask-empty": Kind(
        "records", "the mask has no pixels; left out of AP but takes up a place", warning=True
    ),
    "duplicates": Kind(
        "records",
        "the same as an earlier record",
        "was a file joined twice, or an image predicted by two processes?",
        warning=True,
    ),
    "images-without-detections": Kind(
        "images",
        "no detections at all",
        "if unexpected: is a part of the results lost?",
        warning=True,
    ),
}


@dataclass(frozen=True)
class Fault:
    """One kind of fault as it was found in a file.

    Attributes:
        code: A key of :data:`KINDS`.
        warning: Whether the file passes in spite of it.
        count: How many records or images.
        total: Of how many.
        examples: The first ones in words.
    """

    code: str
    warning: bool
    count: int
    total: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        """The fault in words, over a few lines."""
        kind = KINDS[self.code]
        head = f"{'warning' if self.warning else 'error'} {self.code}: {self.count} of "
        lines = [f"{head}{self.total} {kind.unit}: {kind.text}"]
        lines += [f"    {example}" for example in self.examples]
        if len(self.examples) == NUM_EXAMPLES < self.count:
            lines[-1] += ", ..."
        if kind.mend:
            lines.append(f"    -> {kind.mend}")
        return "\n".join(lines)


class FaultBook:
    """Counts faults while batches of a file go by; keeps the first examples of each kind."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.examples: dict[str, list[str]] = {}

    def add(self, code: str, count: int, examples: Iterable[str] = ()) -> None:
        """Note ``count`` more faults of a kind; none is fine."""
        if count == 0:
            return
        assert code in KINDS
        self.counts[code] = self.counts.get(code, 0) + int(count)
        kept = self.examples.setdefault(code, [])
        for example in examples:
            if len(kept) == NUM_EXAMPLES:
                break
            kept.append(example)

    def add_rows(
        self, code: str, rows: NDArray[np.intp], first: int, describe: Callable[[int], object]
    ) -> None:
        """Note the records at ``rows`` of the batch that begins with record ``first``."""
        self.add(
            code, len(rows), (f"record {first + row}: {describe(row)}" for row in rows.tolist())
        )

    def faults(self, totals: dict[str, int], ignored: Iterable[str] = ()) -> tuple[Fault, ...]:
        """Everything noted, errors first; ``ignored`` kinds become warnings.

        Args:
            totals: How many there are of each unit.
            ignored: Codes.
        """
        ignored = set(ignored)
        found = [
            Fault(
                code=code,
                warning=kind.warning or code in ignored,
                count=self.counts[code],
                total=totals[kind.unit],
                examples=tuple(self.examples[code]),
            )
            for code, kind in KINDS.items()
            if code in self.counts
        ]
        return tuple(sorted(found, key=lambda fault: fault.warning))


def short(value: object) -> str:
    """``value`` as text of bounded length and depth, whatever a broken file holds there."""
    text = _SHORT.repr(value)
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 3] + "..."
