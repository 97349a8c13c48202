import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eql_d2.data import load_detection_data
from eql_d2.errors import ConfigError, DataError, UserError

SCRIPT = Path(__file__).resolve().parents[2] / "datasets" / "prepare_longtail_json.py"


@pytest.fixture
def main(script):
    return script("prepare_longtail_json").main


@pytest.fixture
def coco(shared_data):
    return shared_data / "coco128" / "instances.json"


def test_one_file_becomes_one_file(main, coco, tmp_path, capsys):
    assert main([str(coco), "--output", str(tmp_path / "new")]) == 0
    assert os.listdir(tmp_path / "new") == ["instances_longtail.json"]
    made = load_detection_data(tmp_path / "new" / "instances_longtail.json", coco.parent / "images")
    assert made.federated
    assert made.frequency is not None
    assert len(made.images) == 128
    printed = capsys.readouterr().out
    assert "80 categories, 929 instances" in printed
    assert "instances_longtail.json: 128 images" in printed


def test_a_compressed_file_is_named_like_a_plain_one(main, tmp_path):
    content = {
        "images": [{"id": 1, "height": 9, "width": 9, "file_name": "1.png"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}],
        "categories": [{"id": 1, "name": "cup"}],
    }
    (tmp_path / "my.coco.json.gz").write_bytes(gzip.compress(json.dumps(content).encode()))
    assert main([str(tmp_path / "my.coco.json.gz"), "--output", str(tmp_path / "new")]) == 0
    assert os.listdir(tmp_path / "new") == ["my.coco_longtail.json"]


def test_a_split_takes_its_groups_from_the_training_part(main, coco, tmp_path, capsys):
    arguments = [str(coco), "--output", str(tmp_path), "--test-fraction", "0.25", "--seed", "4"]
    assert main([*arguments, "--rare-max", "1", "--common-max", "5"]) == 0
    train = load_detection_data(tmp_path / "instances_train.json", coco.parent / "images")
    test = load_detection_data(tmp_path / "instances_test.json", coco.parent / "images")
    assert (len(train.images), len(test.images)) == (96, 32)
    groups = train.statistics.with_groups("counts", 1, 5).groups
    assert set(groups) == {"r", "c", "f"}
    for path in tmp_path.iterdir():
        categories = json.loads(path.read_text())["categories"]
        assert tuple(c["frequency"] for c in categories) == groups
    assert "categories have no training image" in capsys.readouterr().out


def test_quantile_groups(main, coco, tmp_path):
    assert main([str(coco), "--output", str(tmp_path), "--group-mode", "quantiles"]) == 0
    content = json.loads((tmp_path / "instances_longtail.json").read_text())
    found = [c["frequency"] for c in content["categories"]]
    assert min(found.count(g) for g in "rcf") > 15


def test_what_exists_is_not_replaced_unless_told(main, coco, tmp_path):
    path = tmp_path / "instances_longtail.json"
    path.write_text("mine")
    with pytest.raises(DataError, match="exists; give --overwrite"):
        main([str(coco), "--output", str(tmp_path)])
    assert path.read_text() == "mine"
    assert main([str(coco), "--output", str(tmp_path), "--overwrite"]) == 0
    assert json.loads(path.read_text())["images"]
    assert os.listdir(tmp_path) == [path.name]


def test_no_file_is_written_where_one_of_them_exists(main, coco, tmp_path):
    (tmp_path / "instances_test.json").write_text("mine")
    with pytest.raises(DataError, match=r"instances_test\.json exists"):
        main([str(coco), "--output", str(tmp_path), "--test-fraction", "0.2"])
    assert os.listdir(tmp_path) == ["instances_test.json"]


def test_unusable_annotations_are_not_copied_out(main, coco, tmp_path):
    content = json.loads(coco.read_text())
    content["annotations"][0]["bbox"][2] = float("nan")
    (tmp_path / "mine.json").write_text(json.dumps(content))
    assert main([str(tmp_path / "mine.json"), "--output", str(tmp_path)]) == 0
    text = (tmp_path / "mine_longtail.json").read_text()
    assert "NaN" not in text
    assert sum(c["instance_count"] for c in json.loads(text)["categories"]) == 928


def test_a_place_that_cannot_be_written_is_an_error(main, coco, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="file is a file; give a folder"):
        main([str(coco), "--output", str(tmp_path / "file")])


def test_a_fraction_that_is_none_is_an_error(main, coco, tmp_path):
    with pytest.raises(ConfigError, match="test fraction"):
        main([str(coco), "--output", str(tmp_path), "--test-fraction", "2"])


def test_the_users_mistakes_end_with_exit_code_2_and_without_traceback(tmp_path):
    (tmp_path / "broken.json").write_text('{"images": [')
    command = [sys.executable, str(SCRIPT), str(tmp_path / "broken.json"), "--output", "."]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert done.returncode == 2
    assert "broken.json is not valid json (it is cut off" in done.stderr
    assert "Traceback" not in done.stderr
