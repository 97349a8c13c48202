"""Faults that show only where many records are seen together, and what is no such fault."""

import json

import numpy as np
import pytest

from eql_d2.evaluation import evaluate
from eql_d2.submission import validate_results


def counts(report):
    return {fault.code: fault.count for fault in report.faults}


def test_too_many_detections(truth, make_records):
    report = validate_results(truth, make_records(31), max_detections=10)
    (fault,) = report.errors
    assert (fault.code, fault.count, fault.total) == ("too-many-detections", 1, 3)
    assert fault.examples == ("image_id 3: 11, limit 10",)
    assert validate_results(truth, make_records(31), max_detections=0).faults == ()
    assert not validate_results(truth, make_records(31), max_detections=11).faults


def test_images_without_detections(truth, make_records):
    records = [record for record in make_records() if record["image_id"] != 5]
    (fault,) = validate_results(truth, records).warnings
    assert (fault.code, fault.count, fault.total) == ("images-without-detections", 1, 3)
    assert fault.examples == ("image_id 5",)


def test_repeated_records(truth, make_records):
    records = make_records()
    records += [json.loads(json.dumps(records[i])) for i in (3, 4, 3)]
    near = json.loads(json.dumps(records[5]))
    near["bbox"][0] = np.nextafter(near["bbox"][0], 99)
    (fault,) = validate_results(truth, [*records, near]).warnings
    assert (fault.code, fault.count) == ("duplicates", 3)
    assert fault.examples == ("image_id 3: 2", "image_id 5: 1")


@pytest.mark.parametrize("plain_coco", [False, True])
def test_shifted_category_ids(many_categories, plain_coco):
    """Ids 0..K-1 in place of 1..K, the most frequent mistake: AP is near 0 and nothing says why."""
    truth, records = many_categories
    if plain_coco:
        for image in truth["images"]:
            del image["neg_category_ids"]
    assert counts(validate_results(truth, records)) == {}
    lower = [r | {"category_id": r["category_id"] - 1} for r in records if r["category_id"] > 1]
    (fault,) = validate_results(truth, lower).errors
    assert fault.code == "category-shift"
    assert "records are of categories that their image has (sum of" in fault.examples[0]
    assert fault.examples[0].endswith(" with category ids +1")
    assert not validate_results(truth, lower, ignore=["category-shift"]).errors


def test_nearly_all_without_label(truth, make_records):
    records = [r | {"category_id": 4} for r in make_records(300)]
    for image in truth["images"]:
        image["neg_category_ids"] = []
    truth["annotations"] = [a | {"category_id": 11} for a in truth["annotations"]]
    records[0]["category_id"] = records[3]["category_id"] = 11
    (fault,) = validate_results(truth, records).warnings
    assert (fault.code, fault.count, fault.total) == ("unlabelled", 298, 300)
    records[6]["category_id"] = 11  # one percent is labelled
    assert validate_results(truth, records).faults == ()


def test_test_splits_have_no_labels(truth, make_records):
    records = [r | {"category_id": 4} for r in make_records(90)]
    for annotations in ([], None):
        truth["annotations"] = annotations
        info = {key: value for key, value in truth.items() if value is not None}
        report = validate_results(info, records)
        assert report.faults == ()
        assert not report.labels_known
        assert "no objects: category ids were not compared" in str(report)


def test_boxes_as_corners_or_shares(truth, make_records):
    records = make_records(60)
    corners = [r | {"bbox": [x, y, x + w, y + h]} for r in records for x, y, w, h in [r["bbox"]]]
    report = validate_results(truth, corners)
    assert set(counts(report)) == {"bbox-outside", "bbox-corners"}
    assert counts(report)["bbox-corners"] == 60
    shares = [r | {"bbox": [v / 64 for v in r["bbox"]]} for r in records]
    assert counts(validate_results(truth, shares)) == {"bbox-relative": 60}


@pytest.mark.parametrize(
    ("code", "change", "said"),
    [
        ("score-range", lambda r: {"score": 100 * r["score"]}, "scores are outside 0..1"),
        ("bbox-corners", lambda r: {"bbox": [2, 2, 60, 40]}, "looks like two corners"),
        ("bbox-relative", lambda r: {"bbox": [0.1, 0.1, 0.5, 0.5]}, "lies within 0..1"),
        ("category-shift", lambda r: {"category_id": r["category_id"] % 30 + 1}, "ids shifted?"),
        ("unlabelled", lambda r: {"category_id": 31}, "neither annotated nor marked absent"),
    ],
)
def test_evaluation_warns_of_what_the_validator_finds(many_categories, code, change, said):
    truth, records = many_categories
    truth["categories"].append({"id": 31, "name": "name 31", "frequency": "r"})
    records = [r | {"bbox": [1 + i % 9, *r["bbox"][1:]]} for i, r in enumerate(records)]
    assert counts(validate_results(truth, records)) == {}
    assert evaluate(truth, records, iou_types=["bbox"]).warnings == ()
    changed = [record | change(record) for record in records]
    found = set(counts(validate_results(truth, changed)))
    assert code in found <= {code, "bbox-outside", "duplicates"}
    (warning,) = evaluate(truth, changed, iou_types=["bbox"]).warnings
    assert said in warning
