"""LVIS average precision: what ``lvis.LVISEval`` computes, from arrays and only where needed.

Corners, all as in lvis 0.5.3 unless said otherwise:

* The ``max_detections`` highest scores of an image are kept, over all categories; equal scores in
  file order.
* A detection whose category is neither annotated in its image nor in ``neg_category_ids`` is left
  out; an unmatched one of ``not_exhaustive_category_ids`` is neither right nor wrong.
* Detections and objects of zero area are left out, after the limit above.
* Size classes: an object's ``area`` field; a detection's box area for boxes and mask area for masks
  (lvis takes the box area for masks if the first record has a ``bbox``; Detectron2 removes the
  ``bbox`` to avoid that, and so the numbers here are those of lvis without ``bbox``).
* Records without any ``bbox``: the boxes around the masks, with the masks' areas.
* A score or box that is not finite is refused; lvis gives it a place that depends on the order of
  the file.
* Duplicates: of several detections of one object the highest score takes it, the others are false
  positives; two annotations of the same region are two objects.
* Equal IoU: the object that comes later in the file; an ignored one only if no other fits.
* A file whose images have no ``neg_category_ids`` is plain COCO: every category was looked for in
  every image, and ``iscrowd`` regions are ignored as in pycocotools. In LVIS files ``iscrowd``
  means nothing, as in lvis, and ``ignore`` is honoured in both.
* An object without ``area`` has its box's; one without a usable segmentation is ignored for masks
  (lvis stops).
* Without categories ("agnostic"): what lvis means by ``use_cats=0``, where its own code looks for
  the category -1 and finds nothing.
* "coco": ``iscrowd`` alone makes an object ignored, and nothing is too small to count, as in
  pycocotools (with records that have no ``bbox`` for masks).
* "boundary": crowds keep their mask IoU, and size classes include both ends as above, where the
  boundary-iou-api leaves the upper end out.
* Masks with runs of length 0 behind their first one, which no common encoder writes: pycocotools
  stops comparing two masks where such runs meet, and its IoU is taken as it is.
* No detections at all is AP 0 (lvis stops with an IndexError). Annotation ids do not matter (lvis
  counts a match with the id 0 as a false positive).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from eql_d2.errors import UserError
from eql_d2.evaluation.annotations import read_ground_truth
from eql_d2.evaluation.ground_truth import GROUPS, GroundTruth
from eql_d2.evaluation.image_lists import find_images
from eql_d2.evaluation.report import Evaluation
from eql_d2.evaluation.results import read_results
from eql_d2.evaluation.scoring import METRICS, evaluate_arrays

IOU_TYPES = ("bbox", "segm", "boundary")
DEFAULT_IOU_TYPES = ("bbox", "segm")
NOT_COCO = (
    "the metric 'coco' is for exhaustively annotated data; these annotations have neg_category_ids "
    "(LVIS), where it would count unlabelled objects as mistakes"
)


def evaluate(
    annotations: str | os.PathLike[str] | dict[str, Any],
    results: str | os.PathLike[str] | Sequence[dict[str, Any]],
    *,
    iou_types: Sequence[str] = DEFAULT_IOU_TYPES,
    metrics: Sequence[str] = ("ap",),
    groups: Sequence[str] | Mapping[int, str] | None = None,
    groups_source: str = "as given",
    max_detections: int = 300,
    max_per_category: int = 10_000,
    image_ids: Iterable[int] | None = None,
) -> Evaluation:
    """Score a results file against COCO or LVIS annotations.

    Args:
        annotations: File, or its parsed json.
        results: File, or its records. Neither is changed.
        iou_types: "bbox", "segm", "boundary" (the smaller of mask and boundary IoU).
        metrics: Of :mod:`eql_d2.evaluation.summaries`; "boundary" "fixed" is the 2021 challenge.
        groups: "r", "c" or "f" for each category, in the order of sorted ids or by category id;
            None takes the annotations' ``frequency``. Without both, APr, APc and APf are undefined.
        groups_source: In words, where ``groups`` come from, for the table and messages.
        max_detections: Highest scores of an image that count, over all categories.
        max_per_category: Highest scores of a category that count for AP_fixed and AP_pool.
        image_ids: These images alone (LVIS minival); None is all.

    Raises:
        UserError: (DataError, ResultsError) an argument is wrong or the files do not fit.
    """
    _check_limits(max_detections=max_detections, max_per_category=max_per_category)
    fields = _fields(iou_types, metrics)
    coco = "coco" in metrics
    truth = read_ground_truth(
        annotations, need_masks="segm" in fields, need_groups=groups is None, keep_empty=coco
    )
    if coco and not truth.exhaustive.all():
        raise UserError(NOT_COCO)
    if groups is not None:
        truth = with_groups(truth, groups, groups_source)
    detections = read_results(results, truth, fields)
    return evaluate_arrays(
        truth,
        detections,
        iou_types,
        max_detections,
        metrics=metrics,
        max_per_category=max_per_category,
        images=None if image_ids is None else find_images(truth.image_ids, image_ids),
    )


def _fields(iou_types: Sequence[str], metrics: Sequence[str]) -> list[str]:
    """Check the names; what the records must hold: "bbox", "segm" or both."""
    known = ("iou_types", iou_types, IOU_TYPES), ("metrics", metrics, METRICS)
    for argument, names, choice in known:
        if isinstance(names, str) or not names or not set(names) <= set(choice):
            raise UserError(f"{argument} must be some of {tuple(choice)}, got {names!r}")
    boxes = ["bbox"] if "bbox" in iou_types or "proposals" in metrics else []
    masks = ["segm"] if {"segm", "boundary"} & set(iou_types) else []
    return [*boxes, *masks]


def _check_limits(**limits: int) -> None:
    for name, limit in limits.items():
        if limit < 1:
            raise UserError(
                f"{name} must be at least 1, got {limit}; for no limit give a number that is never "
                "reached, such as 1000000"
            )


def with_groups(
    truth: GroundTruth, groups: Sequence[str] | Mapping[int, str], source: str
) -> GroundTruth:
    """The annotations with other groups.

    Args:
        truth: The annotations.
        groups: "r", "c" or "f" for each category, in the order of sorted ids or by category id.
        source: In words, where the groups come from.

    Raises:
        UserError: The groups do not fit the categories of the annotations.
    """
    ids: list[int] = truth.category_ids.tolist()
    if isinstance(groups, Mapping):
        missing = [category_id for category_id in ids if category_id not in groups]
        if missing:
            extra = sorted(set(groups) - set(ids))
            raise UserError(
                f"the groups lack {len(missing)} of {len(ids)} category ids of the annotations, "
                f"first {missing[:3]}; ids that only the groups have: {extra[:3] or 'none'}. They "
                f"must be of the same categories (--groups-from); these are {source}"
            )
        groups = [groups[category_id] for category_id in ids]
    if len(groups) != len(ids):
        raise UserError(f"{len(groups)} groups for {len(ids)} categories ({source})")
    if not set(groups) <= set(GROUPS):
        raise UserError(f"groups must be 'r', 'c' or 'f', got {sorted(set(groups) - set(GROUPS))}")
    return replace(truth, groups=tuple(groups), groups_source=source)
