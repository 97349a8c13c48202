"""Comparisons of results: what they say of equal, better, few and noisy results."""

import json

import numpy as np
import pytest

from eql_d2.errors import UserError
from eql_d2.evaluation import evaluate
from eql_d2.evaluation.bootstrap import resample_results
from eql_d2.evaluation.comparison import SOURCES, compare_results
from eql_d2.evaluation.comparison_text import as_json, caveats, in_words, table, verdict

IMAGES, CATEGORIES = 60, 12
GROUPS = "rrrrccccffff"


@pytest.fixture(scope="module")
def truth():
    rng = np.random.default_rng(0)
    annotations = []
    for image in range(IMAGES):
        for category in rng.choice(CATEGORIES, 3, replace=False).tolist():
            box = [float(v) for v in (*rng.integers(0, 60, 2), *rng.integers(20, 40, 2))]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image, "category_id": category,
                 "bbox": box, "area": box[2] * box[3]}
            )  # fmt: skip
    return {
        "images": [
            {"id": i, "height": 100, "width": 100, "neg_category_ids": list(range(CATEGORIES)),
             "not_exhaustive_category_ids": []}
            for i in range(IMAGES)
        ],
        "annotations": annotations,
        "categories": [
            {"id": c, "name": f"c{c}", "frequency": g} for c, g in enumerate(GROUPS)
        ],
    }  # fmt: skip


def detections(truth, seed, found=0.7, shift=0.0, only=None):
    """Objects, each found with some probability and moved a little; and as many false ones."""
    rng = np.random.default_rng(seed)
    records = []
    for a in truth["annotations"]:
        bonus = 0.3 if only is not None and GROUPS[a["category_id"]] in only else 0.0
        if rng.random() < found + bonus:
            x, y, w, h = a["bbox"]
            box = [x + rng.normal(shift, 1.5), y, w, h]
            records.append(dict(a, bbox=box, score=float(rng.beta(4, 2))))
        wrong = [float(v) for v in (*rng.integers(0, 60, 2), 25, 25)]
        category = int(rng.integers(CATEGORIES))
        records.append(dict(a, bbox=wrong, category_id=category, score=float(rng.beta(2, 4))))
    keys = ("image_id", "category_id", "bbox", "score")
    return [{key: record[key] for key in keys} for record in records]


def compare(truth, first, second, **options):
    files = [*first, *second]
    resampled = resample_results(truth, files, iou_types=["bbox"], num_samples=200)
    sides = range(len(first)), range(len(first), len(files))
    return compare_results(resampled, *sides, **options)


def by_metric(comparison):
    return {d.metric: d for d in comparison.differences}


def test_numbers_are_those_of_the_evaluation(truth):
    first, second = detections(truth, 1), detections(truth, 2, found=0.9)
    comparison = compare(truth, [first], [second])
    expected = [evaluate(truth, r, iou_types=["bbox"]).metrics for r in (first, second)]
    assert [d.metric for d in comparison.differences] == [
        f"bbox/{name}" for name in ("AP", "APr", "APc", "APf")
    ]
    for metric, d in by_metric(comparison).items():
        assert d.first == pytest.approx(expected[0][metric])
        assert d.second == pytest.approx(expected[1][metric])
        assert d.value == pytest.approx(expected[1][metric] - expected[0][metric])
    assert by_metric(comparison)["bbox/APr"].num_categories == 4
    assert by_metric(comparison)["bbox/AP"].num_images == IMAGES


def test_equal_results_differ_by_nothing(truth):
    records = detections(truth, 1)
    comparison = compare(truth, [records], [list(records)])
    for d in comparison.differences:
        for source in ("images", "categories", "images and categories"):
            interval = d.intervals[source]
            assert (interval.low, interval.high) == (0, 0)
        assert verdict(d) == ("within the noise", False)
    assert in_words(comparison.differences[0], ("A", "B")) == "bbox/AP: no difference"


def test_a_large_gain_exceeds_the_noise_and_the_reverse_is_its_mirror(truth):
    worse, better = detections(truth, 1, found=0.3), detections(truth, 2, found=1.0)
    gain = by_metric(compare(truth, [worse], [better]))["bbox/AP"]
    loss = by_metric(compare(truth, [better], [worse]))["bbox/AP"]
    assert verdict(gain) == verdict(loss) == ("exceeds the noise of images and categories", True)
    assert gain.value == -loss.value > 0
    for source in ("images", "images and categories"):
        a, b = gain.intervals[source], loss.intervals[source]
        assert (a.low, a.high) == pytest.approx((-b.high, -b.low))
        assert a.low < gain.value < a.high


def test_chance_alone_is_within_the_noise(truth):
    """Two runs of one method on the same images: of 10 pairs nearly none may stand out."""
    found = []
    for seed in range(0, 20, 2):
        pair = ([detections(truth, seed)], [detections(truth, seed + 1)])
        found.append(verdict(by_metric(compare(truth, *pair))["bbox/AP"])[1])
    assert sum(found) <= 2


def test_a_gain_of_rare_categories_alone(truth):
    metrics = by_metric(compare(truth, [detections(truth, 5)], [detections(truth, 5, only="r")]))
    assert verdict(metrics["bbox/APr"])[0].startswith("exceeds the noise")
    for metric in ("bbox/APc", "bbox/APf"):
        assert not verdict(metrics[metric])[1]


def test_pairing_makes_intervals_narrow(truth):
    """The same detections, a few of them lost: their noise on images is shared."""
    first = detections(truth, 1)
    second = [r for i, r in enumerate(first) if i % 25]
    other = detections(truth, 99)
    paired = by_metric(compare(truth, [first], [second]))["bbox/AP"].intervals["images"]
    unrelated = by_metric(compare(truth, [first], [other]))["bbox/AP"].intervals["images"]
    assert paired.high - paired.low < 0.5 * (unrelated.high - unrelated.low)


def test_seeds_add_their_own_noise(truth):
    first = [detections(truth, s) for s in (1, 2, 3)]
    second = [detections(truth, s, found=0.95) for s in (4, 5)]
    comparison = compare(truth, first, second, names=("old", "new"))
    d = by_metric(comparison)["bbox/AP"]
    ap = [[evaluate(truth, r, iou_types=["bbox"]).metrics["bbox/AP"] for r in s]
          for s in (first, second)]  # fmt: skip
    assert d.first == pytest.approx(np.mean(ap[0]))
    assert d.second == pytest.approx(np.mean(ap[1]))
    spread = {s: d.intervals[s].high - d.intervals[s].low for s in SOURCES}
    assert spread["all"] >= max(spread["images and categories"], spread["seeds"])
    assert caveats(comparison)[0].startswith("Two runs on a side say little")
    centre = (d.intervals["seeds"].low + d.intervals["seeds"].high) / 2
    assert centre == pytest.approx(d.value)
    assert not any("one run" in line for line in caveats(comparison))
    assert "new is" in table(comparison)


def test_one_run_a_side_says_that_training_noise_is_unknown(truth):
    comparison = compare(
        truth, [detections(truth, 1)], [detections(truth, 2), detections(truth, 3)]
    )
    assert all(d.intervals["seeds"] is None for d in comparison.differences)
    assert all(d.intervals["all"] is None for d in comparison.differences)
    assert "noise of training is not measured" in caveats(comparison)[0]
    assert "seeds" not in table(comparison).splitlines()[4]


@pytest.mark.parametrize(("confidence", "said"), [(0.95, "95"), (0.9999999, "99.99999")])
def test_the_confidence_is_not_rounded(truth, confidence, said):
    sides = [detections(truth, 1)], [detections(truth, 2)]
    comparison = compare(truth, *sides, confidence=confidence)
    assert f"\n{said} % intervals of B - A" in table(comparison)
    assert any("98.75 % intervals" in line for line in caveats(comparison)) == (said == "95")


def test_the_same_seed_gives_the_same_numbers(truth):
    files = [detections(truth, 1), detections(truth, 2)]
    runs = [
        resample_results(truth, files, iou_types=["bbox"], num_samples=150, seed=s)
        for s in (7, 7, 8)
    ]
    first, again, other = (compare_results(r, [0], [1]) for r in runs)
    assert first == again
    assert first != other


def test_groups_by_category_id_stand_in_for_the_annotations(truth):
    files = [detections(truth, 1), detections(truth, 2)]
    groups = dict.fromkeys(range(CATEGORIES), "c") | {0: "r", 1: "r"}
    resampled = resample_results(truth, files, iou_types=["bbox"], num_samples=100, groups=groups)
    comparison = compare_results(resampled, [0], [1])
    assert by_metric(comparison)["bbox/APr"].num_categories == 2
    assert comparison.undefined == {
        "bbox/APf": "no category is frequent; --groups-from, or DATA.GROUP_MODE of a run, gives "
        "other groups"
    }
    assert "rare/common/frequent: as given" in table(comparison).splitlines()
    with pytest.raises(UserError, match=r"groups lack 1 of 12 category ids .*, first \[0\]"):
        resample_results(truth, files, iou_types=["bbox"], groups=dict.fromkeys(range(1, 12), "c"))


def test_no_groups_known(truth):
    plain = dict(truth, categories=[{"id": c, "name": "x"} for c in range(CATEGORIES)])
    comparison = compare(plain, [detections(truth, 1)], [detections(truth, 2)])
    assert [d.metric for d in comparison.differences] == ["bbox/AP"]
    assert set(comparison.undefined) == {"bbox/APr", "bbox/APc", "bbox/APf"}
    line = "bbox/APr    n/a (no category is known to be rare; --groups-from TRAIN_JSON or a run "
    assert line in table(comparison)
    assert "rare/common/frequent" not in table(comparison)


def test_json_holds_everything(truth):
    comparison = compare(truth, [detections(truth, 1)], [detections(truth, 2, found=1.0)])
    content = json.loads(json.dumps(as_json(comparison)))
    ap = content["metrics"]["bbox/AP"]
    assert ap["difference"] == pytest.approx(ap["B"] - ap["A"])
    assert set(ap["intervals"]) == set(SOURCES) == set(content["methods"])
    assert ap["intervals"]["images"][0] < ap["difference"] < ap["intervals"]["images"][1]
    assert ap["intervals"]["seeds"] is None
    assert content["resampled_sets"] == 200
    assert content["confidence"] == 0.95


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"confidence": 1.0}, "confidence"),
        ({"confidence": 0.2}, "confidence"),
        ({"second": []}, "at least one"),
    ],
)
def test_wrong_arguments_of_a_comparison(truth, options, message):
    files = [detections(truth, 1)]
    resampled = resample_results(truth, files, iou_types=["bbox"], num_samples=100)
    with pytest.raises(UserError, match=message):
        compare_results(resampled, [0], **({"second": [0]} | options))


def test_boundary_and_mask_ap_can_be_compared(random_case):
    truth, records = random_case(3, 60)
    kinds = ["segm", "boundary"]
    resampled = resample_results(truth, [records, records[::2]], iou_types=kinds, num_samples=100)
    comparison = by_metric(compare_results(resampled, [0], [1]))
    expected = [evaluate(truth, r, iou_types=kinds).metrics for r in (records, records[::2])]
    for kind in kinds:
        d = comparison[f"{kind}/AP"]
        assert [d.first, d.second] == pytest.approx([m[f"{kind}/AP"] for m in expected])


def test_wrong_arguments_of_resampling(truth):
    with pytest.raises(UserError, match="iou_types must be some of"):
        resample_results(truth, [[]], iou_types=["box"])
    with pytest.raises(UserError, match="at least 100"):
        resample_results(truth, [[]], num_samples=10)
    one = dict(truth, images=truth["images"][:1], annotations=[])
    with pytest.raises(UserError, match="fewer than two"):
        resample_results(one, [[]], iou_types=["bbox"])
    empty = dict(truth, annotations=[])
    comparison = compare(empty, [[]], [[]])
    assert comparison.differences == ()
    assert set(comparison.undefined) == {f"bbox/{m}" for m in ("AP", "APr", "APc", "APf")}
    assert "n/a" in table(comparison)
