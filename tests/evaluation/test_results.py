"""What a results file may not contain, and how it is told."""

import json

import pytest

from eql_d2.errors import ResultsError
from eql_d2.evaluation import results
from eql_d2.evaluation.annotations import read_ground_truth
from eql_d2.evaluation.results import read_results
from eql_d2.evaluation.rle import compressed_counts

TRUTH = {
    "images": [{"id": 5, "height": 4, "width": 6}, {"id": 3, "height": 4, "width": 6}],
    "annotations": [],
    "categories": [{"id": 10, "name": "a"}, {"id": 2, "name": "b"}],
}
GOOD = {
    "image_id": 5,
    "category_id": 10,
    "score": 0.5,
    "bbox": [1, 0, 2, 3],
    "segmentation": {"size": [4, 6], "counts": [4, 3, 1, 3, 13]},
}


def read(records, iou_types=("bbox", "segm")):
    return read_results(records, read_ground_truth(TRUTH, need_masks=False), iou_types)


def test_columns_of_good_records():
    other = GOOD | {"image_id": 3.0, "category_id": 2, "score": 1}
    found = read([GOOD, other])
    assert found.image.tolist() == [1, 0]  # images and categories are sorted by id
    assert found.category.tolist() == [1, 0]
    assert found.scores.tolist() == [0.5, 1.0]
    assert found.boxes.tolist() == [[1, 0, 2, 3]] * 2
    assert found.box_areas.tolist() == found.mask_areas.tolist() == [6, 6]
    assert len(found) == 2


def test_only_what_is_asked_for_is_read():
    boxes = read([GOOD | {"segmentation": "nonsense"}], ("bbox",))
    assert boxes.masks is None
    masks = read([GOOD | {"bbox": "nonsense"}], ("segm",))
    assert masks.boxes is None
    assert masks.mask_areas.tolist() == [6]


def test_boxes_come_from_masks_where_no_record_has_one():
    records = [{key: GOOD[key] for key in GOOD if key != "bbox"}] * 300
    found = read(records, ("bbox",))
    assert found.boxes.tolist() == [[1, 0, 2, 3]] * 300
    assert found.box_areas.tolist() == [6] * 300


@pytest.mark.parametrize("counts", ["4314=0", b"4314=0"])
def test_counts_as_text_or_bytes(counts):
    from pycocotools import mask as coco_mask

    rle = coco_mask.frPyObjects(GOOD["segmentation"], 4, 6)
    same_type = rle["counts"] if isinstance(counts, bytes) else rle["counts"].decode()
    assert read([GOOD | {"segmentation": rle | {"counts": same_type}}]).mask_areas.tolist() == [6]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 4}, "'image_id' is not in the annotations"),
        ({"image_id": "5"}, "'image_id' is not an integer"),
        ({"image_id": 5.5}, "'image_id' is not an integer"),
        ({"image_id": None}, "'image_id' is not an integer"),
        ({"image_id": 10**30}, "'image_id' is not in the annotations"),
        ({"image_id": [5]}, "'image_id' is not an integer"),
        ({"category_id": 11}, "'category_id' is not in the annotations"),
        ({"category_id": float("nan")}, "'category_id' is not an integer"),
        ({"category_id": True}, "'category_id' is not an integer"),
        ({"score": float("nan")}, "'score' is not a finite number"),
        ({"score": float("inf")}, "'score' is not a finite number"),
        ({"score": "0.5"}, "'score' is not a finite number"),
        ({"score": [0.5]}, "'score' is not a finite number"),
        ({"score": 10**400}, "'score' is not a finite number"),
        ({"bbox": [1, 2, 3]}, "'bbox' is not"),
        ({"bbox": [1, 2, 3, float("nan")]}, "'bbox' is not"),
        ({"bbox": [1, 2, -3, 4]}, "'bbox' is not"),
        ({"bbox": [1, 2, "3", 4]}, "'bbox' is not"),
        ({"bbox": [1, 2, [3], 4]}, "'bbox' is not"),
        ({"bbox": {"x": 1}}, "'bbox' is not"),
        ({"bbox": None}, "'bbox' is not"),
        ({"segmentation": [[0, 0, 3, 0, 3, 3]]}, "'segmentation' is not an RLE"),
        ({"segmentation": None}, "'segmentation' is not an RLE"),
        ({"segmentation": {"size": [4, 6]}}, "'segmentation' is not an RLE"),
        ({"segmentation": {"size": [6, 4], "counts": [24]}}, "RLE has another size"),
        ({"segmentation": {"size": [4, 6], "counts": [23]}}, "do not add up to height x width"),
        ({"segmentation": {"size": [4, 6], "counts": []}}, "do not add up to height x width"),
        ({"segmentation": {"size": [4, 6], "counts": "zz"}}, "do not add up to height x width"),
    ],
)
def test_one_bad_record_among_good_ones_is_named(change, message):
    with pytest.raises(ResultsError, match=message) as caught:
        read([GOOD, GOOD, GOOD | change, GOOD])
    assert "1 of 4 records" in str(caught.value)
    assert "(number 2: " in str(caught.value)
    with pytest.raises(ResultsError, match=message):
        read([GOOD | change])


@pytest.mark.parametrize("key", list(GOOD))
def test_a_missing_key_is_named(key):
    lacking = {other: GOOD[other] for other in GOOD if other != key}
    with pytest.raises(ResultsError, match=f"1 of 3 records: no '{key}'"):
        read([GOOD, lacking, GOOD])


def test_masks_are_needed_for_mask_ap_only():
    boxes = [{key: GOOD[key] for key in GOOD if key != "segmentation"}] * 2
    assert read(boxes, ("bbox",)).masks is None
    with pytest.raises(
        ResultsError, match="2 of 2 records: no 'segmentation', which mask AP needs"
    ):
        read(boxes)


@pytest.mark.parametrize("record", [None, 5, "text", [1, 2], []])
def test_records_that_are_no_objects(record):
    with pytest.raises(ResultsError, match="1 of 2 records: no 'image_id'"):
        read([GOOD, record])


@pytest.mark.parametrize("content", [{}, {"annotations": []}, "text", 5, None])
def test_results_that_are_no_list(content, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ResultsError, match=r"results\.json: expected a json list"):
        read(path)


def test_several_problems_are_told_at_once():
    records = [GOOD] * 10 + [GOOD | {"score": None, "image_id": "x"}] * 5
    with pytest.raises(ResultsError) as caught:
        read(records)
    text = str(caught.value)
    assert "5 of 15 records: 'score' is not" in text
    assert "5 of 15 records: 'image_id' is not" in text
    assert "number 12: 'x', ...)" in text


def test_boxes_in_later_batches_only(monkeypatch):
    monkeypatch.setattr(results, "BATCH", 2)
    boxless = {key: GOOD[key] for key in GOOD if key != "bbox"}
    with pytest.raises(ResultsError, match=r"3 of 5 records: no 'bbox' \(number 0: .*number 4"):
        read([boxless, boxless, GOOD, GOOD, boxless])


def test_masks_stay_compact_and_in_order(tmp_path):
    path = tmp_path / "results.json"
    counts = [[4, 3, 1, 3, 13], [24], [0, 24], [23, 1]]
    records = [
        GOOD | {"score": i / 500, "segmentation": {"size": [4, 6], "counts": counts[i % 4]}}
        for i in range(500)
    ]
    path.write_text(json.dumps(records))
    found = read(path)
    expected = [compressed_counts(record["segmentation"]) for record in records]
    assert list(found.masks) == expected
    assert found.masks[-1] == expected[-1]
    assert found.masks[3:7] == expected[3:7]
    assert len(found.masks) == 500
    with pytest.raises(IndexError, match="500 of 500"):
        found.masks[500]
    assert found.mask_areas.tolist() == [6, 0, 24, 1] * 125


def test_long_values_are_cut_in_the_message():
    with pytest.raises(ResultsError) as caught:
        read([GOOD | {"bbox": list(range(10_000))}])
    assert len(str(caught.value)) < 400
