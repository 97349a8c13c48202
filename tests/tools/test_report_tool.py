"""report.py and run_evaluation_demo.py on small finished runs."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from eql_d2.categories import CategoryStatistics, write_statistics
from eql_d2.config import load_config
from eql_d2.data.longtail_shapes import generate_longtail_shapes
from eql_d2.errors import UserError
from eql_d2.evaluation import evaluate

TOOLS = Path(__file__).parents[2] / "tools"


def load(name):
    spec = importlib.util.spec_from_file_location(f"{name}_tool", TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two finished runs on the same generated images, with their configuration."""
    root = tmp_path_factory.mktemp("demo")
    numbers = {"num_categories": 6, "num_train_images": 24, "num_test_images": 12}
    truth = generate_longtail_shapes(root / "data", **numbers, image_size=64, seed=0)[2]
    keys = [v for k, n in numbers.items() for v in (f"DATA.LONGTAIL_SHAPES.{k.upper()}", str(n))]
    keys += ["DATA.LONGTAIL_SHAPES.DIR", str(root / "data")]
    config = load_config(str(TOOLS.parent / "configs/quick/longtail_shapes_eql.yaml"), keys)
    content = json.loads(Path(truth).read_text())
    for seed, name in enumerate(("first", "second")):
        rng = np.random.default_rng(seed)
        records = [
            {key: a[key] for key in ("image_id", "category_id", "bbox", "segmentation")}
            | {"score": float(rng.random())}
            for a in content["annotations"]
            if rng.random() < 0.8
        ]
        run = root / name
        (run / "inference").mkdir(parents=True)
        (run / "inference/lvis_instances_results.json").write_text(json.dumps(records))
        (run / "config.yaml").write_text(config.dump())
        evaluate(truth, records).write(run)
    return root


@pytest.fixture
def quantile_runs(runs, tmp_path):
    """Copies of the runs, evaluated with groups that are not those of the annotations."""
    statistics = CategoryStatistics.from_json(runs / "data/train.json").with_groups("quantiles")
    for name in ("first", "second"):
        shutil.copytree(runs / name, tmp_path / name)
        results = tmp_path / name / "inference/lvis_instances_results.json"
        scored = evaluate(runs / "data/test.json", results, groups=statistics.groups)
        before = json.loads((runs / name / "metrics.json").read_text())
        assert scored.metrics != before
        scored.write(tmp_path / name)
        write_statistics(statistics, tmp_path / name)
    return tmp_path


def test_the_whole_way_ends_with_the_same_metrics(quantile_runs, capfd):
    tool, runs = load("run_evaluation_demo"), quantile_runs
    pair = [str(runs / "first"), str(runs / "second")]
    assert tool.main(["--output-dir", str(runs / "out"), "--runs", *pair]) == 0
    printed = capfd.readouterr().out
    names = [line.split()[2] for line in printed.splitlines() if line.startswith("$ python")]
    assert [name.removeprefix("tools/").removesuffix(".py") for name in names] == [
        "evaluate", "evaluate", "compare_results", "pack_submission", "validate_results",
        "evaluate", "report",
    ]  # fmt: skip
    assert "Submission and results score alike: largest change 0.0e+00" in printed
    again = json.loads((runs / "out/submission/metrics.json").read_text())
    assert again == json.loads((runs / "second/metrics.json").read_text())
    page = (runs / "out/report.html").read_text()
    assert "data:image/jpeg" in page
    assert "second against first" in page


def fake_tool(calls, after):
    """Stands for the tools: takes down what they are called with; evaluate.py writes ``after``."""

    def tool(name, *arguments):
        calls.append((name, *map(str, arguments)))
        if name == "evaluate":
            folder = Path(arguments[-1])
            folder.mkdir(parents=True)
            (folder / "metrics.json").write_text(json.dumps(after.pop(0)))

    return tool


@pytest.fixture
def namesakes(runs, tmp_path):
    """Two runs whose folders have the same name."""
    for parent, run in (("one", "first"), ("two", "second")):
        shutil.copytree(runs / run, tmp_path / parent / "eql")
    return [str(tmp_path / parent / "eql") for parent in ("one", "two")]


def test_runs_whose_folders_share_a_name_are_kept_apart(namesakes, tmp_path, capsys):
    module, calls = load("run_evaluation_demo"), []
    module.tool = fake_tool(calls, [{"bbox/AP": 1.0}, {"bbox/AP": 2.0}, {"bbox/AP": 2.0}])
    assert module.main(["--output-dir", str(tmp_path / "out"), "--runs", *namesakes]) == 0
    folders = [call[-1] for call in calls if call[0] == "evaluate"]
    assert len({*folders}) == 3
    names = next(call for call in calls if call[0] == "compare_results")[-2:]
    assert names == ("A", "B")


def test_a_training_that_was_interrupted_is_resumed(tmp_path):
    """Without --resume, train_net.py would refuse the folder of the first call."""
    module, calls = load("run_evaluation_demo"), []

    def interrupted(name, *arguments):
        calls.append((name, *map(str, arguments)))
        raise UserError("stopped")

    module.tool = interrupted
    with pytest.raises(UserError, match="stopped"):
        module.main(["--output-dir", str(tmp_path)])
    ((name, *arguments),) = calls
    assert name == "train_net"
    assert arguments.index("--resume") < arguments.index("SOLVER.MAX_ITER")


@pytest.mark.parametrize(
    ("before", "after", "alike"),
    [
        ({"bbox/AP": None}, {"bbox/AP": None}, True),
        ({"bbox/AP": None}, {"bbox/AP": 0.0}, False),
        ({"bbox/AP": 1.0}, {"bbox/AP": None}, False),
        ({"bbox/AP": None}, {}, False),
        ({"bbox/AP": 1.0}, {"bbox/AP": 1.1}, False),
    ],
)
def test_metrics_that_no_category_is_behind(namesakes, tmp_path, capsys, before, after, alike):
    module = load("run_evaluation_demo")
    module.tool = fake_tool([], [{}, before, after])
    way = ["--output-dir", str(tmp_path / "out"), "--runs", *namesakes]
    if alike:
        assert module.main(way) == 0
        assert "score alike: largest change 0.0e+00" in capsys.readouterr().out
    else:
        with pytest.raises(RuntimeError, match="the submission has other metrics"):
            module.main(way)


def test_the_way_ends_where_a_step_fails(runs, tmp_path):
    tool = load("run_evaluation_demo")
    with pytest.raises(UserError, match=r"tools/evaluate\.py ended with code 2"):
        tool.tool(
            "evaluate", "--annotations", "none", "--results", "none", "--output-dir", tmp_path
        )


def test_page_of_runs_without_annotations(runs, tmp_path, capsys):
    page = tmp_path / "page.html"
    arguments = ["--runs", str(runs / "first"), "--output", str(page), "--title", "One run"]
    assert load("report").main(arguments) == 0
    printed = capsys.readouterr().out
    assert "not shown: examples (they need --annotations and --images)" in printed
    assert "<h1>One run</h1>" in page.read_text()


def test_a_run_without_box_and_mask_ap_or_with_nothing_found(runs, tmp_path, capsys):
    truth, page = runs / "data/test.json", tmp_path / "page.html"
    results = runs / "first/inference/lvis_instances_results.json"
    evaluate(truth, results, iou_types=["boundary"]).write(tmp_path / "boundary")
    evaluate(truth, []).write(tmp_path / "nothing")
    for name, shown in (("boundary", False), ("nothing", True)):
        assert load("report").main(["--runs", str(tmp_path / name), "--output", str(page)]) == 0
        assert ("with box or mask AP" not in capsys.readouterr().out) is shown


def test_counts_of_training_images(runs, tmp_path):
    page = tmp_path / "page.html"
    arguments = ["--runs", str(runs / "first"), "--output", str(page)]
    arguments += ["--train-annotations", str(runs / "data/train.json")]
    assert load("report").main(arguments) == 0
    assert "training images with the category" in page.read_text()


def test_a_run_in_a_circle_of_links_is_named(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UserError, match=r"no such folder: .*loop"):
        load("report").main(["--runs", str(tmp_path / "loop"), "--output", str(tmp_path / "o")])


def test_only_a_page_is_replaced(runs, tmp_path):
    mine = tmp_path / "mine.json"
    mine.write_text("mine")
    with pytest.raises(UserError, match=r"mine\.json is there and no page .* would be lost"):
        load("report").main(["--runs", str(runs / "first"), "--output", str(mine)])
    assert mine.read_text() == "mine"
    mine.rename(tmp_path / "mine.html")
    load("report").main(["--runs", str(runs / "first"), "--output", str(tmp_path / "mine.html")])
    assert "<html" in (tmp_path / "mine.html").read_text()


def test_no_file_of_a_run_is_written_over(runs):
    run = runs / "first"
    before = (run / "metrics.json").read_bytes()
    for name in ("metrics.json", "inference/lvis_instances_results.json"):
        with pytest.raises(UserError, match="would be overwritten"):
            load("report").main(["--runs", str(run), "--output", str(run / name)])
    assert (run / "metrics.json").read_bytes() == before


def test_no_input_is_written_over(runs, tmp_path):
    truth = tmp_path / "truth.json"
    truth.write_text("{}")
    with pytest.raises(UserError, match="would be overwritten"):
        load("report").main(
            ["--runs", str(runs / "first"), "--annotations", str(truth), "--output", str(truth)]
        )
    assert truth.read_text() == "{}"


def test_images_need_annotations(runs, tmp_path):
    with pytest.raises(UserError, match="--images needs --annotations"):
        load("report").main(["--runs", str(runs / "first"), "--images", ".", "--output", "x.html"])


def test_runs_with_different_groups_are_refused(runs, tmp_path):
    truth = runs / "data/test.json"
    results = runs / "first/inference/lvis_instances_results.json"
    ids = [category["id"] for category in json.loads(truth.read_text())["categories"]]
    for name, letter in (("one", "r"), ("two", "c")):
        evaluate(truth, results, groups=dict.fromkeys(ids, letter)).write(tmp_path / name)
    pair = [str(tmp_path / name) for name in ("one", "two")]
    with pytest.raises(UserError, match=r"different groups: .* is rare in .*one and common in "):
        load("report").main(["--runs", *pair, "--output", str(tmp_path / "page.html")])
    assert not (tmp_path / "page.html").exists()


def test_all_numbers_of_a_page_are_about_the_same_groups(runs, tmp_path):
    """Not those of the annotations, which the differences were about."""
    truth = runs / "data/test.json"
    ids = [category["id"] for category in json.loads(truth.read_text())["categories"]]
    groups = dict.fromkeys(ids, "f") | {ids[0]: "c"}
    for name in ("first", "second"):
        shutil.copytree(runs / name, tmp_path / name)
        results = tmp_path / name / "inference/lvis_instances_results.json"
        evaluate(truth, results, groups=groups).write(tmp_path / name)
    pair = [str(tmp_path / name) for name in ("first", "second")]
    page = tmp_path / "page.html"
    given = ["--annotations", str(truth), "--resamples", "100", "--output", str(page)]
    given += ["--train-annotations", str(runs / "data/train.json")]
    load("report").main(["--runs", *pair, *given])
    text = page.read_text()
    assert "<li><b>1</b><span>common</span></li><li><b>5</b><span>frequent</span></li>" in text
    assert text.count("no category is rare; --groups-from") == 2, "boxes and masks"
    source = f"as in {tmp_path}/first/per_category.csv"
    assert f"rare, common and frequent categories ({source})" in text
    assert f"Rare, common, frequent: {source}." in text


def test_the_statistics_of_a_run_are_not_written_over(runs, tmp_path):
    shutil.copytree(runs / "first", tmp_path / "run")
    write_statistics(CategoryStatistics.from_json(runs / "data/train.json"), tmp_path / "run")
    output = tmp_path / "run" / "category_statistics.json"
    with pytest.raises(UserError, match="would be overwritten"):
        load("report").main(["--runs", str(tmp_path / "run"), "--output", str(output)])
    page = tmp_path / "page.html"
    load("report").main(["--runs", str(tmp_path / "run"), "--output", str(page)])
    assert "training images with the category" in page.read_text()
