"""The command line of the evaluation benchmark."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "benchmark_evaluation.py"


def run(*arguments):
    command = [sys.executable, str(TOOL), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_prints_a_table_and_writes_json(tmp_path):
    out = tmp_path / "evaluation.json"
    candidates = ("--candidates", "eql_d2", "json parser alone", "lvis")
    sizes = ("--images", "10", "30", "--detections", "20", "--peer-images", "5")
    done = run(*sizes, *candidates, "--kinds", "bbox", "--seed", "2", "--json", str(out))
    assert done.returncode == 0, done.stderr
    assert "AP s      MB  largest difference" in done.stdout
    assert done.stdout.count("json parser alone") == 5  # two rows, two ratios and its growth
    assert "(from 10 to 30 images)" in done.stdout
    content = json.loads(out.read_text())
    assert content["seed"] == 2
    rows = [(row["candidate"], row["images"]) for row in content["measurements"]]
    assert rows == [(name, n) for n in (10, 30) for name in ("eql_d2", "json parser alone")]
    assert all(row["failure"] == "" for row in content["measurements"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "0"], "argument --images: must be a whole number from 1, got 0"),
        (["--seed", "-1"], "argument --seed: must be a whole number from 0, got '-1'"),
        (["--gigabytes", "nan"], "--gigabytes must be above 0 and below 1e9, got nan"),
        (["--gigabytes", "1e20"], "--gigabytes must be above 0 and below 1e9, got 1e+20"),
        (["--json", f"{__file__}/out.json"], "is a file; give a folder"),
        (["--candidates", "other"], "invalid choice: 'other'"),
    ],
)
def test_wrong_arguments_end_with_2_and_no_traceback(arguments, message):
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
