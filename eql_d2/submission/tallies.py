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
from eql_d2.submission.faults import NUM_EXAMPLES, FaultBook
from eql_d2.submission.image_info import ImageInfo
from eql_d2.submission.record_checks import TOLERANCE, Batch

UNLABELLED = 0.99  # share of detections on pairs nobody looked at: the ids are likely wrong
SHIFT = 2  # times the sum of scores on pairs with an object after a shift of the ids
LEAST = 20  # records below which a share proves nothing
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
    """Counts the detections of categories that are known to be there or not there.

    The scores of those that their image has objects of are also summed with all category ids one
    lower and one higher: that is how ids off by one show. Numbers of detections would not show it,
    since detectors fill their limit with doubtful detections of everything.
    """

    SHIFTS = (0, -1, 1)

    def __init__(self, info: ImageInfo) -> None:
        self._info = info
        objects = np.zeros(0, dtype=np.int64) if info.object_pairs is None else info.object_pairs
        self._objects = objects
        self._pairs = np.union1d(objects, info.negative_pairs)
        self._known = 0
        shape = (len(self.SHIFTS), len(info.category_ids))
        self._hits = np.zeros(shape, dtype=np.int64)
        self._mass = np.zeros(shape)
        self._total = 0
        self._in_federated = 0

    def add(self, batch: Batch) -> None:
        """Count one batch."""
        if not self._info.has_labels:
            return
        found = (batch.image >= 0) & (batch.category >= 0)
        image, category = batch.image[found], batch.category[found]
        scores = np.nan_to_num(batch.scores[found], nan=0.0, posinf=0.0, neginf=0.0)
        size = len(self._info.category_ids)
        self._total += len(image)
        self._in_federated += int((~self._info.exhaustive[image]).sum())
        for row, shift in enumerate(self.SHIFTS):
            shifted = category + shift
            inside = (shifted >= 0) & (shifted < size)
            pairs = shifted[inside] * len(self._info.image_ids) + image[inside]
            hit = find_ids(self._objects, pairs)[1]
            where, weights = category[inside][hit], scores[inside][hit]
            self._hits[row] += np.bincount(where, minlength=size)
            self._mass[row] += np.bincount(where, weights=weights, minlength=size)
            if shift == 0:
                self._known += int(find_ids(self._pairs, pairs)[1].sum())

    def report(self, book: FaultBook) -> None:
        """Note ids off by one, or else ids that hardly ever meet a label."""
        now, *others = self._mass
        best = int(np.argmax([then.sum() for then in others]))
        shift, then = self.SHIFTS[1 + best], others[best]
        hits, would = int(self._hits[0].sum()), int(self._hits[1 + best].sum())
        grown = would > LEAST and then.sum() > SHIFT * now.sum()
        if grown and (then > now).sum() > (then < now).sum():
            share = f"{hits} of {self._total} records are of categories that their image has"
            sums = f"sum of scores {now.sum():.1f} and {then.sum():.1f}"
            text = f"{share}; with ids {shift:+d} it would be {would} ({sums})"
            book.add("category-shift", self._total - hits, [text])
            return
        unknown = self._total - self._known
        if self._in_federated == self._total >= LEAST and unknown > UNLABELLED * self._total:
            book.add("unlabelled", unknown)


class BoxTally:
    """Counts boxes that look like two corners, or like shares of the image."""

    def __init__(self, info: ImageInfo) -> None:
        self._sizes = info.sizes
        self._boxes = self._corners = self._outside = self._relative = 0

    def add(self, batch: Batch) -> None:
        """Count one batch."""
        good = (batch.image >= 0) & ~np.isnan(batch.boxes[:, 0])
        sizes = self._sizes[batch.image[good]]
        x, y, width, height = batch.boxes[good].T
        limit = sizes[:, ::-1].T + TOLERANCE
        self._boxes += len(x)
        self._relative += int((batch.boxes[good].max(axis=1, initial=0) <= 1).sum())
        corners = (width > x) & (height > y) & (width <= limit[0]) & (height <= limit[1])
        self._corners += int(corners.sum())
        with np.errstate(over="ignore"):
            outside = (x + width > limit[0]) | (y + height > limit[1])
        self._outside += int(outside.sum())

    def report(self, book: FaultBook) -> None:
        """Note what all boxes have in common; that some reach out of the image proves corners."""
        if self._boxes < LEAST:
            return
        if self._relative == self._boxes:
            book.add("bbox-relative", self._boxes)
        elif self._corners == self._boxes and self._outside > 0:
            book.add("bbox-corners", self._boxes)


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
