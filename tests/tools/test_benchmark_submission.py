"""tools/benchmark_submission.py on a few images: the whole path, and the promise about memory."""

import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "benchmark_submission.py"


@pytest.mark.parametrize("flag", ["--images", "--detections"])
def test_nothing_to_measure_is_refused(tmp_path, flag):
    command = [sys.executable, str(TOOL), "--directory", str(tmp_path / "new"), flag, "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"argument {flag}: must be a whole number from 1, got 0" in done.stderr
    assert not (tmp_path / "new").exists()


def test_all_rows_and_the_verdict(tmp_path):
    command = [sys.executable, str(TOOL), "--directory", str(tmp_path), "--images", "5"]
    done = subprocess.run(
        [*command, "--detections", "20", "--prove"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    lines = done.stdout.splitlines()
    assert [line[:44].strip() for line in lines[2:8]] == [
        "validate against image info",
        "validate against annotations",
        "pack submission.json",
        "pack submission.zip --round",
        "validate the packed zip",
        "pack --round --prove (scores both files)",
    ]
    assert "MB, below 500 MB" in lines[8]
    assert lines[9].startswith("no metric changed by more than 0 percent points")
