"""The numbers of an evaluation, how many categories stand behind each, and the files made of them.

Shapes: A areas (all, small, medium, large), T IoU thresholds, K categories.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eql_d2.evaluation.precision import UNDEFINED
from eql_d2.files import atomic_text_file, csv_text

AREA_NAMES = ("", "small ", "medium ", "large ")
GROUP_NAMES = {"r": "rare", "c": "common", "f": "frequent"}
GROUPS_LABEL = "/".join(GROUP_NAMES.values())


@dataclass(frozen=True)
class Metric:
    """Which part of the precision or recall arrays a metric is the mean of."""

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
RECALLS = (
    Metric("AR"),
    Metric("ARs", area=1),
    Metric("ARm", area=2),
    Metric("ARl", area=3),
    Metric("ARr", group="r"),
    Metric("ARc", group="c"),
    Metric("ARf", group="f"),
)


@dataclass(frozen=True)
class CategoryRow:
    """One line of per_category.csv; values in percent, None where the category has no object.

    Attributes:
        category_id, name, group: The category.
        images, instances: Images and objects of it in the annotations.
        detections: Those that count for AP.
        ap: IoU type -> LVIS AP.
        more: other per-category metrics, for example "bbox/AP_fixed".
    """

    category_id: int
    name: str
    group: str | None
    images: int
    instances: int
    detections: int
    ap: dict[str, float | None]
    more: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """The metrics of one results file.

    Attributes:
        metrics: "bbox/AP" ... "segm/APf" in percent, None where no category is behind a number.
        support: metric name without its "bbox/" -> in words, how many categories are behind it.
        categories: One entry a category, sorted by id.
        warnings: What the reader of the numbers must know.
        groups_source: In words, where the groups r, c, f come from; "" if no metric is about them
            or they are not known.
    """

    metrics: dict[str, float | None]
    support: dict[str, str]
    categories: tuple[CategoryRow, ...]
    warnings: tuple[str, ...] = ()
    groups_source: str = field(default="", compare=False)

    def table(self) -> str:
        """The metrics as text, one line a metric, with the number of categories behind it.

        Below them a line says by which definition categories are rare, common and frequent.
        The warnings come last, where they are seen, although each was logged when it was found.
        """
        kinds = list(dict.fromkeys(key.split("/")[0] for key in self.metrics))
        columns = {kind: max(8, len(kind) + 2) for kind in kinds}
        width = max([5, *(len(name) + 1 for name in self.support)])
        header = "".join(f"{kind:>{size}}" for kind, size in columns.items())
        lines = [f"{'':{width}}{header}  behind it"]
        for name, support in self.support.items():
            values = {kind: self.metrics.get(f"{kind}/{name}") for kind in kinds}
            if all(value is None for value in values.values()):
                lines.append(f"{name:{width}}  n/a ({support})")
                continue
            cells = ""
            for kind, value in values.items():
                undefined = "n/a" if f"{kind}/{name}" in self.metrics else ""
                cells += f"{undefined if value is None else f'{value:.2f}':>{columns[kind]}}"
            lines.append(f"{name:{width}}{cells}  {support}")
        if self.groups_source:
            lines.append(f"{GROUPS_LABEL}: {self.groups_source}")
        return "\n".join([*lines, *(f"warning: {warning}" for warning in self.warnings)])

    def write(self, output_dir: str | os.PathLike[str]) -> None:
        """Write ``metrics.json`` (flat keys, null for undefined) and ``per_category.csv``."""
        with atomic_text_file(Path(output_dir) / "metrics.json") as file:
            json.dump(self.metrics, file, indent=2)
            file.write("\n")
        columns = list(_values(self.categories[0])) if self.categories else []
        with atomic_text_file(Path(output_dir) / "per_category.csv") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(
                ["category_id", "name", "group", "images", "instances", "detections", *columns]
            )
            for row in self.categories:
                values = ["" if value is None else repr(value) for value in _values(row).values()]
                words = [csv_text(row.name), row.group or ""]
                counts = [row.images, row.instances, row.detections]
                writer.writerow([row.category_id, *words, *counts, *values])


def _values(row: CategoryRow) -> dict[str, float | None]:
    return {f"{kind}/AP": value for kind, value in row.ap.items()} | row.more


def summarize(
    metrics: Sequence[Metric], arrays: Sequence[NDArray[np.float64]], groups: Sequence[str] | None
) -> dict[str, float | None]:
    """The metrics in percent from A arrays (T, ..., K)."""
    values: dict[str, float | None] = {}
    for metric in metrics:
        part = arrays[metric.area]
        if metric.threshold is not None:
            part = part[metric.threshold]
        if metric.group is not None:
            members = [k for k, group in enumerate(groups or ()) if group == metric.group]
            part = part[..., members]
        values[metric.name] = mean_defined(part)
    return values


def mean_defined(part: NDArray[np.float64]) -> float | None:
    """Mean of the defined entries in percent; None if there are none."""
    defined = part[part > UNDEFINED]
    return float(np.mean(defined) * 100) if len(defined) else None


def describe_support(
    metrics: Sequence[Metric], has_truth: NDArray[np.bool_], groups: Sequence[str] | None
) -> dict[str, str]:
    """In words, the categories behind each metric.

    Args:
        metrics: What to describe.
        has_truth: (A, K) whether a category has an object that counts in an area range.
        groups: K of "r", "c", "f", or None if not known.
    """
    support = {}
    for metric in metrics:
        behind, kind = has_truth[metric.area], ""
        if metric.group is not None:
            kind = GROUP_NAMES[metric.group] + " "
            if groups is None or metric.group not in groups:
                support[metric.name] = no_category(metric.group, groups)
                continue
            behind = behind[[group == metric.group for group in groups]]
        what = f"{AREA_NAMES[metric.area]}ground truth"
        support[metric.name] = f"{behind.sum()} of {len(behind)} {kind}categories have {what}"
    return support


def no_category(group: str, groups: Sequence[str] | None) -> str:
    """In words, why no category belongs to a group, with the flag that chooses the groups.

    Args:
        group: "r", "c" or "f".
        groups: K others, or None if not known.
    """
    name = GROUP_NAMES[group]
    if groups is None:
        hint = "--groups-from TRAIN_JSON or a run folder says which are"
        return f"no category is known to be {name}; {hint}"
    return f"no category is {name}; --groups-from, or DATA.GROUP_MODE of a run, gives other groups"
