"""compare_results.py as a user calls it."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from eql_d2.errors import ResultsError, UserError
from eql_d2.evaluation import evaluate

TOOL = Path(__file__).parents[2] / "tools" / "compare_results.py"


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location("compare_results_tool", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def files(tmp_path):
    """Annotations of 30 images, and ``results(name, seed, found)``."""
    rng = np.random.default_rng(0)
    annotations = [
        {"id": i, "image_id": i // 3, "category_id": i % 3, "area": 400,
         "bbox": [*rng.integers(0, 70, 2).tolist(), 20, 20]}
        for i in range(90)
    ]  # fmt: skip
    truth = {
        "images": [{"id": i, "height": 100, "width": 100} for i in range(30)],
        "annotations": annotations,
        "categories": [{"id": k, "name": str(k), "frequency": "rcf"[k]} for k in range(3)],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))

    def results(name, seed, found):
        rng = np.random.default_rng(seed)
        records = [
            {key: a[key] for key in ("image_id", "category_id", "bbox")} | {"score": rng.random()}
            for a in annotations
            if rng.random() < found
        ]
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(records))
        return str(path)

    return tmp_path, results


def call(tool, files, *arguments):
    common = ["--annotations", str(files[0] / "truth.json"), "--iou-types", "bbox"]
    return tool.main([*arguments, *common, "--resamples", "100"])


def test_two_files(tool, files, capsys):
    folder, results = files
    first, second = results("a.json", 1, 0.4), results("b.json", 2, 0.9)
    assert call(tool, files, first, second, "--json", str(folder / "out.json")) == 0
    printed = capsys.readouterr().out
    assert "bbox/AP: B is" in printed
    assert "exceeds the noise of images" in printed
    metrics = json.loads((folder / "out.json").read_text())["metrics"]
    for side, file in (("A", first), ("B", second)):
        ap = evaluate(folder / "truth.json", file, iou_types=["bbox"]).metrics["bbox/AP"]
        assert metrics["bbox/AP"][side] == pytest.approx(ap)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (".", "is a folder"),
        ("truth.json/out.json", "truth.json is a file; give a folder"),
        ("b.json", "is read, and would be overwritten"),
        ("groups.json", "is read, and would be overwritten"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_the_work(
    tool, files, monkeypatch, output, message
):
    folder, results = files
    given = [results("a.json", 1, 0.4), results("b.json", 2, 0.9)]
    given += ["--groups-from", str(folder / "groups.json")]  # would be read next
    with pytest.raises(UserError, match=message):
        call(tool, files, *given, "--json", str(folder / output))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seed", "-1"], "the seed must be 0 or more, got -1"),
        (["--json", ""], "is a folder; give the name of a file"),
        (["--groups-from", ""], r"folder \. holds no category_statistics\.json"),
    ],
)
def test_wrong_values_are_named(tool, files, flags, message):
    _, results = files
    with pytest.raises(UserError, match=message):
        call(tool, files, results("a.json", 1, 0.4), results("b.json", 2, 0.9), *flags)


@pytest.mark.parametrize("place", ["first", "second"])
def test_circles_of_links_are_named(tool, files, place):
    folder, results = files
    (folder / "loop").symlink_to(folder / "loop")
    paths = {"first": results("a.json", 1, 0.4), "second": results("b.json", 2, 0.9)}
    paths |= {place: str(folder / "loop")}
    with pytest.raises(UserError, match="loop cannot be read: Too many levels"):
        call(tool, files, paths["first"], paths["second"], "--json", str(folder / "out.json"))


def test_sides_without_a_name_are_not_named_twice(tool, files, capsys):
    _, results = files
    assert call(tool, files, results("a.json", 1, 0.4), results("b.json", 2, 0.9)) == 0
    assert "A: 1 run   B: 1 run" in capsys.readouterr().out


def test_several_seeds_a_side_as_run_folders(tool, files, capsys):
    folder, results = files
    runs = [f"{side}{seed}" for side in "ab" for seed in range(2)]
    for number, run in enumerate(runs):
        results(f"{run}/inference/lvis_instances_results.json", number, 0.5 + 0.2 * (run > "b"))
    paths = [str(folder / run) for run in runs]
    assert call(tool, files, *paths[:2], "--against", *paths[2:], "--names", "old", "new") == 0
    printed = capsys.readouterr().out
    assert "A: old (2 runs)   B: new (2 runs)" in printed
    assert "seeds" in printed.splitlines()[4]
    assert "noise of training" not in printed


def test_other_confidence_widens(tool, files, capsys):
    _, results = files
    pair = results("a.json", 1, 0.5), results("b.json", 2, 0.6)
    widths = []
    for confidence in ("0.8", "0.99"):
        call(tool, files, *pair, "--confidence", confidence)
        line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("bbox/AP "))
        low, high = line.split()[4], line.split()[6]
        widths.append(float(high) - float(low))
    assert widths[0] < widths[1]


def test_one_file_has_nothing_to_be_compared_with(tool, files):
    with pytest.raises(UserError, match="two results files, or --against; got 1"):
        call(tool, files, files[1]("a.json", 1, 0.5))


def test_a_missing_file_is_named(tool, files):
    with pytest.raises(ResultsError, match=r"nowhere\.json"):
        call(tool, files, files[1]("a.json", 1, 0.5), "nowhere.json")


def test_a_copy_is_no_second_run(tool, files):
    a, b, c = (files[1](name, i, 0.5) for i, name in enumerate("abc"))
    with pytest.raises(UserError, match="named twice on one side"):
        call(tool, files, a, a, "--against", b, c)


def test_no_input_is_written_over(tool, files):
    a, b = files[1]("a", 0, 0.5), files[1]("b", 1, 0.5)
    before = Path(a).read_bytes()
    with pytest.raises(UserError, match="would be overwritten"):
        call(tool, files, a, b, "--json", a)
    assert Path(a).read_bytes() == before
