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
    assert expected.table() in done.stdout
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
