"""From scores of every ROI and category to the best detections of an image.

The result is that of ``torchvision.ops.batched_nms`` over all candidates, cut to the best D, to the
bit. But non-maximum suppression walks down the scores, and nothing behind the D-th survivor can
change the D before it: only the best candidates are decoded and compared, and more only where these
leave too few. At LVIS's threshold of 1e-4 and 1203 categories that is about 1 % of the candidates.
How many they are depends on the scores, which no recorded graph can follow: a model that is being
exported looks at all of them.

Shape legend: R ROIs of one image, K foreground categories, C candidates, D detections kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import batched_nms, remove_small_boxes

from eql_d2.inference.suppression import nms_per_category

# First guess of how many candidates are needed for each detection kept, and how it grows.
CANDIDATES_PER_DETECTION = 8
GROWTH = 4
# Up to so many boxes batched_nms compares all categories at once, shifted apart, which rounds;
# above, one category after the other. Which of the two it is decides about overlaps that are the
# threshold's to within that rounding.
SHIFTED_UP_TO = {"cpu": 1000, "other": 25_000}

# (C,) ROI indices and (C,) categories -> (C, 4) xyxy boxes, clipped to the image.
Decoder = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Selection:
    """Detections, or candidates, of one image; those that are returned by descending score.

    Attributes:
        boxes: (D, 4) xyxy.
        scores: (D,).
        categories: (D,) int64.
        rois: (D,) int64, the ROI each came from.
    """

    boxes: Tensor
    scores: Tensor
    categories: Tensor
    rois: Tensor

    def take(self, index: Tensor) -> Selection:
        """Those that ``index`` names, in its order."""
        return Selection(
            self.boxes[index], self.scores[index], self.categories[index], self.rois[index]
        )


def is_exporting() -> bool:
    """Whether ``torch.jit.trace``, ``torch.export`` or ``torch.compile`` records the operations.

    What Python or NumPy compute from the values of tensors would stay in the graph as a constant of
    the example input. Code that TorchScript compiles (``torch.jit.script``) asks
    ``torch.jit.is_scripting()`` itself, which the compiler must see in the condition.
    """
    return torch.jit.is_tracing() or torch.compiler.is_compiling()


def select_detections(
    scores: Tensor,
    decode: Decoder,
    *,
    score_threshold: float,
    nms_threshold: float,
    max_detections: int,
    min_side: float | None = None,
    first_label: int = 0,
    exact_ties: bool = True,
) -> Selection:
    """Keep the best detections of one image: threshold, NMS per category, best ``D``.

    Args:
        scores: (R, K) foreground scores; NaN is never a candidate.
        decode: makes boxes for pairs of ROI and category.
        score_threshold: candidates need a score above it.
        nms_threshold: IoU above which the lower-scored box of one category is dropped.
        max_detections: D, over all categories; negative for all.
        min_side: boxes with a shorter side, or one that is NaN, are no candidates. Pixels.
        first_label: label of the first category where the peer compares; it counts in the rounding
            of few candidates. 1 for models with background first.
        exact_ties: equal scores as :func:`_has_ties` says; else by ROI, then category.
    """
    scores = scores.contiguous()
    if is_exporting():
        places = (scores.reshape(-1) > score_threshold).nonzero()[:, 0]
        every = _decoded(scores, places, decode, min_side)
        kept = batched_nms(every.boxes, every.scores, every.categories + first_label, nms_threshold)
        return every.take(kept if max_detections < 0 else kept[:max_detections])
    total = int(torch.count_nonzero(scores > score_threshold))
    limit = SHIFTED_UP_TO.get(scores.device.type, SHIFTED_UP_TO["other"])
    wanted = max_detections if max_detections >= 0 else total
    candidates = partial(_candidates, scores, decode, total, score_threshold, min_side)
    for count in _growing_counts(total, wanted, limit, min_side):
        best = candidates(count)
        if min_side is None or len(best.scores) > limit:
            kept = nms_per_category(best.boxes, best.scores, best.categories, nms_threshold)
            if len(kept) > wanted:
                if exact_ties and _has_ties(best.scores[kept[: wanted + 1]]):
                    break
                return best.take(kept[:wanted])
    every = candidates(total)
    kept = _nms_of_all(every, first_label, nms_threshold, limit, exact_ties)
    return every.take(kept[:wanted])


def _growing_counts(total: int, wanted: int, limit: int, min_side: float | None) -> Iterator[int]:
    """How many of the best candidates to try, one number after the other, each below ``total``."""
    # Small boxes may yet drop out: only more than `limit` large ones prove what the peer does.
    least = 1 if min_side is None else limit + 1
    count = total if total <= limit else max(least, CANDIDATES_PER_DETECTION * wanted)
    while count < total:
        yield count
        count *= GROWTH


def _candidates(
    scores: Tensor,
    decode: Decoder,
    total: int,
    threshold: float,
    min_side: float | None,
    count: int,
) -> Selection:
    """The ``count`` best candidates, as :func:`_best_candidates`, less those of small boxes."""
    places = _best_candidates(scores.reshape(-1), count, total, threshold)
    return _decoded(scores, places, decode, min_side)


def _decoded(scores: Tensor, places: Tensor, decode: Decoder, min_side: float | None) -> Selection:
    """The candidates at ``places`` of the flattened scores, less those of small boxes."""
    num_categories = scores.shape[1]
    rois = torch.div(places, num_categories, rounding_mode="floor")
    categories = places - rois * num_categories
    found = Selection(decode(rois, categories), scores.reshape(-1)[places], categories, rois)
    return found if min_side is None else found.take(remove_small_boxes(found.boxes, min_side))


def _nms_of_all(
    candidates: Selection, first_label: int, threshold: float, limit: int, exact_ties: bool
) -> Tensor:
    """Survivors of all candidates (ascending by ROI and category) by descending score."""
    boxes, scores = candidates.boxes, candidates.scores
    labels = candidates.categories + first_label
    if len(boxes) <= limit:
        return batched_nms(boxes, scores, labels, threshold)
    kept = nms_per_category(boxes, scores, labels, threshold)
    # Unstable on purpose: the same call on the same numbers as in batched_nms.
    return kept[scores[kept].sort(descending=True, stable=not exact_ties)[1]]


def _has_ties(descending: Tensor) -> bool:
    """Whether only a pass over all candidates gives the order of ``batched_nms``.

    That is of an unstable sort over all survivors, and differs between processors.
    """
    return bool((descending[1:] == descending[:-1]).any())


def _best_candidates(flat: Tensor, count: int, total: int, threshold: float) -> Tensor:
    """Return the places of the ``count`` best scores, equal ones by place, best first.

    All ``total`` scores above the threshold, where that many are asked for, come by place instead.
    """
    if count == total:
        return (flat > threshold).nonzero()[:, 0]
    places = _at_least_as_good(flat, count)
    if len(places) < count:  # NaN counts as the largest number where the best are chosen
        places = _at_least_as_good(torch.where(flat.isnan(), -torch.inf, flat), count)
    best = torch.sort(flat[places], descending=True, stable=True).indices
    return places[best[:count]]


def _at_least_as_good(flat: Tensor, count: int) -> Tensor:
    """Return the places, ascending, of scores that are at least the ``count``-th best."""
    if flat.device.type == "cpu" and flat.dtype in (torch.float32, torch.float64):
        array = flat.detach().numpy()  # NumPy selects 3 to 10 times faster than torch here
        least = np.partition(array, len(array) - count)[len(array) - count]
        return torch.from_numpy(np.flatnonzero(array >= least))
    return (flat >= torch.topk(flat, count, sorted=False).values.min()).nonzero()[:, 0]
