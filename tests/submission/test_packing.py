"""A submission file: the same detections, the highest ones, the same AP."""

import hashlib
import json
import sys
import zipfile

import numpy as np
import pytest

from eql_d2.errors import ResultsError, UserError
from eql_d2.evaluation import evaluate
from eql_d2.evaluation.record_stream import stream_records
from eql_d2.submission import ap_change, pack_submission, validate_results
from eql_d2.submission.submission_file import BOX_DECIMALS, RecordFormat, round_boxes

KINDS = ("bbox", "segm")


@pytest.fixture(params=["orjson", "json"])
def encoder(request, monkeypatch):
    """With and without orjson."""
    if request.param == "json":
        monkeypatch.setitem(sys.modules, "orjson", None)
    else:
        pytest.importorskip("orjson")


@pytest.fixture
def files(tmp_path, truth, make_records):
    """``files(records)`` -> paths of annotations and results, with AP between 0 and 100."""

    def write(records=None):
        if records is None:
            records = near_objects(truth, make_records)
        (tmp_path / "truth.json").write_text(json.dumps(truth))
        (tmp_path / "results.json").write_text(json.dumps(records))
        return tmp_path / "truth.json", tmp_path / "results.json"

    return write


def near_objects(truth, make_records, number=90):
    """Half of the records are moved copies of objects."""
    rng = np.random.default_rng(7)
    records = make_records(number)
    for i in range(0, number, 2):
        target = truth["annotations"][i % len(truth["annotations"])]
        moved = np.array(target["bbox"]) + rng.random(4) * [1, 1, 3, 3]
        records[i] |= {
            "image_id": target["image_id"],
            "category_id": target["category_id"],
            "bbox": moved.astype(np.float32).astype(float).tolist(),
            "segmentation": target["segmentation"],
        }
    return records


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


def test_rounding_shortens_and_changes_nothing(encoder, files, tmp_path):
    annotations, results = files()
    packed = pack_submission(annotations, results, tmp_path / "s.json", rounded=True, prove=True)
    assert packed.largest_ap_change == 0
    assert "no metric changed by more than 0 percent points" in str(packed)
    assert "scores have 9 significant digits" in str(packed)
    assert f"boxes have {BOX_DECIMALS} decimals" in str(packed)
    for old, new in zip(read(results), read(tmp_path / "s.json"), strict=True):
        assert np.float32(new["score"]) == np.float32(old["score"])
        assert new["bbox"] == pytest.approx(old["bbox"], abs=0.51 * 10**-BOX_DECIMALS)
        assert new["score"] == float(f"{old['score']:.9g}")
        assert new["segmentation"] == old["segmentation"]
    plain = pack_submission(annotations, results, tmp_path / "t.json")
    assert packed.num_json_bytes < 0.9 * plain.num_json_bytes


def test_scores_with_more_digits_stay(files, tmp_path, make_records):
    """Two scores that are the same number in float32 must not become equal."""
    records = make_records()
    records[0]["score"], records[1]["score"] = 0.1, 0.1 + 1e-12
    annotations, results = files(records)
    packed = pack_submission(annotations, results, tmp_path / "s.json", rounded=True)
    assert [r["score"] for r in read(tmp_path / "s.json")] == [r["score"] for r in records]
    assert "scores are not rounded" in packed.changes[0]


def test_nine_digits_keep_the_order_of_float32():
    """Neighbours all over the range, which shorter texts would make equal."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 0x3F800000, 20_000, dtype=np.int32)
    bits = np.unique(np.concatenate((bits, bits + 1)))
    scores = bits.view(np.float32)
    style = RecordFormat((), rounded=True, float32_scores=True)
    lines = style.encode(
        [{"image_id": 1, "category_id": 2, "score": s} for s in scores.astype(float).tolist()]
    )
    written = [json.loads(line)["score"] for line in lines]
    assert (np.diff(written) > 0).all()


def test_a_small_side_does_not_vanish():
    corners = np.array([[1.00000049, 2, 1e-9, 0], [1e-9, 3, 0.25, 1e-7]])
    assert round_boxes(corners).tolist() == [[1, 2, 1e-6, 0], [0, 3, 0.25, 1e-6]]
    assert corners[0, 2] == 1e-9


def test_refuses_rounding_that_changes_ap(files, tmp_path, truth, make_records, monkeypatch):
    """A box whose IoU is just over a threshold, rounded to whole pixels."""
    monkeypatch.setattr("eql_d2.submission.submission_file.BOX_DECIMALS", 0)
    records = make_records()
    records[0] |= {"category_id": 2, "score": 0.99, "bbox": [2.0, 3.0, 10.0, 8.45]}
    annotations, results = files(records)
    monkeypatch.setattr(ap_change, "LARGEST_CHANGE", 1e9)
    change = pack_submission(
        annotations, results, tmp_path / "s.json", rounded=True, prove=True, iou_types=["bbox"]
    ).largest_ap_change
    assert change > 1e-4
    monkeypatch.undo()
    monkeypatch.setattr("eql_d2.submission.submission_file.BOX_DECIMALS", 0)
    with pytest.raises(ResultsError, match=r"bbox/AP.* would change from"):
        pack_submission(annotations, results, tmp_path / "t.json", rounded=True, prove=True)
    assert sorted(path.name for path in tmp_path.glob("*.json")) == [
        "results.json",
        "s.json",
        "truth.json",
    ]


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
        ("truth.json/s.json", {}, "cannot be written"),
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


def test_real_annotations(shared_data, tmp_path):
    """LVIS objects, moved a little, as detections: the same AP to the last bit, in a zip."""
    path = shared_data / "lvis_v0.5_val_100.json"
    truth = json.loads(path.read_text())
    rng = np.random.default_rng(1)
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    records = []
    for annotation in truth["annotations"]:
        height, width = sizes[annotation["image_id"]]
        x, y, w, h = annotation["bbox"]
        low = np.clip(np.array([x, y]) + rng.normal(0, 1, 2), 0, [width - 1, height - 1])
        side = np.minimum(np.array([w, h]) * rng.uniform(0.9, 1.1, 2), [width, height] - low)
        box = np.concatenate((low, side)).astype(np.float32).astype(float).tolist()
        score = float(np.float32(rng.random()))
        ids = {key: annotation[key] for key in ("image_id", "category_id")}
        records.append(ids | {"score": score, "bbox": box})
    (tmp_path / "results.json").write_text(json.dumps(records))
    packed = pack_submission(
        path, tmp_path / "results.json", tmp_path / "s.zip", rounded=True, prove=True
    )
    assert packed.largest_ap_change < 1e-4
    assert packed.num_records == len(records) > 500
    assert packed.validation.labels_known
