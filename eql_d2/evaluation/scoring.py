"""From detections and objects as arrays to an :class:`Evaluation`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eql_d2.evaluation import summaries
from eql_d2.evaluation.ground_truth import GroundTruth
from eql_d2.evaluation.matches import Matches, match_detections
from eql_d2.evaluation.proposals import LIMITS, proposal_recall
from eql_d2.evaluation.report import CategoryRow, Evaluation
from eql_d2.evaluation.result_checks import form_warnings, label_warnings
from eql_d2.evaluation.results import Detections
from eql_d2.evaluation.selection import highest_scores, labelled, limit_warnings
from eql_d2.evaluation.summaries import COCO_LIMITS, Summary
from eql_d2.evaluation.thresholds import AREA_RANGES, outside

PER_IMAGE = {"ap", "ar", "agnostic"}  # metrics of the highest scores of each image
PER_CATEGORY = {"fixed", "pool"}  # metrics of the highest scores of each category
BY_GROUP = {"ap", "ar", "fixed", "pool"}  # metrics that tell rare, common and frequent apart
METRICS = ("ap", "ar", "fixed", "pool", "agnostic", "coco", "proposals")


@dataclass(frozen=True)
class Selected:
    """Rising indices of the detections that take part in the metrics of each kind.

    Attributes:
        everyone: Those of the chosen images.
        per_image: The highest scores of each image, of what is labelled.
        per_category: The highest scores of each category, of what is labelled.
    """

    everyone: NDArray[np.int64]
    per_image: NDArray[np.int64]
    per_category: NDArray[np.int64]


def evaluate_arrays(
    truth: GroundTruth,
    detections: Detections,
    iou_types: Sequence[str],
    max_detections: int,
    *,
    metrics: Sequence[str] = ("ap",),
    max_per_category: int = 10_000,
    images: NDArray[np.bool_] | None = None,
) -> Evaluation:
    """Score detections; the arguments are those of :func:`eql_d2.evaluation.evaluate`.

    ``images`` is (I,) True for the images that count, all by default. Objects of zero area count
    for "coco" alone.
    """
    everyone = np.arange(len(detections))
    if images is not None and not images.all():
        everyone = np.flatnonzero(images[detections.image])
        truth = truth.take(np.flatnonzero(images[truth.image]))
    sized = truth.take(np.flatnonzero(truth.areas > 0)) if (truth.areas <= 0).any() else truth
    limit = max_per_category if PER_CATEGORY & set(metrics) else 0
    warnings = form_warnings(truth, detections, everyone)
    selected, label_lines = _select(sized, detections, everyone, max_detections, limit)
    warnings += label_lines
    if limit:
        warnings += limit_warnings(detections.image[everyone], len(truth.image_ids))
    found: list[tuple[str, Summary]] = []
    for kind in iou_types:
        strict = _lvis_metrics(sized, detections, kind, metrics, selected, max_detections)
        found += [(kind, summary) for summary in strict]
        if "coco" in metrics:
            found.append((kind, _coco_metrics(truth, detections, kind, everyone)))
    if "proposals" in metrics:
        found.append(("proposals", _proposal_metrics(sized, detections, everyone)))
    evaluation = _evaluation(sized, detections.category[selected.per_image], found, warnings)
    source = truth.groups_source if BY_GROUP & set(metrics) else ""
    return replace(evaluation, groups_source=source)


def _select(
    truth: GroundTruth,
    detections: Detections,
    everyone: NDArray[np.int64],
    max_detections: int,
    max_per_category: int,
) -> tuple[Selected, tuple[str, ...]]:
    """The limits are over everything detected, before the annotations are looked at.

    A ``max_per_category`` of 0 is for metrics that do not ask for these detections: none.
    """
    columns = detections.image, detections.category, detections.scores
    image, category, scores = (_rows(column, everyone) for column in columns)
    known = labelled(truth, image, category)
    per_image = highest_scores(image, scores, max_detections)
    judged = _rows(known, per_image)
    warnings = label_warnings(
        truth,
        _rows(image, per_image),
        _rows(category, per_image),
        _rows(scores, per_image),
        int(judged.sum()),
    )
    per_category = np.zeros(0, dtype=np.int64)
    if max_per_category:
        per_category = highest_scores(category, scores, max_per_category)
        per_category = per_category[_rows(known, per_category)]
    per_image = per_image[judged]
    return Selected(everyone, everyone[per_image], everyone[per_category]), warnings


def _rows(column: NDArray[Any], index: NDArray[np.int64]) -> NDArray[Any]:
    """``column[index]`` for rising indices, which need no copy of millions if they are all."""
    return column if len(index) == len(column) else column[index]


def _lvis_metrics(
    truth: GroundTruth,
    detections: Detections,
    kind: str,
    metrics: Sequence[str],
    selected: Selected,
    max_detections: int,
) -> Iterator[Summary]:
    """The metrics that leave out what is not labelled; matched once, for all selections."""
    groups, chosen = truth.groups, set(metrics)
    per_image = per_category = None
    if {"ap", "ar"} & chosen and PER_CATEGORY & chosen:
        union = np.union1d(selected.per_image, selected.per_category)
        matches = match_detections(truth, detections, kind, union)
        per_image = _reduced(matches, selected.per_image)
        per_category = _reduced(matches, selected.per_category)
    elif {"ap", "ar"} & chosen:
        per_image = match_detections(truth, detections, kind, selected.per_image)
    elif PER_CATEGORY & chosen:
        per_category = match_detections(truth, detections, kind, selected.per_category)
    if per_image is not None and "ap" in chosen:
        yield summaries.average_precision(per_image, groups)
    if per_image is not None and "ar" in chosen:
        yield summaries.average_recall(per_image, groups, max_detections)
    if per_category is not None and "fixed" in chosen:
        yield summaries.average_precision(per_category, groups, "_fixed")
    if per_category is not None and "pool" in chosen:
        yield summaries.pooled_average_precision(per_category, groups)
    if "agnostic" in chosen:
        merged = match_detections(truth, detections, kind, selected.per_image, one_category=True)
        yield summaries.agnostic(merged, max_detections)


def _reduced(matches: Matches, rows: NDArray[np.int64]) -> Matches:
    return matches.only(np.isin(matches.index, rows))


def _coco_metrics(
    truth: GroundTruth, detections: Detections, kind: str, everyone: NDArray[np.int64]
) -> Summary:
    """As pycocotools: ``iscrowd`` alone makes an object ignored, nothing is too small."""
    image, category = detections.image[everyone], detections.category[everyone]
    pairs = category * len(truth.image_ids) + image
    kept = everyone[highest_scores(pairs, detections.scores[everyone], COCO_LIMITS[-1])]
    truth = replace(truth, ignored=truth.crowd)
    return summaries.coco(match_detections(truth, detections, kind, kept, keep_empty=True))


def _proposal_metrics(
    truth: GroundTruth, detections: Detections, everyone: NDArray[np.int64]
) -> Summary:
    recall = proposal_recall(truth, detections, everyone)
    numbers = [int((~(truth.ignored | outside(truth.areas, area))).sum()) for area in AREA_RANGES]
    return summaries.proposals(recall, LIMITS, numbers)


def _evaluation(
    truth: GroundTruth,
    detected: NDArray[np.int64],
    found: Sequence[tuple[str, Summary]],
    warnings: tuple[str, ...],
) -> Evaluation:
    """Join what was found; of texts for the same name the first stays."""
    metrics: dict[str, float | None] = {}
    support: dict[str, str] = {}
    ap: dict[str, list[float | None]] = {}
    more: dict[str, list[float | None]] = {}
    for kind, summary in found:
        metrics |= {f"{kind}/{name}": value for name, value in summary.values.items()}
        support = summary.support | support
        for name, values in summary.per_category.items():
            if name == "AP":
                ap[kind] = values
            else:
                more[f"{kind}/{name}"] = values
    order = dict.fromkeys(name for _, summary in found for name in summary.values)
    support = {name: support[name] for name in order}
    return Evaluation(metrics, support, _category_rows(truth, detected, ap, more), warnings)


def _category_rows(
    truth: GroundTruth,
    detected: NDArray[np.int64],
    ap: dict[str, list[float | None]],
    more: dict[str, list[float | None]],
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
            ap={kind: values[k] for kind, values in ap.items()},
            more={name: values[k] for name, values in more.items()},
        )
        for k in range(size)
    )
