"""The bytes of a submission file, and by how much two files' metrics differ."""

import io
import json
import math
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eql_d2.errors import ResultsError
from eql_d2.evaluation import evaluate
from eql_d2.submission.ap_change import LARGEST_CHANGE, largest_ap_change, metric_changes
from eql_d2.submission.submission_file import (
    BOX_DECIMALS,
    RecordFormat,
    SubmissionFile,
    open_submission,
    round_boxes,
)

BOTH = RecordFormat(("bbox", "segm"), rounded=False, float32_scores=True)


def written(records, style=BOTH, pieces=1):
    """The text of records that are added in some pieces, an empty one among them."""
    stream = io.BytesIO()
    file = SubmissionFile(stream, style)
    for part in np.array_split(np.arange(len(records)), pieces):
        file.add([records[i] for i in part])
        file.add([])
    file.close()
    assert file.num_bytes == len(stream.getvalue())
    assert file.num_records == len(records)
    return stream.getvalue()


@pytest.mark.parametrize("pieces", [1, 2, 7, 40])
def test_pieces_give_the_same_bytes(encoder, make_records, pieces):
    records = make_records(20)
    data = written(records, pieces=pieces)
    assert data == written(records)
    assert json.loads(data) == records, "numbers changed on their way to the file and back"
    assert data.count(b"\n") == len(records) + 2, "a record a line"


def test_no_records_are_an_empty_list():
    assert json.loads(written([])) == []


@pytest.mark.parametrize(
    ("kinds", "left"), [(("bbox",), "bbox"), (("segm",), "segmentation"), ((), None)]
)
def test_only_the_kinds_asked_for_and_nothing_foreign(encoder, make_records, kinds, left):
    records = [record | {"area": 5, "note": "mine"} for record in make_records(5)]
    keys = {"image_id", "category_id", "score"} | ({left} if left else set())
    style = RecordFormat(kinds, rounded=False, float32_scores=True)
    assert {frozenset(record) for record in json.loads(written(records, style))} == {
        frozenset(keys)
    }


def test_both_encoders_write_the_same_values(monkeypatch, make_records):
    orjson = pytest.importorskip("orjson")
    records = make_records(20)
    records[0] |= {"image_id": 3.0, "score": 1, "bbox": [1, 2, 3, 1e-7]}
    fast = json.loads(written(records))
    monkeypatch.setitem(sys.modules, "orjson", None)
    slow = json.loads(written(records))
    assert fast == slow
    assert orjson.loads(written(records)) == slow
    assert type(slow[0]["image_id"]) is int


def test_rounding_is_asked_for_and_possible_or_left(make_records):
    records = make_records(4)
    records[0] |= {"score": 0.12345678901234, "bbox": [1.23456789, 2, 3, 4]}
    for rounded in (True, False):
        for float32 in (True, False):
            style = RecordFormat(("bbox",), rounded=rounded, float32_scores=float32)
            record = json.loads(written(records, style))[0]
            short = rounded and float32
            assert record["score"] == (0.123456789 if short else 0.12345678901234)
            assert record["bbox"][0] == (1.234568 if rounded else 1.23456789)


CORNER = st.floats(-1000, 1000)
LENGTH = st.sampled_from([0.0, 1e-12, 4e-7, 6e-7]) | st.floats(0, 1000)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(CORNER, CORNER, LENGTH, LENGTH), min_size=1, max_size=6))
def test_rounded_boxes_stay_near_and_keep_an_area(rows):
    corners = np.array(rows)
    before = corners.copy()
    rounded = round_boxes(corners)
    step = 10.0**-BOX_DECIMALS
    assert np.abs(rounded - corners).max() <= step
    assert ((rounded[:, 2:] > 0) == (corners[:, 2:] > 0)).all()
    assert np.abs(rounded / step - np.rint(rounded / step)).max() < 1e-3
    assert np.array_equal(corners, before)


@pytest.mark.parametrize("suffix", [".json", ".zip", ".ZIP"])
def test_the_name_says_the_form_and_equal_files_have_equal_bytes(tmp_path, make_records, suffix):
    records, contents = make_records(30), []
    for name in ("first", "second"):
        partial = tmp_path / f"{name}.partial"
        with open_submission(partial, tmp_path / f"mine{suffix}", BOTH) as file:
            file.add(records)
        contents.append(partial.read_bytes())
    assert contents[0] == contents[1]
    if suffix == ".json":
        assert contents[0] == written(records)
        return
    with zipfile.ZipFile(tmp_path / "first.partial") as archive:
        assert archive.namelist() == ["mine.json"]
        assert archive.read("mine.json") == written(records)
        (entry,) = archive.infolist()
        assert entry.external_attr >> 16 == 0o644
        assert entry.compress_size < entry.file_size / 2


def test_changes_of_metrics():
    before = {"AP": 20.0, "APs": None, "APm": 3.0, "old": None, "APl": 1.0}
    after = {"AP": 19.5, "APs": None, "APm": None, "new": 4.0, "APl": 1.0}
    assert metric_changes(before, after) == {
        "AP": 0.5, "APs": 0.0, "APm": math.inf, "old": math.inf, "new": math.inf, "APl": 0.0
    }  # fmt: skip


def test_the_change_of_ap_is_the_largest_and_both_ways(files, tmp_path):
    annotations, results = files()
    records = json.loads(results.read_text())
    order = np.argsort([record["score"] for record in records])
    other = tmp_path / "other.json"
    for index, least in ((order[0], 0.0), (order[-1], None)):  # the lowest may matter, or not
        fewer = [record for i, record in enumerate(records) if i != index]
        other.write_text(json.dumps(fewer))
        metrics = [evaluate(annotations, r, iou_types=["bbox"]).metrics for r in (records, fewer)]
        worst = max(abs(metrics[0][k] - v) for k, v in metrics[1].items() if v is not None)
        assert least is not None or worst > LARGEST_CHANGE, "the best one makes no difference"
        for pair in ((results, other), (other, results)):
            options = {"iou_types": ["bbox"], "max_detections": 300}
            if worst < LARGEST_CHANGE:
                assert largest_ap_change(annotations, *pair, **options) == worst
            else:
                with pytest.raises(ResultsError, match=r"bbox/AP\w* would change from .* percent"):
                    largest_ap_change(annotations, *pair, **options)


def test_the_limit_of_detections_is_that_of_the_server(files, tmp_path):
    """What stands behind the limit may be missing; without a limit it counts."""
    annotations, results = files()
    records = json.loads(results.read_text())
    kept = []
    for image in {record["image_id"] for record in records}:
        mine = [record for record in records if record["image_id"] == image]
        kept += sorted(mine, key=lambda record: -record["score"])[:4]
    assert len(kept) < len(records)
    cut = tmp_path / "cut.json"
    cut.write_text(json.dumps(kept))
    both = {"iou_types": ["bbox", "segm"]}
    assert largest_ap_change(annotations, results, cut, max_detections=4, **both) == 0
    for limit in (0, 300):
        with pytest.raises(ResultsError, match="pack without rounding"):
            largest_ap_change(annotations, results, cut, max_detections=limit, **both)
