"""AP of resampled images: what the evaluation says of the set with copies of images."""

import copy
import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eql_d2.evaluation import evaluate
from eql_d2.evaluation.annotations import read_ground_truth
from eql_d2.evaluation.matches import match_detections, select_detections
from eql_d2.evaluation.resampling import image_weights, resampled_category_ap
from eql_d2.evaluation.results import read_results

RANDOM = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}
COPIES = 100  # ids of the copies of image i are from i * COPIES on, next to each other


def match(truth, records, kind, max_detections=300):
    ground_truth = read_ground_truth(truth, need_masks=kind == "segm")
    detections = read_results(records, ground_truth, [kind])
    kept = select_detections(ground_truth, detections, max_detections)
    return match_detections(ground_truth, detections, kind, kept)


def replicated(truth, records, times):
    """The data set in which the image of sorted rank i stands ``times[i]`` times."""
    ids = sorted(image["id"] for image in truth["images"])
    often = dict(zip(ids, times, strict=True))
    number = itertools.count(1)
    result = {key: [] for key in ("images", "annotations")} | {"categories": truth["categories"]}
    result["images"] = [
        image | {"id": image["id"] * COPIES + i}
        for image in truth["images"]
        for i in range(often[image["id"]])
    ]
    result["annotations"] = [
        a | {"image_id": a["image_id"] * COPIES + i, "id": next(number)}
        for a in truth["annotations"]
        for i in range(often[a["image_id"]])
    ]
    copies = [
        r | {"image_id": r["image_id"] * COPIES + i}
        for r in records
        for i in range(often[r["image_id"]])
    ]
    return result, copies


def distinct_scores(records, seed):
    """Equal scores inside an image and category would be ordered image by image among copies."""
    scores = np.random.default_rng(seed).permutation(len(records)) / len(records)
    return [record | {"score": float(s)} for record, s in zip(records, scores, strict=True)]


def expected_ap(truth, records, kind):
    rows = evaluate(truth, records, iou_types=[kind]).categories
    return np.array([np.nan if r.ap[kind] is None else r.ap[kind] / 100 for r in rows])


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@given(seed=st.integers(0, 10**6))
@settings(max_examples=40, **RANDOM)
def test_whole_weights_are_copies_of_images(random_case, kind, seed):
    truth, records = random_case(seed)
    records = distinct_scores(records, seed)
    times = np.random.default_rng(seed).integers(0, 4, len(truth["images"]))
    times[0] = max(times[0], 1)
    found = resampled_category_ap(match(truth, records, kind), times[:, None].astype(float))
    expected = expected_ap(*replicated(truth, records, times.tolist()), kind)
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-12)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=30, **RANDOM)
def test_every_image_once_is_the_evaluation(random_case, seed):
    truth, records = random_case(seed)  # with ties
    weights = np.ones((len(truth["images"]), 2))
    found = resampled_category_ap(match(truth, records, "bbox"), weights)
    expected = expected_ap(truth, records, "bbox")
    np.testing.assert_allclose(found, [expected, expected], rtol=0, atol=1e-12)


def test_sets_do_not_influence_each_other(random_case):
    truth, records = random_case(3, 60)
    matches = match(truth, records, "bbox")
    weights = image_weights(np.random.default_rng(0), matches.num_images, 7)
    together = resampled_category_ap(matches, weights)
    alone = [resampled_category_ap(matches, weights[:, r : r + 1])[0] for r in range(7)]
    np.testing.assert_array_equal(together, alone)


def test_blocks_of_detections_do_not_matter(random_case, monkeypatch):
    truth, records = random_case(5, 200)
    matches = match(truth, records, "bbox")
    weights = image_weights(np.random.default_rng(0), matches.num_images, 3)
    whole = resampled_category_ap(matches, weights)
    monkeypatch.setattr("eql_d2.evaluation.resampling._LARGEST_BLOCK", 6)  # two detections
    np.testing.assert_array_equal(resampled_category_ap(matches, weights), whole)


def test_a_category_whose_images_are_not_drawn_has_no_ap(random_case):
    truth, records = random_case(3, 30)
    matches = match(truth, records, "bbox")
    assert len(np.unique(matches.truth_image)) > 1
    first = np.zeros((matches.num_images, 1))
    first[matches.truth_image[0]] = 1
    found = resampled_category_ap(matches, first)[0]
    here = matches.truth_image == matches.truth_image[0]
    shown = np.unique(matches.truth_category[here & ~matches.ignored[0]])
    assert np.flatnonzero(~np.isnan(found)).tolist() == shown.tolist()


def test_no_detections_are_zero(random_case):
    truth, _ = random_case(11)
    found = resampled_category_ap(match(truth, [], "bbox"), np.ones((len(truth["images"]), 2)))
    assert np.nanmax(found) == 0
    assert np.isnan(found).tolist() == np.isnan([expected_ap(truth, [], "bbox")] * 2).tolist()


def test_inputs_stay_as_they_are(random_case):
    matches = match(*random_case(8, 50), "bbox")
    weights = image_weights(np.random.default_rng(0), matches.num_images, 4)
    before = copy.deepcopy((matches, weights))
    resampled_category_ap(matches, weights)
    np.testing.assert_array_equal(weights, before[1])
    np.testing.assert_array_equal(matches.matched, before[0].matched)


def test_image_weights_are_draws_with_replacement():
    weights = image_weights(np.random.default_rng(1), 40, 5000)
    assert weights.shape == (40, 5000)
    assert (weights.sum(axis=0) == 40).all()
    assert np.array_equal(weights, np.rint(weights))
    # A count of n draws with probability 1/n: mean 1, variance 1 - 1/n, absent with (1 - 1/n)^n.
    assert weights.mean() == 1
    assert weights.var() == pytest.approx(1 - 1 / 40, rel=0.02)
    assert (weights == 0).mean() == pytest.approx((1 - 1 / 40) ** 40, rel=0.02)
