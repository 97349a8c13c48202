"""What became of every detection and every object: all that the metrics are computed from.

Matching is done once for each IoU type. Average precision, recall, pooled curves, resampled images:
each is a pure function of the :class:`Matches`.

Shapes: D detections that take part, G objects, A area ranges, T IoU thresholds, K categories, and
M of the D detections that overlap an object enough to be matched at the lowest threshold.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from eql_d2.evaluation.ground_truth import GroundTruth
from eql_d2.evaluation.iou_types import find_overlaps
from eql_d2.evaluation.matching import UNMATCHED, Rounds, match, plan_rounds
from eql_d2.evaluation.results import Detections
from eql_d2.evaluation.selection import PairSet, highest_scores, labelled, order_by_group
from eql_d2.evaluation.thresholds import AREA_RANGES, IOU_THRESHOLDS, outside

RIGHT, WRONG, NEITHER = 1, 0, -1


@dataclass(frozen=True)
class Matches:
    """The result of matching, for one IoU type.

    Attributes:
        num_images: I.
        num_categories: K.
        index: (D,) place of each detection in the results file. Detections are sorted by category,
            then image, then falling score, equal scores in file order.
        image: (D,) image index, 0..I-1 in the order of sorted ids.
        category: (D,) category index, 0..K-1 in the order of sorted ids.
        scores: (D,).
        counts_unmatched: (A, D) whether the detection is a false positive if it has no match:
            not where the category is not exhaustively annotated or the area is outside the range.
        overlapping: (M,) rising indices into the detections.
        matched: (A, T, M) the object each of them takes, 0..G-1, or UNMATCHED.
        truth_image: (G,) image index of each object.
        truth_category: (G,) category index of each object.
        ignored: (A, G) objects that do not count; whatever takes one is neither right nor wrong.
    """

    num_images: int
    num_categories: int
    index: NDArray[np.int64]
    image: NDArray[np.int64]
    category: NDArray[np.int64]
    scores: NDArray[np.float64]
    counts_unmatched: NDArray[np.bool_]
    overlapping: NDArray[np.int64]
    matched: NDArray[np.int32]
    truth_image: NDArray[np.int64]
    truth_category: NDArray[np.int64]
    ignored: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def place(self) -> NDArray[np.int64]:
        """(D,) place of each detection among those of its image and category, by score."""
        pairs = self.category * self.num_images + self.image
        return np.arange(len(pairs)) - np.searchsorted(pairs, pairs)

    @property
    def num_truths(self) -> NDArray[np.int64]:
        """(A, K) objects that count."""
        size = self.num_categories
        return np.stack(
            [np.bincount(self.truth_category[~ignored], minlength=size) for ignored in self.ignored]
        )

    def outcomes(self, area: int = 0) -> NDArray[np.int8]:
        """(T, D) RIGHT, WRONG or NEITHER for each detection, in one area range."""
        matched = self.matched[area]
        unmatched = np.where(self.counts_unmatched[area], WRONG, NEITHER).astype(np.int8)
        result = np.repeat(unmatched[None], len(matched), axis=0)
        taken = np.append(np.where(self.ignored[area], NEITHER, RIGHT), WRONG).astype(np.int8)
        result[:, self.overlapping] = np.where(
            matched == UNMATCHED, result[:, self.overlapping], taken[matched]
        )
        return result

    def only(self, kept: NDArray[np.bool_]) -> Matches:
        """The matches of some detections, (D,) True.

        They are what matching these alone would give if in every (image, category) pair they are
        those of the highest scores, since a detection takes its object before those that follow.
        """
        some = kept[self.overlapping]
        return replace(
            self,
            index=self.index[kept],
            image=self.image[kept],
            category=self.category[kept],
            scores=self.scores[kept],
            counts_unmatched=self.counts_unmatched[:, kept],
            overlapping=(np.cumsum(kept) - 1)[self.overlapping[some]],
            matched=self.matched[:, :, some],
        )


def select_detections(
    truth: GroundTruth, detections: Detections, max_detections: int = 300
) -> NDArray[np.int64]:
    """Rising indices of the detections of LVIS AP: limited per image, then only what is labelled.

    The limit is over all categories of an image, before the annotations are looked at.
    """
    limited = highest_scores(detections.image, detections.scores, max_detections)
    return limited[labelled(truth, detections.image[limited], detections.category[limited])]


def match_detections(
    truth: GroundTruth,
    detections: Detections,
    iou_type: str,
    kept: NDArray[np.int64],
    *,
    one_category: bool = False,
    keep_empty: bool = False,
) -> Matches:
    """Match the detections ``kept`` (rising indices, for example of :func:`select_detections`).

    Args:
        truth: Annotations; with masks for masks.
        detections: All detections; with masks for masks.
        iou_type: "bbox", "segm", or "boundary" for the smaller of mask and boundary IoU.
        kept: Indices of those that take part. Those of zero area are left out.
        one_category: Match across categories, as if all were one; objects and equal scores are in
            the order of their categories. What is exhaustively annotated stays as it is.
        keep_empty: Keep detections of zero area, as pycocotools does.
    """
    areas = _areas(detections, iou_type)
    kept = kept[np.isfinite(areas[kept]) & ((areas[kept] > 0) | keep_empty)]
    kept = _by_category_image_score(detections, kept, one_category)
    return _match_sorted(truth, detections, iou_type, kept, one_category)


def _areas(detections: Detections, iou_type: str) -> NDArray[np.float64]:
    """The areas that decide about the size class of all detections."""
    areas = detections.box_areas if iou_type == "bbox" else detections.mask_areas
    assert areas is not None
    return areas


def _match_sorted(
    truth: GroundTruth,
    detections: Detections,
    iou_type: str,
    kept: NDArray[np.int64],
    one_category: bool,
) -> Matches:
    """Match the detections ``kept``, which are in the order in which they are matched."""
    category, image = detections.category[kept], detections.image[kept]
    exhaustive = ~PairSet(truth, truth.not_exhaustive_pairs).contains(image, category)
    if one_category:
        truth, category = _merged(truth), np.zeros_like(category)
    pairs = category * len(truth.image_ids) + image
    plan = plan_rounds(find_overlaps(truth, detections, kept, pairs, iou_type), pairs)
    unusable = truth.ignored if iou_type == "bbox" else truth.ignored | truth.without_mask
    ignored = np.stack([unusable | outside(truth.areas, limits) for limits in AREA_RANGES])
    areas = _areas(detections, iou_type)[kept]
    inside = np.stack([~outside(areas, limits) for limits in AREA_RANGES])
    return Matches(
        num_images=len(truth.image_ids),
        num_categories=1 if one_category else len(truth.category_ids),
        index=kept,
        image=image,
        category=category,
        scores=detections.scores[kept],
        counts_unmatched=exhaustive & inside,
        overlapping=plan.detection,
        matched=_match_areas(plan, ignored, truth.crowd),
        truth_image=truth.image,
        truth_category=truth.category,
        ignored=ignored,
    )


def _by_category_image_score(
    detections: Detections, kept: NDArray[np.int64], one_category: bool
) -> NDArray[np.int64]:
    """The order in which detections are matched; ``kept`` decides between equal scores."""
    category, image = detections.category[kept], detections.image[kept]
    if one_category:
        return kept[np.lexsort((category, -detections.scores[kept], image))]
    pairs = category * (int(image.max(initial=0)) + 1) + image
    return kept[order_by_group(pairs, detections.scores[kept])]


def _merged(truth: GroundTruth) -> GroundTruth:
    """All categories as one; objects in the order of their categories."""
    truth = truth.take(np.argsort(truth.category, kind="stable"))
    return replace(truth, category=np.zeros_like(truth.category))


def _match_areas(
    plan: Rounds, ignored: NDArray[np.bool_], crowd: NDArray[np.bool_]
) -> NDArray[np.int32]:
    """(A, T, M) what each overlapping detection takes, in the order of the detections."""
    return np.stack([match(plan, part, crowd, IOU_THRESHOLDS) for part in ignored])
