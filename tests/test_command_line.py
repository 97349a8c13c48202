"""The training command line, the choice of engine and the exit codes."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from eql_d2 import command_line
from eql_d2.categories import CategoryStatistics, write_statistics
from eql_d2.command_line import (
    ChosenGroups,
    add_group_options,
    add_groups_from,
    choose_engine,
    chosen_groups,
    group_sources,
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
    ("argv", "said"),
    [
        ("--batch-size 4 --config-file a", "unknown flag --batch-size: did you mean SOLVER.IMS"),
        ("--config-file a --lr 0.1", "unknown flag --lr: did you mean SOLVER.BASE_LR?"),
        ("--config-file a --lr=0.1", "unknown flag --lr: did you mean SOLVER.BASE_LR?"),
        ("--config-file a -lr 0.1", "unknown flag -lr: did you mean SOLVER.BASE_LR?"),
        ("--config-file a X.Y 3 --epochs 9", "unknown flag --epochs: did you mean SOLVER.MAX_ITER"),
        ("--config-file a --output-dir b", "unknown flag --output-dir: did you mean OUTPUT_DIR?"),
        ("--config-file a --seed 3", "unknown flag --seed: did you mean SEED?"),
        ("--config-file a --device cpu", "unknown flag --device: did you mean MODEL.DEVICE?"),
        ("--config-file a --max-iters 3", "unknown flag --max-iters: did you mean SOLVER.MAX_ITER"),
        ("--config a", "unknown flag --config: did you mean --config-file?"),
        ("--config_file=a", "unknown flag --config_file: did you mean --config-file?"),
        ("--config-file a --gpus 2", "unknown flag --gpus: did you mean --num-gpus?"),
        ("--config-file a --name b", "unknown flag --name (the flags are --config-file, --engine"),
        ("--lr 1 --gpus 2 --config-file a", "SOLVER.BASE_LR? (settings are KEY VALUE pairs after "
         "the flags); unknown flag --gpus: did you mean --num-gpus?"),
    ],
)  # fmt: skip
def test_an_unknown_flag_is_named_itself_with_what_it_likely_means(argv, said, capsys):
    with pytest.raises(SystemExit) as caught:
        parse_train_options(argv.split())
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert said in message
    assert "VALUE or" not in message


def test_negative_values_and_flags_with_an_equals_sign_are_no_unknown_flags():
    options = parse_train_options(["--config-file=a", "--num-gpus=2", "SEED", "-1", "X.Y=--z"])
    assert (options.config_file, options.num_gpus) == ("a", 2)
    assert options.overrides == ("SEED", "-1", "X.Y=--z")


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


@pytest.fixture
def choose():
    """``choose(results, *flags)`` -> the groups that a tool is told to use."""
    parser = argparse.ArgumentParser()
    add_groups_from(parser)

    def call(results, *flags):
        args = parser.parse_args([*map(str, flags)])
        return chosen_groups(args, group_sources(args, results))

    return call


@pytest.fixture
def make_run(tmp_path):
    """``make_run(name, counts)`` -> results file in the folder of a quantile run."""

    def make(name, counts=(1, 2, 3), grouped=True):
        statistics = CategoryStatistics.from_counts(
            names=["a", "b", "c"], category_ids=[2, 5, 7], image_count=counts,
            instance_count=counts, num_images=9,
        ).with_groups("quantiles")  # fmt: skip
        path = write_statistics(statistics, tmp_path / name)
        if not grouped:  # as earlier versions wrote it
            content = json.loads(path.read_text())
            del content["groups"]
            path.write_text(json.dumps(content))
        results = tmp_path / name / "inference" / "lvis_instances_results.json"
        results.parent.mkdir()
        results.write_text("[]")
        return results

    return make


def test_results_in_a_run_are_scored_with_its_groups(choose, make_run, tmp_path, monkeypatch):
    results = make_run("run")
    groups = choose([results])
    assert groups.letters == {2: "r", 5: "c", 7: "f"}
    assert groups.training_images == {2: 1, 5: 2, 7: 3}
    thirds = "thirds of the categories by training images (quantiles), from "
    assert groups.source == f"{thirds}{tmp_path}/run/category_statistics.json"
    monkeypatch.chdir(results.parent)
    assert choose([results.name]) == groups
    monkeypatch.chdir(tmp_path)
    relative = choose([Path("run/inference") / results.name])
    assert relative.source == f"{thirds}run/category_statistics.json"


def test_results_elsewhere_are_scored_with_the_annotations_groups(choose, make_run, tmp_path):
    results = make_run("run")
    moved = results.replace(tmp_path / "run" / "mine.json")
    assert choose([moved]) == ChosenGroups()
    assert choose([make_run("other")], "--groups-from", "frequency") == ChosenGroups()


def test_groups_of_runs_that_did_not_say_how_they_were_formed_must_be_asked_for(choose, make_run):
    """Such runs were scored with the annotations' groups where these had any."""
    results = make_run("run", grouped=False)
    assert choose([results]) == ChosenGroups()
    run = results.parents[1]
    groups = choose([results], "--groups-from", run)
    assert groups.letters == {2: "r", 5: "c", 7: "f"}
    assert groups.source == f"as given, from {run}/category_statistics.json"


def test_the_flag_overrides_the_run(choose, make_run, tmp_path):
    results, other = make_run("run"), make_run("other", (3, 2, 1))
    for source in (other.parents[1], other.parents[1] / "category_statistics.json"):
        assert choose([results], "--groups-from", source).letters == {2: "f", 5: "c", 7: "r"}
    train = {"images": [{"id": 1}], "annotations": [{"id": 1, "image_id": 1, "category_id": 5}]}
    train["categories"] = [{"id": i, "name": str(i), "frequency": "f"} for i in (2, 5, 7)]
    (tmp_path / "train.json").write_text(json.dumps(train))
    groups = choose([results], "--groups-from", tmp_path / "train.json")
    assert groups.letters == {2: "r", 5: "r", 7: "r"}, "counted, not read"
    assert groups.training_images == {2: 0, 5: 1, 7: 0}
    words = "at most 10, at most 100, more training images (counts), from "
    assert groups.source == f"{words}{tmp_path}/train.json"


def test_other_groups_are_formed_of_the_same_counts(choose, make_run):
    results = make_run("run", (1, 5, 9))
    groups = choose([results], "--group-mode", "counts", "--rare-max", 5, "--common-max", 8)
    assert groups.letters == {2: "r", 5: "r", 7: "f"}
    assert groups.source.startswith("at most 5, at most 8, more training images (counts), from ")
    assert choose([results], "--rare-max", 0).letters == {2: "c", 5: "c", 7: "c"}
    with pytest.raises(UserError, match="--group-mode, --rare-max and --common-max form groups"):
        choose(["elsewhere.json"], "--group-mode", "quantiles")
    with pytest.raises(UserError, match="--groups-from which"):
        choose([results], "--groups-from", "frequency", "--rare-max", 3)


def test_runs_with_different_groups_are_refused_unless_one_is_chosen(choose, make_run):
    first, second = make_run("first", (1, 2, 3)), make_run("second", (1, 3, 2))
    same = make_run("same", (2, 4, 6))
    assert choose([first, same, "elsewhere.json"]) == choose([first])
    with pytest.raises(UserError, match=r"different groups: 2 .* id 5 \('c' and 'f'\)\. Choose"):
        choose([first, second])
    assert choose([first, second], "--groups-from", second.parents[1]).letters[5] == "f"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.json", r"nowhere\.json cannot be read: No such file"),
        (".", r"folder \. holds no category_statistics\.json"),
        ("list.json", "must hold a json object"),
        ("other.json", "no list named 'images'"),
    ],
)
def test_sources_without_groups_are_named(choose, tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    Path("list.json").write_text("[]")
    Path("other.json").write_text("{}")
    with pytest.raises(UserError, match=message):
        choose([], "--groups-from", source)


def test_values_that_stand_twice_are_named_once():
    refuse_repeats("--seeds", [0, 1, 2])
    with pytest.raises(UserError, match="--seeds: 1, 2 is repeated"):
        refuse_repeats("--seeds", [1, 0, 2, 1, 2, 1])


FORGES = r"""
import logging
from eql_d2.command_line import run_tool
from eql_d2.errors import DataError

def main():
    logging.getLogger("eql_d2").warning("%s: left out", "\x1b[2J\u202e")
    raise DataError("two problems:\n  1. cup\x1b]0;title\x07\n  2. \ud800")

run_tool(main)
"""


def test_text_from_files_gives_the_terminal_no_commands_in_logs_and_errors():
    done = subprocess.run([sys.executable, "-c", FORGES], capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stdout.decode() == "\\x1b[2J\\u202e: left out\n"
    lines = ["error: two problems:", r"  1. cup\x1b]0;title\x07", r"  2. \ud800"]
    assert done.stderr.decode().splitlines() == lines
