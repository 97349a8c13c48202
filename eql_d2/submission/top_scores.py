"""The highest scores of each image while detections go by, in memory for those scores only.

Shapes: N records of a batch, I images.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eql_d2.submission.checked_columns import Flags


class TopScores:
    """Decides which detections are among the ``limit`` highest of their image.

    Two passes over the same records: :meth:`add` all, then :meth:`keep` all, in the same order.
    Equal scores are kept in file order, as the official evaluation does. Memory: 8 bytes for each
    of at most ``limit`` scores an image, whatever the length of the file.

    Args:
        num_images: I.
        limit: Detections of an image; 0 is no limit.
    """

    def __init__(self, num_images: int, limit: int) -> None:
        self._limit = min(limit, np.iinfo(np.int64).max)
        self._counts = np.zeros(num_images, dtype=np.int64)
        self._highest: dict[int, NDArray[np.float64]] = {}  # image -> at most `limit` scores
        self._least: NDArray[np.float64] | None = None  # (I,) lowest score that is kept
        self._ties: NDArray[np.int64] | None = None  # (I,) how many of that score are still kept

    @property
    def num_left_out(self) -> int:
        """Detections over the limit among those added."""
        return int(np.maximum(self._counts - self._limit, 0).sum()) if self._limit else 0

    @property
    def most_kept(self) -> int:
        """The largest number of detections that an image keeps of those added."""
        most = int(self._counts.max(initial=0))
        return min(most, self._limit) if self._limit else most

    def add(self, image: NDArray[np.int64], scores: NDArray[np.float64]) -> None:
        """Look at N detections: (N,) image index, -1 for none, and (N,) finite scores."""
        known = np.flatnonzero(image >= 0)
        self._counts += np.bincount(image[known], minlength=len(self._counts))
        if self._limit == 0:
            return
        order = known[np.argsort(image[known], kind="stable")]
        images, starts = np.unique(image[order], return_index=True)
        groups = np.split(scores[order], starts[1:]) if len(images) else []
        for index, new in zip(images.tolist(), groups, strict=True):
            seen = self._highest.get(index)
            joined = new if seen is None else np.concatenate((seen, new))
            if len(joined) > self._limit:
                place = len(joined) - self._limit
                joined = np.partition(joined, place)[place:]
            self._highest[index] = joined.copy()  # no view of the whole batch

    def keep(self, image: NDArray[np.int64], scores: NDArray[np.float64]) -> Flags:
        """(N,) whether each detection is among the highest of its image."""
        if self.num_left_out == 0:
            return np.ones(len(image), dtype=bool)
        if self._least is None or self._ties is None:
            self._least, self._ties = self._thresholds()
        kept = scores > self._least[image]
        for row in np.flatnonzero(scores == self._least[image]).tolist():
            kept[row] = self._ties[image[row]] > 0
            self._ties[image[row]] -= 1
        return kept

    def _thresholds(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        least = np.full(len(self._counts), -np.inf)
        ties = np.zeros(len(self._counts), dtype=np.int64)
        for index in np.flatnonzero(self._counts > self._limit).tolist():
            scores = self._highest[index]
            least[index] = scores.min()
            ties[index] = int((scores == least[index]).sum())
        return least, ties
