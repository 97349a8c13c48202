"""A folder belongs to one run: a new one neither overwrites it nor is taken for it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from eql_d2.checkpoint import METADATA_KEY
from eql_d2.command_line import TrainOptions, run_tool
from eql_d2.engines.tv import run, training
from eql_d2.errors import ConfigError, DataError, UserError

TRAIN_NET = Path(__file__).parents[3] / "tools" / "train_net.py"
SHORT = ("MODEL.MASK_ON", False, "SOLVER.MAX_ITER", 2, "SOLVER.STEPS", "[]")
SHORT += ("SOLVER.CHECKPOINT_PERIOD", 1, "MODEL.EQL.LOG_PERIOD", 1)


def state(folder):
    """What tells whether any file was written, replaced or removed; the checkpoints are large."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock")
    found = ((path.relative_to(folder).as_posix(), path.stat()) for path in files)
    return {name: (stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in found}


def iterations(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["iteration"] for line in lines]


@pytest.fixture(scope="module")
def trained(tiny_config, squares, tmp_path_factory):
    """The folder of a run of two iterations."""
    folder = tmp_path_factory.mktemp("trained")
    overrides = (*squares.overrides, "OUTPUT_DIR", folder, *SHORT)
    run(TrainOptions(str(tiny_config), overrides=tuple(map(str, overrides))))
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    """The folder ``a`` with that run. Its large files are linked: replace them, do not write."""
    return shutil.copytree(trained, tmp_path / "a", copy_function=link_or_copy)


def link_or_copy(source, target):
    return (os.link if source.endswith(".pth") else shutil.copy2)(source, target)


@pytest.fixture
def killed(start, monkeypatch):
    """``killed("a", ...)``: as ``start``, but the process dies in the iteration of that index."""

    def run_and_die(*arguments, iteration=0, **options):
        def die(*_args):
            calls.append(die)
            if len(calls) > iteration:
                raise SystemExit("killed")
            clip(*_args)

        calls, clip = [], training.clip_gradients
        with monkeypatch.context() as patch:
            patch.setattr(training, "clip_gradients", die)
            with pytest.raises(SystemExit):
                start(*arguments, **options)

    return run_and_die


def test_a_second_training_is_refused_and_changes_nothing(start, folder, monkeypatch):
    def read(*_args, **_kwargs):
        raise AssertionError("data were read")

    before = state(folder)
    monkeypatch.setattr(sys.modules["eql_d2.engines.tv.run"], "prepare_experiment", read)
    with pytest.raises(ConfigError, match=r"a holds a run \(model_0000000.pth, .*--overwrite"):
        start("a", *SHORT)
    with pytest.raises(ConfigError) as caught:
        start("a", *SHORT, "MODEL.EQL.LOSS.GAMMA", 7)
    assert len(caught.value.problems) == 2
    assert state(folder) == before


def test_overwrite_removes_the_old_run_alone(start, folder, caplog):
    for name in ("notes.txt", "model_best.pth", "inference/mine.json"):
        (folder / name).write_text("mine")
    with caplog.at_level("INFO", "eql_d2"):
        start("a", *SHORT, "SOLVER.MAX_ITER", 1, "SEED", 8, overwrite=True)
    assert "removed the earlier run in" in caplog.text
    assert "model_0000000.pth, model_final.pth, per_category.csv" in caplog.text
    names = set(state(folder))
    assert "model_0000000.pth" not in names, "the new run saved the last iteration alone"
    assert names >= {"notes.txt", "model_best.pth", "inference/mine.json", "model_final.pth"}
    assert iterations(folder) == [0]
    assert "SEED: 8" in (folder / "config.yaml").read_text()


def test_nothing_is_removed_before_everything_is_checked(start, folder, squares, tmp_path):
    before = state(folder)
    document = json.loads(Path(squares.json).read_text())
    document["categories"] = document["categories"][:2]
    (tmp_path / "other.json").write_text(json.dumps(document))
    torch.save({"something": torch.zeros(1)}, tmp_path / "x.pth")
    wrong = [
        (ConfigError, ("MODEL.EQL.LOSS.GAMMA", 7)),
        (DataError, ("DATA.TRAIN_JSON", tmp_path / "other.json")),
        (UserError, ("MODEL.WEIGHTS", tmp_path / "x.pth")),
        (ConfigError, ("MODEL.WEIGHTS", folder)),
    ]
    for error, overrides in wrong:
        with pytest.raises(error):
            start("a", *SHORT, *overrides, overwrite=True)
        assert state(folder) == before, overrides
    for flag in ("resume", "eval_only"):
        with pytest.raises(ConfigError, match="--overwrite removes the run"):
            start("a", *SHORT, overwrite=True, **{flag: True})
    assert state(folder) == before


def test_what_is_resumed_is_never_the_run_before(start, killed, folder, tmp_path):
    """A new run in a used folder, killed before its first checkpoint and then resumed."""
    killed("a", *SHORT, "SEED", 8, overwrite=True)
    assert not list(folder.glob("model_*"))
    assert not (folder / "last_checkpoint").exists()
    with pytest.raises(ConfigError, match="nothing to evaluate"):
        start("a", *SHORT, "SEED", 8, eval_only=True)
    start("a", *SHORT, "SEED", 8, resume=True)
    assert iterations(folder) == [0, 1]
    start("b", *SHORT, "SEED", 8)
    ours, wanted = (
        torch.load(tmp_path / name / "model_final.pth", weights_only=True)["model"] for name in "ab"
    )
    assert all(torch.equal(value, wanted[name]) for name, value in ours.items())


def test_a_run_killed_before_its_first_checkpoint_starts_again(start, killed, tmp_path):
    long = (*SHORT, "SOLVER.CHECKPOINT_PERIOD", 100)
    killed("a", *long, iteration=1)
    assert iterations(tmp_path / "a") == [0]
    with pytest.raises(ConfigError, match=r"holds a run \(metrics.jsonl\)"):
        start("a", *long)
    start("a", *long, resume=True)
    assert iterations(tmp_path / "a") == [0, 1]


@pytest.mark.parametrize("pointer", [None, "model_0000009.pth"])
def test_without_a_last_checkpoint_nothing_is_resumed_or_overwritten(start, folder, pointer):
    (folder / "last_checkpoint").unlink()
    if pointer:
        (folder / "last_checkpoint").write_text(pointer)
    before = state(folder)
    with pytest.raises(ConfigError, match=r"folder: model_0000000.pth, model_final.pth\. Write"):
        start("a", *SHORT, resume=True)
    assert state(folder) == before
    (folder / "last_checkpoint").write_text("model_0000000.pth")
    start("a", *SHORT, resume=True)
    assert iterations(folder) == [0, 1]


def test_a_run_of_detectron2_is_refused_before_training(start, folder):
    path = folder / "model_final.pth"
    saved = torch.load(path, weights_only=True)
    saved[METADATA_KEY]["engine"] = "detectron2"
    path.unlink()
    torch.save(saved, path)
    before = state(folder)
    with pytest.raises(ConfigError, match=r"trained by the detectron2 engine.*--engine detectron2"):
        start("a", *SHORT, resume=True)
    assert state(folder) == before


def test_two_jobs_in_one_folder(start, tiny_config, squares, tmp_path, capsys):
    """The second is refused while the first trains, and not by one that was killed."""
    folder = tmp_path / "a"
    long = ["SOLVER.MAX_ITER", "400", "SOLVER.CHECKPOINT_PERIOD", "20"]
    command = [sys.executable, str(TRAIN_NET), "--engine", "torchvision"]
    command += ["--config-file", str(tiny_config), *squares.overrides]
    command += ["OUTPUT_DIR", str(folder), *long, "DATALOADER.NUM_WORKERS", "1"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            said = []
            for line in process.stdout:
                said.append(line)
                if line.startswith("saved"):
                    break
            assert process.poll() is None, "".join(said)
            owner = rf"a is in use by process {process.pid} on .* since .*train_net\.py"
            for flags in ({}, {"resume": True}, {"overwrite": True}, {"eval_only": True}):
                with pytest.raises(ConfigError, match=owner):
                    start("a", **flags)
            with pytest.raises(SystemExit) as left:
                run_tool(lambda: start("a"))
            assert left.value.code == 2
            assert re.match(rf"error: OUTPUT_DIR .*{owner}", capsys.readouterr().err)
            assert process.poll() is None
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    name = (folder / "last_checkpoint").read_text()
    reached = torch.load(folder / name, weights_only=True)["iteration"]
    start("a", "SOLVER.MAX_ITER", reached + 2, "SOLVER.STEPS", "[]", resume=True)
    assert iterations(folder) == list(range(1, reached + 2, 2)) + [reached + 1] * (reached % 2)
