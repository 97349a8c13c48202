"""Matching in rounds against the loops that define it, written from the description."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from eql_d2.evaluation.matching import UNMATCHED, match, plan_rounds
from eql_d2.evaluation.overlaps import Overlaps

THRESHOLDS = np.array([0.5, 0.7, 0.95])


def naive(iou, detection_pair, truth_pair, ignored, crowd, threshold):
    """Object of each detection, by the rules in words, one detection after the other."""
    taken, result = set(), []
    for d in range(len(detection_pair)):
        best = None
        for g in range(len(truth_pair)):
            if truth_pair[g] != detection_pair[d] or (g in taken and not crowd[g]):
                continue
            if iou[d, g] >= threshold:
                key = (not ignored[g], iou[d, g], g)
                best = key if best is None else max(best, key)
        result.append(UNMATCHED if best is None else best[2])
        if best is not None:
            taken.add(best[2])
    return result


def overlaps_of(iou, detection_pair, truth_pair):
    same = detection_pair[:, None] == truth_pair[None]
    row, column = np.nonzero((iou >= THRESHOLDS[0]) & same)
    return Overlaps(row, column, iou[row, column])


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_equals_the_loops(seed):
    rng = np.random.default_rng(seed)
    num_pairs, num_detections, num_truths = (
        rng.integers(1, 4),
        rng.integers(0, 15),
        rng.integers(0, 9),
    )
    detection_pair = np.sort(rng.integers(0, num_pairs, num_detections))
    truth_pair = rng.integers(0, num_pairs, num_truths)
    iou = rng.choice([0.2, 0.5, 0.7, 0.8, 1.0], (num_detections, num_truths))  # ties are common
    ignored = rng.random(num_truths) < 0.3
    crowd = ignored & (rng.random(num_truths) < 0.5)
    plan = plan_rounds(overlaps_of(iou, detection_pair, truth_pair), detection_pair)
    matched = match(plan, ignored, crowd, THRESHOLDS)
    everyone = np.full((len(THRESHOLDS), num_detections), UNMATCHED)
    everyone[:, plan.detection] = matched
    for t, threshold in enumerate(THRESHOLDS):
        expected = naive(iou, detection_pair, truth_pair, ignored, crowd, threshold)
        assert everyone[t].tolist() == expected


def run(iou, ignored=None, crowd=None):
    iou = np.array(iou)
    detection_pair, truth_pair = (np.zeros(n, dtype=int) for n in iou.shape)
    ignored = np.zeros(iou.shape[1], bool) if ignored is None else np.array(ignored)
    crowd = np.zeros(iou.shape[1], bool) if crowd is None else np.array(crowd)
    plan = plan_rounds(overlaps_of(iou, detection_pair, truth_pair), detection_pair)
    return match(plan, ignored, crowd, THRESHOLDS[:1])[0].tolist()


def test_a_detection_takes_the_highest_overlap_and_of_equal_ones_the_last():
    assert run([[0.6, 0.9, 0.7]]) == [1]
    assert run([[0.9, 0.9, 0.7]]) == [1]


def test_a_taken_object_is_gone():
    assert run([[0.6, 0.9], [0.6, 0.9], [0.6, 0.9]]) == [1, 0, UNMATCHED]


def test_an_ignored_object_takes_what_nobody_else_does():
    assert run([[0.6, 0.9], [0.6, 0.9], [0.6, 0.9]], ignored=[False, True]) == [0, 1, UNMATCHED]


def test_a_crowd_takes_any_number():
    assert run([[0.9], [0.8], [0.7]], ignored=[True], crowd=[True]) == [0, 0, 0]


def test_rounds_handle_pairs_together():
    """Three pairs with 3, 1 and 2 detections make three rounds of 3, 2 and 1 detections."""
    pair = np.array([4, 4, 4, 5, 8, 8])
    everyone = np.arange(6)
    plan = plan_rounds(Overlaps(everyone, everyone, np.ones(6)), pair)
    sizes = [step.detections.stop - step.detections.start for step in plan.rounds]
    assert sizes == [3, 2, 1]
    assert plan.detection[plan.column].tolist() == [0, 3, 4, 1, 5, 2]


def test_nothing_overlaps():
    nothing = Overlaps(np.zeros(0, int), np.zeros(0, int), np.zeros(0))
    plan = plan_rounds(nothing, np.array([1, 2]))
    assert plan.rounds == []
    assert match(plan, np.zeros(3, bool), np.zeros(3, bool), THRESHOLDS).shape == (3, 0)
