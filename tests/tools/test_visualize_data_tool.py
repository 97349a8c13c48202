"""visualize_data.py: table, CSV, the picture of the tail, annotated images."""

import csv
import importlib.util
import json
from pathlib import Path

import pytest
from PIL import Image

from eql_d2.errors import DataError, UserError

TOOL = Path(__file__).parents[2] / "tools" / "visualize_data.py"


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location("visualize_data_tool", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def dataset(tmp_path):
    """20 images; all have category 8, ten have 4, one has 15."""
    images, annotations = [], []
    (tmp_path / "images").mkdir()
    for i in range(1, 21):
        Image.new("RGB", (60, 50), (128, 128, 128)).save(tmp_path / "images" / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "height": 50, "width": 60})
        for category in [8, *([4] if i <= 10 else []), *([15] if i == 20 else [])]:
            box = {"bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0}
            polygon = {"segmentation": [[5, 5, 25, 5, 25, 25, 5, 25]]}
            new = {"id": len(annotations) + 1, "image_id": i, "category_id": category}
            annotations.append(new | box | polygon)
    categories = [{"id": i, "name": name} for i, name in ((8, "cup"), (4, "fork"), (15, "awl"))]
    path = tmp_path / "gt.json"
    content = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content))
    return path


def arguments(dataset, *more):
    folder = dataset.parent
    paths = ["--annotations", dataset, "--images", folder / "images", "--output", folder / "out"]
    return [str(p) for p in (*paths, *more)]


def tail_column(dataset):
    with (dataset.parent / "out" / "categories.csv").open(newline="") as stream:
        return {row["name"]: row["tail"] for row in csv.DictReader(stream)}


def test_everything_is_written_rare_images_first(tool, dataset, capsys):
    assert tool.main(arguments(dataset, "--number", "3", "--lambda", "0.5")) == 0
    out = dataset.parent / "out"
    assert len(list((out / "images").glob("*.png"))) == 3
    assert (out / "images" / "20_20.png").is_file()  # the only image with an awl
    assert (out / "category_counts.png").stat().st_size > 5000
    assert tail_column(dataset) == {"fork": "0", "cup": "0", "awl": "1"}
    printed = capsys.readouterr().out
    assert "awl" in printed
    assert "lambda 0.5: 1 of 3 categories are tail, tail ratio 3.23 %" in printed


def test_tail_ratio_finds_lambda(tool, dataset, capsys):
    assert tool.main(arguments(dataset, "--number", "0", "--tail-ratio", "0.4")) == 0
    assert tail_column(dataset) == {"fork": "1", "cup": "0", "awl": "1"}
    assert "tail ratio 35.48 %" in capsys.readouterr().out
    assert not (dataset.parent / "out" / "images").exists()


def test_without_lambda_nothing_is_called_tail(tool, dataset, capsys):
    assert tool.main(arguments(dataset, "--number", "1")) == 0
    assert set(tail_column(dataset).values()) == {""}
    assert "are tail" not in capsys.readouterr().out


def test_images_need_not_be_there_when_none_is_drawn(tool, dataset):
    for image in (dataset.parent / "images").iterdir():
        image.unlink()
    assert tool.main(arguments(dataset, "--number", "0")) == 0
    with pytest.raises(DataError):
        tool.main(arguments(dataset, "--number", "1"))


def test_wrong_flags(tool, dataset):
    with pytest.raises(SystemExit) as error:
        tool.main(arguments(dataset, "--lambda", "0.1", "--tail-ratio", "0.1"))
    assert error.value.code == 2
    with pytest.raises(UserError, match="--number must be 0 or more"):
        tool.main(arguments(dataset, "--number=-1"))
    with pytest.raises(UserError, match="tail ratio must be between"):
        tool.main(arguments(dataset, "--tail-ratio", "1.5"))


def groups(dataset):
    with (dataset.parent / "out" / "categories.csv").open(newline="") as stream:
        return {row["name"]: row["group"] for row in csv.DictReader(stream)}


def test_groups_are_formed_as_told_in_table_and_pictures(tool, dataset, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        tool, "save_ground_truth_pictures", lambda *_, groups: drawn.append(groups) or []
    )
    tool.main(arguments(dataset))
    assert groups(dataset) == {"fork": "r", "cup": "c", "awl": "r"}
    tool.main(arguments(dataset, "--rare-max", "1", "--common-max", "10"))
    assert groups(dataset) == {"fork": "c", "cup": "f", "awl": "r"}
    tool.main(arguments(dataset, "--group-mode", "quantiles"))
    assert groups(dataset) == {"fork": "c", "cup": "f", "awl": "r"}
    assert drawn == [("r", "c", "r"), ("c", "f", "r"), ("c", "f", "r")]
    with pytest.raises(UserError, match="quantiles are always thirds"):
        tool.main(arguments(dataset, "--group-mode", "quantiles", "--rare-max", "3"))


def test_an_output_that_cannot_be_written_is_told_first(tool, dataset, monkeypatch):
    (dataset.parent / "out").write_text("a file")
    monkeypatch.setattr(tool, "load_detection_data", lambda *_, **__: pytest.fail("was read"))
    with pytest.raises(UserError, match=r"--output .*out: .*out is a file; give a folder"):
        tool.main(arguments(dataset))


def test_exit_code_2_with_a_message(tool, dataset, capsys):
    dataset.write_text("{")
    with pytest.raises(SystemExit) as error:
        tool.run_tool(lambda: tool.main(arguments(dataset)))
    assert error.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_coco128(tool, shared_data, tmp_path):
    coco = shared_data / "coco128"
    flags = ["--annotations", coco / "instances.json", "--images", coco / "images"]
    flags += ["--output", tmp_path, "--number", "2", "--tail-ratio", "0.05"]
    assert tool.main([str(f) for f in flags]) == 0
    assert len(list((tmp_path / "images").glob("*.png"))) == 2
    assert len((tmp_path / "categories.csv").read_text().splitlines()) == 81
