"""The comparison of losses, with training replaced by a stub."""

import csv
import importlib.util
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from eql_d2.errors import UserError

TOOL = Path(__file__).resolve().parents[2] / "tools" / "run_longtail_experiment.py"


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location("run_longtail_experiment", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def calls(tool, monkeypatch):
    """Commands that would train; each leaves metrics, or fails when its seed is 13 or 14."""
    calls = []

    def stub(command, **_options):
        calls.append(command)
        overrides = dict(zip(command[-4::2], command[-3::2], strict=True))
        run, seed = Path(overrides["OUTPUT_DIR"]), int(overrides["SEED"])
        if seed in (13, 14):
            return SimpleNamespace(returncode=15 - seed)
        metrics = {"bbox/AP": 10.0 + seed, "bbox/APr": None}
        (run / "metrics.json").write_text(json.dumps(metrics))
        (run / "config.yaml").write_text(f"SEED: {seed}\n")
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", stub)
    return calls


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "one.yaml"
    path.write_text("SOLVER: {MAX_ITER: 5}\n")
    return path


def arguments(config, tmp_path, *extra):
    return ["--configs", str(config), "--output-dir", str(tmp_path / "out"), *extra]


def test_all_runs_end_in_one_table(tool, calls, config, tmp_path, capsys):
    tool.main(arguments(config, tmp_path, "--seeds", "0", "2", "--set", "SOLVER.BASE_LR", "0.5"))
    assert len(calls) == 2
    assert all("--resume" not in call for call in calls)
    assert calls[0][calls[0].index("SOLVER.BASE_LR") + 1] == "0.5"
    with (tmp_path / "out/runs.csv").open(newline="") as stream:
        found = [(r["config"], r["seed"], r["bbox/AP"]) for r in csv.DictReader(stream)]
    assert found == [("one", "0", "10.0000"), ("one", "2", "12.0000")]
    assert "| one | 2 | 11.0 ± 1.4 | n/a |" in capsys.readouterr().out
    assert (tmp_path / "out/summary.csv").is_file()


def test_finished_runs_are_skipped_and_cut_ones_go_on(tool, calls, config, tmp_path):
    tool.main(arguments(config, tmp_path, "--seeds", "0", "1"))
    (tmp_path / "out/one_seed1/finished").unlink()
    calls.clear()
    tool.main(arguments(config, tmp_path, "--seeds", "0", "1"))
    assert len(calls) == 1
    assert "--resume" in calls[0]
    assert str(tmp_path / "out/one_seed1") in calls[0]


def test_a_run_of_another_configuration_is_neither_taken_nor_overwritten(
    tool, calls, config, tmp_path
):
    """It is refused before any run is trained, and again at the next call."""
    tool.main(arguments(config, tmp_path, "--seeds", "1"))
    config.write_text("SOLVER: {MAX_ITER: 6}\n")
    run = tmp_path / "out" / "one_seed1"
    before = {path: path.read_bytes() for path in run.iterdir()}
    for _ in range(2):
        with pytest.raises(UserError, match=r"one_seed1 holds another run; remove it, or give"):
            tool.main(arguments(config, tmp_path, "--seeds", "0", "1"))
    assert len(calls) == 1
    assert {path: path.read_bytes() for path in run.iterdir()} == before
    (run / "metrics.json").unlink()  # a run that ended before it left anything
    tool.main(arguments(config, tmp_path, "--seeds", "1"))
    assert len(calls) == 2
    assert "--resume" not in calls[1]


def test_a_failed_run_stops_with_its_log(tool, calls, config, tmp_path):
    with pytest.raises(UserError, match=r"one_seed13 ended with code 2.*log\.txt"):
        tool.main(arguments(config, tmp_path, "--seeds", "0", "13"))
    assert (tmp_path / "out/runs.csv").is_file()


def test_a_fault_of_ours_stays_one(tool, calls, config, tmp_path):
    with pytest.raises(RuntimeError, match=r"one_seed14 ended with code 1.*log\.txt") as caught:
        tool.main(arguments(config, tmp_path, "--seeds", "14"))
    assert not isinstance(caught.value, UserError)


def test_runs_that_would_share_a_folder_are_refused(tool, calls, config, tmp_path):
    other = tmp_path / "other" / "one.yaml"
    other.parent.mkdir()
    other.write_text("SOLVER: {MAX_ITER: 6}\n")
    configs = ["--configs", str(config), str(other), "--output-dir", str(tmp_path / "out")]
    with pytest.raises(UserError, match=r"--configs .*: one is repeated"):
        tool.main(configs)
    with pytest.raises(UserError, match="--seeds: 0 is repeated"):
        tool.main(arguments(config, tmp_path, "--seeds", "0", "1", "0"))
    assert calls == []


def test_configurations_with_different_groups_are_refused_before_training(
    tool, calls, config, tmp_path
):
    other = tmp_path / "two.yaml"
    other.write_text("DATA: {GROUP_MODE: quantiles}\n")
    configs = ["--configs", str(config), str(other), "--output-dir", str(tmp_path / "out")]
    with pytest.raises(UserError, match=r"their groups differ .*quantiles"):
        tool.main(configs)
    assert calls == []


@pytest.mark.parametrize(
    ("readme", "message"),
    [("text without markers", "lacks the lines"), (None, "cannot be read")],
)
def test_a_readme_that_cannot_take_the_table_is_told_before_training(
    tool, calls, config, tmp_path, readme, message
):
    path = tmp_path / "README.md"
    if readme:
        path.write_text(readme)
    with pytest.raises(UserError, match=message):
        tool.main(arguments(config, tmp_path, "--readme", str(path)))
    assert calls == []
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written_is_told_before_training(tool, calls, config, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match=r"--output-dir .*out: .*out is a file; give a folder"):
        tool.main(arguments(config, tmp_path))
    assert calls == []


def test_every_configuration_is_read_before_the_first_is_trained(tool, calls, config, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text("SOLVER: {NO_KEY: 6}\n")
    configs = ["--configs", str(config), str(other), "--output-dir", str(tmp_path / "out")]
    with pytest.raises(UserError, match=r"SOLVER\.NO_KEY"):
        tool.main(configs)
    assert calls == []


def test_the_table_goes_into_a_readme(tool, calls, config, tmp_path):
    from eql_d2.plotting.results_summary import BEGIN, END

    readme = tmp_path / "README.md"
    readme.write_text(f"# x\n{BEGIN}\n{END}\n")
    tool.main(arguments(config, tmp_path, "--seeds", "0", "--readme", str(readme)))
    assert "| one | 1 | 10.0 |" in readme.read_text()


def test_the_default_configurations_exist(tool):
    assert len(tool.CONFIGS) == 4
    assert [c for c in tool.CONFIGS if not Path(c).is_file()] == []
