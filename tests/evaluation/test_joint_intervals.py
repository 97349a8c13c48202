"""Intervals over images and categories at once, from differences whose noise is known."""

import numpy as np

from eql_d2.evaluation.bootstrap import ResampledAP, ResampledResults
from eql_d2.evaluation.comparison import compare_results


def synthetic(rng, images, categories, gain):
    """Differences with the noise of images and of categories known: no AP behind them."""
    of_category = rng.normal(gain, 4.0, categories)
    of_pair = rng.normal(0, 30.0, (images, categories))
    weights = rng.multinomial(images, np.full(images, 1 / images), 300) / images
    full = (of_category + of_pair.mean(axis=0)) / 100
    drawn = (of_category + weights @ of_pair) / 100
    pairs = np.stack(np.divmod(np.arange(images * categories), categories))
    stack = [np.stack((np.zeros_like(part), part)) for part in (full, drawn)]
    return ResampledResults(
        {"bbox": ResampledAP(*stack, pairs)}, None, ("",) * categories, images, int(gain)
    )


def test_joint_intervals_hold_the_truth_in_about_95_percent():
    """New images and new categories at once, both sources of similar size."""
    rng = np.random.default_rng(3)
    inside = []
    for _ in range(150):
        resampled = synthetic(rng, 50, 20, 2.0)
        d = compare_results(resampled, [0], [1]).differences[0]
        interval = d.intervals["images and categories"]
        inside.append(interval.low <= 2.0 <= interval.high)
    assert 0.9 <= np.mean(inside) <= 0.99
