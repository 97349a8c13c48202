"""Average precision of resampled image sets, without evaluating again.

An image drawn twice counts twice: all its objects and detections do. So a resampled set is a weight
for each image, and the matching, which is inside images, stays as it is. Only the sums of true and
false positives before each true positive change, and those are sums of weights.

With whole weights the result is that of the evaluation of the set in which each image stands as
often as its weight says, copies next to each other.

Shapes: R resampled sets, I images, K categories, T IoU thresholds; of one category: N detections by
falling score, M of them overlapping an object, P true positives at one threshold.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eql_d2.evaluation.matches import Matches
from eql_d2.evaluation.matching import UNMATCHED
from eql_d2.evaluation.precision import RECALLS, rank_detections

_LARGEST_BLOCK = 1 << 23  # weights held at once, 64 MB


def image_weights(
    generator: np.random.Generator, num_images: int, num_samples: int
) -> NDArray[np.float64]:
    """How often each image is drawn when as many as there are are drawn with replacement.

    Returns: (I, R) whole numbers; each column has the sum I.
    """
    drawn = generator.multinomial(num_images, np.full(num_images, 1 / num_images), num_samples)
    return np.ascontiguousarray(drawn.T, dtype=np.float64)


def resampled_category_ap(
    matches: Matches, weights: NDArray[np.float64], area: int = 0
) -> NDArray[np.float64]:
    """AP of every category in resampled image sets.

    Args:
        matches: From :func:`eql_d2.evaluation.matches.match_detections`.
        weights: (I, R) how often each image stands in each set.
        area: Index of the area range.

    Returns: (R, K) from 0 to 1; NaN where a set has no object of the category that counts.
    """
    num_categories = matches.num_categories
    ranking = rank_detections(matches.category, matches.scores, num_categories)
    by_place = np.empty(len(matches), dtype=np.int64)
    by_place[ranking.position] = np.arange(len(matches))
    row = np.full(len(matches), -1)  # of each detection in matched
    row[matches.overlapping] = np.arange(len(matches.overlapping))
    truths = np.flatnonzero(~matches.ignored[area])
    truths = truths[np.argsort(matches.truth_category[truths], kind="stable")]
    edges = np.searchsorted(matches.truth_category[truths], np.arange(num_categories + 1))
    result = np.full((weights.shape[1], num_categories), np.nan)
    for k in np.flatnonzero(np.diff(edges)):
        objects = weights[matches.truth_image[truths[edges[k] : edges[k + 1]]]].sum(axis=0)
        own = by_place[ranking.category_start[k] : ranking.category_start[k + 1]]
        overlapping = np.flatnonzero(row[own] >= 0)
        counts = matches.counts_unmatched[area][own]
        taken = matches.matched[area][:, row[own[overlapping]]]
        result[:, k] = _average_precision(
            weights, matches.image[own], overlapping, counts, taken, matches.ignored[area], objects
        )
        result[objects == 0, k] = np.nan
    return result


def _average_precision(
    weights: NDArray[np.float64],
    image: NDArray[np.int64],
    overlapping: NDArray[np.int64],
    counts: NDArray[np.bool_],
    taken: NDArray[np.int32],
    ignored: NDArray[np.bool_],
    objects: NDArray[np.float64],
) -> NDArray[np.float64]:
    """AP of one category.

    Args:
        weights: (I, R).
        image: (N,) image of each detection.
        overlapping: (M,) rising indices into the detections.
        counts: (N,) whether a detection is a false positive if it is unmatched.
        taken: (T, M) object of each overlapping detection, or UNMATCHED.
        ignored: (G,) objects that do not count.
        objects: (R,) weight of the objects that count.

    Returns: (R,).
    """
    right = (taken != UNMATCHED) & ~np.append(ignored, True)[taken]
    last = int(np.flatnonzero(right.any(axis=0)).max(initial=-1)) + 1
    if last == 0:
        return np.zeros(weights.shape[1])
    overlapping, taken, right = overlapping[:last], taken[:, :last], right[:, :last]
    own = weights[image[overlapping]]  # (M, R)
    counted = counts[overlapping]
    # Right or wrong, what counts stands before; only these two differ between thresholds.
    before = _plain_wrong_before(weights, image, overlapping, counts)
    before += _running(np.add, own * counted[:, None])
    added = right & ~counted
    removed = (taken != UNMATCHED) & ~right & counted
    total = np.zeros(weights.shape[1])
    for t in np.flatnonzero(right.any(axis=1)):
        correct, precision = _curve(right[t], before, own, added[t], removed[t])
        total += _area_under(correct, precision, objects)
    return total / len(taken)


def _curve(
    right: NDArray[np.bool_],
    before: NDArray[np.float64],
    own: NDArray[np.float64],
    added: NDArray[np.bool_],
    removed: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """True positives so far and precision at each true positive, at one threshold.

    Args:
        right: (M,) whether an overlapping detection is a true positive.
        before: (M, R) weight of what counts if it is unmatched.
        own: (M, R) weight of each.
        added: (M,) right, but not in ``before``.
        removed: (M,) neither right nor wrong, but in ``before``.

    Returns: both (P, R).
    """
    at = np.flatnonzero(right)
    correct = _running(np.add, own[at])
    judged = before[at]
    if added.any():
        judged += _running(np.add, own * added[:, None])[at]
    if removed.any():
        judged += -_running(np.add, own * removed[:, None])[at]
    judged += np.spacing(1)
    return correct, correct / judged


def _running(function: np.ufunc, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Accumulate over the rows of an array, in place.

    NumPy's own accumulation goes down one column after the other, which takes ten times as long.
    """
    for i in range(1, len(rows)):
        function(rows[i - 1], rows[i], out=rows[i])
    return rows


def _plain_wrong_before(
    weights: NDArray[np.float64],
    image: NDArray[np.int64],
    overlapping: NDArray[np.int64],
    counts: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """(M, R) weight of the false positives without any overlap before each detection with one."""
    plain = counts.copy()
    plain[overlapping] = False
    index = np.flatnonzero(plain[: overlapping[-1]])
    gap = np.searchsorted(overlapping, index)  # the overlapping detection that follows
    sums = np.zeros((len(overlapping), weights.shape[1]))
    step = max(1, _LARGEST_BLOCK // weights.shape[1])
    for start in range(0, len(index), step):
        part = gap[start : start + step]
        first = np.flatnonzero(np.diff(part, prepend=-1))
        block = weights[image[index[start : start + step]]]
        sums[part[first]] += np.add.reduceat(block, first, axis=0)
    return _running(np.add, sums)


def _area_under(
    correct: NDArray[np.float64], precision: NDArray[np.float64], objects: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean over 101 recall values of the highest precision at or after each.

    Args:
        correct: (P, R) true positives so far; destroyed.
        precision: (P, R) at each true positive; destroyed.
        objects: (R,) where it is 0, the result means nothing.

    Returns: (R,).
    """
    _running(np.maximum, precision[::-1])
    recall = np.divide(correct, np.maximum(objects, 1e-300), out=correct)
    nearest = np.rint(recall * (len(RECALLS) - 1)).astype(np.int64)
    np.minimum(nearest, len(RECALLS) - 1, out=nearest)
    reached = nearest + (RECALLS[nearest] <= recall)  # recall values at or below
    precision[1:] *= np.diff(reached, axis=0)
    precision[0] *= reached[0]
    return precision.sum(axis=0) / len(RECALLS)
