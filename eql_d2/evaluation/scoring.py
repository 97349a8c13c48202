"""From detections and objects as arrays to an :class:`Evaluation`.

Shapes: T IoU thresholds, K categories, A area ranges.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from eql_d2.evaluation.ground_truth import GroundTruth
from eql_d2.evaluation.matches import Matches, match_detections
from eql_d2.evaluation.precision import precision_at_recalls, rank_detections
from eql_d2.evaluation.report import (
    CategoryRow,
    Evaluation,
    describe_support,
    mean_precision,
    summarize,
)
from eql_d2.evaluation.results import Detections
from eql_d2.evaluation.selection import highest_scores, label_warnings, labelled
from eql_d2.evaluation.thresholds import AREA_RANGES, outside


def evaluate_arrays(
    truth: GroundTruth,
    detections: Detections,
    iou_types: Sequence[str],
    max_detections: int,
) -> Evaluation:
    """Score detections; the arguments are those of :func:`eql_d2.evaluation.evaluate`."""
    limited = highest_scores(detections.image, detections.scores, max_detections)
    image, category = detections.image[limited], detections.category[limited]
    kept = limited[labelled(truth, image, category)]
    warnings = label_warnings(truth, image, category, len(kept))
    num_truths = _objects_that_count(truth)
    support = describe_support(num_truths > 0, truth.groups)
    metrics: dict[str, float | None] = {}
    per_category: dict[str, list[float | None]] = {}
    for kind in iou_types:
        precision = category_precision(match_detections(truth, detections, kind, kept))
        values = summarize(precision, truth.groups)
        metrics |= {f"{kind}/{name}": value for name, value in values.items()}
        per_category[kind] = [
            mean_precision(precision[0][:, :, k]) for k in range(len(truth.category_ids))
        ]
    rows = _category_rows(truth, detections.category[kept], per_category)
    return Evaluation(metrics, support, rows, warnings)


def category_precision(matches: Matches) -> list[NDArray[np.float64]]:
    """Precision (T, 101, K) of every category, for each of the A area ranges."""
    ranking = rank_detections(matches.category, matches.scores, matches.num_categories)
    return [
        precision_at_recalls(
            ranking,
            matches.counts_unmatched[area],
            matches.overlapping,
            matches.matched[area],
            matches.ignored[area],
            num_truths,
        )
        for area, num_truths in enumerate(matches.num_truths)
    ]


def _objects_that_count(truth: GroundTruth) -> NDArray[np.int64]:
    """(A, K) objects in each area range."""
    size = len(truth.category_ids)
    return np.stack(
        [
            np.bincount(
                truth.category[~(truth.ignored | outside(truth.areas, area))], minlength=size
            )
            for area in AREA_RANGES
        ]
    )


def _category_rows(
    truth: GroundTruth,
    detected: NDArray[np.int64],
    per_category: dict[str, list[float | None]],
) -> tuple[CategoryRow, ...]:
    size = len(truth.category_ids)
    images = np.bincount(np.unique(truth.pairs) // len(truth.image_ids), minlength=size)
    instances = np.bincount(truth.category, minlength=size)
    detections = np.bincount(detected, minlength=size)
    return tuple(
        CategoryRow(
            category_id=int(truth.category_ids[k]),
            name=truth.names[k],
            group=None if truth.groups is None else truth.groups[k],
            images=int(images[k]),
            instances=int(instances[k]),
            detections=int(detections[k]),
            ap={kind: values[k] for kind, values in per_category.items()},
        )
        for k in range(size)
    )
