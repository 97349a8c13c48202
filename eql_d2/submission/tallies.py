"""What shows only over all records of a results file: counts an image, labels, repetitions.

Each tally takes the batches one by one (:meth:`add`) and at the end notes its faults
(:meth:`report`). Shapes: N records of a batch, I images, K categories.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from eql_d2.evaluation.ground_truth import find_ids
from eql_d2.evaluation.result_checks import BoxForm, ShiftTest, hardly_labelled
from eql_d2.submission.faults import NUM_EXAMPLES, FaultBook
from eql_d2.submission.image_info import ImageInfo
from eql_d2.submission.record_checks import Batch

PRIME = np.uint64(0x9E3779B97F4A7C15)


class ImageTally:
    """Counts the detections of each image."""

    def __init__(self, info: ImageInfo, limit: int) -> None:
        self._info = info
        self._limit = limit
        self.counts = np.zeros(len(info.image_ids), dtype=np.int64)

    def add(self, batch: Batch) -> None:
        """Count one batch."""
        found = batch.image[batch.image >= 0]
        self.counts += np.bincount(found, minlength=len(self.counts))

    def report(self, book: FaultBook) -> None:
        """Note images with too many detections and with none."""
        over = np.flatnonzero(self.counts > self._limit) if self._limit else np.zeros(0, int)
        ids, counts = self._info.image_ids, self.counts
        examples = [f"image_id {ids[i]}: {counts[i]}, limit {self._limit}" for i in over]
        book.add("too-many-detections", len(over), examples)
        if counts.any():
            none = np.flatnonzero(counts == 0)
            book.add("images-without-detections", len(none), [f"image_id {ids[i]}" for i in none])


class FieldTally:
    """Counts the records with a box and with a mask: either all have one or none."""

    FIELDS = (("bbox", "bbox-missing"), ("segm", "mask-missing"))

    def __init__(self, required: Sequence[str]) -> None:
        self._required = required
        self.with_field = dict.fromkeys(("bbox", "segm"), 0)
        self._without = {"bbox": FaultBook(), "segm": FaultBook()}

    def add(self, batch: Batch) -> None:
        """Count one batch."""
        is_object = np.array([isinstance(record, dict) for record in batch.records], dtype=bool)
        for (name, code), has in zip(self.FIELDS, (batch.has_box, batch.has_mask), strict=True):
            self.with_field[name] += int(has.sum())
            rows = np.flatnonzero(is_object & ~has)
            self._without[name].add_rows(code, rows, batch.first, lambda _: "not there")

    def report(self, book: FaultBook) -> None:
        """Note the fields that are missing."""
        for name, code in self.FIELDS:
            if self.with_field[name] or name in self._required:
                for found, count in self._without[name].counts.items():
                    book.add(code, count, self._without[name].examples[found])


class LabelTally:
    """Looks for shifted category ids, and for ids that hardly ever meet a label."""

    def __init__(self, info: ImageInfo) -> None:
        self._info = info
        objects = np.zeros(0, dtype=np.int64) if info.object_pairs is None else info.object_pairs
        self._objects = objects
        self._labelled = np.union1d(objects, info.negative_pairs)
        self._shift = ShiftTest(len(info.image_ids), info.category_ids, objects, self._has_object)
        self._total = self._num_labelled = 0

    def add(self, batch: Batch) -> None:
        """Count one batch."""
        if not self._info.has_labels:
            return
        found = (batch.image >= 0) & (batch.category >= 0)
        image, category = batch.image[found], batch.category[found]
        labelled = find_ids(self._labelled, self._pairs(image, category))[1]
        self._num_labelled += int((labelled | self._info.exhaustive[image]).sum())
        self._total += len(image)
        self._shift.add(image, category, np.nan_to_num(batch.scores[found], nan=0.0))

    def report(self, book: FaultBook) -> None:
        """Note shifted ids, or else ids that hardly ever meet a label."""
        shift = self._shift.result()
        if shift is not None:
            text = (
                f"{shift.hits} of {self._total} records are of categories that their image has "
                f"(sum of scores {shift.mass:.1f}), and {shift.hits_changed} "
                f"({shift.mass_changed:.1f}) with {shift.change}"
            )
            book.add("category-shift", self._total - shift.hits, [text])
        elif self._info.has_labels and hardly_labelled(self._num_labelled, self._total):
            book.add("unlabelled", self._total - self._num_labelled)

    def _has_object(
        self, image: NDArray[np.int64], category: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        return find_ids(self._objects, self._pairs(image, category))[1]

    def _pairs(self, image: NDArray[np.int64], category: NDArray[np.int64]) -> NDArray[np.int64]:
        return category * len(self._info.image_ids) + image


class BoxTally:
    """Looks for boxes that are two corners, or shares of the image."""

    def __init__(self, info: ImageInfo) -> None:
        self._sizes = info.sizes
        self._form = BoxForm()

    def add(self, batch: Batch) -> None:
        """Look at one batch."""
        good = (batch.image >= 0) & ~np.isnan(batch.boxes[:, 0])
        self._form.add(batch.boxes[good], self._sizes[batch.image[good]])

    def report(self, book: FaultBook) -> None:
        """Note what all boxes have in common."""
        if self._form.form is not None:
            book.add(f"bbox-{self._form.form}", self._form.count)


class RepetitionTally:
    """Finds records that say the same as another one, by 64-bit keys (8 bytes a record).

    The image is in the upper bits of a key and a hash of the rest in the lower ones, of which
    there are 49 at LVIS's size: a false finding among 300 records has a chance of 1 in 10^10.
    """

    def __init__(self, info: ImageInfo) -> None:
        self._image_ids = info.image_ids
        self._bits = np.uint64(max(1, len(info.image_ids).bit_length()))
        self._keys = array("Q")

    def add(self, batch: Batch) -> None:
        """Remember one batch."""
        rows = np.flatnonzero((batch.image >= 0) & (batch.category >= 0))
        hashes = np.zeros(len(batch.image), dtype=np.int64)
        hashes[batch.mask_rows] = batch.mask_hashes
        columns = [batch.category, hashes, batch.scores, *batch.boxes.T]
        key = np.zeros(len(rows), dtype=np.uint64)
        for column in columns:
            key = _mix(key ^ _bits_of(column[rows]))
        key = (batch.image[rows].astype(np.uint64) << (np.uint64(64) - self._bits)) | (
            key >> self._bits
        )
        self._keys.frombytes(key.tobytes())

    def report(self, book: FaultBook) -> None:
        """Note the repeated records; takes the keys out of order."""
        keys = np.frombuffer(self._keys, dtype=np.uint64)
        keys.sort()
        repeated = np.flatnonzero(keys[1:] == keys[:-1])
        images = (keys[repeated + 1] >> (np.uint64(64) - self._bits)).astype(np.int64)
        index, counts = np.unique(images, return_counts=True)
        examples = [
            f"image_id {self._image_ids[i]}: {count}"
            for i, count in zip(index[:NUM_EXAMPLES], counts[:NUM_EXAMPLES], strict=True)
        ]
        book.add("duplicates", len(repeated), examples)


def _bits_of(column: NDArray[np.int64] | NDArray[np.float64]) -> NDArray[np.uint64]:
    """The column's 64 bits; the same for 0.0 and -0.0, and for all NaN of :class:`Batch`."""
    return np.ascontiguousarray(column + 0).view(np.uint64)


def _mix(key: NDArray[np.uint64]) -> NDArray[np.uint64]:
    key = (key ^ (key >> np.uint64(31))) * PRIME
    return key ^ (key >> np.uint64(29))
