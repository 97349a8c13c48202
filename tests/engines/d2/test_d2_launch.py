"""Which processes train together, and how their errors come back."""

from contextlib import suppress

import pytest
import torch

from eql_d2.command_line import TrainOptions
from eql_d2.errors import ConfigError, MissingPackageError, UserError

with suppress(MissingPackageError):
    from eql_d2.engines.d2.compat import comm
    from eql_d2.engines.d2.launch import (
        TORCHRUN_VARIABLES,
        Processes,
        launch,
        processes_from_options,
        started_by_torchrun,
    )
    from eql_d2.engines.d2.trainer import parallel_model

pytestmark = pytest.mark.detectron2


def plan(batch_size=16, device="cpu", **fields):
    return processes_from_options(TrainOptions("c.yaml", **fields), device, batch_size)


@pytest.mark.parametrize("num_gpus", [None, 0, 1])
def test_one_process_needs_no_meeting_point(num_gpus):
    processes = plan(num_gpus=num_gpus, batch_size=3)
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
    with pytest.raises(ConfigError) as caught:
        plan(num_gpus=3, num_machines=2, device="cuda", batch_size=16)
    gpus, url, batch = caught.value.problems
    assert "--num-gpus 3" in gpus
    assert "2 GPUs" in gpus
    assert "--dist-url" in url
    assert "IMS_PER_BATCH is 16, which 6 processes" in batch


def test_torchrun_is_recognised_by_all_of_its_variables(monkeypatch):
    for name in TORCHRUN_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert not started_by_torchrun()
    for name in TORCHRUN_VARIABLES:
        assert not started_by_torchrun()
        monkeypatch.setenv(name, "1")
    assert started_by_torchrun()


def average_gradients_and_fail(folder):
    """Worker: gradients of different losses are averaged; then one rank finds a user's mistake."""
    model = parallel_model(torch.nn.Linear(1, 1, bias=False))
    rank = comm.get_rank()
    (model(torch.ones(1, 1)) * (rank + 1)).sum().backward()
    (weight,) = model.parameters()
    (folder / f"{rank}.txt").write_text(f"{weight.grad.item()} {comm.get_local_rank()}")
    comm.synchronize()
    if rank == 1:
        raise UserError("the second process found this")
    comm.synchronize()  # waits for the other, which will not come


def test_two_cpu_processes_share_gradients_and_report_errors(tmp_path):
    with pytest.raises(UserError) as caught:
        launch(average_gradients_and_fail, plan(num_gpus=2), "cpu", (tmp_path,))
    assert str(caught.value) == "the second process found this"
    assert (tmp_path / "0.txt").read_text() == "1.5 0"
    assert (tmp_path / "1.txt").read_text() == "1.5 1"


def test_one_process_runs_here(tmp_path):
    called = []
    launch(called.append, Processes(), "cpu", ("job",))
    assert called == ["job"]
