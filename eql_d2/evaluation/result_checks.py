"""Signs that a results file is not what it seems: other boxes, scores or category ids.

Each rule is here once. Evaluation warns, since the official code scores such files too
(:func:`form_warnings`, :func:`label_warnings`); :mod:`eql_d2.submission` reports the same findings
of files that it reads in batches. Shapes: N detections, I images, K categories.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eql_d2.evaluation.ground_truth import GroundTruth, find_ids
from eql_d2.evaluation.results import Detections
from eql_d2.evaluation.selection import PairSet

logger = logging.getLogger("eql_d2.evaluation")

LEAST = 20  # detections below which what they have in common proves nothing
TOLERANCE = 1.0  # pixels that a box may reach out of the image: detectors clip in float32
UNLABELLED = 0.99  # share of detections that nobody can judge, above which hardly any counts
CLEARER = 2.0  # times as much association as the ids have as they are
LARGEST_SCORE = 1e100  # what is above counts as this, so that sums of scores stay finite
STANDARD_ERRORS = 4.0  # an association must be so many of them above chance
CHUNK = 100_000  # boxes looked at together

Contains = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]]


def outside_unit_range(scores: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N,) which scores are no probabilities; NaN is not asked about."""
    return (scores < 0) | (scores > 1)


class BoxForm:
    """Whether all boxes look like two corners, or like shares of the image.

    Corners are proven by a box that reaches out of its image if it is read as x, y, width, height.

    Attributes:
        count: Boxes looked at.
    """

    def __init__(self) -> None:
        self.count = 0
        self._corners = self._relative = True
        self._reaches_out = False

    def add(self, boxes: NDArray[np.float64], sizes: NDArray[np.int64]) -> None:
        """Look at (N, 4) finite boxes of images of (N, 2) height, width (zeros if not known)."""
        self.count += len(boxes)
        x, y, width, height = boxes.T
        if self._relative:
            self._relative = bool((boxes <= 1).all())
        if self._corners:
            limit = sizes[:, ::-1].T + TOLERANCE
            corners = (width > x) & (height > y) & (width <= limit[0]) & (height <= limit[1])
            self._corners = bool(corners.all())
            with np.errstate(over="ignore"):
                outside = (x + width > limit[0]) | (y + height > limit[1])
            self._reaches_out |= bool(outside.any())

    @property
    def is_settled(self) -> bool:
        """Whether a box was seen that can only be x, y, width, height in pixels."""
        return not self._corners and not self._relative

    @property
    def form(self) -> str | None:
        """Either "corners" or "relative"; None where the boxes may be what they should be."""
        if self.count < LEAST:
            return None
        if self._relative:
            return "relative"
        return "corners" if self._corners and self._reaches_out else None


@dataclass(frozen=True)
class Shift:
    """A change of all category ids with which detections fit the annotations clearly better.

    Attributes:
        change: In words, to follow "with".
        hits: Detections of categories that their image has objects of.
        mass: The sum of their scores.
        hits_changed: The same detections after the change.
        mass_changed: The sum of their scores.
    """

    change: str
    hits: int
    mass: float
    hits_changed: int
    mass_changed: float


class ShiftTest:
    """Whether category ids are shifted: AP is near zero then and there is no other sign.

    A detector that works gives the scores of a category to the images that have objects of it: more
    than if the scores of that category were dealt to all images alike. That excess over chance is
    the evidence, here and below. With shifted ids it is near zero, and large after the ids are
    shifted back. An untrained model has none either way: that it favours some categories, which may
    happen to be neighbours of frequent ones, is no excess, since it does so in all images.

    Ids are called shifted if after a change the excess is :data:`CLEARER` times that of the ids as
    they are, and more than :data:`STANDARD_ERRORS` standard errors above zero both from image to
    image and from category to category. So at least 16 images and 16 categories must agree. Fewer
    categories need no such test: shifted ids then soon meet one that does not exist.

    Args:
        num_images: I.
        category_ids: (K,) sorted ids of the annotations.
        object_pairs: ``category * I + image`` of everything annotated, in any order.
        contains: Whether each (image, category) index pair is one of ``object_pairs``; a category
            of -1 never is.
    """

    def __init__(
        self,
        num_images: int,
        category_ids: NDArray[np.int64],
        object_pairs: NDArray[np.int64],
        contains: Contains,
    ) -> None:
        self._pairs = np.unique(object_pairs)
        self._contains = contains
        size = len(category_ids)
        self._changes = _changes(category_ids)
        self._category_mass = np.zeros(size)
        self._image_mass = np.zeros(num_images)
        self._unchanged = _Hits(num_images, np.arange(size))
        self._changed = [_Hits(num_images, target) for target in self._changes.values()]
        self._hits = [self._unchanged, *self._changed]

    def add(
        self,
        image: NDArray[np.int64],
        category: NDArray[np.int64],
        scores: NDArray[np.float64],
    ) -> None:
        """Count N detections: image and category index and finite score of each."""
        weights = np.clip(scores, 0.0, LARGEST_SCORE)
        size, images = len(self._category_mass), len(self._image_mass)
        self._category_mass += np.bincount(category, weights=weights, minlength=size)
        self._image_mass += np.bincount(image, weights=weights, minlength=images)
        for hits in self._hits:
            rows = np.flatnonzero(self._contains(image, hits.target[category]))
            hits.add(image[rows], category[rows], weights[rows])

    def result(self) -> Shift | None:
        """The change that fits best, if it is clearly better than none."""
        with np.errstate(all="ignore"):  # scores may be anything finite
            evidence = [(self._evidence(hits), i) for i, hits in enumerate(self._changed)]
            best, index = max(evidence, default=(0.0, 0))
        if best <= 0:
            return None
        now, then = self._unchanged, self._changed[index]
        return Shift(
            change=list(self._changes)[index],
            hits=now.count,
            mass=float(now.by_category.sum()),
            hits_changed=then.count,
            mass_changed=float(then.by_category.sum()),
        )

    def _evidence(self, hits: _Hits) -> float:
        """The excess after a change, as a share of all scores; 0 where it proves nothing.

        Categories that the change leaves where they are do not take part.
        """
        total = self._image_mass.sum()
        if not total > 0:
            return 0.0
        moved = hits.target != self._unchanged.target
        mass = np.where(moved, self._category_mass, 0.0)
        excess, by_image = self._excess(hits, mass, total)
        before = max(self._excess(self._unchanged, mass, total)[0].sum(), 0.0)
        if not excess.sum() > CLEARER * before:
            return 0.0
        errors = [np.sqrt((part**2).sum()) for part in (excess, by_image)]
        if not excess.sum() > STANDARD_ERRORS * max(errors):
            return 0.0
        return float(excess.sum())

    def _excess(
        self, hits: _Hits, mass: NDArray[np.float64], total: np.float64
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(K,) and (I,) scores on annotated pairs over those expected by chance, by share.

        By chance means that each category spreads its ``mass`` over the images as all scores do.
        """
        size, images = len(mass), len(self._image_mass)
        inside = np.flatnonzero((hits.target >= 0) & (mass > 0))
        mass_at = np.bincount(hits.target[inside], weights=mass[inside], minlength=size)
        category, image = np.divmod(self._pairs, images)
        share = np.bincount(category, weights=self._image_mass[image], minlength=size) / total
        expected = np.zeros(size)
        expected[inside] = mass[inside] * share[hits.target[inside]]
        per_image = np.bincount(image, weights=mass_at[category], minlength=images)
        by_category = np.where(mass > 0, hits.by_category, 0.0) - expected
        by_image = hits.by_image - self._image_mass * per_image / total
        return by_category / total, by_image / total


class _Hits:
    """Detections of annotated pairs, and their scores, if categories are taken for others.

    Attributes:
        target: (K,) the index that each category is taken for, -1 for none.
        count: Hits.
        by_category: (K,) sum of scores of each category as detected.
        by_image: (I,) sum of scores in each image of categories that are taken for others.
    """

    def __init__(self, num_images: int, target: NDArray[np.int64]) -> None:
        self.target = target
        self.count = 0
        self.by_category = np.zeros(len(target))
        self.by_image = np.zeros(num_images)
        self._moved = target != np.arange(len(target))

    def add(
        self,
        image: NDArray[np.int64],
        category: NDArray[np.int64],
        weights: NDArray[np.float64],
    ) -> None:
        self.count += len(image)
        size, images = len(self.by_category), len(self.by_image)
        self.by_category += np.bincount(category, weights=weights, minlength=size)
        weights = weights * self._moved[category]
        self.by_image += np.bincount(image, weights=weights, minlength=images)


def _changes(category_ids: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """In words, how ids may have been shifted back, and the index that each category then has."""
    order = np.arange(len(category_ids))
    candidates = {
        "category ids +1": _index_of(category_ids, category_ids + 1),
        "category ids -1": _index_of(category_ids, category_ids - 1),
        "each category id replaced by the next one of the annotations": _index_of(order, order + 1),
        "each category id replaced by the one before it": _index_of(order, order - 1),
        "the ids taken as numbers, from 0, of the annotations' categories": _index_of(
            order, category_ids
        ),
        "the ids taken as numbers, from 1, of the annotations' categories": _index_of(
            order, category_ids - 1
        ),
    }
    seen = {order.tobytes()}
    changes = {}
    for words, target in candidates.items():
        if target.tobytes() not in seen:
            seen.add(target.tobytes())
            changes[words] = target
    return changes


def _index_of(ids: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    index, known = find_ids(ids, values)
    return np.where(known, index, -1)


def hardly_labelled(num_labelled: int, num_detections: int) -> bool:
    """Whether it is unknown of nearly all detections if their image shows their category."""
    unknown = num_detections - num_labelled
    return num_detections >= LEAST and unknown > UNLABELLED * num_detections


def form_warnings(
    truth: GroundTruth, detections: Detections, rows: NDArray[np.int64]
) -> tuple[str, ...]:
    """What the boxes and scores of the detections at the rising indices ``rows`` are not."""
    lines = []
    if detections.boxes_from_masks:
        lines.append(
            "the detections have no 'bbox': the boxes scored are those around their masks, with "
            "the masks' areas, as lvis does"
        )
    outside = rows[outside_unit_range(detections.scores[rows])]
    if len(outside):
        lines.append(
            f"{len(outside)} of {len(rows)} scores are outside 0..1 (first: record {outside[0]}, "
            f"score {detections.scores[outside[0]]:g}); AP depends on their order alone, but a "
            "server may refuse such a file. Are they percent or logits?"
        )
    form = _box_form(truth, detections, rows)
    if form == "corners":
        lines.append(
            f"every one of {len(rows)} boxes looks like two corners x1, y1, x2, y2, where 'bbox' "
            "is x, y, width, height. If so, the box metrics are of wrong boxes: convert them"
        )
    if form == "relative":
        lines.append(
            f"every one of {len(rows)} boxes lies within 0..1, where 'bbox' is in pixels. If they "
            "are shares of the image's sides, the box metrics are of wrong boxes: multiply them"
        )
    return _logged(lines)


def _box_form(truth: GroundTruth, detections: Detections, rows: NDArray[np.int64]) -> str | None:
    if detections.boxes is None or detections.boxes_from_masks:
        return None
    form = BoxForm()
    for first in range(0, len(rows), CHUNK):
        part = rows[first : first + CHUNK]
        form.add(detections.boxes[part], truth.sizes[detections.image[part]])
        if form.is_settled:
            break
    return form.form


def label_warnings(
    truth: GroundTruth,
    image: NDArray[np.int64],
    category: NDArray[np.int64],
    scores: NDArray[np.float64],
    num_labelled: int,
) -> tuple[str, ...]:
    """What the categories of N detections tell about the category ids.

    Args:
        truth: The annotations.
        image: (N,) image index.
        category: (N,) category index.
        scores: (N,).
        num_labelled: How many of them the annotations can judge.
    """
    total = len(image)
    if total == 0:
        what = "there are no detections in the evaluated images: AP is 0 where there are objects"
        return _logged([what])
    pairs = truth.pairs
    contains = PairSet(truth, pairs).contains
    test = ShiftTest(len(truth.image_ids), truth.category_ids, pairs, contains)
    test.add(image, category, scores)
    shift = test.result()
    lines = []
    if shift is not None:
        lines.append(
            f"{shift.hits} of {total} detections are of categories that their image has objects of "
            f"(sum of scores {shift.mass:.1f}), and {shift.hits_changed} "
            f"({shift.mass_changed:.1f}) with {shift.change}: are the category ids shifted?"
        )
    elif hardly_labelled(num_labelled, total):
        lines.append(
            f"{total - num_labelled} of {total} detections are of categories that are neither "
            "annotated nor marked absent in their image and so do not count; is the model "
            "untrained, or are these not the category ids of the annotations?"
        )
    return _logged(lines)


def _logged(lines: list[str]) -> tuple[str, ...]:
    for line in lines:
        logger.warning(line)
    return tuple(lines)
