"""A submission file: the same detections, the highest ones, the same AP."""

import hashlib
import json
import zipfile

import pytest

from eql_d2.errors import ResultsError, UserError
from eql_d2.evaluation import evaluate
from eql_d2.evaluation.record_stream import stream_records
from eql_d2.submission import pack_submission, validate_results

KINDS = ("bbox", "segm")


def read(path):
    return [record for batch in stream_records(path) for record in batch]


@pytest.mark.parametrize("suffix", ["json", "zip"])
def test_round_trip(encoder, files, tmp_path, suffix):
    annotations, results = files()
    output = tmp_path / f"new/submission.{suffix}"
    packed = pack_submission(annotations, results, output)
    assert read(output) == read(results)
    assert packed.num_records == 90
    assert packed.num_left_out == 0
    assert packed.changes == ()
    assert packed.num_bytes == output.stat().st_size
    assert packed.sha256 == hashlib.sha256(output.read_bytes()).hexdigest()
    assert not validate_results(annotations, output).errors
    before, after = evaluate(annotations, results), evaluate(annotations, output)
    assert before.metrics == after.metrics
    assert 5 < before.metrics["bbox/AP"] < 95
    if suffix == "zip":
        with zipfile.ZipFile(output) as archive:
            assert archive.namelist() == ["submission.json"]
            assert archive.testzip() is None
            assert archive.getinfo("submission.json").file_size == packed.num_json_bytes
    again = pack_submission(annotations, results, tmp_path / f"other/submission.{suffix}")
    assert again.sha256 == packed.sha256
    assert [path.name for path in output.parent.iterdir()] == [output.name]


def test_keeps_the_highest_scores_and_so_the_ap(encoder, files, tmp_path):
    annotations, results = files()
    packed = pack_submission(annotations, results, tmp_path / "s.json", max_detections=3)
    kept = read(tmp_path / "s.json")
    assert packed.num_records == len(kept) == 9
    assert packed.num_left_out == 81
    assert "9 detections (81 over the limit left out) in 3 images" in str(packed)
    places = [read(results).index(record) for record in kept]
    assert places == sorted(places)
    for image_id in (3, 5, 8):
        scores = [r["score"] for r in read(results) if r["image_id"] == image_id]
        mine = [r["score"] for r in kept if r["image_id"] == image_id]
        assert sorted(mine) == sorted(scores)[-3:]
    before = evaluate(annotations, results, max_detections=3).metrics
    assert before == evaluate(annotations, tmp_path / "s.json").metrics
    assert before != evaluate(annotations, results).metrics


def test_no_limit(files, tmp_path, make_records):
    annotations, results = files(make_records(1200))
    packed = pack_submission(annotations, results, tmp_path / "s.json", max_detections=0)
    assert (packed.num_records, packed.num_left_out) == (1200, 0)
    assert pack_submission(annotations, results, tmp_path / "s.json").num_left_out == 300


@pytest.mark.parametrize("kind", KINDS)
def test_keeps_one_kind_only(files, tmp_path, kind):
    annotations, results = files()
    packed = pack_submission(annotations, results, tmp_path / "s.json", iou_types=[kind])
    dropped = {"bbox": "segmentation", "segm": "bbox"}[kind]
    assert all(dropped not in record and len(record) == 4 for record in read(tmp_path / "s.json"))
    assert packed.changes == (f"without the field {dropped}",)
    before = evaluate(annotations, results, iou_types=[kind]).metrics
    assert before == evaluate(annotations, tmp_path / "s.json", iou_types=[kind]).metrics


def test_compresses_lists_of_counts_and_drops_other_fields(files, tmp_path, make_records):
    records = make_records()
    records[0]["segmentation"]["counts"] = [100, 50, 2250]
    records[1]["comment"] = "mine"
    records[2]["image_id"] = float(records[2]["image_id"])
    annotations, results = files(records)
    packed = pack_submission(annotations, results, tmp_path / "s.json")
    assert packed.changes == ("RLEs with lists of counts are compressed",)
    new = read(tmp_path / "s.json")
    assert isinstance(new[0]["segmentation"]["counts"], str)
    assert "comment" not in new[1]
    assert type(new[2]["image_id"]) is int
    kinds = {"iou_types": KINDS}
    assert evaluate(annotations, results, **kinds).metrics == (
        evaluate(annotations, tmp_path / "s.json", **kinds).metrics
    )


def test_refuses_what_is_not_valid(files, tmp_path, make_records):
    records = make_records()
    records[5]["image_id"] = 99
    records[6]["score"] = 1.5
    annotations, results = files(records)
    with pytest.raises(ResultsError, match=r"(?s)image-unknown: 1 of 24.*score-range: 1 of 24"):
        pack_submission(annotations, results, tmp_path / "s.zip", ignore=["bbox-outside"])
    records[5]["image_id"] = 8
    annotations, results = files(records)
    pack_submission(annotations, results, tmp_path / "s.zip", ignore=["score-range"])


@pytest.mark.parametrize(
    ("output", "options", "message"),
    [
        ("s.txt", {}, "must end with .json or .zip, got 's.txt'"),
        ("folder.json", {}, "is a folder"),
        ("results.json", {}, "would be overwritten"),
        ("truth.json", {}, "would be overwritten"),
        ("truth.json/s.json", {}, "truth.json is a file; give a folder"),
        ("s.json", {"prove": True}, "has no objects"),
        ("s.json", {"ignore": ["image-unknown"]}, "cannot ignore image-unknown"),
        ("s.json", {"max_detections": -1}, "max_detections"),
    ],
)
def test_wrong_arguments(files, tmp_path, truth, output, options, message):
    (tmp_path / "folder.json").mkdir()
    records_before = files()[1].read_text()
    truth["annotations"] = []
    annotations, results = files(json.loads(records_before))
    with pytest.raises(UserError, match=message):
        pack_submission(annotations, results, tmp_path / output, **options)
    assert results.read_text() == records_before
    assert not list(tmp_path.glob("s.*"))


def test_a_file_that_changes_between_the_passes(files, tmp_path, monkeypatch):
    annotations, results = files()
    from eql_d2.submission import packing

    original = packing.batches
    monkeypatch.setattr(packing, "batches", lambda path: list(original(path))[:-1])
    with pytest.raises(ResultsError, match="changed while it was being read"):
        pack_submission(annotations, results, tmp_path / "s.json")
    assert not (tmp_path / "s.json").exists()


@pytest.mark.parametrize("suffix", ["json", "zip"])
def test_a_disk_that_fills_up_is_named_and_nothing_half_is_left(files, tmp_path, full_disk, suffix):
    annotations, results = files()
    output = tmp_path / "new" / f"submission.{suffix}"
    with full_disk(100), pytest.raises(UserError, match=rf"{suffix} cannot be written: "):
        pack_submission(annotations, results, output)
    assert list(output.parent.iterdir()) == []
