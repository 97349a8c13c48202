"""tools/validate_results.py and tools/pack_submission.py as a user runs them."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
TRUTH = {
    "images": [{"id": i, "height": 40, "width": 60, "neg_category_ids": []} for i in (1, 2)],
    "annotations": [
        {"id": i, "image_id": i, "category_id": 7, "bbox": [5, 5, 20, 20], "area": 400}
        for i in (1, 2)
    ],
    "categories": [{"id": 7, "name": "cup", "frequency": "r"}],
}
RECORD = {"image_id": 1, "category_id": 7, "score": 0.5, "bbox": [5.5, 5.123456789, 20, 20]}
RECORDS = [RECORD, RECORD | {"image_id": 2, "score": 0.25}, RECORD | {"image_id": 2}]


@pytest.fixture
def run(tmp_path):
    """Run a tool in a folder with truth.json, info.json (no annotations) and results.json."""
    info = {key: value for key, value in TRUTH.items() if key != "annotations"}
    (tmp_path / "truth.json").write_text(json.dumps(TRUTH))
    (tmp_path / "info.json").write_text(json.dumps(info))
    (tmp_path / "results.json").write_text(json.dumps(RECORDS))

    def tool(name, *flags):
        command = [sys.executable, str(TOOLS / name), *flags]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    return tool


def test_a_valid_file(run, tmp_path):
    done = run("validate_results.py", "--annotations", "truth.json", "--results", "results.json")
    assert done.returncode == 0, done.stderr
    assert "3 detections (boxes) in 2 of 2 images" in done.stdout
    assert "valid: 0 kinds of errors, 0 of warnings" in done.stdout


def test_errors_and_warnings(run, tmp_path):
    bad = [RECORD | {"score": 2}, RECORD, RECORD]
    (tmp_path / "results.json").write_text(json.dumps(bad))
    command = ["validate_results.py", "--annotations", "truth.json", "--results", "results.json"]
    done = run(*command, "--json", "report.json")
    assert done.returncode == 2
    assert "error score-range: 1 of 3 records" in done.stdout
    assert "warning duplicates: 1 of 3 records" in done.stdout
    assert "NOT VALID: 1 kinds of errors, 2 of warnings" in done.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert not report["valid"]
    assert next(fault["code"] for fault in report["faults"]) == "score-range"
    assert run(*command, "--ignore", "score-range").returncode == 0
    assert run(*command, "--ignore", "score-range", "--strict").returncode == 2


@pytest.mark.parametrize("output", ["s.zip", "s.json"])
def test_pack_and_score_with_the_printed_command(run, tmp_path, output):
    flags = ["--results", "results.json", "--output", output, "--round"]
    done = run("pack_submission.py", "--image-info", "truth.json", *flags, "--prove")
    assert done.returncode == 0, done.stderr
    assert "3 detections in 2 images" in done.stdout
    assert "sha256 " in done.stdout
    assert "no metric changed by more than 0 percent points" in done.stdout
    lines = done.stdout.splitlines()
    command = lines[lines.index("score the same file:") + 1].split()
    assert command[:2] == ["python", "tools/evaluate.py"]
    scored = run("evaluate.py", *command[2:])
    assert scored.returncode == 0, scored.stderr
    before = run(
        "evaluate.py",
        *["--annotations", "truth.json", "--results", "results.json"],
        *["--output-dir", "before", "--iou-types", "bbox"],
    )
    assert before.returncode == 0, before.stderr
    metrics = [tmp_path / folder / "metrics.json" for folder in ("s", "before")]
    assert metrics[0].read_text() == metrics[1].read_text()
    assert 0 < json.loads(metrics[0].read_text())["bbox/AP"] < 100


@pytest.mark.parametrize("limit", [0, 1, 400])
def test_the_printed_command_counts_as_many_detections_as_were_kept(run, tmp_path, limit):
    """The one right box of 320 comes last: counting 300 of them would miss it."""
    wrong = [RECORD | {"bbox": [40, 5, 10, 20], "score": 0.9 - i / 1000} for i in range(320)]
    (tmp_path / "results.json").write_text(json.dumps([*wrong, RECORD]))
    flags = ["--results", "results.json", "--output", "my files/s 1.json"]
    flags += ["--max-detections", str(limit), "--prove"]
    done = run("pack_submission.py", "--image-info", "truth.json", *flags)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    command = shlex.split(lines[lines.index("score the same file:") + 1])
    assert command[-2:] == ["--max-detections", str(limit or 321)]
    scored = run("evaluate.py", *command[2:])
    assert scored.returncode == 0, scored.stderr
    ap50 = json.loads((tmp_path / "my files/s 1/metrics.json").read_text())["bbox/AP50"]
    assert (ap50 > 0) == (limit != 1)


def test_scoring_with_a_limit_of_nothing_says_what_to_give_instead(run):
    flags = ["--annotations", "truth.json", "--results", "results.json", "--output-dir", "o"]
    done = run("evaluate.py", *flags, "--max-detections", "0")
    assert done.returncode == 2
    assert "max_detections must be at least 1, got 0; for no limit give a number" in done.stderr


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("validate_results.py --annotations no.json --results no.json", "--json"),
        ("pack_submission.py --image-info no.json --results no.json", "--output"),
        ("report.py --runs no", "--output"),
        ("evaluate.py --annotations no.json --results no.json", "--output-dir"),
        ("evaluate.py --annotations no --results no --groups-from no.json", "--output-dir"),
        ("benchmark_submission.py", "--directory"),
        ("benchmark_evaluation.py --images 20000", "--directory"),
        ("benchmark_evaluation.py --images 20000", "--json"),
        ("benchmark_inference.py", "--json"),
        ("benchmark_loss.py", "--json"),
        ("run_evaluation_demo.py", "--output-dir"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_anything_is_read(run, command, flags):
    done = run(*command.split(), flags, "info.json/x/out.json")
    assert done.returncode == 2
    assert f"{flags.split()[0]} info.json/x/out.json" in done.stderr.replace("output ", "--output ")
    assert "info.json is a file; give a folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_device_without_room_is_named_and_stays(run):
    if not Path("/dev/full").is_char_device():
        pytest.skip("/dev/full is Linux's")
    command = ["validate_results.py", "--annotations", "truth.json", "--results", "results.json"]
    done = run(*command, "--json", "/dev/full")
    assert done.returncode == 2
    assert done.stderr == "error: /dev/full cannot be written: No space left on device\n"
    assert Path("/dev/full").is_char_device()


def test_pack_for_a_test_split(run):
    flags = ["--results", "results.json", "--output", "s.zip"]
    done = run("pack_submission.py", "--image-info", "info.json", *flags)
    assert done.returncode == 0, done.stderr
    assert "with the annotations, which are not in info.json:" in done.stdout
    assert "--annotations ANNOTATIONS.json --results s.zip" in done.stdout


@pytest.mark.parametrize(
    ("tool", "flags", "message"),
    [
        ("validate_results.py", "--annotations info.json --results nowhere.json", "nowhere.json"),
        ("validate_results.py", "--annotations nowhere.json --results info.json", "nowhere.json"),
        ("validate_results.py", "--annotations info.json --results truth.json", "expected a json"),
        (
            "validate_results.py",
            "--annotations info.json --results results.json --ignore record-form",
            "cannot ignore record-form",
        ),
        (
            "pack_submission.py",
            "--image-info info.json --results results.json --output s.zip --prove",
            "info.json has no objects",
        ),
        (
            "pack_submission.py",
            "--image-info info.json --results results.json --output s.zip --iou-types segm",
            "error mask-missing: 3 of 3 records",
        ),
    ],
)
def test_wrong_input_is_a_message_and_exit_code_2(run, tmp_path, tool, flags, message):
    done = run(tool, *flags.split())
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "s.zip").exists()
