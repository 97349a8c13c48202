"""Each kind of fault: its name, its count, its first examples, and what is no fault."""

import gzip
import json
import logging

import numpy as np
import pytest

from eql_d2.errors import ResultsError, UserError
from eql_d2.submission import validate_results
from eql_d2.submission.faults import KINDS
from eql_d2.submission.validation import BATCH, IGNORABLE

SIZE_3 = [40, 60]  # height, width of image 3, of which record 0 is


def check(truth, records, **options):
    return validate_results(truth, records, **options)


def counts(report):
    return {fault.code: fault.count for fault in report.faults}


def test_good_records_have_no_fault(truth, make_records):
    report = check(truth, make_records())
    assert report.faults == ()
    assert (report.num_records, report.num_images, report.num_categories) == (24, 3, 5)
    assert (report.total_images, report.total_categories) == (3, 5)
    assert report.kinds == ("bbox", "segm")
    assert str(report).endswith("valid: 0 kinds of errors, 0 of warnings")
    report.raise_if_errors()


VALUE_FAULTS = [
    ("image_id", 4, "image-unknown"),
    ("image_id", -1, "image-unknown"),
    ("image_id", "3", "image-id-form"),
    ("image_id", 3.5, "image-id-form"),
    ("image_id", None, "image-id-form"),
    ("image_id", True, "image-id-form"),
    ("image_id", 10**30, "image-id-form"),
    ("category_id", 0, "category-unknown"),
    ("category_id", 5, "category-unknown"),
    ("category_id", [2], "category-id-form"),
    ("category_id", float("nan"), "category-id-form"),
    ("score", float("nan"), "score-form"),
    ("score", float("-inf"), "score-form"),
    ("score", "0.5", "score-form"),
    ("score", None, "score-form"),
    ("score", False, "score-form"),
    ("score", 10**400, "score-form"),
    ("score", 1.0000001, "score-range"),
    ("score", -1e-9, "score-range"),
    ("bbox", [1, 2, 3], "bbox-form"),
    ("bbox", [1, 2, 3, -4], "bbox-form"),
    ("bbox", [1, 2, 3, float("inf")], "bbox-form"),
    ("bbox", [1, 2, "3", 4], "bbox-form"),
    ("bbox", None, "bbox-form"),
    ("bbox", {"x": 1}, "bbox-form"),
    ("bbox", [55, 2, 6.01, 4], "bbox-outside"),
    ("bbox", [0, 2, 6, 39.01], "bbox-outside"),
    ("bbox", [-1.01, 2, 6, 4], "bbox-outside"),
    ("bbox", [1, -1.01, 6, 4], "bbox-outside"),
    ("bbox", [1, 2, 0, 4], "bbox-empty"),
    ("segmentation", [[1, 2, 3, 4, 5, 6]], "mask-form"),
    ("segmentation", None, "mask-form"),
    ("segmentation", {"size": SIZE_3}, "mask-form"),
    ("segmentation", {"size": SIZE_3, "counts": [2400]}, "mask-uncompressed mask-empty"),
    ("segmentation", {"size": [60, 40], "counts": "PUb20"}, "mask-size mask-counts"),
    ("segmentation", {"size": SIZE_3, "counts": [2399]}, "mask-uncompressed mask-counts"),
    ("segmentation", {"size": SIZE_3, "counts": ""}, "mask-counts"),
    ("segmentation", {"size": SIZE_3, "counts": "\ud800"}, "mask-counts"),
    ("segmentation", {"size": SIZE_3, "counts": "oooooooooooooooooo"}, "mask-counts"),
]


@pytest.mark.parametrize(("key", "value", "codes"), VALUE_FAULTS)
def test_one_wrong_value_is_that_fault_alone(truth, make_records, key, value, codes):
    """The same alone and among others, whose values are read the fast way."""
    records = make_records()
    records[0][key] = value
    report = check(truth, records)
    found = counts(report)
    expected = dict.fromkeys(codes.split(), 1)
    assert found == expected
    fault = next(fault for fault in report.faults if fault.code == codes.split()[0])
    assert fault.total == 24
    assert len(fault.examples) == 1
    assert fault.examples[0].startswith("record 0: ")
    assert KINDS[fault.code].text in str(report)
    assert report.subject in str(report)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_id", 3.0),
        ("score", 1),
        ("score", 0),
        ("bbox", [0, 0, 60, 40]),
        ("bbox", [-1, -1, 62, 42]),  # detectors clip in float32; a pixel more is let pass
        ("bbox", [0, 0, 1e-9, 1e-9]),
        ("bbox", (1.0, 2.0, 3.0, 4.0)),
        ("bbox", np.array([1.0, 2.0, 3.0, 4.0], dtype=np.float32)),
        ("category_id", np.int64(2)),
        ("score", np.float32(0.5)),
        ("extra", "field"),
    ],
)
def test_values_that_are_fine(truth, make_records, key, value):
    records = make_records()
    records[0][key] = value
    assert check(truth, records).faults == ()


def test_records_without_fields(truth, make_records):
    records = make_records()
    del records[2]["score"], records[2]["image_id"], records[5]["category_id"]
    records[7] = ["not", "an", "object"]
    del records[9]["bbox"]
    del records[11]["segmentation"]
    del records[13]["bbox"], records[13]["segmentation"]
    report = check(truth, records)
    assert counts(report) == {
        "record-form": 1,
        "field-missing": 2,
        "geometry-missing": 1,
        "bbox-missing": 2,
        "mask-missing": 2,
    }
    text = str(report)
    assert "record 2: no 'image_id' and no 'score': category_id" in text
    assert "record 7: ['not', 'an', 'object']" in text
    assert "2 of 24 records: no 'bbox'" in text


def test_boxes_alone_are_fine_unless_masks_are_asked_for(truth, make_records):
    records = [{k: v for k, v in r.items() if k != "segmentation"} for r in make_records()]
    assert check(truth, records).faults == ()
    assert check(truth, records).kinds == ("bbox",)
    assert counts(check(truth, records, iou_types=("segm",))) == {"mask-missing": 24}


def test_counts_all_but_shows_three(truth, make_records):
    records = make_records(2 * BATCH + 100)
    where = [0, BATCH - 1, BATCH, 2 * BATCH + 5, 2 * BATCH + 99]  # in three batches
    for index in where:
        records[index]["score"] = 2.0
    (fault,) = check(truth, records, max_detections=0).errors
    assert (fault.code, fault.count, fault.total) == ("score-range", 5, len(records))
    assert [example.split(":")[0] for example in fault.examples] == [
        f"record {index}" for index in where[:3]
    ]
    assert str(fault).count("record ") == 3
    assert ", ..." in str(fault)


def test_an_empty_list(truth):
    report = check(truth, [])
    assert counts(report) == {"no-records": 1}
    assert report.errors


def test_images_without_size(truth, make_records):
    for image in truth["images"]:
        del image["height"], image["width"]
    records = make_records()
    records[0]["bbox"] = [0, 0, 1e6, 1e6]
    assert check(truth, records).faults == ()


def test_ignored_errors_are_warnings(truth, make_records):
    records = make_records()
    records[0]["score"] = 7
    assert check(truth, records).errors
    report = check(truth, records, ignore=["score-range"])
    assert not report.errors
    assert [fault.code for fault in report.warnings] == ["score-range"]
    with pytest.raises(ResultsError, match="score-range: 1 of 24"):
        check(truth, records).raise_if_errors()


def test_what_breaks_the_evaluation_cannot_be_ignored(truth):
    for code in set(KINDS) - set(IGNORABLE):
        with pytest.raises(UserError, match=f"cannot ignore {code}; possible"):
            check(truth, [], ignore=[code])
    with pytest.raises(UserError, match="iou_types"):
        check(truth, [], iou_types="bbox")
    with pytest.raises(UserError, match="max_detections"):
        check(truth, [], max_detections=-1)


def test_errors_come_first(truth, make_records):
    records = make_records()[:20]
    records[0]["bbox"] = [1, 1, 0, 0]
    records[1]["score"] = 7
    assert [fault.warning for fault in check(truth, records).faults] == [False, True]


def test_from_files(truth, make_records, tmp_path):
    records = make_records()
    records[4]["image_id"] = 99
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "results.json.gz").write_bytes(gzip.compress(json.dumps(records).encode()))
    report = check(tmp_path / "truth.json", tmp_path / "results.json.gz")
    assert counts(report) == {"image-unknown": 1}
    assert str(tmp_path / "results.json.gz") in str(report)
    assert json.loads(json.dumps(report.to_dict()))["faults"][0]["count"] == 1


def test_leaves_the_records_as_they_were(truth, make_records, caplog):
    records = make_records()
    records[0]["segmentation"]["counts"] = [2400]
    before = json.dumps(records)
    with caplog.at_level(logging.WARNING):
        check(truth, records)
    assert json.dumps(records) == before


@pytest.mark.parametrize("results", ["missing.json", {"a": 1}, 5])
def test_results_that_are_no_list(truth, results):
    with pytest.raises(ResultsError):
        check(truth, results)
