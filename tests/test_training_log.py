"""What a run folder holds, who may write into it, and the log of a run that was resumed."""

import contextlib
import errno
import json
import logging
import multiprocessing
import os
import signal
import socket
import time
from types import SimpleNamespace

import pytest
import torch

from eql_d2 import training_log
from eql_d2.checkpoint import METADATA_KEY
from eql_d2.command_line import TrainOptions
from eql_d2.errors import ConfigError
from eql_d2.training_log import (
    LOCK_FILE,
    folder_problems,
    held_run,
    keep_records,
    remove_run,
    run_folder,
)


def records(*iterations):
    return [json.dumps({"iteration": i, "total_loss": 1.5}) for i in iterations]


@pytest.mark.parametrize(("start", "kept"), [(0, []), (2, [0, 1]), (3, [0, 1, 2]), (9, [0, 1, 2])])
def test_records_from_the_first_new_iteration_on_are_dropped(tmp_path, start, kept):
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(records(0, 1, 2)) + "\n")
    keep_records(path, start)
    assert path.read_text().splitlines() == records(*kept)


@pytest.mark.parametrize("broken", ['{"iteration": 1, "tot', "[]", "{}", "", '{"iteration": "a"}'])
def test_what_a_killed_run_left_half_written_is_dropped(tmp_path, broken):
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join([*records(0), broken]))
    keep_records(path, 5)
    assert path.read_text() == records(0)[0] + "\n", "the next record would join the last line"


def test_bytes_that_are_no_text_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"iteration": 0}\n\xff\xfe\n')
    keep_records(path, 5)
    assert path.read_text() == '{"iteration": 0}\n'


@pytest.mark.parametrize("start", [0, 7])
def test_a_log_that_is_not_there_is_begun(tmp_path, start):
    keep_records(tmp_path / "metrics.jsonl", start)
    assert (tmp_path / "metrics.jsonl").read_text() == ""


# One file of every kind, as both engines and killed runs leave them.
RUN_FILES = (
    *("last_checkpoint", "model_0000001.pth", "model_0012345.pth", "model_final.pth"),
    *("metrics.jsonl", "metrics.json", "per_category.csv", "environment.txt", "log.txt.rank1"),
    *("events.out.tfevents.1700000000.host.12.0", "pictures/139_000000000139.png"),
    *("inference/lvis_instances_results.json", "inference/shard_00001_of_00008.json"),
    *("model_0000003.pth.partial", "last_checkpoint.partial", ".metrics.77.partial.json"),
    *("inference/.shard_00001_of_00008.77.partial.json", "pictures/.139_a.77.partial.png"),
)
OTHER_FILES = (
    *("config.yaml", "category_statistics.json", "requested.yaml", "finished", "notes.txt"),
    *("model_best.pth", "model_1.pth", "old_model_final.pth", "model_final.pth.bak"),
    *("metrics.json.bak", "metrics_of_mine.json", "metrics.jsonl.gz", "pictures/mine.png"),
    *("inference/submission.json", "inference/analysis/shard_00001_of_00008.json"),
    *("other/model_final.pth", "other/last_checkpoint", ".hidden.partial"),
)


def fill(folder, names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}")


def content(folder):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def tree(folder, weights=""):
    model = SimpleNamespace(WEIGHTS=str(weights))
    return SimpleNamespace(OUTPUT_DIR=str(folder), MODEL=model)


def problems(folder, weights="", engine="torchvision", **flags):
    before = content(folder)
    found = folder_problems(tree(folder, weights), TrainOptions("c.yaml", **flags), engine)
    assert content(folder) == before, "looking must change nothing"
    return found


@pytest.mark.parametrize(
    ("names", "held"),
    [
        ([], []),
        (["config.yaml", "log.txt", "category_statistics.json", "model_best.pth", LOCK_FILE], []),
        (["model_0000007.pth"], ["model_0000007.pth"]),
        (["metrics.jsonl"], ["metrics.jsonl"]),
        (["metrics.json"], ["metrics.json"]),
        (["last_checkpoint"], ["last_checkpoint"]),
        (
            ["metrics.jsonl", "metrics.json", "model_final.pth", "last_checkpoint"],
            ["model_final.pth", "last_checkpoint", "metrics.json", "metrics.jsonl"],
        ),
    ],
)
def test_what_makes_a_folder_the_folder_of_a_run(tmp_path, names, held):
    fill(tmp_path, names)
    assert held_run(tmp_path) == held
    assert bool(problems(tmp_path)) == bool(held)
    assert held_run(tmp_path / "nowhere") == []


def test_a_log_without_a_record_and_folders_are_no_run(tmp_path):
    (tmp_path / "metrics.jsonl").touch()
    (tmp_path / "model_final.pth").mkdir()
    assert held_run(tmp_path) == []


def test_a_used_folder_is_refused_with_all_ways_out(tmp_path):
    fill(tmp_path, [f"model_000000{i}.pth" for i in range(9)])
    (problem,) = problems(tmp_path)
    assert f"OUTPUT_DIR {tmp_path} holds a run (model_0000000.pth, " in problem
    assert "and 3 more" in problem
    for way in ("--resume", "--overwrite", "another OUTPUT_DIR"):
        assert way in problem
    assert problems(tmp_path, overwrite=True) == []
    assert problems(tmp_path, eval_only=True) == []


@pytest.mark.parametrize("flag", ["resume", "eval_only"])
def test_overwrite_goes_with_nothing_that_needs_the_run(tmp_path, flag):
    (problem,) = problems(tmp_path, overwrite=True, **{flag: True})
    assert problem.startswith(f"--overwrite removes the run that --{flag.replace('_', '-')} uses")


def test_everything_of_the_run_is_removed_and_nothing_else(tmp_path, caplog):
    fill(tmp_path, [*RUN_FILES, *OTHER_FILES])
    (tmp_path / "log.txt").write_text("[2026-06-01 10:00:00,123 eql_d2] training on 12 images\n")
    with caplog.at_level("INFO", "eql_d2"):
        remove_run(tmp_path)
    assert sorted(content(tmp_path)) == sorted(OTHER_FILES)
    for name in (*RUN_FILES, "log.txt"):
        assert name in caplog.text
    for name in OTHER_FILES:
        (tmp_path / name).unlink()
    fill(tmp_path, RUN_FILES)
    remove_run(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"inference", "other"}, "pictures is empty"


def test_an_empty_folder_has_nothing_to_remove(tmp_path, caplog):
    with caplog.at_level("INFO", "eql_d2"):
        remove_run(tmp_path)
        remove_run(tmp_path / "nowhere")
    assert caplog.text == ""


def test_output_that_the_user_sends_to_log_txt_stays(tmp_path):
    """A shell has opened it before the tool starts: removed, the new output would be lost."""
    (tmp_path / "log.txt").write_text("engine: torchvision (asked for by --engine)\n")
    remove_run(tmp_path)
    assert content(tmp_path) == {"log.txt": b"engine: torchvision (asked for by --engine)\n"}


def test_links_are_removed_and_what_they_lead_to_stays(tmp_path):
    fill(tmp_path, ["elsewhere/weights.pth", "run/last_checkpoint"])
    (tmp_path / "run" / "model_final.pth").symlink_to(tmp_path / "elsewhere" / "weights.pth")
    remove_run(tmp_path / "run")
    assert list(content(tmp_path)) == ["elsewhere/weights.pth"]
    assert list((tmp_path / "run").iterdir()) == []


def test_the_name_of_the_last_checkpoint_goes_first(tmp_path, monkeypatch):
    """A removal that is interrupted leaves no checkpoint that a resumed run would take."""
    fill(tmp_path, ["last_checkpoint", *RUN_FILES])
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    removed = []

    def unlink(path, missing_ok=False):
        if removed:
            raise KeyboardInterrupt
        removed.append(path.name)
        os.unlink(path)

    with monkeypatch.context() as patch:
        patch.setattr(training_log.Path, "unlink", unlink)
        with pytest.raises(KeyboardInterrupt):
            remove_run(tmp_path)
    assert removed == ["last_checkpoint"]
    assert problems(tmp_path, resume=True)


def save(path, engine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {} if engine is None else {METADATA_KEY: {"engine": engine}}
    torch.save({"model": {"weight": torch.zeros(2)}, **metadata}, path)


@pytest.mark.parametrize("pointer", [None, "", "model_0000005.pth"])
def test_a_run_whose_last_checkpoint_is_unknown_is_not_resumed(tmp_path, pointer):
    """It would start at iteration 0 and overwrite the checkpoints."""
    for name in ("model_0000001.pth", "model_0000003.pth"):
        save(tmp_path / name, "torchvision")
    if pointer is not None:
        (tmp_path / "last_checkpoint").write_text(pointer)
    (problem,) = problems(tmp_path, resume=True)
    assert "Checkpoints in this folder: model_0000001.pth, model_0000003.pth." in problem
    assert f"into {tmp_path / 'last_checkpoint'}" in problem
    assert "MODEL.WEIGHTS and another OUTPUT_DIR" in problem
    assert "--overwrite" in problem
    (tmp_path / "last_checkpoint").write_text("model_0000003.pth")
    assert problems(tmp_path, resume=True) == []


def test_a_run_without_checkpoints_is_resumed_from_its_beginning(tmp_path):
    assert problems(tmp_path, resume=True) == []
    fill(tmp_path, ["metrics.jsonl", "config.yaml", "log.txt"])
    assert problems(tmp_path, resume=True) == []
    assert problems(tmp_path / "nowhere", resume=True) == []


@pytest.mark.parametrize(
    ("engine", "other"), [("torchvision", "detectron2"), ("detectron2", "torchvision")]
)
def test_a_run_of_the_other_engine_is_not_resumed(tmp_path, engine, other):
    save(tmp_path / "model_final.pth", other)
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    (problem,) = problems(tmp_path, engine=engine, resume=True)
    assert f"was trained by the {other} engine, this is the {engine} engine" in problem
    assert f"--engine {other}" in problem
    assert problems(tmp_path, engine=other, resume=True) == []
    save(tmp_path / "model_final.pth")  # says nothing of itself: loading decides
    assert problems(tmp_path, engine=engine, resume=True) == []


def test_a_damaged_last_checkpoint_is_told_before_anything_is_done(tmp_path):
    fill(tmp_path, ["model_final.pth"])
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    (problem,) = problems(tmp_path, resume=True)
    assert problem.startswith(f"--resume: {tmp_path / 'model_final.pth'}")


def test_weights_of_the_run_that_would_be_removed_are_refused(tmp_path):
    run = tmp_path / "run"
    save(run / "model_0000001.pth", "torchvision")
    (run / "last_checkpoint").write_text("model_0000001.pth")
    link = tmp_path / "link"
    link.symlink_to(run)
    for weights in (run, run / "model_0000001.pth", link / "model_0000001.pth"):
        (problem,) = problems(run, weights, overwrite=True)
        assert problem.startswith("--overwrite would remove "), weights
    save(tmp_path / "elsewhere" / "model_final.pth", "torchvision")
    save(run / "model_best.pth")  # stays, so it may be begun with
    for weights in ("", tmp_path / "elsewhere" / "model_final.pth", run / "model_best.pth"):
        assert problems(run, weights, overwrite=True) == []
    for weights in ("detectron2://R-50.pkl", tmp_path / "nowhere.pth"):
        assert problems(run, weights, overwrite=True) == [], "the engine tells what is wrong"


def test_a_run_is_not_removed_for_weights_that_cannot_be_read(tmp_path):
    fill(tmp_path, ["run/model_final.pth", "damaged.pth"])
    (problem,) = problems(tmp_path / "run", tmp_path / "damaged.pth", overwrite=True)
    assert problem.startswith(f"MODEL.WEIGHTS: {tmp_path / 'damaged.pth'}")


# Forked processes start at once; a new interpreter would first import torch.
FORK = multiprocessing.get_context("fork")


def hold(folder, child):
    with run_folder(tree(folder), TrainOptions("c.yaml"), "torchvision"):
        pid = os.fork()  # as a data loader makes its workers
        if pid:
            child.put(pid)
        time.sleep(60)


@pytest.fixture
def holder():
    """Function that starts a process which holds a folder; it and its child are ended at last."""
    processes, children = [], []

    def start(folder):
        child = FORK.SimpleQueue()
        processes.append(FORK.Process(target=hold, args=(folder, child), daemon=True))
        processes[-1].start()
        children.append(child.get())
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.join()
    for pid in children:
        os.kill(pid, signal.SIGKILL)  # fails if it had ended with its parent


def enter(folder, **flags):
    with run_folder(tree(folder), TrainOptions("c.yaml", **flags), "torchvision"):
        return (folder / LOCK_FILE).stat().st_size


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}, {"eval_only": True}])
def test_a_folder_in_use_is_refused_at_once(tmp_path, holder, flags):
    folder = tmp_path / "new" / "run"
    process = holder(folder)
    fill(folder, ["metrics.jsonl"])  # what it has written so far
    before = content(folder)
    with pytest.raises(ConfigError) as caught:
        enter(folder, **flags)
    said = f"is in use by process {process.pid} on {socket.gethostname()} since 20"
    assert said in str(caught.value)
    assert "give another OUTPUT_DIR" in str(caught.value)
    assert content(folder) == before
    enter(tmp_path / "another", **flags)


def test_a_killed_process_and_its_children_hold_nothing(tmp_path, holder):
    process = holder(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert f"process {process.pid}" in (tmp_path / LOCK_FILE).read_text()
    assert enter(tmp_path) > 0
    assert content(tmp_path) == {LOCK_FILE: b""}, "nobody holds it, and it says so"


def test_a_folder_is_free_after_a_run_however_that_ended(tmp_path, holder):
    for error in (UserWarning, KeyboardInterrupt, SystemExit):
        with (
            contextlib.suppress(error),
            run_folder(tree(tmp_path), TrainOptions("c.yaml"), "torchvision"),
        ):
            raise error
        assert (tmp_path / LOCK_FILE).read_text() == ""
    holder(tmp_path)


def test_the_lock_names_no_control_characters(tmp_path, holder, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train_net.py", "OUTPUT_DIR", "\x1b[2Jname\n"])
    holder(tmp_path)
    with pytest.raises(ConfigError) as caught:
        enter(tmp_path)
    assert str(caught.value).isprintable()


def start_together(folder, barrier, outcomes):
    barrier.wait()
    try:
        with run_folder(tree(folder), TrainOptions("c.yaml"), "torchvision"):
            fill(folder, ["model_final.pth"])
        outcomes.put("trained")
    except ConfigError as error:
        outcomes.put("holds a run" if "holds a run" in str(error) else "in use")


def test_of_jobs_that_start_together_one_trains(tmp_path):
    for number in range(10):
        barrier, outcomes = FORK.Barrier(4), FORK.SimpleQueue()
        arguments = (tmp_path / str(number), barrier, outcomes)
        processes = [FORK.Process(target=start_together, args=arguments) for _ in range(4)]
        for process in processes:
            process.start()
        found = [outcomes.get() for _ in processes]
        for process in processes:
            process.join()
        assert found.count("trained") == 1, found
        assert set(found) <= {"trained", "holds a run", "in use"}


def test_where_nothing_can_be_locked_a_warning_says_so(tmp_path, monkeypatch, caplog):
    def no_locks(*_args):
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patch:
        patch.setattr(training_log.fcntl, "lockf", no_locks)
        enter(tmp_path)
    assert "cannot be locked (No locks available)" in caplog.text
    caplog.clear()
    monkeypatch.setattr(training_log, "fcntl", None)
    enter(tmp_path)
    assert "cannot be locked (this system has no POSIX locks)" in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_lock_that_cannot_be_opened_is_named(tmp_path):
    (tmp_path / ".lock").mkdir()
    with (
        pytest.raises(ConfigError, match=r"\.lock, which tells others .* cannot be opened"),
        run_folder(tree(tmp_path, ""), TrainOptions("c.yaml"), "torchvision"),
    ):
        pass


@pytest.mark.parametrize("name", ["model_final.pth", "model_0000009.pth"])
def test_an_evaluation_of_other_weights_does_not_replace_the_files_of_a_run(tmp_path, name):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / name).write_bytes(b"")
    given = TrainOptions("c.yaml", eval_only=True)
    for weights in ("", str(folder), f"{folder / name}?matching_heuristics=True"):
        assert folder_problems(tree(folder, weights), given, "torchvision") == []
    (problem,) = folder_problems(tree(folder, str(tmp_path / "x.pth")), given, "torchvision")
    assert problem.startswith(f"--eval-only: OUTPUT_DIR {folder} holds a run ({name})")
    assert folder_problems(tree(tmp_path / "new", str(tmp_path / "x.pth")), given, "d2") == []
