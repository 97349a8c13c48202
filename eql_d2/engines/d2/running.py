"""Train and evaluate one configuration with Detectron2, in one process or in many."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from typing import Any

from eql_d2.command_line import TrainOptions
from eql_d2.config import load_config
from eql_d2.engines.d2.checks import checked_weights, starting_weights
from eql_d2.engines.d2.compat import collect_env_info, comm, get_cfg
from eql_d2.engines.d2.evaluator import RESULTS_FILE, join_shards
from eql_d2.engines.d2.job import Job, prepare_job
from eql_d2.engines.d2.launch import (
    join_torchrun,
    launch,
    leave,
    processes_from_options,
    started_by_torchrun,
)
from eql_d2.engines.d2.worker import work
from eql_d2.errors import UserError
from eql_d2.experiment import (
    Experiment,
    finish_evaluation,
    prepare_experiment,
    resolve_device,
    warn_of_other_categories,
)

logger = logging.getLogger("eql_d2")


def run(options: TrainOptions) -> dict[str, float | None]:
    """Train (unless ``eval_only``) and evaluate.

    Args:
        options: the command line; ``num_gpus`` counts processes where ``MODEL.DEVICE`` is cpu,
            and 0 means one process on the CPU.

    Returns:
        flat metrics in percent; empty on all but the first process or machine.

    Raises:
        UserError: configuration, data or weights are wrong, or the training diverged.
    """
    cfg = load_config(options.config_file, options.overrides, defaults=get_cfg())
    if options.num_gpus == 0:
        cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.DEVICE = resolve_device(cfg.MODEL.DEVICE)
    cfg.MODEL.WEIGHTS = checked_weights(cfg, options)
    with tempfile.TemporaryDirectory(prefix="eql_d2_") as directory:
        if started_by_torchrun():
            return _run_under_torchrun(cfg, options, directory)
        return _run_here(cfg, options, directory)


def _run_here(cfg: Any, options: TrainOptions, directory: str) -> dict[str, float | None]:
    processes = processes_from_options(options)
    experiment, job = _prepare(cfg, options, directory, processes.world_size)
    if processes.machine_rank == 0:
        _describe(job, options)
    launch(work, processes, cfg.MODEL.DEVICE, (job,))
    if processes.machine_rank != 0:
        return {}
    return _finish(job, experiment, processes.world_size)


def _run_under_torchrun(cfg: Any, options: TrainOptions, directory: str) -> dict[str, float | None]:
    """As :func:`_run_here`, in processes that are there already; one of each machine prepares."""
    join_torchrun(cfg.MODEL.DEVICE)
    try:
        world_size = comm.get_world_size()
        experiment = job = problem = None
        if comm.get_local_rank() == 0:
            try:
                experiment, job = _prepare(cfg, options, directory, world_size)
            except UserError as error:
                problem = str(error)
        gathered = comm.all_gather((job, problem))
        found = [problem for _, problem in gathered if problem]
        if found:
            raise UserError(found[0])
        first = comm.get_rank() - comm.get_local_rank()
        job = gathered[first][0]
        if comm.is_main_process():
            _describe(job, options)
        work(job)
        is_main = comm.is_main_process()
    finally:
        leave()
    if not is_main:
        return {}
    assert experiment is not None
    return _finish(job, experiment, world_size)


def _prepare(
    cfg: Any, options: TrainOptions, directory: str, world_size: int
) -> tuple[Experiment, Job]:
    training = not options.eval_only
    continued, initial = starting_weights(cfg, options)
    experiment = prepare_experiment(cfg, training=training, checkpoint=continued)
    if initial is not None:
        warn_of_other_categories(initial, experiment)
    job = prepare_job(
        cfg,
        experiment,
        directory,
        world_size=world_size,
        training=training,
        resume=options.resume,
    )
    # The training data live on in the packed file; their objects need not.
    return dataclasses.replace(experiment, train=None), job


def _describe(job: Job, options: TrainOptions) -> None:
    job.output_dir.mkdir(parents=True, exist_ok=True)
    (job.output_dir / "config.yaml").write_text(job.config_yaml, "utf-8")
    (job.output_dir / "environment.txt").write_text(f"{options}\n{collect_env_info()}\n", "utf-8")


def _finish(job: Job, experiment: Experiment, world_size: int) -> dict[str, float | None]:
    """Score what the processes left on disk; they have ended, so nothing waits for this."""
    results = join_shards(job.output_dir / RESULTS_FILE.parent, world_size)
    logger.info(f"detections: {results}")
    return finish_evaluation(job.cfg, experiment, results)
