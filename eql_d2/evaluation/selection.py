"""Which detections take part: the limits of each protocol, and what the annotations can judge.

All limits keep a beginning of the score order of every (image, category) pair, so that detections
matched together can be reduced to a smaller selection without being matched again.
"""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from eql_d2.evaluation.ground_truth import GroundTruth

logger = logging.getLogger("eql_d2.evaluation")

LEAST_LIMIT = 10  # detections of an image; nobody limits a detector to fewer
LARGEST_KEY = 1 << 62
LARGEST_TABLE = 1 << 28  # bytes; more pairs than that are looked up in sorted order


def highest_scores(
    group: NDArray[np.int64], scores: NDArray[np.float64], limit: int
) -> NDArray[np.int64]:
    """Indices, rising, of the ``limit`` highest scores of each group; ties in file order.

    Args:
        group: (N,) numbers >= 0 of what the limit is for: image, category or pair.
        scores: (N,).
        limit: How many of a group are kept.
    """
    if len(group) == 0:
        return np.zeros(0, dtype=np.int64)
    if int(group.max()) >= len(group):  # few of many numbers
        group = np.unique(group, return_inverse=True)[1]
    crowded = np.bincount(group) > limit
    if not crowded.any():
        return np.arange(len(scores))
    index = np.flatnonzero(crowded[group])
    order = index[order_by_group(group[index], scores[index])]
    place = np.arange(len(order)) - np.searchsorted(group[order], group[order])
    kept = np.ones(len(scores), dtype=bool)
    kept[order[place >= limit]] = False
    return np.flatnonzero(kept)


def order_by_group(group: NDArray[np.int64], scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """(N,) ``np.lexsort((-scores, group))`` three times as fast: one unstable sort of one number.

    Args:
        group: (N,) numbers >= 0.
        scores: (N,) finite.
    """
    size = len(scores)
    if size == 0 or int(group.max()) >= LARGEST_KEY // size:
        return np.lexsort((-scores, group))
    falling = np.argsort(-scores)
    ranked = scores[falling]
    rank = np.empty(size, dtype=np.int64)
    rank[falling] = np.concatenate(([0], np.cumsum(ranked[1:] != ranked[:-1])))
    keys = group * size + rank
    order = np.argsort(keys)
    tied = keys[order[1:]] == keys[order[:-1]]
    return np.argsort(keys, kind="stable") if tied.any() else order


def labelled(
    truth: GroundTruth, image: NDArray[np.int64], category: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether it is known if each image shows the category beside it."""
    known = PairSet(truth, np.concatenate((truth.pairs, truth.negative_pairs)))
    return truth.exhaustive[image] | known.contains(image, category)


class PairSet:
    """Pairs of an image and a category, to be asked for millions of others.

    Args:
        truth: What the pairs are of.
        pairs: Its members, in any order, as ``truth.pairs``.
    """

    def __init__(self, truth: GroundTruth, pairs: NDArray[np.int64]) -> None:
        self._images = len(truth.image_ids)
        size = (len(truth.category_ids) + 1) * self._images  # the first row is of no category
        self._members = pairs + self._images
        self._table = None
        if size <= LARGEST_TABLE:
            self._table = np.zeros(size, dtype=bool)
            self._table[self._members] = True

    def contains(self, image: NDArray[np.int64], category: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(N,) whether each image has the category beside it; -1 is none."""
        pairs = (category + 1) * self._images + image
        return np.isin(pairs, self._members) if self._table is None else self._table.take(pairs)


def limit_warnings(image: NDArray[np.int64], num_images: int) -> tuple[str, ...]:
    """AP_fixed and AP_pool mean something else if the detector kept so many of every image.

    A limit shows as many images with the largest number of detections and few with one less; small
    numbers, as of results above a high score, are the same in many images without any limit.
    """
    count = np.bincount(image, minlength=num_images)
    most = int(count.max(initial=0))
    cut, one_less = int((count == most).sum()), int((count == most - 1).sum())
    if most < LEAST_LIMIT or cut < max(2, num_images // 20) or cut <= 2 * one_less:
        return ()
    line = (
        f"{cut} of {num_images} images have exactly {most} detections and none has more; AP_fixed "
        "and AP_pool are defined for detectors without a limit per image"
    )
    logger.warning(line)
    return (line,)
