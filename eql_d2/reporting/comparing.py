"""Compare every configuration with the first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eql_d2.evaluation.bootstrap import resample_results
from eql_d2.evaluation.comparison import Comparison, compare_results
from eql_d2.reporting.runs import Side, groups_of
from eql_d2.reporting.summary import kinds_of

IOU_TYPES = ("bbox", "segm")


def compare_sides(
    sides: Sequence[Side], annotations: str | Path, num_samples: int
) -> list[Comparison]:
    """Compare the results files of every later side with those of the first.

    The groups are those of the runs' own metrics, or the annotations' where the runs know none.

    Args:
        sides: The baseline first; runs without a results file take no part.
        annotations: Of the test images.
        num_samples: Resampled sets.

    Returns:
        One comparison for each later side that has a results file; none if the first has none.
    """
    files: list[Path] = []
    places: list[list[int]] = []
    for side in sides:
        own = [run.results for run in side.runs if run.results is not None]
        places.append(list(range(len(files), len(files) + len(own))))
        files += own
    later = [number for number in range(1, len(sides)) if places[number]]
    if not later or not places[0]:
        return []
    kinds = [kind for kind in IOU_TYPES if kind in kinds_of(sides)]
    letters, source = groups_of(sides)
    resampled = resample_results(
        annotations,
        files,
        iou_types=kinds,
        groups=letters or None,
        groups_source=source,
        num_samples=num_samples,
    )
    return [
        compare_results(resampled, places[0], places[n], names=(sides[0].name, sides[n].name))
        for n in later
    ]
