"""Precision at 101 recall values from matched detections.

Precision rises only at true positives, so the whole curve follows from how many false positives
stand before each true positive; unmatched detections are only counted, once for all thresholds.

Shapes: D detections, M of them with an overlap, G objects, T thresholds, K categories.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eql_d2.evaluation.matching import UNMATCHED

RECALLS = np.linspace(0.0, 1.0, 101)
UNDEFINED = -1.0  # precision of a category without objects


@dataclass(frozen=True)
class Ranking:
    """The detections of each category by falling score.

    Attributes:
        position: (D,) place of each detection, categories one after the other.
        category_start: (K + 1,) first place of each category.
    """

    position: NDArray[np.int64]
    category_start: NDArray[np.int64]


def rank_detections(
    category: NDArray[np.int64], scores: NDArray[np.float64], num_categories: int
) -> Ranking:
    """Rank detections that are sorted by category, image and falling score; ties keep order."""
    category_start = np.searchsorted(category, np.arange(num_categories + 1))
    position = np.empty(len(scores), dtype=np.int64)
    for start, stop in itertools.pairwise(category_start.tolist()):
        order = np.argsort(-scores[start:stop], kind="stable")
        position[start + order] = np.arange(start, stop)
    return Ranking(position, category_start)


def precision_at_recalls(
    ranking: Ranking,
    counts_unmatched: NDArray[np.bool_],
    matched_detection: NDArray[np.int64],
    matched_truth: NDArray[np.int64],
    ignored: NDArray[np.bool_],
    num_truths: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Interpolated precision of each category.

    Args:
        ranking: From :func:`rank_detections`.
        counts_unmatched: (D,) whether a detection without a match is a false positive.
        matched_detection: (M,) detections that may have a match.
        matched_truth: (T, M) their object at each threshold, or UNMATCHED.
        ignored: (G,) objects whose detections are neither right nor wrong.
        num_truths: (K,) objects that count; the result is UNDEFINED where there is none.

    Returns: (T, 101, K).
    """
    zeros = np.zeros((len(matched_truth), len(RECALLS), 1))
    precision = np.where(num_truths > 0, zeros, UNDEFINED)
    by_place = np.empty_like(counts_unmatched)
    by_place[ranking.position] = counts_unmatched
    unmatched_before = np.append(0, np.cumsum(by_place))
    order = np.argsort(ranking.position[matched_detection])
    place = ranking.position[matched_detection[order]]
    otherwise_wrong = by_place[place]
    needed = _needed_true_positives(num_truths)
    for t, truth in enumerate(matched_truth[:, order]):
        is_matched = truth != UNMATCHED
        kinds = is_matched & otherwise_wrong, is_matched & ~ignored[truth]
        curve, edges = _curve(unmatched_before, ranking.category_start, place, *kinds)
        found = np.diff(edges)
        some = np.flatnonzero((num_truths > 0) & (found > 0))
        precision[t][:, some] = _interpolate(curve, edges[some], found[some], needed[some]).T
    return precision


def _curve(
    unmatched_before: NDArray[np.int64],
    category_start: NDArray[np.int64],
    place: NDArray[np.int64],
    is_rescued: NDArray[np.bool_],
    is_right: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Precision at each true positive, and the (K + 1,) edges between categories.

    Args:
        unmatched_before: (D + 1,) false positives before each place if nothing had a match.
        category_start: (K + 1,) first place of each category.
        place: (M,) rising, of the detections that may have a match.
        is_rescued: (M,) whether one keeps them from being false positives.
        is_right: (M,) whether it makes them true positives.
    """
    rescued = np.append(0, np.cumsum(is_rescued))
    first = np.searchsorted(place, category_start)  # matched before each category
    right = np.flatnonzero(is_right)
    edges = np.searchsorted(right, first)
    right = right[: edges[-1]]  # what stands behind belongs to no pool of categories
    found = np.diff(edges)
    at_start = unmatched_before[category_start] - rescued[first]
    wrong_before = unmatched_before[place[right] + 1] - rescued[right + 1]
    wrong_before -= np.repeat(at_start[:-1], found)
    right_before = np.arange(1.0, len(right) + 1) - np.repeat(edges[:-1], found)
    return right_before / (wrong_before + right_before + np.spacing(1)), edges


def _interpolate(
    curve: NDArray[np.float64],
    start: NDArray[np.int64],
    found: NDArray[np.int64],
    needed: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Highest precision at or after each recall value, (K, 101).

    Args:
        curve: (N,) precision at each true positive, categories one after the other.
        start: (K,) first true positive of each category.
        found: (K,) its number of true positives, at least 1.
        needed: (K, 101) true positives that reach each recall value; the first is 1.
    """
    reached = needed <= found[:, None]
    result = np.zeros(reached.shape)
    if len(curve):
        # The highest between one recall value and the next; the last one reached goes up to the
        # next category, which begins with its first true positive.
        between = (start[:, None] + needed - 1)[reached]
        result[reached] = np.maximum.reduceat(curve, between)
    return np.maximum.accumulate(result[:, ::-1], axis=1)[:, ::-1]


def _needed_true_positives(num_truths: NDArray[np.int64]) -> NDArray[np.int64]:
    """(K, 101) the fewest true positives with recall >= each value; 1 for categories without."""
    numbers, category = np.unique(num_truths, return_inverse=True)
    needed = np.ones((len(numbers), len(RECALLS)), dtype=np.int64)
    for row, number in zip(needed, numbers.tolist(), strict=True):
        if number > 0:
            row[:] += np.searchsorted(np.arange(1, number + 1) / number, RECALLS, side="left")
    return needed[category]
