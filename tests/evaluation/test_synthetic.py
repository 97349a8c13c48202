"""Generated annotations and results: real profile, valid, the same for the same arguments."""

import json

import numpy as np
import pytest

from eql_d2.categories.bundled import read_table
from eql_d2.evaluation import evaluate, synthetic
from eql_d2.evaluation.synthetic import generate


@pytest.fixture(scope="module", autouse=True)
def few_shapes():
    """Drawing all shapes takes longer than these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "SHAPES", 60)
        yield


@pytest.fixture(scope="module")
def table():
    return read_table("lvis_v1")


@pytest.fixture(scope="module")
def files(tmp_path_factory, table):
    return generate(tmp_path_factory.mktemp("a"), table, 150, detections_per_image=40, seed=3)


def test_the_profile_is_that_of_the_table(files, table):
    truth = json.loads(files[0].read_text())
    assert len(truth["categories"]) == 1203
    assert len(truth["images"]) == len({image["id"] for image in truth["images"]}) == 150
    assert 9 < len(truth["annotations"]) / 150 < 17  # 12.8 in LVIS v1 train
    shown = {(a["image_id"], a["category_id"]) for a in truth["annotations"]}
    assert 3 < len(shown) / 150 < 4.3  # 3.6
    count = {category["id"]: category["image_count"] for category in table["categories"]}
    often = sum(count[category] > 1000 for _, category in shown)
    assert often > len(shown) / 2
    for image in truth["images"]:
        present = {category for i, category in shown if i == image["id"]}
        assert not present & set(image["neg_category_ids"])
        assert present >= set(image["not_exhaustive_category_ids"])
    assert 7 < np.mean([len(image["neg_category_ids"]) for image in truth["images"]]) < 12
    areas = [annotation["area"] for annotation in truth["annotations"]]
    assert 200 < np.median(areas) < 1500  # 665


def test_results_can_be_scored_and_are_neither_perfect_nor_useless(files):
    records = json.loads(files[1].read_text())
    assert len(records) == 150 * 40
    metrics = evaluate(*files).metrics
    for kind in ("bbox", "segm"):
        assert 10 < metrics[f"{kind}/AP"] < 60
        assert metrics[f"{kind}/AP50"] > metrics[f"{kind}/AP75"] > 0


def test_same_arguments_give_the_same_bytes(files, table, tmp_path):
    again = generate(tmp_path, table, 150, detections_per_image=40, seed=3)
    assert [path.name for path in again] == [path.name for path in files]
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in files]
    other = generate(tmp_path, table, 5, detections_per_image=40, seed=4)
    assert not {path.name for path in other} & {path.name for path in files}


def test_files_are_kept_and_missing_ones_made_the_same(table, tmp_path):
    files = generate(tmp_path, table, 4, detections_per_image=3)
    content = files[1].read_bytes()
    files[0].write_text("kept")
    files[1].unlink()
    assert generate(tmp_path, table, 4, detections_per_image=3) == files
    assert files[0].read_text() == "kept"
    assert files[1].read_bytes() == content


def test_no_images(table, tmp_path):
    truth, results = generate(tmp_path, table, 0)
    assert json.loads(truth.read_text())["images"] == []
    assert json.loads(results.read_text()) == []
