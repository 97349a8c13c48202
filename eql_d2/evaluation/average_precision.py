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
* Equal IoU: the object that comes later in the file; an ignored one only if no other fits.
* A file whose images have no ``neg_category_ids`` is plain COCO: every category was looked for in
  every image, and ``iscrowd`` regions are ignored as in pycocotools. In LVIS files ``iscrowd``
  means nothing, as in lvis, and ``ignore`` is honoured in both.
* An object without ``area`` has its box's; one without a usable segmentation is ignored for masks
  (lvis stops).
* No detections at all is AP 0 (lvis stops with an IndexError). Annotation ids do not matter (lvis
  counts a match with the id 0 as a false positive).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from eql_d2.errors import UserError
from eql_d2.evaluation.annotations import read_ground_truth
from eql_d2.evaluation.ground_truth import GROUPS
from eql_d2.evaluation.report import Evaluation
from eql_d2.evaluation.results import read_results
from eql_d2.evaluation.scoring import evaluate_arrays

IOU_TYPES = ("bbox", "segm")


def evaluate(
    annotations: str | os.PathLike[str] | dict[str, Any],
    results: str | os.PathLike[str] | Sequence[dict[str, Any]],
    *,
    iou_types: Sequence[str] = IOU_TYPES,
    groups: Sequence[str] | Mapping[int, str] | None = None,
    max_detections: int = 300,
) -> Evaluation:
    """Score a results file against COCO or LVIS annotations.

    Args:
        annotations: File, or its parsed json.
        results: File, or its records. Neither is changed.
        iou_types: "bbox", "segm" or both.
        groups: "r", "c" or "f" for each category, in the order of sorted ids or by category id;
            None takes the annotations' ``frequency``. Without both, APr, APc and APf are undefined.
        max_detections: Highest scores of an image that count, over all categories.

    Raises:
        DataError: The annotations cannot be used.
        ResultsError: The results do not fit the annotations.
        UserError: Another argument is wrong.
    """
    if isinstance(iou_types, str) or not iou_types or not set(iou_types) <= set(IOU_TYPES):
        raise UserError(f"iou_types must be some of {IOU_TYPES}, got {iou_types!r}")
    if max_detections < 1:
        raise UserError(f"max_detections must be at least 1, got {max_detections}")
    truth = read_ground_truth(
        annotations, need_masks="segm" in iou_types, need_groups=groups is None
    )
    if groups is not None:
        truth = replace(truth, groups=_groups(groups, truth.category_ids.tolist()))
    detections = read_results(results, truth, iou_types)
    return evaluate_arrays(truth, detections, iou_types, max_detections)


def _groups(
    groups: Sequence[str] | Mapping[int, str], category_ids: Sequence[int]
) -> tuple[str, ...]:
    """The group of each category."""
    if isinstance(groups, Mapping):
        missing = [category_id for category_id in category_ids if category_id not in groups]
        if missing:
            raise UserError(
                f"groups lack {len(missing)} of {len(category_ids)} category ids of the "
                f"annotations, first {missing[:3]}"
            )
        groups = [groups[category_id] for category_id in category_ids]
    if len(groups) != len(category_ids):
        raise UserError(f"{len(groups)} groups for {len(category_ids)} categories")
    if not set(groups) <= set(GROUPS):
        raise UserError(f"groups must be 'r', 'c' or 'f', got {sorted(set(groups) - set(GROUPS))}")
    return tuple(groups)
