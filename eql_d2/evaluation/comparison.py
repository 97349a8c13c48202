"""Whether the difference between two sets of results exceeds the noise.

Three sources of noise are kept apart, because each answers another question:

* **images**: the same models on other test images. Paired bootstrap: both sides meet the same
  images, drawn with replacement (Efron and Tibshirani 1993).
* **categories**: the same models on other categories like these. The categories behind a metric
  are drawn with replacement; their AP is that of all images.
* **seeds**: the same methods trained again. Welch's t interval over the runs of each side; a side
  of one run cannot tell.

*Images and categories* counts both at once by two-way clustering: the variance over images plus
that over categories, less the part that is in both, which is the variance over images of each
category's own difference (A. C. Cameron, J. B. Gelbach and D. L. Miller, "Robust Inference With
Multiway Clustering", Journal of Business & Economic Statistics 29 (2011)); a t interval. *All*
adds the variance of the seeds, and is never narrower than either part. The intervals over images
and over categories are expanded percentile intervals, see
:func:`eql_d2.evaluation.intervals.expanded_percentile_interval`.

In a resampled set, as in any test set, a category without an object drops out of the mean.

Shapes: K categories, R resampled sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eql_d2.errors import UserError
from eql_d2.evaluation.bootstrap import ResampledAP, ResampledResults
from eql_d2.evaluation.intervals import (
    Interval,
    StandardError,
    combine,
    expanded_percentile_interval,
    welch,
)
from eql_d2.evaluation.report import no_category

METRICS = {"AP": None, "APr": "r", "APc": "c", "APf": "f"}
SOURCES = ("images", "categories", "images and categories", "seeds", "all")


@dataclass(frozen=True)
class Difference:
    """The difference of one metric between two sides, in percent points.

    Attributes:
        metric: Such as "bbox/APr".
        first: Mean over the runs of the first side.
        second: Mean over the runs of the second side.
        num_categories: Behind the metric.
        num_images: With an object of these categories.
        intervals: For each of SOURCES, None where it cannot be known.
    """

    metric: str
    first: float
    second: float
    num_categories: int
    num_images: int
    intervals: dict[str, Interval | None]

    @property
    def value(self) -> float:
        """Second minus first."""
        return self.second - self.first


@dataclass(frozen=True)
class Comparison:
    """Two sides, metric by metric.

    Attributes:
        names: What the sides are called.
        num_runs: Runs of each side.
        differences: Those metrics that any category is behind.
        undefined: Metric -> why there is no number.
        confidence: Of the intervals.
        num_samples: Resampled sets.
        num_images: In the test set.
        seed: Of the random numbers.
        groups_source: In words, where the groups r, c, f come from; "" if they are not known.
    """

    names: tuple[str, str]
    num_runs: tuple[int, int]
    differences: tuple[Difference, ...]
    undefined: dict[str, str]
    confidence: float
    num_samples: int
    num_images: int
    seed: int
    groups_source: str = ""


def compare_results(
    resampled: ResampledResults,
    first: Sequence[int],
    second: Sequence[int],
    *,
    names: tuple[str, str] = ("A", "B"),
    confidence: float = 0.95,
) -> Comparison:
    """Compare two sides of one or more results files each.

    Args:
        resampled: All files.
        first: Which of them are the first side.
        second: Which are the second side.
        names: What the sides are called.
        confidence: Of the intervals, between 0.5 and 1.

    Raises:
        UserError: a side is empty, or the confidence is out of range.
    """
    _check_arguments(first, second, confidence)
    differences: list[Difference] = []
    undefined: dict[str, str] = {}
    for kind, ap in resampled.ap.items():
        for name, group in METRICS.items():
            metric = f"{kind}/{name}"
            members = _members(ap, resampled.groups, group)
            if isinstance(members, str):
                undefined[metric] = members
                continue
            generator = np.random.default_rng([resampled.seed, len(differences)])
            sides = (list(first), list(second))
            differences.append(_difference(metric, ap, sides, members, generator, confidence))
    sizes = (len(first), len(second))
    num_samples = next(iter(resampled.ap.values())).drawn.shape[1]
    return Comparison(
        names, sizes, tuple(differences), undefined, confidence, num_samples,
        resampled.num_images, resampled.seed, resampled.groups_source,
    )  # fmt: skip


def _check_arguments(first: Sequence[int], second: Sequence[int], confidence: float) -> None:
    if not 0.5 <= confidence < 1:
        raise UserError(f"confidence must be from 0.5 to below 1, got {confidence}")
    if not first or not second:
        raise UserError("both sides of a comparison need at least one results file")


def _members(
    ap: ResampledAP, groups: Sequence[str] | None, group: str | None
) -> NDArray[np.int64] | str:
    """The categories behind a metric, or why there are none."""
    defined = ~np.isnan(ap.full[0])
    if group is not None:
        if groups is None or group not in groups:
            return no_category(group, groups)
        belongs = np.array([letter == group for letter in groups], dtype=bool)
        if not (defined & belongs).any():
            return f"0 of {belongs.sum()} categories of group {group!r} have ground truth"
        defined &= belongs
    if not defined.any():
        return "no category has ground truth"
    return np.flatnonzero(defined)


def _difference(
    metric: str,
    ap: ResampledAP,
    sides: tuple[list[int], list[int]],
    members: NDArray[np.int64],
    generator: np.random.Generator,
    confidence: float,
) -> Difference:
    draws = _draw(ap, *sides, members, generator)
    runs = [(100 * ap.full[side][:, members].mean(axis=1)).tolist() for side in sides]
    first, second = (float(np.mean(values)) for values in runs)
    image, category = ap.image_category
    units = (len(np.unique(image[np.isin(category, members)])), len(members))
    intervals = _intervals(second - first, draws, units, welch(*runs), confidence)
    return Difference(metric, first, second, units[1], units[0], intervals)


def _draw(
    ap: ResampledAP,
    first: list[int],
    second: list[int],
    members: NDArray[np.int64],
    generator: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Differences in percent points: (R,) over images, (R,) over categories, joint deviation."""
    change = ap.full[second].mean(axis=0) - ap.full[first].mean(axis=0)
    drawn = ap.drawn[second].mean(axis=0) - ap.drawn[first].mean(axis=0)
    change, drawn = 100 * change[members], 100 * drawn[:, members]
    size = len(members)
    times = generator.multinomial(size, np.full(size, 1 / size), len(drawn))
    images, categories = _mean_of_defined(drawn, axis=1), times @ change / size
    variances = np.nanvar(images), np.var(categories)
    own = drawn - _mean_of_defined(drawn, axis=0)
    shared = float(_mean_of_defined(own**2, axis=0).sum() / size**2)
    # Never below either: the part in both is an estimate, too.
    joint = max(float(variances[0] + variances[1]) - shared, *map(float, variances))
    return images, categories, joint**0.5


def _mean_of_defined(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Mean of what is not NaN; NaN where nothing is left."""
    number = (~np.isnan(values)).sum(axis=axis)
    return np.where(number > 0, np.nansum(values, axis=axis) / np.maximum(number, 1), np.nan)


def _intervals(
    estimate: float,
    draws: tuple[NDArray[np.float64], NDArray[np.float64], float],
    units: tuple[int, int],
    seeds: StandardError | None,
    confidence: float,
) -> dict[str, Interval | None]:
    """The intervals of all SOURCES; ``units`` are the images and the categories behind a metric."""
    images, categories, joint = draws
    known: dict[str, Interval | None] = dict.fromkeys(SOURCES)
    known["images"] = expanded_percentile_interval(images, confidence, units[0])
    known["categories"] = expanded_percentile_interval(categories, confidence, units[1])
    if seeds is not None:
        known["seeds"] = seeds.interval(estimate, confidence)
    if min(units) > 1:
        both = StandardError(joint, min(units) - 1)
        known["images and categories"] = both.interval(estimate, confidence)
        if seeds is not None:
            # Satterthwaite's degrees can make the sum look better known than its worst part.
            parts = (both, seeds, combine([both, seeds]))
            intervals = [part.interval(estimate, confidence) for part in parts]
            known["all"] = max(intervals, key=lambda interval: interval.high)
    return known
