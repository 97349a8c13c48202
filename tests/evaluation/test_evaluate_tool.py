"""tools/evaluate.py as a user runs it."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "evaluate.py"


@pytest.fixture
def run(tmp_path, random_case):
    """Run the tool on a random case; ``change(truth, records)`` may edit it before."""

    def tool(*flags, change=None):
        truth, records = random_case(21)
        if change:
            change(truth, records)
        (tmp_path / "truth.json").write_text(json.dumps(truth))
        (tmp_path / "results.json").write_text(json.dumps(records))
        command = [sys.executable, str(TOOL), "--annotations", "truth.json", "--results"]
        command += ["results.json", "--output-dir", "out", *flags]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    return tool


def test_writes_metrics_table_and_csv(run, tmp_path, random_case):
    from eql_d2.evaluation import evaluate

    done = run()
    assert done.returncode == 0, done.stderr
    expected = evaluate(*random_case(21))
    assert json.loads((tmp_path / "out/metrics.json").read_text()) == expected.metrics
    table = expected.table()
    assert table.replace("the annotations", "annotation file truth.json") in done.stdout
    assert (tmp_path / "out/per_category.csv").is_file()


def test_a_warning_is_shown_when_it_is_found_and_again_below_the_table(run):
    done = run(change=lambda _, records: [r.update(score=100 * r["score"]) for r in records])
    assert done.returncode == 0, done.stderr
    before, after = done.stdout.split("AP50")
    said = "scores are outside 0..1 (first: record "
    assert (before.count(said), after.count(said)) == (1, 1)
    assert after.splitlines()[-2].startswith("warning: ")


def test_nothing_is_warned_of_without_need(run):
    done = run()
    assert "warning" not in done.stdout + done.stderr


def test_boxes_alone(run, tmp_path):
    done = run(
        "--iou-types", "bbox", change=lambda _, records: [r.pop("segmentation") for r in records]
    )
    assert done.returncode == 0, done.stderr
    assert all(
        key.startswith("bbox/") for key in json.loads((tmp_path / "out/metrics.json").read_text())
    )


def test_groups_from_training_annotations(run, tmp_path, random_case):
    """Ten images of one category make it rare, eleven common."""
    truth, _ = random_case(21)
    train = copy.deepcopy(truth)
    for category in train["categories"]:
        category.pop("frequency")
    first = train["categories"][0]["id"]
    train["images"] = [{"id": i, "height": 128, "width": 128} for i in range(11)]
    annotation = {"bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0, "category_id": first}
    polygon = [[0, 0, 9, 0, 9, 9, 0, 9]]
    train["annotations"] = [
        annotation | {"id": i + 1, "image_id": i, "segmentation": polygon} for i in range(11)
    ]
    (tmp_path / "train.json").write_text(json.dumps(train))
    done = run("--groups-from", "train.json")
    assert done.returncode == 0, done.stderr
    rows = (tmp_path / "out/per_category.csv").read_text().splitlines()[1:]
    groups = {int(row.split(",")[0]): row.split(",")[2] for row in rows}
    assert groups.pop(first) == "c"
    assert set(groups.values()) == {"r"}


def statistics(path, ids):
    """Statistics of a run in which each category has one image more than the one before it."""
    rows = [
        {"id": i, "name": str(i), "frequency": "rcf"[min(k, 2)], "image_count": k + 1,
         "instance_count": k + 1}
        for k, i in enumerate(sorted(ids))
    ]  # fmt: skip
    content = {"num_images": 99, "groups": {"mode": "quantiles"}, "categories": rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def test_results_in_the_folder_of_a_run(run, tmp_path, random_case):
    """The groups of the run are the default; those of the annotations have a name."""
    from eql_d2.evaluation import evaluate

    truth, records = random_case(21)
    ids = sorted(category["id"] for category in truth["categories"])
    statistics(tmp_path / "run" / "category_statistics.json", ids)
    (tmp_path / "run/inference").mkdir()
    file = tmp_path / "run/inference/lvis_instances_results.json"
    file.write_text(json.dumps(records))
    done = run("--results", "run/inference/lvis_instances_results.json")
    assert done.returncode == 0, done.stderr
    source = "thirds of the categories by training images (quantiles), from run/category_statistics"
    assert f"\nrare/common/frequent: {source}.json\n" in done.stdout
    groups = ["rcf"[min(k, 2)] for k in range(len(ids))]
    own, official = evaluate(truth, records, groups=groups), evaluate(truth, records)
    assert own.metrics != official.metrics
    assert json.loads((tmp_path / "out/metrics.json").read_text()) == own.metrics
    done = run(
        "--results", "run/inference/lvis_instances_results.json", "--groups-from", "frequency"
    )
    field = "the frequency field of annotation file truth.json"
    assert f"\nrare/common/frequent: {field}\n" in done.stdout
    assert json.loads((tmp_path / "out/metrics.json").read_text()) == official.metrics


def test_groups_of_other_categories_are_refused(run, tmp_path, random_case):
    ids = sorted(category["id"] for category in random_case(21)[0]["categories"])
    statistics(tmp_path / "shifted/category_statistics.json", [i + 1000 for i in ids])
    done = run("--groups-from", "shifted")
    assert done.returncode == 2
    assert f"lack {len(ids)} of {len(ids)} category ids of the annotations, first" in done.stderr
    assert str(ids[0] + 1000) in done.stderr
    assert "shifted/category_statistics.json" in done.stderr
    assert "Traceback" not in done.stderr


def test_groups_that_are_not_known_name_the_flag(run):
    done = run(change=lambda truth, _: [c.pop("frequency") for c in truth["categories"]])
    line = "n/a (no category is known to be rare; --groups-from TRAIN_JSON or a run folder says"
    assert line in done.stdout


@pytest.mark.parametrize(
    ("flags", "change", "message"),
    [
        ((), lambda t, r: r[0].pop("score"), "1 of"),
        ((), lambda t, r: t.pop("images"), "no list 'images'"),
        (("--groups-from", "missing.json"), None, "missing.json"),
        (("--iou-types", "boxes"), None, "invalid choice"),
        (("--results", "missing.json"), None, "missing.json"),
    ],
)
def test_wrong_input_is_a_message_and_exit_code_2(run, tmp_path, flags, change, message):
    done = run(*flags, change=change)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
