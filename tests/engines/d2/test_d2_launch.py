"""Which processes train together, and how their errors come back."""

import json
import multiprocessing
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from eql_d2.command_line import TrainOptions
from eql_d2.errors import MissingPackageError, UserError

with suppress(MissingPackageError):
    from eql_d2.engines.d2 import worker
    from eql_d2.engines.d2.compat import comm, inference_on_dataset
    from eql_d2.engines.d2.evaluator import join_shards, shard_path
    from eql_d2.engines.d2.launch import (
        TORCHRUN_VARIABLES,
        Processes,
        launch,
        process_problems,
        processes_from_options,
        started_by_torchrun,
        world_size,
    )
    from eql_d2.engines.d2.parallel import Guarded, parallel_model

pytestmark = pytest.mark.detectron2


def plan(**fields):
    options = TrainOptions("c.yaml", **fields)
    assert process_problems(options, "cpu") == []
    processes = processes_from_options(options)
    assert processes.world_size == world_size(options)
    return processes


@pytest.mark.parametrize("num_gpus", [None, 0, 1])
def test_one_process_needs_no_meeting_point(num_gpus):
    processes = plan(num_gpus=num_gpus)
    assert processes.world_size == 1
    assert processes.url == "auto"


def test_two_runs_on_one_machine_do_not_meet():
    urls = {plan(num_gpus=2).url for _ in range(20)}
    assert len(urls) > 10
    assert all(url.startswith("tcp://127.0.0.1:") for url in urls)


def test_several_machines():
    url = "tcp://10.0.0.1:29500"
    processes = plan(num_gpus=4, num_machines=2, machine_rank=1, dist_url=url)
    assert (processes.world_size, processes.machine_rank, processes.url) == (8, 1, url)


def test_everything_wrong_is_said_at_once(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    gpus, url = process_problems(TrainOptions("c.yaml", num_gpus=3, num_machines=2), "cuda")
    assert "--num-gpus 3" in gpus
    assert "2 GPUs" in gpus
    assert "--dist-url" in url


def test_torchrun_is_recognised_by_all_of_its_variables(monkeypatch):
    for name in TORCHRUN_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert not started_by_torchrun()
    for name in TORCHRUN_VARIABLES:
        assert not started_by_torchrun()
        monkeypatch.setenv(name, "1")
    assert started_by_torchrun()


class Proposer(torch.nn.Linear):
    """A detector of one weight that has no proposals on images below zero."""

    def __init__(self):
        super().__init__(1, 1, bias=False)

    def forward(self, batch):
        if batch[0] < 0:
            raise FloatingPointError("proposals contain NaN")
        return {"loss": super().forward(batch[0]).sum()}


def average_gradients_and_fail(folder):
    """Worker: gradients of different losses are averaged; then one rank finds a user's mistake."""
    model = parallel_model(Guarded(Proposer()))
    rank = comm.get_rank()
    found = []
    for image in (rank + 1.0, -1.0 if rank else 1.0):  # the last one makes one rank fail
        model.zero_grad()
        losses, _ = model([torch.full((1,), image)])
        next(iter(losses.values())).backward()
        found += [str(p.grad.item()) for p in model.parameters()]
    (folder / f"{rank}.txt").write_text(" ".join([*found, str(comm.get_local_rank())]))
    comm.synchronize()
    if rank == 1:
        raise UserError("the second process found this")
    comm.synchronize()  # waits for the other, which will not come


def test_two_cpu_processes_share_gradients_and_report_errors(tmp_path):
    """No process waits for one without proposals: what it sends them is no number."""
    with pytest.raises(UserError) as caught:
        launch(average_gradients_and_fail, plan(num_gpus=2), "cpu", (tmp_path,))
    assert str(caught.value) == "the second process found this"
    assert (tmp_path / "0.txt").read_text() == "1.5 nan 0"
    assert (tmp_path / "1.txt").read_text() == "1.5 nan 1"


def tell_and_wait(folder):
    """Worker: as one that trains for long."""
    (folder / f"{comm.get_rank()}.pid").write_text(str(os.getpid()))
    comm.synchronize()
    time.sleep(600)


def launch_in_background(folder):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does with `command &`
    launch(tell_and_wait, plan(num_gpus=2), "cpu", (folder,))


def is_running(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a parent's death")
def test_no_process_trains_on_when_the_one_that_started_it_is_killed(tmp_path):
    context = multiprocessing.get_context("fork")  # has imported torch already
    process = context.Process(target=launch_in_background, args=(tmp_path,))
    process.start()
    end = time.monotonic() + 300
    while len(list(tmp_path.glob("*.pid"))) < 2 and time.monotonic() < end:
        time.sleep(0.1)
    pids = [int(path.read_text()) for path in tmp_path.glob("*.pid")]
    assert len(pids) == 2
    process.kill()
    process.join()
    try:
        end = time.monotonic() + 60
        while any(map(is_running, pids)) and time.monotonic() < end:
            time.sleep(0.1)
        assert not any(map(is_running, pids))
    finally:
        for pid in filter(is_running, pids):
            os.kill(pid, signal.SIGKILL)


def evaluate_with_one_slow(job):
    """Worker: the second process needs longer for its images than the first."""

    def slow_inference(model, batches, evaluator):
        rank = comm.get_rank()
        shard = shard_path(job.output_dir / "inference", rank, 2)
        assert not shard.exists(), "a shard of an earlier run could be taken for this one's"
        time.sleep(3 * rank)
        inference_on_dataset(model, batches, evaluator)

    worker.inference_on_dataset = slow_inference
    worker.work(job)


def test_a_machine_waits_for_the_detections_of_the_others(make_job):
    job = make_job(training=False, world_size=2)
    url = plan(num_gpus=2).url
    folder = job.output_dir / "inference"
    folder.mkdir(parents=True)
    record = {"image_id": 1, "category_id": 1, "score": 0.5, "bbox": [0, 0, 1, 1]}
    for rank in range(2):
        shard_path(folder, rank, 2).write_text(json.dumps([{**record, "stale": True}]))
    second = multiprocessing.get_context("spawn").Process(
        target=launch, args=(evaluate_with_one_slow, Processes(1, 2, 1, url), "cpu", (job,))
    )
    second.start()
    try:
        launch(evaluate_with_one_slow, Processes(1, 2, 0, url), "cpu", (job,))
        records = json.loads(join_shards(folder, 2).read_text())
        second.join(300)  # leaving Python takes long on a busy machine
        assert second.exitcode == 0
    finally:
        second.terminate()
    assert not any("stale" in record for record in records)
    assert len({record["image_id"] for record in records}) == 5, "images of a shard are missing"


def test_one_process_runs_here(tmp_path):
    called = []
    launch(called.append, Processes(), "cpu", ("job",))
    assert called == ["job"]
