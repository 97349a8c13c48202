"""Faults that show only where many records are seen together, and what is no such fault."""

import json

import numpy as np

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


def test_category_ids_off_by_one(truth, make_records):
    """Ids 0..K-1 in place of 1..K, the most frequent mistake: AP is near 0 and nothing says why."""
    for k, category in enumerate(truth["categories"]):
        category["id"] = k + 1
    truth["annotations"] = [a | {"category_id": 5} for a in truth["annotations"]]
    for image in truth["images"]:
        image["neg_category_ids"] = [3]
    records = make_records(90)
    for i, record in enumerate(records):
        record["category_id"] = [5, 3][i % 2]
    assert counts(validate_results(truth, records)) == {}
    lower = [record | {"category_id": record["category_id"] - 1} for record in records]
    report = validate_results(truth, lower)
    (fault,) = report.errors
    assert (fault.code, fault.count, fault.total) == ("category-shift", 90, 90)
    assert fault.examples[0].startswith(
        "0 of 90 records are of categories that their image has; with ids +1 it would be 45 (sum of"
    )
    assert not validate_results(truth, lower, ignore=["category-shift"]).errors
    few = validate_results(truth, lower[:40])  # 20 of them of such categories prove nothing
    assert "category-shift" not in counts(few)


def test_category_ids_off_by_one_in_plain_coco(truth, make_records):
    for image in truth["images"]:
        del image["neg_category_ids"], image["not_exhaustive_category_ids"]
    right = [r | {"category_id": [2, 10][i % 2]} for i, r in enumerate(make_records(60))]
    assert validate_results(truth, right).faults == ()
    wrong = [r | {"category_id": [3, 11][i % 2]} for i, r in enumerate(right)]
    (fault,) = validate_results(truth, wrong).errors
    assert fault.code == "category-shift"
    assert "with ids -1 it would be 60" in fault.examples[0]


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
