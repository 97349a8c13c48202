"""AP_fixed, AP_pool and recall against lvis and against the definitions."""

import copy
from collections import defaultdict

import numpy as np
import pytest

from eql_d2.evaluation import evaluate
from eql_d2.evaluation.report import METRICS
from eql_d2.evaluation.selection import limit_warnings

RANGES = ((0, 1e10), (0, 32**2), (32**2, 96**2), (96**2, 1e10))


def cut_per_category(records, limit):
    """The highest scores of each category over all images, of equal ones the first."""
    by_category = defaultdict(list)
    for record in records:
        by_category[record["category_id"]].append(record)
    return [
        record
        for some in by_category.values()
        for record in sorted(some, key=lambda r: -r["score"])[:limit]
    ]


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(30))
def test_fixed_equals_lvis_on_records_cut_by_hand(seed, kind, random_case, official):
    truth, records = random_case(seed, number=80)
    for limit in (7, 10_000):
        theirs = official(truth, cut_per_category(records, limit), kind, max_dets=-1)
        ours = evaluate(truth, records, iou_types=[kind], metrics=["fixed"], max_per_category=limit)
        own = [row.more[f"{kind}/AP_fixed"] for row in ours.categories]
        assert own == pytest.approx(theirs.pop("per_category"), abs=1e-12)
        expected = {f"{kind}/{name}_fixed": value for name, value in theirs.items()}
        assert ours.metrics == pytest.approx(expected, abs=1e-12)


def test_fixed_has_no_limit_per_image(random_case):
    """What stands behind 300 better detections of another category counts only there."""
    truth, _ = random_case(5)
    (image, *_), (one, other, *_) = truth["images"], truth["categories"]
    truth["images"] = [image | {"neg_category_ids": [other["id"]]}]
    box = {"image_id": image["id"], "category_id": one["id"], "bbox": [0, 0, 50, 50]}
    truth["annotations"] = [box | {"id": 1, "area": 2500}]
    noise = box | {"category_id": other["id"], "score": 0.9}
    records = [*([noise] * 300), box | {"score": 0.5}]
    metrics = evaluate(truth, records, iou_types=["bbox"], metrics=["ap", "fixed"]).metrics
    assert metrics["bbox/AP"] == 0
    assert metrics["bbox/AP_fixed"] == pytest.approx(100)


def pooled_by_definition(evaluation, categories, area):
    """(T, 101) from lvis' per-image results: TP, FP and FN of all categories in one curve."""
    num_images = len(evaluation.params.img_ids)
    rows = [
        evaluation.eval_imgs[(k * len(RANGES) + area) * num_images + i]
        for i in range(num_images)
        for k in categories
    ]
    rows = [row for row in rows if row is not None]
    num_truths = sum(int((np.array(row["gt_ignore"]) == 0).sum()) for row in rows)
    if not num_truths:
        return None
    scores = np.concatenate([row["dt_scores"] for row in rows])
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    matched = np.concatenate([row["dt_matches"] for row in rows], axis=1)[:, order] > 0
    ignored = np.concatenate([row["dt_ignore"] for row in rows], axis=1)[:, order].astype(bool)
    curves = []
    for t in range(len(matched)):
        right = np.cumsum(matched[t] & ~ignored[t])
        wrong = np.cumsum(~matched[t] & ~ignored[t])
        precision, recall = right / np.maximum(right + wrong, 1), right / num_truths
        curves.append(
            [max(precision[recall >= r], default=0.0) for r in np.linspace(0.0, 1.0, 101)]
        )
    return np.array(curves)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(20))
def test_pool_equals_the_definition(seed, kind, random_case, lvis_run):
    truth, records = random_case(seed, number=80)
    evaluation = lvis_run(truth, cut_per_category(records, 9), kind, max_dets=-1)
    frequency = {c["id"]: c["frequency"] for c in truth["categories"]}
    everyone = evaluation.params.cat_ids
    expected = {}
    for metric in METRICS:
        members = [k for k, c in enumerate(everyone) if metric.group in (None, frequency[c])]
        curve = pooled_by_definition(evaluation, members, metric.area)
        if curve is not None:
            curve = curve if metric.threshold is None else curve[metric.threshold]
        value = None if curve is None else curve.mean() * 100
        expected[f"{kind}/{metric.name}_pool"] = value
    ours = evaluate(truth, records, iou_types=[kind], metrics=["pool"], max_per_category=9)
    assert ours.metrics == pytest.approx(expected, abs=1e-10)


def test_a_pool_punishes_categories_that_are_not_calibrated():
    """Two categories, each perfect alone; one's mistakes stand above the other's objects."""
    box, far = [0, 0, 50, 50], [100, 100, 50, 50]
    truth = {
        "images": [
            {
                "id": 1,
                "height": 200,
                "width": 200,
                "neg_category_ids": [],
                "not_exhaustive_category_ids": [],
            }
        ],
        "annotations": [
            {"id": c, "image_id": 1, "category_id": c, "bbox": box, "area": 2500} for c in (1, 2)
        ],
        "categories": [{"id": c, "name": str(c), "frequency": "r"} for c in (1, 2)],
    }
    rows = [(1, box, 0.99), (1, far, 0.9), (2, box, 0.5)]
    records = [{"image_id": 1, "category_id": c, "bbox": b, "score": s} for c, b, s in rows]
    metrics = evaluate(truth, records, iou_types=["bbox"], metrics=["fixed", "pool"]).metrics
    assert metrics["bbox/AP_fixed"] == pytest.approx(100)
    half = 51 / 101 + 50 / 101 * 2 / 3  # precision 1 up to recall 0.5, then 2 of 3
    assert metrics["bbox/AP_pool"] == metrics["bbox/APr_pool"] == pytest.approx(100 * half)
    assert metrics["bbox/APf_pool"] is None


def test_without_groups_only_the_whole_pool_is_defined(random_case):
    truth, records = random_case(7, number=60)
    expected = evaluate(truth, records, metrics=["pool"]).metrics
    for category in truth["categories"]:
        del category["frequency"]
    ours = evaluate(truth, records, metrics=["pool"]).metrics
    assert ours["bbox/AP_pool"] == expected["bbox/AP_pool"]
    assert ours["bbox/APr_pool"] is ours["bbox/APc_pool"] is ours["bbox/APf_pool"] is None


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(30))
def test_recall_equals_lvis(seed, kind, random_case, lvis_run):
    truth, records = random_case(seed)
    evaluation = lvis_run(truth, records, kind)
    theirs = {k: v for k, v in evaluation.results.items() if k.startswith("AR")}
    assert set(theirs) == {"AR@300", "ARs@300", "ARm@300", "ARl@300"}
    ours = evaluate(truth, records, iou_types=[kind], metrics=["ar"])
    recall = evaluation.eval["recall"][:, :, 0]
    for group, members in zip("rcf", evaluation.freq_groups, strict=True):
        part = recall[:, members]
        theirs[f"AR{group}@300"] = part[part > -1].mean() if (part > -1).any() else -1
    expected = {f"{kind}/{k}": None if v == -1 else v * 100 for k, v in theirs.items()}
    assert ours.metrics == pytest.approx(expected, abs=1e-12)
    own = [row.more[f"{kind}/AR@300"] for row in ours.categories]
    assert own == pytest.approx(
        [None if part.max() == -1 else part.mean() * 100 for part in recall.T], abs=1e-12
    )


def test_recall_of_fewer_detections(random_case, lvis_run):
    truth, records = random_case(9, number=80)
    theirs = lvis_run(truth, records, "bbox", max_dets=5).results["AR@300"]
    ours = evaluate(truth, records, iou_types=["bbox"], metrics=["ar"], max_detections=5).metrics
    assert ours["bbox/AR@5"] == pytest.approx(theirs * 100, abs=1e-12)


@pytest.mark.parametrize("kind", ["bbox", "segm", "boundary"])
def test_metrics_together_are_those_asked_for_alone(kind, random_case):
    """One matching serves all selections."""
    names = ("ap", "ar", "fixed", "pool", "agnostic", "proposals")
    for seed in range(6):
        truth, records = random_case(seed, number=80)
        options = {"iou_types": [kind], "max_detections": 9, "max_per_category": 12}
        together = evaluate(truth, records, metrics=names, **options)
        alone = [evaluate(truth, records, metrics=[name], **options) for name in names]
        joined = {key: value for part in alone for key, value in part.metrics.items()}
        assert together.metrics == joined
        assert list(together.support) == [k for part in alone for k in part.support]
        columns = {k: v for part in alone for k, v in part.categories[0].more.items()}
        assert together.categories[0].more == columns


def test_results_that_were_cut_per_image_are_warned_of(random_case):
    truth, records = random_case(3)
    first = records[0]
    for count, warned in ((40, True), (1, False)):
        many = [
            first | {"image_id": image["id"]} for image in truth["images"] for _ in range(count)
        ]
        warnings = evaluate(truth, many, metrics=["fixed"]).warnings
        assert any("without a limit per image" in line for line in warnings) == warned
    few = [first | {"image_id": image["id"]} for image in truth["images"] for _ in range(3)]
    assert not evaluate(truth, few, metrics=["fixed"]).warnings, "results above a high score"
    lonely = copy.deepcopy(records)
    assert not any(
        "without a limit" in line for line in evaluate(truth, lonely, metrics=["ap"]).warnings
    )


def test_a_limit_shows_as_a_pile_at_the_largest_number():
    rng = np.random.default_rng(0)

    def warned(count):
        return limit_warnings(np.repeat(np.arange(len(count)), count), len(count)) != ()

    assert warned(np.minimum(rng.poisson(80, 500), 90))
    assert warned(np.full(20, 300))
    for mean in (0.5, 3, 12, 300):
        counts = [rng.poisson(mean, number) for number in (5, 20, 500) for _ in range(40)]
        assert sum(map(warned, counts)) <= 4, "of 120 detectors without a limit"
