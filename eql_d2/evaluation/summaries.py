"""The metrics: each a function of matches, with its names and what stands behind its numbers.

==========  ====================================================================================
ap          AP of LVIS: the 300 highest scores of an image
ar          average recall of the same detections: AR@300
fixed       AP_fixed (Dave et al., 2021): the 10,000 highest scores of each category over all
            images, no limit per image
pool        AP_pool (same): these detections, all categories (or all rare, common, frequent ones)
            ranked together in one precision-recall curve
agnostic    AP and AR as if all categories were one
coco        the twelve numbers of pycocotools: 100 detections per category and image
proposals   recall of boxes whatever their category, as in Detectron2
==========  ====================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from eql_d2.evaluation.curves import category_precision, category_recall, pooled_precision
from eql_d2.evaluation.ground_truth import GROUPS
from eql_d2.evaluation.matches import Matches
from eql_d2.evaluation.report import (
    AREA_NAMES,
    METRICS,
    RECALLS,
    describe_support,
    mean_defined,
    no_category,
    summarize,
)

COCO_LIMITS = (1, 10, 100)  # detections of an image and category
SIZES = "", "s", "m", "l"  # the area ranges in the names of metrics


@dataclass(frozen=True)
class Summary:
    """Some metrics.

    Attributes:
        values: name -> percent, or None where undefined.
        support: name -> in words, what is behind the number.
        per_category: name -> K values.
    """

    values: dict[str, float | None]
    support: dict[str, str]
    per_category: dict[str, list[float | None]] = field(default_factory=dict)


def average_precision(matches: Matches, groups: Sequence[str] | None, suffix: str = "") -> Summary:
    """AP, AP50, AP75, APs, APm, APl, APr, APc, APf."""
    precision = category_precision(matches)
    support = describe_support(METRICS, matches.num_truths > 0, groups)
    own = [mean_defined(precision[0][:, :, k]) for k in range(matches.num_categories)]
    return Summary(
        {name + suffix: value for name, value in summarize(METRICS, precision, groups).items()},
        {name + suffix: text for name, text in support.items()},
        {"AP" + suffix: own},
    )


def average_recall(matches: Matches, groups: Sequence[str] | None, limit: int) -> Summary:
    """AR@limit, ARs@limit ... ARf@limit, of detections that were limited to so many an image."""
    recall = category_recall(matches)
    support = describe_support(RECALLS, matches.num_truths > 0, groups)
    own = [mean_defined(recall[0][:, k]) for k in range(matches.num_categories)]
    return Summary(
        {f"{name}@{limit}": value for name, value in summarize(RECALLS, recall, groups).items()},
        {f"{name}@{limit}": text for name, text in support.items()},
        {f"AR@{limit}": own},
    )


def pooled_average_precision(matches: Matches, groups: Sequence[str] | None) -> Summary:
    """AP_pool, AP50_pool ... APf_pool."""
    everyone = pooled_precision(matches, np.zeros(matches.num_categories, dtype=np.int64), 1)
    pool = np.array([GROUPS.index(group) for group in groups or ()], dtype=np.int64)
    if groups is None:
        pool = np.full(matches.num_categories, -1)
    by_group = pooled_precision(matches, pool, len(GROUPS))
    joined = [np.concatenate(parts, axis=2) for parts in zip(everyone, by_group, strict=True)]
    values: dict[str, float | None] = {}
    support: dict[str, str] = {}
    for metric in METRICS:
        column = 0 if metric.group is None else 1 + GROUPS.index(metric.group)
        part = joined[metric.area][:, :, column]
        values[f"{metric.name}_pool"] = mean_defined(
            part if metric.threshold is None else part[metric.threshold]
        )
        members = pool == column - 1 if column else np.ones_like(pool, dtype=bool)
        number = int(matches.num_truths[metric.area][members].sum())
        if metric.group is not None and not members.any():
            support[f"{metric.name}_pool"] = no_category(metric.group, groups)
            continue
        support[f"{metric.name}_pool"] = (
            f"{number} {AREA_NAMES[metric.area]}objects of {members.sum()} categories in one curve"
        )
    return Summary(values, support)


def agnostic(matches: Matches, limit: int) -> Summary:
    """AP_agnostic, AP50_agnostic ... ARl_agnostic@limit, of matches across categories."""
    precisions = [metric for metric in METRICS if metric.group is None]
    recalls = [metric for metric in RECALLS if metric.group is None]
    numbers = matches.num_truths[:, 0].tolist()
    values: dict[str, float | None] = {}
    support: dict[str, str] = {}
    for metrics, arrays, suffix in (
        (precisions, category_precision(matches), "_agnostic"),
        (recalls, category_recall(matches), f"_agnostic@{limit}"),
    ):
        for name, value in summarize(metrics, arrays, None).items():
            values[name + suffix] = value
        support |= {metric.name + suffix: _objects(numbers, metric.area) for metric in metrics}
    return Summary(values, support)


def coco(matches: Matches) -> Summary:
    """The twelve numbers of pycocotools, AP_coco to ARl_coco@100."""
    names = [metric for metric in METRICS if metric.group is None]
    values = {
        f"{name}_coco": value
        for name, value in summarize(names, category_precision(matches), None).items()
    }
    texts = describe_support(names, matches.num_truths > 0, None)
    support = {f"{name}_coco": text for name, text in texts.items()}
    recalls = [metric for metric in RECALLS if metric.group is None]
    texts = describe_support(recalls, matches.num_truths > 0, None)
    for limit in COCO_LIMITS:
        recall = category_recall(matches.only(matches.place < limit))
        for name, value in summarize(recalls, recall, None).items():
            if name == "AR" or limit == COCO_LIMITS[-1]:
                values[f"{name}_coco@{limit}"] = value
                support[f"{name}_coco@{limit}"] = texts[name]
    return Summary(values, support)


def proposals(
    recall: NDArray[np.float64], limits: Sequence[int], num_objects: Sequence[int]
) -> Summary:
    """AR@limit, ARs@limit ... of proposals.

    Args:
        recall: (len(limits), A), NaN where undefined.
        limits: Proposals of an image.
        num_objects: A counts.
    """
    values: dict[str, float | None] = {}
    support: dict[str, str] = {}
    for row, limit in zip(recall.tolist(), limits, strict=True):
        for area, value in enumerate(row):
            name = f"AR{SIZES[area]}@{limit}"
            values[name] = None if np.isnan(value) else value * 100
            support[name] = _objects(num_objects, area)
    return Summary(values, support)


def _objects(numbers: Sequence[int], area: int) -> str:
    return f"{numbers[area]} {AREA_NAMES[area]}objects"
