"""The result of matching, and that a smaller selection needs no second matching."""

import numpy as np
import pytest

from eql_d2.evaluation.annotations import read_ground_truth
from eql_d2.evaluation.curves import category_precision
from eql_d2.evaluation.matches import (
    NEITHER,
    RIGHT,
    WRONG,
    match_detections,
    select_detections,
)
from eql_d2.evaluation.results import read_results
from eql_d2.evaluation.selection import highest_scores, labelled
from eql_d2.evaluation.thresholds import AREA_RANGES, IOU_THRESHOLDS


def load(case):
    truth = read_ground_truth(case[0], need_masks=True)
    return truth, read_results(case[1], truth, ("bbox", "segm"))


def labelled_rows(truth, detections):
    return np.flatnonzero(labelled(truth, detections.image, detections.category))


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(30))
def test_a_selection_by_score_equals_matching_it_alone(seed, kind, random_case):
    truth, detections = load(random_case(seed, number=60))
    kept = labelled_rows(truth, detections)
    everyone = match_detections(truth, detections, kind, kept)
    for group in (detections.image, detections.category, detections.image * 0):
        small = np.intersect1d(kept, highest_scores(group, detections.scores, 6))
        alone = match_detections(truth, detections, kind, small)
        part = everyone.only(np.isin(everyone.index, small))
        for name in vars(alone):
            np.testing.assert_array_equal(getattr(part, name), getattr(alone, name), name)
        if len(group) > 6:
            assert len(part) < len(everyone)


@pytest.mark.parametrize("seed", range(10))
def test_precision_follows_from_the_outcomes(seed, random_case):
    """By the definition, from nothing but scores and outcomes."""
    truth, detections = load(random_case(seed, number=60))
    matches = match_detections(truth, detections, "bbox", select_detections(truth, detections))
    precision = category_precision(matches)
    for area in range(len(AREA_RANGES)):
        outcomes = matches.outcomes(area)
        assert outcomes.shape == (len(IOU_THRESHOLDS), len(matches))
        for k in np.flatnonzero(matches.num_truths[area]):
            mine = np.flatnonzero(matches.category == k)
            mine = mine[np.argsort(-matches.scores[mine], kind="stable")]
            for t, outcome in enumerate(outcomes[:, mine]):
                right = np.cumsum(outcome == RIGHT)
                wrong = np.cumsum(outcome == WRONG)
                recall = right / matches.num_truths[area][k]
                curve = right / np.maximum(right + wrong, 1)
                expected = [
                    max(curve[recall >= r], default=0.0) for r in np.linspace(0.0, 1.0, 101)
                ]
                assert precision[area][t, :, k] == pytest.approx(expected, abs=1e-12)


def test_outcomes_are_not_trivial(random_case):
    seen = set()
    for seed in range(10):
        truth, detections = load(random_case(seed, number=60))
        matches = match_detections(truth, detections, "bbox", select_detections(truth, detections))
        seen |= set(np.unique(matches.outcomes()).tolist())
    assert seen == {RIGHT, WRONG, NEITHER}


def test_order_and_indices(random_case):
    truth, detections = load(random_case(4, number=60))
    matches = match_detections(truth, detections, "bbox", select_detections(truth, detections))
    keys = list(zip(matches.category, matches.image, -matches.scores, matches.index, strict=True))
    assert keys == sorted(keys)
    assert (detections.scores[matches.index] == matches.scores).all()
    assert (detections.image[matches.index] == matches.image).all()
    taken = matches.matched[0, 0]
    found = taken >= 0
    same = matches.truth_category[taken[found]] == matches.category[matches.overlapping[found]]
    assert found.any()
    assert same.all()


def test_no_detections(random_case):
    truth, _ = load(random_case(4))
    none = read_results([], truth, ("bbox", "segm"))
    for kind in ("bbox", "segm"):
        matches = match_detections(truth, none, kind, select_detections(truth, none))
        assert len(matches) == 0
        assert matches.outcomes().shape == (len(IOU_THRESHOLDS), 0)
        assert len(matches.only(np.zeros(0, dtype=bool))) == 0
