"""Shorter numbers in a submission file: the same order, and the same AP or a refusal."""

import json

import numpy as np
import pytest

from eql_d2.errors import ResultsError
from eql_d2.evaluation.record_stream import stream_records
from eql_d2.submission import ap_change, pack_submission
from eql_d2.submission.submission_file import BOX_DECIMALS, RecordFormat, round_boxes


def read(path):
    return [record for batch in stream_records(path) for record in batch]


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
