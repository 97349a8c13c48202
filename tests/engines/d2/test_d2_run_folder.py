"""A folder belongs to one run: a new one neither overwrites it nor is taken for it."""

import json
import math
import multiprocessing
import os
import shutil
import time
from contextlib import suppress

import pytest
import torch

from eql_d2.checkpoint import METADATA_KEY
from eql_d2.config import load_config
from eql_d2.errors import ConfigError, DataError, MissingPackageError, UserError
from eql_d2.training_log import remove_run, run_folder

with suppress(MissingPackageError):
    from eql_d2.engines.d2 import run, running, worker
    from eql_d2.engines.d2.compat import comm, get_cfg
    from eql_d2.engines.d2.evaluator import shard_path
    from eql_d2.engines.d2.launch import TORCHRUN_VARIABLES

pytestmark = pytest.mark.detectron2

SHORT = ("MODEL.MASK_ON", "False", "SOLVER.MAX_ITER", 2, "SOLVER.CHECKPOINT_PERIOD", 1)
WRITTEN_BY_EVERY_RUN = {"config.yaml", "category_statistics.json"}


def state(folder):
    """What tells whether any file was written, replaced or removed; the checkpoints are large."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock")
    found = ((path.relative_to(folder).as_posix(), path.stat()) for path in files)
    return {name: (stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in found}


def iterations(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["iteration"] for line in lines]


@pytest.fixture
def used(trained, tmp_path):
    """The folder of a run of four iterations. Large files are linked: replace, do not write."""
    return shutil.copytree(trained[0], tmp_path / "used", copy_function=link_or_copy)


def link_or_copy(source, target):
    return (os.link if source.endswith(".pth") else shutil.copy2)(source, target)


@pytest.fixture
def killed(options, monkeypatch):
    """``killed(folder, ...)``: a run whose process dies in the iteration of that index."""

    def run_and_die(*arguments, iteration=0, **flags):
        step = worker.Trainer.run_step

        def die(trainer):
            if trainer.iter == iteration:
                raise SystemExit("killed")
            step(trainer)

        with monkeypatch.context() as patch:
            patch.setattr(worker.Trainer, "run_step", die)
            with pytest.raises(SystemExit):
                run(options(*arguments, **flags))

    return run_and_die


def test_all_files_of_a_run_are_known(used):
    """What a run leaves is removed, but for what every run writes anew at its start."""
    shards = [shard_path(used / "inference", rank, 16) for rank in (0, 11)]
    for path in (*shards, used / "log.txt.rank3", used / "events.out.tfevents.1.host.2.0"):
        path.write_text("of a killed run")
    remove_run(used)
    assert set(state(used)) == WRITTEN_BY_EVERY_RUN


def test_a_second_training_is_refused_and_changes_nothing(options, used, monkeypatch):
    def read(*_args, **_kwargs):
        raise AssertionError("data were read")

    before = state(used)
    monkeypatch.setattr(running, "prepare_experiment", read)
    with pytest.raises(ConfigError, match=r"used holds a run \(model_0000001.pth, .*--overwrite"):
        run(options(used))
    with pytest.raises(ConfigError) as caught:
        run(options(used, "MODEL.EQL.LOSS.GAMMA", 7, num_gpus=2))
    assert len(caught.value.problems) == 2
    assert state(used) == before


def test_overwrite_removes_the_old_run_alone(options, used, caplog):
    for name in ("notes.txt", "model_best.pth", "inference/mine.json", "pictures/mine.png"):
        (used / name).write_text("mine")
    with caplog.at_level("INFO", "eql_d2"):
        run(options(used, *SHORT, "SOLVER.MAX_ITER", 1, "SEED", 8, overwrite=True))
    assert "removed the earlier run in" in caplog.text
    kept = {"notes.txt", "model_best.pth", "inference/mine.json", "pictures/mine.png"}
    new = {"last_checkpoint", "model_0000000.pth", "model_final.pth", "metrics.jsonl", "log.txt"}
    new |= {"metrics.json", "per_category.csv", "inference/lvis_instances_results.json"}
    names = {name for name in state(used) if "tfevents" not in name}
    assert names == kept | new | WRITTEN_BY_EVERY_RUN | {"environment.txt"}
    assert iterations(used) == [0]
    assert "iter: 3" not in (used / "log.txt").read_text(), "the old log"


def test_nothing_is_removed_before_everything_is_checked(options, used, tiny_config, tmp_path):
    before = state(used)
    shapes = tiny_config.parent / "shapes"
    document = json.loads((shapes / "train.json").read_text())
    document["categories"] = document["categories"][:2]
    (tmp_path / "other.json").write_text(json.dumps(document))
    (tmp_path / "damaged.pth").write_text("no checkpoint")
    paths = {"TRAIN_JSON": tmp_path / "other.json", "TRAIN_IMAGES": shapes / "train"}
    paths |= {"TEST_JSON": shapes / "test.json", "TEST_IMAGES": shapes / "test"}
    data = ["DATA.GENERATE", "", *(x for key, path in paths.items() for x in (f"DATA.{key}", path))]
    wrong = [
        (ConfigError, ("MODEL.EQL.LOSS.GAMMA", 7)),
        (DataError, data),
        (UserError, ("MODEL.WEIGHTS", tmp_path / "damaged.pth")),
        (ConfigError, ("MODEL.WEIGHTS", used)),
    ]
    for error, overrides in wrong:
        with pytest.raises(error):
            run(options(used, *overrides, overwrite=True))
        assert state(used) == before, overrides
    weights = torch.load(used / "model_final.pth", weights_only=True)
    nothing = {f"other.{name}": value for name, value in weights["model"].items()}
    torch.save({"model": nothing}, tmp_path / "nothing.pth")
    bias = "roi_heads.box_predictor.cls_score.bias"
    nan = {**weights["model"], bias: torch.full_like(weights["model"][bias], math.nan)}
    torch.save({"model": nan}, tmp_path / "nan.pth")
    del before["log.txt"]  # to which processes append why they ended
    own = f"{used / 'model_final.pth'}?matching_heuristics=True"
    for path in (tmp_path / "nothing.pth", tmp_path / "nan.pth", own):
        with pytest.raises(UserError):
            run(options(used, *SHORT, "MODEL.WEIGHTS", path, overwrite=True))
        after = state(used)
        del after["log.txt"]
        assert after == before, path
    before = state(used)
    for flag in ("resume", "eval_only"):
        with pytest.raises(ConfigError, match="--overwrite removes the run"):
            run(options(used, overwrite=True, **{flag: True}))
    assert state(used) == before


def test_what_is_resumed_is_never_the_run_before(options, killed, used):
    """A new run in a used folder, killed before its first checkpoint and then resumed."""
    killed(used, *SHORT, "SEED", 8, overwrite=True)
    assert not list(used.glob("model_*"))
    assert not (used / "last_checkpoint").exists()
    with pytest.raises(ConfigError, match=r"has no last_checkpoint"):
        run(options(used, *SHORT, "SEED", 8, eval_only=True))
    run(options(used, *SHORT, "SEED", 8, resume=True))
    assert iterations(used) == [0, 1]
    state = torch.load(used / "model_final.pth", weights_only=True)
    assert "SEED: 8" in state[METADATA_KEY]["config"]
    assert state["iteration"] == 1


def test_a_run_killed_before_its_first_checkpoint_starts_again(options, killed, tmp_path):
    folder = tmp_path / "new"
    long = (*SHORT, "SOLVER.CHECKPOINT_PERIOD", 100)
    killed(folder, *long, iteration=1)
    assert iterations(folder) == [0]
    with pytest.raises(ConfigError, match=r"holds a run \(metrics.jsonl\)"):
        run(options(folder, *long))
    run(options(folder, *long, resume=True))
    assert iterations(folder) == [0, 1]


@pytest.mark.parametrize("pointer", [None, "model_0000009.pth"])
def test_without_a_last_checkpoint_nothing_is_resumed_or_overwritten(options, used, pointer):
    (used / "last_checkpoint").unlink()
    if pointer:
        (used / "last_checkpoint").write_text(pointer)
    before = state(used)
    with pytest.raises(ConfigError, match=r"folder: model_0000001.pth, .*\.pth\. Write the name"):
        run(options(used, resume=True))
    assert state(used) == before


def test_a_run_of_torchvision_is_refused_before_training(options, used):
    path = used / "model_final.pth"
    saved = torch.load(path, weights_only=True)
    saved[METADATA_KEY]["engine"] = "torchvision"
    path.unlink()
    torch.save(saved, path)
    before = state(used)
    with pytest.raises(ConfigError, match=r"trained by the torchvision engine.*--engine torchv"):
        run(options(used, resume=True))
    assert state(used) == before


def hold(chosen, ready):
    cfg = load_config(chosen.config_file, chosen.overrides, defaults=get_cfg())
    with run_folder(cfg, chosen, "detectron2"):
        ready.set()
        time.sleep(600)


@pytest.fixture
def holder(options):
    """Function that starts a process which holds a folder, as a run does."""
    fork = multiprocessing.get_context("fork")
    processes = []

    def start(folder):
        ready = fork.Event()
        process = fork.Process(target=hold, args=(options(folder, resume=True), ready), daemon=True)
        process.start()
        processes.append(process)
        assert ready.wait(60)
        return process

    yield start
    for process in processes:
        process.kill()
        process.join()


def test_a_folder_in_use_is_refused_until_its_process_is_gone(options, used, holder):
    (used / "last_checkpoint").write_text("model_0000001.pth")
    (used / "model_final.pth").unlink()  # will be written
    process = holder(used)
    before = state(used)
    for flags in ({}, {"resume": True}, {"overwrite": True}, {"eval_only": True}, {"num_gpus": 2}):
        with pytest.raises(ConfigError, match=rf"used is in use by process {process.pid} on "):
            run(options(used, **flags))
    assert state(used) == before
    process.kill()
    process.join()
    run(options(used, "SOLVER.MAX_ITER", 3, resume=True))
    assert iterations(used) == [0, 1, 2]


@pytest.mark.parametrize("rank", [0, 1])
def test_of_several_machines_the_first_one_locks_and_removes(options, used, monkeypatch, rank):
    def started(_worker, processes, _device, _arguments):
        locked = (used / ".lock").stat().st_size > 0
        seen.append((processes.machine_rank, locked, state(used)))

    seen, before = [], state(used)
    monkeypatch.setattr(running, "launch", started)
    monkeypatch.setattr(running, "_finish", lambda *_arguments: {"bbox/AP": 1.0})
    machines = {"num_machines": 2, "machine_rank": rank, "dist_url": "tcp://localhost:1"}
    metrics = run(options(used, overwrite=True, **machines))
    ((machine, locked, files),) = seen
    assert (machine, locked, bool(metrics)) == (rank, rank == 0, rank == 0)
    assert files == before, "the processes remove the run, when their weights are loaded"


def test_under_torchrun_the_first_process_locks_and_removes(options, used, holder, monkeypatch):
    for name in TORCHRUN_VARIABLES:
        monkeypatch.setenv(name, "0")
    for name, value in {"WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)

    def join_and_run(**flags):
        try:
            return run(options(used, *SHORT, **flags))
        finally:  # what stays after a run has left the group of processes
            monkeypatch.setattr(comm, "_LOCAL_PROCESS_GROUP", None)
            comm.create_local_process_group.cache_clear()

    before = state(used)
    with pytest.raises(UserError, match="used holds a run"):
        join_and_run()
    process = holder(used)
    with pytest.raises(UserError, match=rf"in use by process {process.pid} "):
        join_and_run(overwrite=True)
    assert state(used) == before
    process.kill()
    process.join()
    assert "bbox/AP" in join_and_run(overwrite=True)
    assert iterations(used) == [0, 1]
    assert "model_0000003.pth" not in state(used)


def test_an_evaluation_leaves_the_files_of_a_run_of_other_weights(options, used, tmp_path):
    other = tmp_path / "other.pth"
    shutil.copy(used / "model_final.pth", other)
    before = state(used)
    with pytest.raises(ConfigError, match=r"--eval-only: OUTPUT_DIR .*holds a run .*another"):
        run(options(used, "MODEL.WEIGHTS", other, eval_only=True))
    assert state(used) == before
    for weights in ((), ("MODEL.WEIGHTS", used / "model_0000001.pth"), ("MODEL.WEIGHTS", used)):
        run(options(used, "SOLVER.BASE_LR", 0.5, *weights, eval_only=True))
        assert state(used)["config.yaml"] == before["config.yaml"], "that of the training"
    run(options(tmp_path / "elsewhere", "MODEL.WEIGHTS", other, eval_only=True))
    assert (tmp_path / "elsewhere" / "metrics.json").is_file()


def test_overwrite_by_two_processes_keeps_their_own_logs_alone(options, used):
    old = "[2026-01-01 00:00:00,000 eql_d2] the old run\n"
    for rank in (1, 2):
        (used / f"log.txt.rank{rank}").write_text(old)
    overrides = (*SHORT, "MODEL.DEVICE", "cpu", "SOLVER.IMS_PER_BATCH", 2)
    run(options(used, *overrides, num_gpus=2, overwrite=True))
    assert iterations(used) == [0, 1]
    assert not (used / "log.txt.rank2").exists()
    for name in ("log.txt", "log.txt.rank1"):
        log = (used / name).read_text()
        assert "Loading from" in log or "iter" in log, name
        assert "the old run" not in log
        assert "iter: 3" not in log
