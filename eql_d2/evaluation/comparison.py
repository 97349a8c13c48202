"""Whether the difference between two sets of results exceeds the noise.

Three sources of noise are kept apart, because each answers another question:

* **images**: the same models on other test images. Paired bootstrap: both sides meet the same
  images, drawn with replacement (Efron and Tibshirani 1993).
* **categories**: the same models on other categories like these. The categories behind a metric
  are drawn with replacement; their AP is that of all images.
* **seeds**: the same methods trained again. Welch's t interval over the runs of each side; a side
  of one run cannot tell.

*Images and categories* draws both at once (A. B. Owen, "The pigeonhole bootstrap", Annals of
Applied Statistics 1 (2007); it errs on the wide side). *All* adds the variance of the seeds to that
of images and categories. The bootstrap intervals are expanded percentile intervals, see
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
    """

    names: tuple[str, str]
    num_runs: tuple[int, int]
    differences: tuple[Difference, ...]
    undefined: dict[str, str]
    confidence: float
    num_samples: int
    num_images: int
    seed: int


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
    if not 0.5 <= confidence < 1:
        raise UserError(f"confidence must be from 0.5 to below 1, got {confidence}")
    if not first or not second:
        raise UserError("both sides of a comparison need at least one results file")
    differences, undefined = [], {}
    for kind, ap in resampled.ap.items():
        for name, group in METRICS.items():
            metric = f"{kind}/{name}"
            members = _members(ap, resampled.groups, group)
            if isinstance(members, str):
                undefined[metric] = members
                continue
            sides = (ap.full[list(first)][:, members], ap.full[list(second)][:, members])
            generator = np.random.default_rng([resampled.seed, len(differences)])
            draws = _draw(ap, first, second, members, generator)
            units = _num_images(ap, members)
            difference = _difference(metric, sides, draws, units, confidence)
            differences.append(difference)
    sizes = (len(first), len(second))
    num_samples = next(iter(resampled.ap.values())).drawn.shape[1]
    return Comparison(
        names, sizes, tuple(differences), undefined, confidence, num_samples,
        resampled.num_images, resampled.seed,
    )  # fmt: skip


def _members(
    ap: ResampledAP, groups: Sequence[str] | None, group: str | None
) -> NDArray[np.int64] | str:
    """The categories behind a metric, or why there are none."""
    defined = ~np.isnan(ap.full[0])
    if group is not None:
        if groups is None:
            return "the annotations do not say which categories are rare, common or frequent"
        belongs = np.array([letter == group for letter in groups], dtype=bool)
        if not (defined & belongs).any():
            return f"0 of {belongs.sum()} categories of group {group!r} have ground truth"
        defined &= belongs
    if not defined.any():
        return "no category has ground truth"
    return np.flatnonzero(defined)


def _num_images(ap: ResampledAP, members: NDArray[np.int64]) -> int:
    image, category = ap.image_category
    return len(np.unique(image[np.isin(category, members)]))


def _draw(
    ap: ResampledAP,
    first: Sequence[int],
    second: Sequence[int],
    members: NDArray[np.int64],
    generator: np.random.Generator,
) -> dict[str, NDArray[np.float64]]:
    """(R,) differences in percent points under each kind of resampling."""
    change = ap.full[list(second)].mean(axis=0) - ap.full[list(first)].mean(axis=0)
    drawn = ap.drawn[list(second)].mean(axis=0) - ap.drawn[list(first)].mean(axis=0)
    change, drawn = 100 * change[members], 100 * drawn[:, members]
    size = len(members)
    times = generator.multinomial(size, np.full(size, 1 / size), len(drawn)).astype(np.float64)
    return {
        "images": _weighted_mean(drawn, np.ones_like(drawn)),
        "categories": times @ change / size,
        "images and categories": _weighted_mean(drawn, times),
    }


def _weighted_mean(
    values: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean over the second axis of what is defined; NaN where nothing is."""
    weights = np.where(np.isnan(values), 0.0, weights)
    total = weights.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.where(total > 0, (np.nan_to_num(values) * weights).sum(axis=1) / total, np.nan)


def _difference(
    metric: str,
    sides: tuple[NDArray[np.float64], NDArray[np.float64]],
    draws: dict[str, NDArray[np.float64]],
    num_images: int,
    confidence: float,
) -> Difference:
    """Assemble one metric; ``sides`` hold (runs, categories) AP of each side, from 0 to 1."""
    num_categories = sides[0].shape[1]
    units = {
        "images": num_images,
        "categories": num_categories,
        "images and categories": min(num_images, num_categories),
    }
    intervals: dict[str, Interval | None] = {
        source: expanded_percentile_interval(draws[source], confidence, units[source])
        for source in units
    }
    runs = [(100 * side.mean(axis=1)).tolist() for side in sides]
    first, second = (float(np.mean(values)) for values in runs)
    seeds = welch(*runs)
    intervals["seeds"] = seeds and seeds.interval(second - first, confidence)
    both = draws["images and categories"]
    both = both[np.isfinite(both)]
    intervals["all"] = None
    if seeds is not None and units["images and categories"] > 1 and len(both) > 1:
        noise = StandardError(float(both.std(ddof=1)), units["images and categories"] - 1)
        intervals["all"] = combine([noise, seeds]).interval(second - first, confidence)
    return Difference(metric, first, second, num_categories, num_images, intervals)
