"""By how much average precision differs between two results files: what rounding costs."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence

from eql_d2.errors import ResultsError
from eql_d2.evaluation.average_precision import evaluate

LARGEST_CHANGE = 1e-4  # percent points
NO_LIMIT = 2**31  # detections an image


def metric_changes(
    before: Mapping[str, float | None], after: Mapping[str, float | None]
) -> dict[str, float]:
    """By how much each metric differs; by infinity where it is known on one side only."""
    changes = {}
    for name in {**before, **after}:
        old, new = before.get(name), after.get(name)
        if old is None or new is None:
            same = old is new and (name in before) == (name in after)
            changes[name] = 0.0 if same else math.inf
        else:
            changes[name] = abs(old - new)
    return changes


def largest_ap_change(
    annotations: str | os.PathLike[str],
    before: str | os.PathLike[str],
    after: str | os.PathLike[str],
    iou_types: Sequence[str],
    max_detections: int,
) -> float:
    """The largest difference of any metric between two results files, in percent points.

    Args:
        annotations: With objects.
        before: Results file.
        after: The same detections, or those of them that count.
        iou_types: "bbox", "segm" or both.
        max_detections: Of an image; 0 is no limit.

    Raises:
        ResultsError: The difference is 1e-4 or more.
    """
    limit = max_detections or NO_LIMIT
    old, new = (
        evaluate(annotations, path, iou_types=iou_types, max_detections=limit).metrics
        for path in (before, after)
    )
    changes = metric_changes(old, new)
    worst = max(changes, key=changes.__getitem__)
    if not changes[worst] < LARGEST_CHANGE:
        raise ResultsError(
            f"{worst} would change from {old[worst]} to {new[worst]} percent, which is not less "
            f"than {LARGEST_CHANGE}; nothing was written; pack without rounding"
        )
    return changes[worst]
