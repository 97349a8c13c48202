"""The training command line, the choice of engine and the exit codes."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from eql_d2 import command_line
from eql_d2.command_line import (
    add_group_options,
    choose_engine,
    parse_train_options,
    refuse_repeats,
    run_tool,
)
from eql_d2.config import KEYS
from eql_d2.errors import ConfigError, DataError, MissingPackageError, UserError

TRAIN_NET = Path(__file__).parents[1] / "tools" / "train_net.py"


def test_defaults_and_overrides():
    options = parse_train_options(["--config-file", "a.yaml", "SOLVER.MAX_ITER", "3"])
    assert options.config_file == "a.yaml"
    assert options.engine == "auto"
    assert options.num_gpus is None
    assert options.overrides == ("SOLVER.MAX_ITER", "3")
    assert not options.resume
    assert not options.overwrite
    assert not options.eval_only
    assert parse_train_options(["--config-file", "a.yaml", "--overwrite"]).overwrite
    with pytest.raises(ConfigError, match=r"--overwrite SOLVER\.MAX_ITER 3"):
        parse_train_options(["--config-file", "a", "SOLVER.MAX_ITER", "3", "--overwrite"])


def test_detectron2s_command_line_is_accepted_whole():
    argv = "--config-file a.yaml --num-gpus 8 --num-machines 2 --machine-rank 1 --resume"
    options = parse_train_options([*argv.split(), "--dist-url", "tcp://h:29500", "--eval-only"])
    assert (options.num_gpus, options.num_machines, options.machine_rank) == (8, 2, 1)
    assert options.dist_url == "tcp://h:29500"
    assert options.resume
    assert options.eval_only


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--config-file", "a", "--num-gpus", "-1"], "must be a whole number from 0, got '-1'"),
        (["--config-file", "a", "--num-machines", "0"], "must be a whole number from 1"),
        (["--config-file", "a", "--num-machines", "2"], "needs --dist-url"),
        (["--config-file", "a", "--machine-rank", "1"], "below --num-machines"),
        (["--config-file", "a", "--engine", "mmdet"], "invalid choice"),
        ([], "--config-file"),
    ],
)
def test_wrong_flags_leave_with_code_2(argv, said, capsys):
    with pytest.raises(SystemExit) as caught:
        parse_train_options(argv)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "corrected"),
    [
        (["SOLVER.MAX_ITER", "3", "--config-file", "a.yaml"], "--config-file a.yaml SOLVER"),
        (["SOLVER.MAX_ITER", "3", "--num-gpus", "2"], "--num-gpus 2 SOLVER.MAX_ITER 3"),
        (
            ["--config-file", "a", "X.Y", "3", "--dist-url", "tcp://10.0.0.1:2"],
            "--dist-url tcp://10.0.0.1:2 X.Y 3",
        ),
        (["--resume", "X.Y", "3", "--eval-only"], "--eval-only X.Y 3"),
    ],
)
def test_a_flag_that_the_overrides_would_swallow_gives_the_corrected_order(argv, corrected):
    with pytest.raises(ConfigError) as caught:
        parse_train_options(argv)
    assert corrected in str(caught.value)


def test_a_flag_after_the_overrides_is_refused():
    with pytest.raises(ConfigError, match=r"--resume SOLVER\.MAX_ITER 3"):
        parse_train_options(["--config-file", "a", "SOLVER.MAX_ITER", "3", "--resume"])


def test_auto_takes_detectron2_where_it_is_usable(monkeypatch):
    monkeypatch.setattr(command_line, "detectron2_problem", lambda: None)
    assert choose_engine("auto") == ("detectron2", "it is installed")
    assert choose_engine("detectron2")[0] == "detectron2"
    assert choose_engine("torchvision")[0] == "torchvision"


def test_auto_falls_back_and_says_why(monkeypatch):
    monkeypatch.setattr(command_line, "detectron2_problem", lambda: "its compiled part is broken")
    engine, reason = choose_engine("auto")
    assert engine == "torchvision"
    assert "its compiled part is broken" in reason
    with pytest.raises(MissingPackageError, match="--no-build-isolation"):
        choose_engine("detectron2")


def test_an_unknown_engine_is_named():
    with pytest.raises(UserError, match="mmdet"):
        choose_engine("mmdet")


@pytest.mark.parametrize(
    ("outcome", "code"),
    [(None, 0), (0, 0), (3, 3), (DataError("bad file"), 2), (MissingPackageError("no x"), 2)],
)
def test_exit_codes(outcome, code, capsys):
    def main():
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    with pytest.raises(SystemExit) as caught:
        run_tool(main)
    assert caught.value.code == code
    if isinstance(outcome, Exception):
        assert str(outcome) in capsys.readouterr().err


def test_a_fault_of_ours_keeps_its_traceback():
    def main():
        raise RuntimeError("ours")

    with pytest.raises(RuntimeError, match="ours"):
        run_tool(main)


PRINTS_MUCH = """
from eql_d2.command_line import run_tool
run_tool(lambda: print("x" * 1_000_000))
"""


def test_a_reader_that_has_read_enough_is_no_fault():
    process = subprocess.Popen(
        [sys.executable, "-c", PRINTS_MUCH], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 141


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="/dev/full is Linux's")
def test_a_disk_that_fills_up_anywhere_ends_without_a_traceback():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", PRINTS_MUCH],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert "error: [Errno 28] No space left on device; make room" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_path_that_the_system_does_not_take_is_the_users_mistake(tmp_path, capsys):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in (tmp_path / "loop", tmp_path / ("x" * 300)):
        with pytest.raises(SystemExit) as caught:
            run_tool(path.read_text)
        assert caught.value.code == 2
        assert str(path) in capsys.readouterr().err


def test_other_errors_of_the_system_keep_their_traceback(tmp_path):
    with pytest.raises(FileNotFoundError):
        run_tool(lambda: (tmp_path / "absent").read_text())


def test_train_net_reports_a_missing_config_without_a_traceback():
    done = subprocess.run(
        [
            sys.executable,
            str(TRAIN_NET),
            "--engine",
            "torchvision",
            "--config-file",
            "nowhere.yaml",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "nowhere.yaml does not exist" in done.stderr
    assert "Traceback" not in done.stderr


def test_group_options_have_the_defaults_of_the_configuration():
    parser = argparse.ArgumentParser()
    add_group_options(parser)
    defaults = {key.name: key.default for key in KEYS}
    args = parser.parse_args([])
    assert args.group_mode == defaults["DATA.GROUP_MODE"]
    assert args.rare_max == defaults["DATA.RARE_MAX_IMAGES"]
    assert args.common_max == defaults["DATA.COMMON_MAX_IMAGES"]
    args = parser.parse_args(["--group-mode", "quantiles", "--rare-max", "2", "--common-max", "5"])
    assert vars(args) == {"group_mode": "quantiles", "rare_max": 2, "common_max": 5}


def test_values_that_stand_twice_are_named_once():
    refuse_repeats("--seeds", [0, 1, 2])
    with pytest.raises(UserError, match="--seeds: 1, 2 stands twice"):
        refuse_repeats("--seeds", [1, 0, 2, 1, 2, 1])
