"""What ``evaluate`` takes: groups, wrong arguments, files and parsed json."""

import copy
import json
import subprocess
import sys

import pytest

from eql_d2.errors import DataError, ResultsError, UserError
from eql_d2.evaluation import evaluate


def box_truth(boxes, *, areas=None, categories=(1,), **image):
    """One image, 200 x 200, with one object of the first category for each box."""
    annotations = [
        {
            "id": i + 1,
            "image_id": 7,
            "category_id": categories[0],
            "bbox": list(box),
            "area": box[2] * box[3] if areas is None else areas[i],
        }
        for i, box in enumerate(boxes)
    ]
    fields = {"neg_category_ids": [], "not_exhaustive_category_ids": []} | image
    return {
        "images": [{"id": 7, "height": 200, "width": 200} | fields],
        "annotations": annotations,
        "categories": [{"id": c, "name": str(c), "frequency": "f"} for c in categories],
    }


def test_groups_override_the_frequencies(random_case):
    truth, records = random_case(3)
    ids = sorted(category["id"] for category in truth["categories"])
    own = {category["id"]: category["frequency"] for category in truth["categories"]}
    expected = evaluate(truth, records)
    assert evaluate(truth, records, groups=[own[i] for i in ids]) == expected
    assert evaluate(truth, records, groups=own | {999: "r"}) == expected
    rotated = {i: {"r": "c", "c": "f", "f": "r"}[g] for i, g in own.items()}
    changed = evaluate(truth, records, groups=rotated).metrics
    assert changed["bbox/APc"] == expected.metrics["bbox/APr"]
    assert changed["bbox/APf"] == expected.metrics["bbox/APc"]


def test_groups_are_not_needed(random_case):
    truth, records = random_case(3)
    expected = evaluate(truth, records).metrics
    for category in truth["categories"]:
        del category["frequency"]
    evaluation = evaluate(truth, records)
    assert evaluation.metrics["bbox/AP"] == expected["bbox/AP"]
    assert evaluation.metrics["bbox/APr"] is None
    assert "APr    n/a (no category is known to be rare; --groups-from" in evaluation.table()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": ["r"]}, "1 groups for 2 categories"),
        ({"groups": ["r", "rare"]}, "rare"),
        ({"groups": {1: "r"}}, r"lack 1 of 2 category ids .* \[2\]"),
        ({"iou_types": ["box"]}, "iou_types"),
        ({"iou_types": "bbox"}, "iou_types"),
        ({"iou_types": []}, "iou_types"),
        ({"max_detections": 0}, "max_detections"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    truth = box_truth([(0, 0, 9, 9)], categories=(1, 2))
    with pytest.raises(UserError, match=message):
        evaluate(truth, [], **({"iou_types": ["bbox"]} | arguments))


def test_inputs_stay_as_they_are(random_case):
    truth, records = random_case(5)
    before = copy.deepcopy((truth, records))
    evaluate(truth, records)
    assert (truth, records) == before


def test_files_give_the_same_as_parsed_json(tmp_path, random_case):
    truth, records = random_case(6)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text(json.dumps(records))
    from_files = evaluate(tmp_path / "truth.json", str(tmp_path / "results.json"))
    assert from_files == evaluate(truth, records)


@pytest.mark.parametrize("text", ["", "[1,", '{"images": []', "\x00", "[" * 100_000])
def test_files_that_are_not_json(text, tmp_path):
    broken = tmp_path / "broken.json"
    broken.write_text(text)
    with pytest.raises(ResultsError, match=r"broken\.json"):
        evaluate(box_truth([]), broken, iou_types=["bbox"])
    with pytest.raises(DataError, match=r"broken\.json"):
        evaluate(broken, [], iou_types=["bbox"])
    with pytest.raises(ResultsError, match="No such file"):
        evaluate(box_truth([]), tmp_path / "missing.json", iou_types=["bbox"])


def test_needs_neither_torch_nor_pycocotools_for_boxes():
    code = (
        "import sys\n"
        "for name in ('torch', 'pycocotools', 'lvis', 'eql_d2.categories'):\n"
        "    sys.modules[name] = None\n"
        "from eql_d2.evaluation import evaluate\n"
        "truth = {'images': [{'id': 1}], 'categories': [{'id': 1}], 'annotations':\n"
        "         [{'image_id': 1, 'category_id': 1, 'bbox': [0, 0, 9, 9], 'area': 81}]}\n"
        "found = [{'image_id': 1, 'category_id': 1, 'bbox': [0, 0, 9, 9], 'score': 1}]\n"
        "print(round(evaluate(truth, found, iou_types=['bbox']).metrics['bbox/AP']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "100", done.stderr
