"""The numbers of an evaluation, how many categories stand behind each, and the files made of them.

Shapes: T IoU thresholds, K categories; A areas (all, small, medium, large).
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eql_d2.evaluation.json_file import atomic_text_file
from eql_d2.evaluation.precision import UNDEFINED

AREA_NAMES = ("", "small ", "medium ", "large ")
GROUP_NAMES = {"r": "rare", "c": "common", "f": "frequent"}


@dataclass(frozen=True)
class Metric:
    """Which part of the precision array a metric is the mean of."""

    name: str
    threshold: int | None = None  # index into IOU_THRESHOLDS; None is all
    area: int = 0  # index into AREA_RANGES
    group: str | None = None


METRICS = (
    Metric("AP"),
    Metric("AP50", threshold=0),
    Metric("AP75", threshold=5),
    Metric("APs", area=1),
    Metric("APm", area=2),
    Metric("APl", area=3),
    Metric("APr", group="r"),
    Metric("APc", group="c"),
    Metric("APf", group="f"),
)


@dataclass(frozen=True)
class CategoryRow:
    """One line of per_category.csv; AP in percent, None where the category has no object."""

    category_id: int
    name: str
    group: str | None
    images: int
    instances: int
    detections: int
    ap: dict[str, float | None]


@dataclass(frozen=True)
class Evaluation:
    """Average precision of one results file.

    Attributes:
        metrics: "bbox/AP" ... "segm/APf" in percent, None where no category is behind a number.
        support: metric name without its "bbox/" -> in words, how many categories are behind it.
        categories: One entry a category, sorted by id.
        warnings: What the reader of the numbers must know.
    """

    metrics: dict[str, float | None]
    support: dict[str, str]
    categories: tuple[CategoryRow, ...]
    warnings: tuple[str, ...] = ()

    def table(self) -> str:
        """The metrics as text, one line a metric, with the number of categories behind it."""
        iou_types = list(dict.fromkeys(key.split("/")[0] for key in self.metrics))
        lines = [f"{'':5}" + "".join(f"{kind:>8}" for kind in iou_types) + "  behind it"]
        for name, support in self.support.items():
            values = [self.metrics[f"{kind}/{name}"] for kind in iou_types]
            if all(value is None for value in values):
                lines.append(f"{name:5}  n/a ({support})")
            else:
                cells = "".join(f"{'n/a' if v is None else f'{v:.2f}':>8}" for v in values)
                lines.append(f"{name:5}{cells}  {support}")
        return "\n".join([*lines, *(f"warning: {warning}" for warning in self.warnings)])

    def write(self, output_dir: str | os.PathLike[str]) -> None:
        """Write ``metrics.json`` (flat keys, null for undefined) and ``per_category.csv``."""
        with atomic_text_file(Path(output_dir) / "metrics.json") as file:
            json.dump(self.metrics, file, indent=2)
            file.write("\n")
        kinds = list(self.categories[0].ap) if self.categories else []
        with atomic_text_file(Path(output_dir) / "per_category.csv") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(
                ["category_id", "name", "group", "images", "instances", "detections"]
                + [f"{kind}/AP" for kind in kinds]
            )
            for row in self.categories:
                ap = ["" if row.ap[kind] is None else repr(row.ap[kind]) for kind in kinds]
                group = row.group or ""
                counts = [row.images, row.instances, row.detections]
                writer.writerow([row.category_id, row.name, group, *counts, *ap])


def summarize(
    precision: Sequence[NDArray[np.float64]], groups: Sequence[str] | None
) -> dict[str, float | None]:
    """The nine metrics in percent from A arrays (T, 101, K)."""
    values: dict[str, float | None] = {}
    for metric in METRICS:
        part = precision[metric.area]
        if metric.threshold is not None:
            part = part[metric.threshold]
        if metric.group is not None:
            members = [k for k, group in enumerate(groups or ()) if group == metric.group]
            part = part[..., members]
        values[metric.name] = mean_precision(part)
    return values


def mean_precision(part: NDArray[np.float64]) -> float | None:
    """Mean of the defined entries in percent; None if there are none."""
    defined = part[part > UNDEFINED]
    return float(np.mean(defined) * 100) if len(defined) else None


def describe_support(has_truth: NDArray[np.bool_], groups: Sequence[str] | None) -> dict[str, str]:
    """In words, the categories behind each metric.

    Args:
        has_truth: (A, K) whether a category has an object that counts in an area range.
        groups: K of "r", "c", "f", or None if not known.
    """
    support = {}
    for metric in METRICS:
        behind, kind = has_truth[metric.area], ""
        if metric.group is not None:
            kind = GROUP_NAMES[metric.group] + " "
            if groups is None:
                support[metric.name] = f"no category is known to be {GROUP_NAMES[metric.group]}"
                continue
            behind = behind[[group == metric.group for group in groups]]
        what = f"{AREA_NAMES[metric.area]}ground truth"
        support[metric.name] = f"{behind.sum()} of {len(behind)} {kind}categories have {what}"
    return support
