"""Start one process for each GPU (or, on CPUs, as many as asked for), on one or more machines.

Three ways in, one way on: a single process; processes spawned here; processes that ``torchrun``
(or any scheduler that sets RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and
MASTER_PORT) has started.
"""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from eql_d2.command_line import TrainOptions
from eql_d2.engines.d2.compat import comm
from eql_d2.errors import UserError
from eql_d2.files import atomic_text_file

# How long a process waits for the others, which may be reading a large annotation file.
TIMEOUT = timedelta(hours=2)
TORCHRUN_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
PROCESS_OPTIONS = ("num_gpus", "num_machines", "machine_rank", "dist_url")


@dataclass(frozen=True)
class Processes:
    """Which processes train together.

    Attributes:
        per_machine: processes on each machine.
        machines: number of machines.
        machine_rank: this machine.
        url: where they meet; empty for a single process.
    """

    per_machine: int = 1
    machines: int = 1
    machine_rank: int = 0
    url: str = ""

    @property
    def world_size(self) -> int:
        """Number of processes on all machines."""
        return self.per_machine * self.machines


def process_problems(options: TrainOptions, device: str) -> list[str]:
    """Return what is wrong with the processes that the command line asks for.

    Args:
        options: the command line.
        device: ``MODEL.DEVICE``, resolved.
    """
    if started_by_torchrun():
        given = [f"--{name.replace('_', '-')}" for name in PROCESS_OPTIONS if _given(options, name)]
        return [
            f"{flag} means nothing under torchrun, which decides; leave it out" for flag in given
        ]
    problems = []
    count = options.num_gpus or 1
    if device.startswith("cuda") and count > torch.cuda.device_count():
        problems.append(
            f"--num-gpus {count}, but this machine has {torch.cuda.device_count()} GPUs"
        )
    if options.num_machines > 1 and options.dist_url == "auto":
        problems.append("--num-machines above 1 needs --dist-url tcp://HOST:PORT of machine rank 0")
    return problems


def world_size(options: TrainOptions) -> int:
    """Return how many processes will train, on all machines."""
    if started_by_torchrun():
        return int(os.environ["WORLD_SIZE"])
    return (options.num_gpus or 1) * options.num_machines


def processes_from_options(options: TrainOptions) -> Processes:
    """Turn command line options, in which there are no problems, into a plan."""
    url = options.dist_url
    if world_size(options) > 1 and url == "auto":
        url = f"tcp://127.0.0.1:{_free_port()}"
    return Processes(options.num_gpus or 1, options.num_machines, options.machine_rank, url)


def _given(options: TrainOptions, name: str) -> bool:
    return getattr(options, name) != getattr(TrainOptions(options.config_file), name)


def launch(
    worker: Callable[..., None],
    processes: Processes,
    device: str,
    args: tuple,
    *,
    timeout: timedelta = TIMEOUT,
) -> None:
    """Run ``worker(*args)`` in every process of this machine and return when all have ended.

    ``timeout`` is how long a process waits for the others in one collective operation.

    Raises:
        UserError: what a worker raised as such, without its traceback.
    """
    if processes.world_size == 1:
        worker(*args)
        return
    with tempfile.TemporaryDirectory(prefix="eql_d2_launch_") as directory:
        report = Path(directory) / "error.txt"
        try:
            mp.start_processes(
                _spawned,
                args=(worker, processes, device, report, timeout, args),
                nprocs=processes.per_machine,
                start_method="spawn",
            )
        except (mp.ProcessRaisedException, mp.ProcessExitedException) as error:
            if report.exists():
                raise UserError(report.read_text("utf-8")) from None
            raise error


def started_by_torchrun() -> bool:
    """Whether this process is one of several that something else has started."""
    return all(name in os.environ for name in TORCHRUN_VARIABLES)


def join_torchrun(device: str) -> None:
    """Join the processes that torchrun started."""
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))
    _join(int(os.environ["LOCAL_RANK"]), local_size, device, init_method="env://", timeout=TIMEOUT)


def leave() -> None:
    """Leave the group of processes, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _spawned(
    local_rank: int,
    worker: Callable[..., None],
    processes: Processes,
    device: str,
    report: Path,
    timeout: timedelta,
    args: tuple[Any, ...],
) -> None:
    # If the process that started this one is killed, the kernel sends SIGINT (torch asks for it).
    # A job that a shell runs in the background ignores that signal, and would train on in a folder
    # that is free for the next run.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _join(
        local_rank,
        processes.per_machine,
        device,
        init_method=processes.url,
        world_size=processes.world_size,
        rank=processes.machine_rank * processes.per_machine + local_rank,
        timeout=timeout,
    )
    try:
        worker(*args)
    except UserError as error:
        with atomic_text_file(report) as file:  # all may write it, and be ended while they do
            file.write(str(error))
        raise
    finally:
        leave()


def _join(local_rank: int, local_size: int, device: str, **rendezvous: Any) -> None:
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(local_rank)
    elif "OMP_NUM_THREADS" not in os.environ:  # else each would take all cores
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // local_size))
    dist.init_process_group("nccl" if on_gpu else "gloo", **rendezvous)
    comm.create_local_process_group(local_size)
    comm.synchronize()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
