"""The table in words, metrics.json and per_category.csv."""

import csv
import json

import numpy as np
import pytest

from eql_d2.evaluation import evaluate
from eql_d2.evaluation.precision import UNDEFINED
from eql_d2.evaluation.report import (
    METRICS,
    RECALLS,
    Evaluation,
    describe_support,
    mean_defined,
    summarize,
)
from eql_d2.evaluation.thresholds import IOU_THRESHOLDS

NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf"]


def test_names_and_thresholds():
    assert [metric.name for metric in METRICS] == NAMES
    assert [IOU_THRESHOLDS[m.threshold] for m in METRICS if m.threshold is not None] == [0.5, 0.75]


def test_summary_takes_the_right_part():
    precision = [np.full((10, 101, 3), UNDEFINED) for _ in range(4)]
    precision[0][:, :, 0] = np.linspace(0, 0.9, 10)[:, None]
    precision[0][:, :, 2] = 0.2
    precision[1][:, :, 1] = 0.3
    values = summarize(METRICS, precision, ["f", "r", "f"])
    assert values["AP"] == values["APf"] == pytest.approx(100 * (0.45 + 0.2) / 2)
    assert values["AP50"] == pytest.approx(10)
    assert values["AP75"] == pytest.approx(100 * (0.5 + 0.2) / 2)
    assert values["APs"] == pytest.approx(30)
    assert [values[name] for name in ("APm", "APl", "APr", "APc")] == [None] * 4
    without_groups = summarize(METRICS, precision, None)
    assert without_groups["AP"] == values["AP"]
    assert without_groups["APf"] is None


def test_precision_zero_is_defined():
    assert mean_defined(np.zeros(5)) == 0
    assert mean_defined(np.full(5, UNDEFINED)) is None
    assert mean_defined(np.zeros(0)) is None


def test_support_in_words():
    has_truth = np.zeros((4, 5), dtype=bool)
    has_truth[0, :3] = True
    has_truth[2, 1] = True
    support = describe_support(METRICS, has_truth, ["f", "f", "c", "r", "r"])
    assert support["AP"] == support["AP50"] == "3 of 5 categories have ground truth"
    assert support["APs"] == "0 of 5 categories have small ground truth"
    assert support["APm"] == "1 of 5 categories have medium ground truth"
    assert support["APr"] == "0 of 2 rare categories have ground truth"
    assert support["APc"] == "1 of 1 common categories have ground truth"
    assert support["APf"] == "2 of 2 frequent categories have ground truth"


def test_groups_that_are_empty_or_not_known_name_the_flag():
    has_truth = np.ones((4, 2), dtype=bool)
    for metrics, name in ((METRICS, "AP"), (RECALLS, "AR")):
        known = describe_support(metrics, has_truth, ["r", "r"])
        assert known[f"{name}r"] == "2 of 2 rare categories have ground truth"
        assert known[f"{name}f"] == (
            "no category is frequent; --groups-from, or DATA.GROUP_MODE of a run, gives other "
            "groups"
        )
        assert describe_support(metrics, has_truth, None)[f"{name}c"] == (
            "no category is known to be common; --groups-from TRAIN_JSON or a run folder says "
            "which are"
        )


@pytest.mark.parametrize("metric", ["ap", "ar", "fixed", "pool"])
def test_every_table_with_groups_says_what_they_are(random_case, metric):
    truth, records = random_case(11)
    groups = dict.fromkeys((c["id"] for c in truth["categories"]), "c")
    own = evaluate(truth, records, metrics=[metric]).table().splitlines()
    assert "rare/common/frequent: the frequency field of the annotations" in own
    given = evaluate(truth, records, metrics=[metric], groups=groups, groups_source="words")
    lines = given.table().splitlines()
    assert "rare/common/frequent: words" in lines
    (rare,) = [line for line in lines if line.startswith(("APr", "ARr"))]
    assert "n/a (no category is rare; --groups-from, or DATA.GROUP_MODE of a run" in rare


@pytest.mark.parametrize("metric", ["agnostic", "proposals"])
def test_no_table_without_groups_speaks_of_them(random_case, metric):
    table = evaluate(*random_case(11), metrics=[metric]).table()
    assert "rare" not in table


def test_table():
    metrics = {f"{kind}/{name}": 12.351 for kind in ("bbox", "segm") for name in ("AP", "APs")}
    metrics |= {"segm/APs": None, "bbox/APr": None, "segm/APr": None}
    support = {"AP": "3 of 5 ...", "APs": "1 of 5 ...", "APr": "0 of 14 rare categories have ..."}
    lines = Evaluation(metrics, support, (), ("look here",)).table().splitlines()
    assert lines[0].split() == ["bbox", "segm", "behind", "it"]
    assert lines[1] == "AP      12.35   12.35  3 of 5 ..."
    assert lines[2] == "APs     12.35     n/a  1 of 5 ..."
    assert lines[3] == "APr    n/a (0 of 14 rare categories have ...)"
    assert lines[4] == "warning: look here"


def test_files(tmp_path, random_case):
    truth, records = random_case(11)
    truth["categories"][0]["name"] = 'with, comma and "quotes"'
    evaluation = evaluate(truth, records)
    evaluation.write(tmp_path / "new" / "folder")
    assert json.loads((tmp_path / "new/folder/metrics.json").read_text()) == evaluation.metrics
    assert set(evaluation.metrics) == {f"{k}/{n}" for k in ("bbox", "segm") for n in NAMES}
    with (tmp_path / "new/folder/per_category.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["category_id"]) for row in rows] == sorted(c["id"] for c in truth["categories"])
    assert 'with, comma and "quotes"' in {row["name"] for row in rows}
    for row, category in zip(rows, evaluation.categories, strict=True):
        annotations = [
            a
            for a in truth["annotations"]
            if a["category_id"] == category.category_id and a["area"] > 0
        ]
        assert int(row["instances"]) == len(annotations)
        assert int(row["images"]) == len({a["image_id"] for a in annotations})
        for kind in ("bbox", "segm"):
            written = row[f"{kind}/AP"]
            assert (float(written) if written else None) == category.ap[kind]


def test_mean_of_category_ap_is_ap(random_case):
    evaluation = evaluate(*random_case(12))
    ap = [row.ap["bbox"] for row in evaluation.categories if row.ap["bbox"] is not None]
    assert len(ap) > 1
    assert np.mean(ap) == pytest.approx(evaluation.metrics["bbox/AP"])


def test_metrics_json_has_null_for_undefined(tmp_path):
    evaluate({"images": [], "annotations": [], "categories": []}, []).write(tmp_path)
    assert '"bbox/APr": null' in (tmp_path / "metrics.json").read_text()
