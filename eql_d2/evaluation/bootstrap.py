"""Resample images once for many results files, so that they can be compared in pairs.

All files meet the same images in every resampled set: what makes a set easy or hard for all of them
does not count as a difference between them.

Shapes: I images, K categories, R resampled sets, N results files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eql_d2.errors import UserError
from eql_d2.evaluation.annotations import read_ground_truth
from eql_d2.evaluation.average_precision import with_groups
from eql_d2.evaluation.ground_truth import GroundTruth
from eql_d2.evaluation.matches import Matches, match_detections, select_detections
from eql_d2.evaluation.resampling import image_weights, resampled_category_ap
from eql_d2.evaluation.results import read_results

IOU_TYPES = ("bbox", "segm")
KNOWN_TYPES = (*IOU_TYPES, "boundary")
NUM_SAMPLES = 2000
LEAST_SAMPLES = 100
_BLOCK = 500  # resampled sets at once


@dataclass(frozen=True)
class ResampledAP:
    """AP of every category for one IoU type, from 0 to 1; NaN where no object counts.

    Attributes:
        full: (N, K) with every image once.
        drawn: (N, R, K) in the resampled sets.
        image_category: (2, P) the pairs of an image and a category with an object that counts.
    """

    full: NDArray[np.float64]
    drawn: NDArray[np.float64]
    image_category: NDArray[np.int64]


@dataclass(frozen=True)
class ResampledResults:
    """Results files on the same annotations, and on the same resampled images.

    Attributes:
        ap: IoU type -> AP.
        groups: K of "r", "c", "f", or None if not known.
        names: K names.
        num_images: I.
        seed: Of the random numbers.
        groups_source: In words, where ``groups`` come from; "" if they are None.
    """

    ap: dict[str, ResampledAP]
    groups: tuple[str, ...] | None
    names: tuple[str, ...]
    num_images: int
    seed: int
    groups_source: str = ""


def resample_results(
    annotations: str | os.PathLike[str] | dict[str, Any],
    results: Sequence[str | os.PathLike[str] | Sequence[dict[str, Any]]],
    *,
    iou_types: Sequence[str] = IOU_TYPES,
    groups: Mapping[int, str] | None = None,
    groups_source: str = "as given",
    max_detections: int = 300,
    num_samples: int = NUM_SAMPLES,
    seed: int = 0,
) -> ResampledResults:
    """Match every results file once and compute its AP on resampled images.

    Args:
        annotations: File, or its parsed json.
        results: N files, or their records.
        iou_types: Some of "bbox", "segm" and "boundary".
        groups: "r", "c" or "f" by category id; None takes the annotations' ``frequency``.
        groups_source: In words, where ``groups`` come from, for tables and messages.
        max_detections: Highest scores of an image that count.
        num_samples: R, at least 100: interval ends from fewer are mostly chance.
        seed: Of the random numbers, 0 or more; the same seed gives the same numbers.

    Raises:
        DataError: The annotations cannot be used.
        ResultsError: A results file does not fit the annotations.
        UserError: Another argument is wrong.
    """
    _check_arguments(iou_types, num_samples, seed)
    truth = read_ground_truth(
        annotations, need_masks="segm" in _fields(iou_types), need_groups=groups is None
    )
    if len(truth.image_ids) < 2:
        raise UserError("images cannot be resampled: the annotations hold fewer than two")
    if groups is not None:
        truth = with_groups(truth, groups, groups_source)
    matches = _match_files(truth, results, iou_types, max_detections)
    return ResampledResults(
        {kind: _resample(matches[kind], num_samples, seed) for kind in iou_types},
        truth.groups,
        truth.names,
        len(truth.image_ids),
        seed,
        truth.groups_source,
    )


def _check_arguments(iou_types: Sequence[str], num_samples: int, seed: int) -> None:
    if isinstance(iou_types, str) or not iou_types or not set(iou_types) <= set(KNOWN_TYPES):
        raise UserError(f"iou_types must be some of {KNOWN_TYPES}, got {iou_types!r}")
    if num_samples < LEAST_SAMPLES:
        raise UserError(f"at least {LEAST_SAMPLES} resampled sets are needed, got {num_samples}")
    if seed < 0:
        raise UserError(f"the seed must be 0 or more, got {seed}")


def _fields(iou_types: Sequence[str]) -> list[str]:
    """What the records must hold: "bbox", "segm" or both."""
    masks = ["segm"] if {"segm", "boundary"} & set(iou_types) else []
    return [*(["bbox"] if "bbox" in iou_types else []), *masks]


def _match_files(
    truth: GroundTruth,
    results: Sequence[str | os.PathLike[str] | Sequence[dict[str, Any]]],
    iou_types: Sequence[str],
    max_detections: int,
) -> dict[str, list[Matches]]:
    """IoU type -> the matches of each of the N results files."""
    matches: dict[str, list[Matches]] = {kind: [] for kind in iou_types}
    for file in results:
        detections = read_results(file, truth, _fields(iou_types))
        kept = select_detections(truth, detections, max_detections)
        for kind in iou_types:
            matches[kind].append(match_detections(truth, detections, kind, kept))
    return matches


def _resample(matches: Sequence[Matches], num_samples: int, seed: int) -> ResampledAP:
    first = matches[0]
    generator = np.random.default_rng(seed)  # the same sets for boxes and for masks
    drawn = np.empty((len(matches), num_samples, first.num_categories))
    for start in range(0, num_samples, _BLOCK):
        size = min(_BLOCK, num_samples - start)
        weights = image_weights(generator, first.num_images, size)
        for n, part in enumerate(matches):
            drawn[n, start : start + size] = resampled_category_ap(part, weights)
    once = np.ones((first.num_images, 1))
    full = np.concatenate([resampled_category_ap(part, once) for part in matches])
    counts = ~first.ignored[0]
    pairs = np.unique(np.stack((first.truth_image[counts], first.truth_category[counts])), axis=1)
    return ResampledAP(full, drawn, pairs)
