"""Greedy matching of detections to objects, all (image, category) pairs at once.

Inside a pair the official code goes through the detections by falling score; each takes, of the
objects still free with IoU >= threshold, one that counts before one that is ignored, then the one
of highest IoU, then the one that comes last in the file. Pairs do not influence each other, so
round r handles the r-th detection of every pair in a few array operations.

Shapes: E overlaps, M detections with at least one overlap, G objects, T thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eql_d2.evaluation.overlaps import Overlaps

UNMATCHED = -1


@dataclass(frozen=True)
class Round:
    """The overlaps and detections of one round, as ranges of the arrays of :class:`Rounds`."""

    overlaps: slice
    detections: slice
    first_overlap: NDArray[np.int64]  # of each detection, counted from overlaps.start


@dataclass(frozen=True)
class Rounds:
    """Overlaps ordered by round.

    Attributes:
        detection: (M,) rising, the detections that have an overlap.
        column: (M,) indices into them, in the order of the rounds.
        truth: (E,) object of each overlap.
        iou: (E,).
        preference: (E,) the overlaps from the worst to the best, ignored objects aside.
        rounds: Ranges of ``column``, ``truth`` and ``iou``.
    """

    detection: NDArray[np.int64]
    column: NDArray[np.int64]
    truth: NDArray[np.int64]
    iou: NDArray[np.float64]
    preference: NDArray[np.int64]
    rounds: list[Round]


def plan_rounds(overlaps: Overlaps, detection_pairs: NDArray[np.int64]) -> Rounds:
    """Order ``overlaps`` so that each round is contiguous.

    Args:
        overlaps: Sorted by detection.
        detection_pairs: Pair of each detection; detections are sorted by pair, then falling score.
    """
    detection, start, count = np.unique(overlaps.detection, return_index=True, return_counts=True)
    pair = detection_pairs[detection]
    turn = np.arange(len(pair)) - np.searchsorted(pair, pair)  # position inside its pair
    order = np.argsort(turn, kind="stable")
    count = count[order]
    stop = np.cumsum(count)
    entries = np.arange(int(count.sum())) + np.repeat(start[order] - (stop - count), count)
    edges = np.concatenate(([0], np.cumsum(np.bincount(turn)))) if len(turn) else np.zeros(1, int)
    offsets = np.concatenate(([0], stop))
    rounds = [
        Round(slice(offsets[a], offsets[b]), slice(a, b), offsets[a:b] - offsets[a])
        for a, b in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    ]
    truth, iou = overlaps.truth[entries], overlaps.iou[entries]
    return Rounds(detection, order, truth, iou, np.lexsort((truth, iou)), rounds)


def match(
    plan: Rounds,
    ignored: NDArray[np.bool_],
    crowd: NDArray[np.bool_],
    thresholds: NDArray[np.float64],
) -> NDArray[np.int32]:
    """Match detections to objects.

    Args:
        plan: From :func:`plan_rounds`.
        ignored: (G,) objects that only take a detection that no other object takes.
        crowd: (G,) objects that stay free after being taken.
        thresholds: (T,) IoU thresholds.

    Returns:
        (T, M) the object taken by each of ``plan.detection`` at each threshold, or UNMATCHED.
    """
    unwanted = ignored[plan.truth[plan.preference]]
    preference = np.concatenate((plan.preference[unwanted], plan.preference[~unwanted]))
    rank = np.empty(len(preference), dtype=np.int64)
    rank[preference] = np.arange(1, len(preference) + 1)  # 0 is for "cannot be taken"
    ranked_truth = plan.truth[preference]
    taken = np.zeros((len(thresholds), len(ignored)), dtype=bool)
    result = np.full((len(thresholds), len(plan.detection)), UNMATCHED, dtype=np.int32)
    for step in plan.rounds:
        truth = plan.truth[step.overlaps]
        free = (plan.iou[step.overlaps] >= thresholds[:, None]) & ~taken[:, truth]
        best = np.maximum.reduceat(
            np.where(free, rank[step.overlaps], 0), step.first_overlap, axis=1
        )
        row, column = np.nonzero(best)
        winner = ranked_truth[best[row, column] - 1]
        result[row, plan.column[step.detections][column]] = winner
        taken[row, winner] = ~crowd[winner]
    return result
