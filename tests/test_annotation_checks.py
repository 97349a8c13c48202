"""The limits that both readers of annotation files share, as both apply them."""

import json
import logging
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from eql_d2.categories import CategoryStatistics
from eql_d2.data import load_detection_data
from eql_d2.errors import DataError
from eql_d2.evaluation import evaluate
from eql_d2.evaluation.annotations import read_ground_truth

EVALUATE = Path(__file__).parents[1] / "tools" / "evaluate.py"
SQUARE = [1, 1, 9, 1, 9, 9, 1, 9]
ZIGZAG = [9e5, -9e5, -9e5, 9e5] * 400  # of this pycocotools needs 58 GB
DETECTION = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 8, 8], "score": 0.5}


def content(**changes):
    """Two objects in an image of 40 x 50 pixels; ``changes`` are of the first."""
    first = {"id": 17, "image_id": 1, "category_id": 1, "bbox": [1, 1, 8, 8], "area": 64.0}
    second = {**first, "id": 18, "segmentation": [SQUARE]}
    return {
        "images": [{"id": 1, "file_name": "1.png", "height": 40, "width": 50}],
        "annotations": [{**first, "segmentation": [SQUARE], **changes}, second],
        "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "fork"}],
    }


@pytest.fixture(params=["training", "evaluation"])
def read(request, tmp_path):
    """Both readers."""

    def reader(value):
        if request.param == "evaluation":
            return read_ground_truth(value, need_masks=True)
        path = tmp_path / "a.json"
        path.write_text(json.dumps(value))
        return load_detection_data(path, tmp_path, check_images=False)

    return reader


@pytest.mark.parametrize(
    ("changes", "value", "limit"),
    [
        ({"segmentation": [SQUARE, ZIGZAG[:24]]}, "an outline of 21,600,000 pixels", "20,000,000"),
        ({"segmentation": [[*SQUARE[:-1], 1e7]]}, "coordinate 1e+07", "1,000,000"),
        ({"segmentation": [[-1e5, 1e300, 5, 5, 1, 2]]}, "coordinate 1e+300", "1,000,000"),
        ({"segmentation": [[*SQUARE[:-1], -(10**12)]]}, "coordinate -1e+12", "1,000,000"),
        ({"bbox": [1, 1, 1e300, 8]}, "1e+300", "1,000,000"),
        ({"bbox": [-5e6, 1, 8, 8]}, "5e+06", "1,000,000"),
    ],
)
def test_both_readers_name_annotation_number_and_limit(read, changes, value, limit):
    with pytest.raises(DataError) as caught:
        read(content(**changes))
    for part in ("annotation 17", value, limit):
        assert part in str(caught.value)
    assert "annotation 18" not in str(caught.value)


@pytest.mark.parametrize(
    ("height", "width"),
    [(10**9, 50), (40, -50), (40, "50"), (100_001, 1), (60_000, 60_000), (2**40, 1), (0, 50)],
)
def test_both_readers_refuse_impossible_sizes_and_name_them(read, height, width):
    value = content()
    value["images"][0] |= {"height": height, "width": width}
    with pytest.raises(DataError) as caught:
        read(value)
    wrong = height if width in (1, 50) else width
    assert repr(wrong) in str(caught.value)


@pytest.mark.parametrize("size", [(10**9, 50), (40, -50)])
def test_sizes_are_checked_where_masks_are_not_needed_too(size):
    value = content()
    value["images"][0] |= dict(zip(("height", "width"), size, strict=True))
    with pytest.raises(DataError, match="impossible 'height' and 'width'"):
        read_ground_truth(value, need_masks=False)


@pytest.mark.parametrize(
    "polygon",
    [
        [-1e6, -1e6, 1e6, -1e6, 1e6, 1e6, -1e6, 1e6],
        [999_999.5, 3, -7, 30, 2, 2],
        [2500, 2500, -2500, 2500] * 1000,
        [3 * np.cos(i) + 20 if k else 9 * np.sin(i) + 20 for i in range(5000) for k in (0, 1)],
    ],
)
def test_what_is_within_is_drawn_as_pycocotools_draws_it(polygon):
    truth = read_ground_truth(content(segmentation=[polygon, SQUARE]), need_masks=True)
    expected = coco_mask.merge(coco_mask.frPyObjects([polygon, SQUARE], 40, 50))["counts"]
    assert truth.masks[0] == expected
    assert not truth.without_mask.any()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 10**400])
def test_what_is_no_finite_number_is_left_out_by_both_readers(read, number, caplog):
    read(content(segmentation=[[*SQUARE[:-1], number]]))
    read(content(bbox=[1, 1, 8, number]))
    assert "left out" in caplog.text or "usable" in caplog.text


def test_evaluation_ends_with_a_message_where_pycocotools_ended_the_process(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(content(segmentation=[ZIGZAG])))
    mask = {"size": [40, 50], "counts": "0P>"}
    (tmp_path / "r.json").write_text(json.dumps([{**DETECTION, "segmentation": mask}]))
    files = ["--annotations", "a.json", "--results", "r.json", "--output-dir", "out"]
    done = subprocess.run(
        [sys.executable, str(EVALUATE), *files],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30)),
    )
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert "annotation 17: an outline of 1,440,000,000 pixels" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [17, 18.0, "x", [1], {}])
def test_repeated_and_impossible_annotation_ids_are_refused(number):
    value = content()
    value["annotations"] += [
        {**value["annotations"][0], "id": number},
        {**value["annotations"][1], "id": number},
    ]
    with pytest.raises(DataError) as caught:
        evaluate(value, [DETECTION], iou_types=["bbox"])
    assert "of 4 annotations: " in str(caught.value)
    assert repr(number) in str(caught.value)


def test_both_readers_and_the_statistics_refuse_repeated_annotation_ids(read, tmp_path):
    value = content(id=18)
    with pytest.raises(DataError, match=r"\b18\b"):
        read(value)
    (tmp_path / "b.json").write_text(json.dumps(value))
    with pytest.raises(DataError, match=r"1 annotation ids more than once, e\.g\. \[18\]"):
        CategoryStatistics.from_json(tmp_path / "b.json")


def test_annotations_without_an_id_are_scored_as_ever():
    value = content()
    expected = evaluate(value, [DETECTION], iou_types=["bbox"]).metrics
    for annotation in value["annotations"]:
        del annotation["id"]
    assert evaluate(value, [DETECTION], iou_types=["bbox"]).metrics == expected
    for annotation in value["annotations"]:
        annotation["id"] = None
    assert evaluate(value, [DETECTION], iou_types=["bbox"]).metrics == expected


def test_both_readers_tell_of_names_that_categories_share(read, caplog):
    caplog.set_level(logging.WARNING)
    read(content())
    assert not caplog.records
    value = content()
    value["categories"][1]["name"] = "cup"
    read(value)
    assert "1 names belong to more than one category: 'cup' (ids 1, 2)" in caplog.text


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("box", [[0, 0, 1e300, 1e300], [-1e300, 0, 1e300, 9], [1e308] * 4])
@pytest.mark.parametrize("metric", ["ap", "proposals"])
def test_detections_of_any_size_are_scored_as_the_official_code_does(box, metric):
    """They meet no object; results, unlike annotations, are not limited: models may diverge."""
    value, near = content(), {**DETECTION, "score": 0.4}
    other = {**DETECTION, "bbox": [30, 30, 1e6, 1e6]}  # beyond the largest area range as well
    expected = evaluate(value, [other, near], iou_types=["bbox"], metrics=[metric])
    other = {**DETECTION, "bbox": box}
    found = evaluate(value, [other, near], iou_types=["bbox"], metrics=[metric])
    assert found.metrics == expected.metrics
    assert coco_mask.iou([box], [[1.0, 1, 8, 8]], [0])[0, 0] == 0
