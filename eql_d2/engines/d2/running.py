"""Train and evaluate one configuration with Detectron2, in one process or in many."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from typing import Any, TypeVar

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
from eql_d2.errors import ConfigError, UserError
from eql_d2.experiment import (
    Experiment,
    finish_evaluation,
    prepare_experiment,
    resolve_device,
    warn_of_other_categories,
)
from eql_d2.training_log import folder_problems, run_folder

logger = logging.getLogger("eql_d2")

Result = TypeVar("Result")


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
    is_main = processes.machine_rank == 0
    problems = [] if is_main else folder_problems(cfg, options, "detectron2")
    if problems:  # the first machine ends with them too: nobody waits for it
        raise ConfigError(problems)
    with run_folder(cfg, options, "detectron2") if is_main else nullcontext():
        experiment, job = _prepare(cfg, options, directory, processes.world_size)
        launch(work, processes, cfg.MODEL.DEVICE, (job,))
        return _finish(job, experiment, processes.world_size) if is_main else {}


def _run_under_torchrun(cfg: Any, options: TrainOptions, directory: str) -> dict[str, float | None]:
    """As :func:`_run_here`, in processes that are there already; one of each machine prepares."""
    join_torchrun(cfg.MODEL.DEVICE)
    with ExitStack() as held:
        try:
            world_size, is_main = comm.get_world_size(), comm.is_main_process()
            folder = run_folder(cfg, options, "detectron2")
            _where(is_main, lambda: held.enter_context(folder))
            first_here = comm.get_rank() - comm.get_local_rank()
            experiment, job = _where(
                comm.get_rank() == first_here,
                lambda: _prepare(cfg, options, directory, world_size),
            ) or (None, None)
            job = comm.all_gather(job)[first_here]
            work(job)
        finally:
            leave()
        if not is_main:
            return {}
        assert experiment is not None
        return _finish(job, experiment, world_size)


def _where(here: bool, work: Callable[[], Result]) -> Result | None:
    """Return what ``work()`` returns where it is ``here``, else None; all processes call this.

    Raises:
        UserError: in all processes, what one has raised as such.
    """
    result = problem = None
    try:
        result = work() if here else None
    except UserError as error:
        problem = str(error)
    problems = [text for text in comm.all_gather(problem) if text]
    if problems:
        raise UserError(problems[0])
    return result


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
    job = dataclasses.replace(
        job, overwrite=options.overwrite, environment=f"{options}\n{collect_env_info()}\n"
    )
    # The training data live on in the packed file; their objects need not.
    return dataclasses.replace(experiment, train=None), job


def _finish(job: Job, experiment: Experiment, world_size: int) -> dict[str, float | None]:
    """Score what the processes left on disk; they have ended, so nothing waits for this."""
    results = join_shards(job.output_dir / RESULTS_FILE.parent, world_size)
    logger.info(f"detections: {results}")
    return finish_evaluation(job.cfg, experiment, results)
