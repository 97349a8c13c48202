"""Precision from true positives alone against the definition over the whole ranking."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eql_d2.evaluation.matching import UNMATCHED
from eql_d2.evaluation.precision import (
    RECALLS,
    UNDEFINED,
    precision_at_recalls,
    rank_detections,
)


def naive(scores, outcome, num_truths):
    """(101,) by definition; ``outcome`` is 1 right, 0 wrong, None neither."""
    if num_truths == 0:
        return [UNDEFINED] * len(RECALLS)
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    points, right, wrong = [], 0, 0
    for i in order:
        right += outcome[i] == 1
        wrong += outcome[i] == 0
        points.append((right / num_truths, right / max(right + wrong, 1)))
    return [max((p for r, p in points if r >= recall), default=0.0) for recall in RECALLS]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_equals_the_definition(seed):
    rng = np.random.default_rng(seed)
    num_categories, num_detections, num_truths = 3, int(rng.integers(0, 40)), 12
    category = np.sort(rng.integers(0, num_categories, num_detections))
    scores = rng.choice(5, num_detections) / 5  # ties are common
    truth_category = rng.integers(0, num_categories, num_truths)
    ignored = rng.random(num_truths) < 0.2
    counts_unmatched = rng.random(num_detections) < 0.7
    count = np.bincount(truth_category[~ignored], minlength=num_categories)
    matched_detection = np.flatnonzero(rng.random(num_detections) < 0.6)
    matched_truth = np.full((2, len(matched_detection)), UNMATCHED)
    for t in range(2):
        free = set(range(num_truths))
        for column, d in enumerate(matched_detection):
            fitting = [g for g in free if truth_category[g] == category[d]]
            if fitting and rng.random() < 0.8:
                matched_truth[t, column] = rng.choice(fitting)
                free.remove(matched_truth[t, column])
    ranking = rank_detections(category, scores, num_categories)
    precision = precision_at_recalls(
        ranking, counts_unmatched, matched_detection, matched_truth, ignored, count
    )
    for t in range(2):
        outcome = [0 if unmatched else None for unmatched in counts_unmatched]
        for d, g in zip(matched_detection, matched_truth[t], strict=True):
            if g != UNMATCHED:
                outcome[d] = None if ignored[g] else 1
        for k in range(num_categories):
            mine = np.flatnonzero(category == k)
            expected = naive(scores[mine], [outcome[d] for d in mine], count[k])
            assert precision[t, :, k] == pytest.approx(expected, abs=1e-12)


def test_ranking_keeps_the_order_of_ties():
    category = np.array([0, 0, 0, 2, 2])
    ranking = rank_detections(category, np.array([0.1, 0.7, 0.7, 0.2, 0.9]), 3)
    assert ranking.position.tolist() == [2, 0, 1, 4, 3]
    assert ranking.category_start.tolist() == [0, 3, 3, 5]


@pytest.mark.parametrize("num_truths", [1, 2, 3, 7, 10, 97, 100, 1000])
def test_finding_everything_first_is_precision_one_at_every_recall(num_truths):
    """Recall 0.07 of 100 is the 7th object only if the division is the official one."""
    category = np.zeros(num_truths, dtype=int)
    ranking = rank_detections(category, np.linspace(1, 0, num_truths), 1)
    everyone = np.arange(num_truths)
    precision = precision_at_recalls(
        ranking,
        np.ones(num_truths, bool),
        everyone,
        everyone[None],
        np.zeros(num_truths, bool),
        np.array([num_truths]),
    )
    assert precision[0, :, 0] == pytest.approx(np.ones(101))
    half = np.where(everyone < num_truths // 2, everyone, UNMATCHED)[None]
    precision = precision_at_recalls(
        ranking,
        np.ones(num_truths, bool),
        everyone,
        half,
        np.zeros(num_truths, bool),
        np.array([num_truths]),
    )
    reached = (num_truths // 2) / num_truths >= RECALLS
    if num_truths == 1:
        reached[:] = False
    assert precision[0, :, 0] == pytest.approx(reached.astype(float))
