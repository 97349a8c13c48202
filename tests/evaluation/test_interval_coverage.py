"""How often the interval over images holds the truth: a simulation with AP itself.

From a population of images with two detectors, whose difference of AP is known, small test sets
are drawn; each gives an interval. ``COVERAGE_SIMULATIONS=400`` with ``pytest -s`` prints the share.
"""

import os

import numpy as np
import pytest

from eql_d2.evaluation.bootstrap import ResampledResults, _resample
from eql_d2.evaluation.comparison import compare_results
from eql_d2.evaluation.matches import Matches
from eql_d2.evaluation.resampling import resampled_category_ap
from eql_d2.evaluation.thresholds import IOU_THRESHOLDS

SIMULATIONS = int(os.environ.get("COVERAGE_SIMULATIONS", "40"))
POPULATION, IMAGES, CATEGORIES = 4000, 150, 15


def detector(rng, skill, truth_image, truth_category, hard):
    """Matches of a detector: finds objects, the better the higher the skill, and invents others."""
    quality = skill[truth_category] - 0.5 * hard[truth_image] + rng.normal(0, 0.7, len(truth_image))
    found = np.flatnonzero(rng.random(len(quality)) < 1 / (1 + np.exp(-quality - 1)))
    overlap = np.clip(0.5 + 0.45 / (1 + np.exp(-quality)) - 0.15 * rng.random(len(quality)), 0, 1)
    wrong = rng.poisson(1.5, POPULATION)
    image = np.concatenate((truth_image[found], np.repeat(np.arange(POPULATION), wrong)))
    category = np.concatenate(
        (truth_category[found], rng.integers(0, CATEGORIES, int(wrong.sum())))
    )
    score = np.concatenate((quality[found], rng.normal(-1, 1, int(wrong.sum()))))
    score = score + rng.normal(0, 0.5, len(score))
    taken = np.concatenate((found, np.full(int(wrong.sum()), -1)))
    order = np.lexsort((-score, image, category))
    overlapping = np.flatnonzero(taken[order] >= 0)
    own = taken[order][overlapping]
    matched = np.where(overlap[own] >= IOU_THRESHOLDS[:, None], own, -1).astype(np.int32)
    return Matches(
        num_images=POPULATION, num_categories=CATEGORIES, index=order, image=image[order],
        category=category[order], scores=score[order],
        counts_unmatched=np.ones((1, len(order)), dtype=bool), overlapping=overlapping,
        matched=matched[None], truth_image=truth_image, truth_category=truth_category,
        ignored=np.zeros((1, len(truth_image)), dtype=bool),
    )  # fmt: skip


def part(matches, images):
    """The matches of some images alone."""
    place = np.full(POPULATION, -1)
    place[images] = np.arange(len(images))
    here, own = place[matches.truth_image] >= 0, place[matches.image] >= 0
    number = np.append(np.cumsum(here) - 1, -1)
    some = own[matches.overlapping]
    return Matches(
        num_images=len(images), num_categories=CATEGORIES, index=matches.index[own],
        image=place[matches.image[own]], category=matches.category[own],
        scores=matches.scores[own], counts_unmatched=matches.counts_unmatched[:, own],
        overlapping=(np.cumsum(own) - 1)[matches.overlapping[some]],
        matched=number[matches.matched[:, :, some]].astype(np.int32),
        truth_image=place[matches.truth_image[here]],
        truth_category=matches.truth_category[here], ignored=matches.ignored[:, here],
    )  # fmt: skip


@pytest.fixture(scope="module")
def population():
    rng = np.random.default_rng(1)
    share = np.exp(rng.uniform(np.log(0.02), np.log(0.3), CATEGORIES))  # a long tail
    number = rng.poisson(share, (POPULATION, CATEGORIES))
    image, category = (np.repeat(part, number.ravel()) for part in np.divmod(
        np.arange(number.size), CATEGORIES))  # fmt: skip
    hard = rng.normal(size=POPULATION)
    skill = rng.normal(0, 1, CATEGORIES)
    better = skill + rng.normal(0.2, 0.5, CATEGORIES)
    return [detector(rng, s, image, category, hard) for s in (skill, better)]


def test_intervals_over_images_hold_the_difference_of_the_population(population):
    once = np.ones((POPULATION, 1))
    first, second = (100 * resampled_category_ap(m, once).mean() for m in population)
    rng = np.random.default_rng(2)
    inside, widths = [], []
    for seed in range(SIMULATIONS):
        images = np.sort(rng.choice(POPULATION, IMAGES, replace=False))
        ap = _resample([part(m, images) for m in population], 200, seed)
        names = ("",) * CATEGORIES
        resampled = ResampledResults({"bbox": ap}, None, names, IMAGES, seed)
        interval = compare_results(resampled, [0], [1]).differences[0].intervals["images"]
        inside.append(interval.low <= second - first <= interval.high)
        widths.append(interval.high - interval.low)
    print(f"difference {second - first:.2f}: {np.mean(inside):.3f} of {SIMULATIONS} 95 % intervals "
          f"hold it, mean width {np.mean(widths):.2f}")  # fmt: skip
    assert np.mean(inside) > 0.85  # 0.95 less nearly three standard deviations of 40 draws
