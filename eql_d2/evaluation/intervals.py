"""Confidence intervals for the few methods used here; each is named with its source."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, variance

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Interval:
    """From ``low`` to ``high``, both in the unit of the estimate."""

    low: float
    high: float

    def excludes_zero(self) -> bool:
        """Whether all of the interval is on one side of 0."""
        return self.low > 0 or self.high < 0


@functools.cache
def student_t_quantile(probability: float, degrees: float) -> float:
    """Quantile of Student's t distribution, to about 8 digits at usual probabilities.

    Args:
        probability: Between 0 and 1, both excluded.
        degrees: Degrees of freedom, at least 1; need not be whole.
    """
    if not 0 < probability < 1 or degrees < 1:
        raise ValueError(f"no t quantile for probability {probability}, {degrees} degrees")
    if probability < 0.5:
        return -student_t_quantile(1 - probability, degrees)
    if math.isinf(degrees) or degrees > 1e6:
        return NormalDist().inv_cdf(probability)
    # With t = sqrt(degrees) tan(angle) the density is proportional to cos(angle)^(degrees - 1).
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        if 0.5 + _half_t_mass(middle, degrees) < probability:
            low = middle
        else:
            high = middle
    return math.sqrt(degrees) * math.tan(low)


_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(64)


def _half_t_mass(angle: float, degrees: float) -> float:
    """Probability between 0 and t = sqrt(degrees) tan(angle).

    Integrated in pieces that get shorter towards 0, where the mass of many degrees of freedom is.
    """
    scale = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)
    factor = math.exp(scale) / math.sqrt(math.pi)
    edges = angle * 2.0 ** -np.arange(24)
    edges[-1] = 0.0
    half, middle = -np.diff(edges) / 2, (edges[1:] + edges[:-1]) / 2
    nodes = np.cos(middle[:, None] + half[:, None] * _NODES)
    density = np.abs(nodes) ** (degrees - 1)
    return factor * float(np.sum(half[:, None] * _NODE_WEIGHTS * density))


def expanded_percentile_interval(
    draws: NDArray[np.float64], confidence: float, num_units: int
) -> Interval | None:
    """Percentile bootstrap interval, widened for few units.

    The plain percentile interval is too narrow by about sqrt((n - 1) / n) and takes the normal
    for the t distribution. Expanding its tail probabilities to Phi(-sqrt(n / (n - 1)) t) mends
    both: T. Hesterberg, "What Teachers Should Know About the Bootstrap", The American
    Statistician 69 (2015). The plain one: B. Efron and R. Tibshirani, "An Introduction to the
    Bootstrap" (1993), chapter 13.

    Args:
        draws: (R,) statistic of each resampled set; those not finite are left out.
        confidence: For example 0.95.
        num_units: How many units were drawn from; with fewer than 2 there is no interval.
    """
    draws = draws[np.isfinite(draws)]
    if num_units < 2 or len(draws) < 2:
        return None
    t = student_t_quantile((1 + confidence) / 2, num_units - 1)
    tail = NormalDist().cdf(-math.sqrt(num_units / (num_units - 1)) * t)
    low, high = np.quantile(draws, (tail, 1 - tail))
    return Interval(float(low), float(high))


@dataclass(frozen=True)
class StandardError:
    """A standard error and its degrees of freedom."""

    value: float
    degrees: float

    def interval(self, estimate: float, confidence: float) -> Interval:
        """Return estimate -+ t x standard error."""
        reach = self.value * student_t_quantile((1 + confidence) / 2, self.degrees)
        return Interval(estimate - reach, estimate + reach)


def welch(first: Sequence[float], second: Sequence[float]) -> StandardError | None:
    """Standard error of the difference of two means, variances not taken to be equal.

    B. L. Welch, "The generalization of 'Student's' problem when several different population
    variances are involved", Biometrika 34 (1947). None with fewer than two values on a side.
    """
    if min(len(first), len(second)) < 2:
        return None
    parts = [StandardError(math.sqrt(variance(v) / len(v)), len(v) - 1) for v in (first, second)]
    return combine(parts)


def combine(parts: Sequence[StandardError]) -> StandardError:
    """Standard error of a sum of independent parts; Satterthwaite's degrees of freedom.

    F. E. Satterthwaite, "An approximate distribution of estimates of variance components",
    Biometrics Bulletin 2 (1946).
    """
    total = sum(part.value**2 for part in parts)
    if total == 0:
        return StandardError(0.0, min(part.degrees for part in parts))
    share = sum((part.value**2 / total) ** 2 / part.degrees for part in parts)
    return StandardError(math.sqrt(total), 1 / share)
