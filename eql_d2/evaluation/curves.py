"""Precision and recall from matches: of each category, of categories pooled.

Shapes: A area ranges, T IoU thresholds, K categories, P pools, D detections.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eql_d2.evaluation.matches import Matches
from eql_d2.evaluation.precision import (
    UNDEFINED,
    Ranking,
    precision_at_recalls,
    rank_detections,
)


def category_precision(matches: Matches) -> list[NDArray[np.float64]]:
    """Precision (T, 101, K) of every category, for each of the A area ranges."""
    ranking = rank_detections(matches.category, matches.scores, matches.num_categories)
    return _precision(matches, ranking, matches.num_truths)


def pooled_precision(
    matches: Matches, pool: NDArray[np.int64], num_pools: int
) -> list[NDArray[np.float64]]:
    """Precision (T, 101, P) of pools of categories, for each of the A area ranges.

    All detections of a pool are ranked together by their scores, equal scores by image, then
    category; matching stays inside the categories.

    Args:
        matches: What was matched.
        pool: (K,) 0..P-1, or -1 for a category of no pool.
        num_pools: P.
    """
    member = np.where(pool < 0, num_pools, pool)
    own = member[matches.category]
    order = np.lexsort((matches.category, matches.image, -matches.scores, own))
    position = np.empty(len(order), dtype=np.int64)
    position[order] = np.arange(len(order))
    start = np.searchsorted(own[order], np.arange(num_pools + 1))
    num_truths = np.stack(
        [
            np.bincount(member, weights=row, minlength=num_pools)[:num_pools].astype(np.int64)
            for row in matches.num_truths
        ]
    )
    return _precision(matches, Ranking(position, start), num_truths)


def _precision(
    matches: Matches, ranking: Ranking, num_truths: NDArray[np.int64]
) -> list[NDArray[np.float64]]:
    return [
        precision_at_recalls(
            ranking,
            matches.counts_unmatched[area],
            matches.overlapping,
            matches.matched[area],
            matches.ignored[area],
            counted,
        )
        for area, counted in enumerate(num_truths)
    ]


def category_recall(matches: Matches) -> list[NDArray[np.float64]]:
    """Share of the objects found (T, K), for each of the A area ranges; UNDEFINED without one."""
    category = matches.category[matches.overlapping]
    size = matches.num_categories
    result = []
    for matched, ignored, num_truths in zip(
        matches.matched, matches.ignored, matches.num_truths, strict=True
    ):
        counts = np.append(~ignored, False)  # the last stands for UNMATCHED
        right = [np.bincount(category[counts[taken]], minlength=size) for taken in matched]
        result.append(np.where(num_truths > 0, right / np.maximum(num_truths, 1), UNDEFINED))
    return result
