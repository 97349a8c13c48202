"""The command line of the loss benchmark."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "benchmark_loss.py"


def run(*arguments):
    command = [sys.executable, str(TOOL), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_prints_a_table_and_writes_json(tmp_path):
    out = tmp_path / "loss.json"
    quick = ["--sizes", "64x32", "16x8", "--repetitions", "2", "--no-compile", "--threads", "1"]
    done = run(*quick, "--device", "cpu", "--seed", "3", "--json", str(out))
    assert done.returncode == 0, done.stderr
    assert "64 x 32 bfloat16" in done.stdout
    assert done.stdout.count("ours, eager") == 4
    assert "repetition 2/2" in done.stderr
    assert "profiler" not in done.stderr
    content = json.loads(out.read_text())
    assert (content["seed"], content["threads"], content["device"]) == (3, 1, "cpu")
    assert content["hardware"]
    assert content["torch"]
    rows = content["measurements"]
    assert len(rows) == 2 * 2 * 4
    assert {(row["rois"], row["categories"]) for row in rows} == {(64, 32), (16, 8)}
    for row in rows:
        assert row["seconds"] > 0
        assert row["peak_bytes"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sizes", "64"], "expected a whole number from 1, got ''"),
        (["--sizes", "64x0"], "expected a whole number from 1, got '0'"),
        (["--repetitions", "-1"], "expected a whole number from 1, got '-1'"),
        (["--seed", "99999999999999999999"], "must be a whole number from 0, got '9999"),
        (["--dtypes", "float64"], "invalid choice: 'float64'"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_wrong_arguments_are_named(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(TOOL))["main"](arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_wrong_input_ends_with_2_and_no_traceback():
    done = run("--json", f"{__file__}/out.json")
    assert done.returncode == 2
    assert "is a file; give a folder" in done.stderr
    assert "Traceback" not in done.stderr
