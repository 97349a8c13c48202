"""What one process does: build the model, train it, and run it over its share of the test set."""

from __future__ import annotations

import importlib.util
import logging
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from eql_d2.categories import CategoryStatistics, write_statistics
from eql_d2.config_checks import config_warnings
from eql_d2.engines.d2.checkpointer import Checkpointer
from eql_d2.engines.d2.compat import (
    CommonMetricPrinter,
    EventWriter,
    HookBase,
    JSONWriter,
    TensorboardXWriter,
    build_lr_scheduler,
    build_model,
    build_optimizer,
    comm,
    hooks,
    inference_on_dataset,
)
from eql_d2.engines.d2.evaluator import (
    RESULTS_FILE,
    DetectionWriter,
    RawDetections,
    join_shards,
    shard_path,
)
from eql_d2.engines.d2.job import Job
from eql_d2.engines.d2.loading import (
    SeedAtCheckpoints,
    TrainingBatches,
    seed_process,
    test_batches,
)
from eql_d2.engines.d2.parallel import (
    Guarded,
    freeze_unread_levels,
    parallel_model,
    share_buffers,
)
from eql_d2.engines.d2.process_state import random_state_kept, run_log, torch_switches
from eql_d2.engines.d2.resuming import LRScheduler
from eql_d2.engines.d2.taking_turns import on_first_process
from eql_d2.engines.d2.trainer import Trainer
from eql_d2.errors import DataError, message_of
from eql_d2.evaluation import ResultsWriter
from eql_d2.experiment import finish_evaluation
from eql_d2.training_log import METRICS_FILE, keep_records, log_name, remove_run

logger = logging.getLogger("eql_d2")


def work(job: Job) -> None:
    """Do this process's part of ``job``; all processes' detections are then in shards on disk.

    Raises:
        UserError: an image or the weights cannot be used, or the training diverged.
    """
    training = job.train is not None
    log = run_log(job.output_dir)
    with log as forget_earlier_log, torch_switches(job.cfg, training=training):
        seed_process(job.cfg.SEED, 0)
        model = build_model(job.cfg)
        try:
            if training:
                train(job, model, begin=lambda: _begin(job, forget_earlier_log))
            else:
                Checkpointer(model, metadata=job.metadata, strict=True).load(job.cfg.MODEL.WEIGHTS)
            write_detections(job, model)
        except DataError as error:
            raise DataError(message_of(error)) from error
        comm.synchronize()  # whoever joins the shards, perhaps on another machine, finds them all


def train(job: Job, model: nn.Module, *, begin: Callable[[], None]) -> None:
    """Train ``model`` as the configuration says, from where its checkpoints left off if asked.

    Args:
        job: what to do.
        model: with its initial values; changed in place.
        begin: called when the weights are loaded, before the first file of the run is written.
    """
    cfg = job.cfg
    if comm.is_main_process():
        for warning in config_warnings(cfg, lambda iteration: learning_rate(cfg, iteration)):
            logger.warning(warning)
    freeze_unread_levels(
        model.get_submodule("backbone"),
        [*cfg.MODEL.RPN.IN_FEATURES, *cfg.MODEL.ROI_HEADS.IN_FEATURES],
    )
    optimizer = build_optimizer(cfg, model)
    scheduler = build_lr_scheduler(_with_steps_that_come(cfg), optimizer)
    parallel = parallel_model(Guarded(model))
    batches = TrainingBatches(job)
    trainer = Trainer(parallel, batches, optimizer, mixed_precision=cfg.SOLVER.AMP.ENABLED)
    checkpointer = Checkpointer(
        model, cfg.OUTPUT_DIR, metadata=job.metadata, trainer=weakref.proxy(trainer)
    )
    trainer.register_hooks(_hooks(job, model, optimizer, scheduler, checkpointer))
    batches.start = _load_weights(job, checkpointer)
    begin()
    if comm.is_main_process():
        trainer.register_hooks([_writer(job, batches.start)])
    seed_process(cfg.SEED, batches.start)
    trainer.train(batches.start, cfg.SOLVER.MAX_ITER)


def _begin(job: Job, forget_earlier_log: Callable[[], None]) -> None:
    """Begin the run in its folder: nothing is left that could refuse it."""
    if comm.is_main_process():
        if job.overwrite:
            begun = {log_name(rank) for rank in range(comm.get_world_size())}
            remove_run(job.output_dir, keep=begun)
        (job.output_dir / "config.yaml").write_text(job.config_yaml, "utf-8")
        (job.output_dir / "environment.txt").write_text(job.environment, "utf-8")
        statistics = CategoryStatistics.from_dict(job.metadata["statistics"])
        write_statistics(statistics, job.output_dir)
    if job.overwrite:
        forget_earlier_log()


def write_detections(job: Job, model: nn.Module) -> None:
    """Run ``model`` over this process's share of the test images."""
    share_buffers(model)
    directory = job.output_dir / RESULTS_FILE.parent
    directory.mkdir(parents=True, exist_ok=True)
    shard = shard_path(directory, comm.get_rank(), comm.get_world_size())
    shard.unlink(missing_ok=True)  # of a run that was stopped: nobody shall take it for this one's
    with ResultsWriter(shard, job.category_ids) as writer:
        inference_on_dataset(RawDetections(model), test_batches(job), DetectionWriter(writer))


def learning_rate(cfg: Any, iteration: int) -> float:
    """Return the rate at an iteration, counted from 0, without any parameter's own factor."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=cfg.SOLVER.BASE_LR)
    scheduler = build_lr_scheduler(_with_steps_that_come(cfg), optimizer)
    scheduler.last_epoch = iteration
    return float(scheduler.get_lr()[0])


def _with_steps_that_come(cfg: Any) -> Any:
    """Return ``cfg`` without steps at ``SOLVER.MAX_ITER``, on which Detectron2's scheduler fails.

    It leaves out the later ones itself: a run may be shortened by that key alone.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.SOLVER.STEPS = tuple(step for step in cfg.SOLVER.STEPS if step < cfg.SOLVER.MAX_ITER)
    return cfg


def _load_weights(job: Job, checkpointer: Checkpointer) -> int:
    """Load what training begins with, say what that is, and return the first iteration."""
    weights = job.cfg.MODEL.WEIGHTS
    resumed = job.resume and checkpointer.has_checkpoint()
    state = checkpointer.resume_or_load(weights, resume=resumed)
    if not resumed:
        if job.resume:
            logger.info(
                f"--resume found no checkpoint in {job.output_dir}: training begins at iteration 0 "
                f"with {f'MODEL.WEIGHTS {weights}' if weights else 'random weights'}"
            )
        return 0
    start = state["iteration"] + 1
    ignored = "; MODEL.WEIGHTS is not read" if weights else ""
    logger.info(
        f"resuming from {checkpointer.get_checkpoint_file()} at iteration {start} of "
        f"{job.cfg.SOLVER.MAX_ITER}{ignored}"
    )
    return start


def _hooks(
    job: Job, model: nn.Module, optimizer: Any, scheduler: Any, checkpointer: Checkpointer
) -> list[HookBase]:
    cfg = job.cfg
    made: list[HookBase] = [
        hooks.IterationTimer(),
        SeedAtCheckpoints(cfg.SEED, cfg.SOLVER.CHECKPOINT_PERIOD),
        LRScheduler(optimizer, scheduler),
    ]
    if comm.is_main_process():
        made.append(hooks.PeriodicCheckpointer(checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD))
    if cfg.TEST.EVAL_PERIOD > 0:
        made.append(
            hooks.EvalHook(
                cfg.TEST.EVAL_PERIOD, lambda: _evaluate_now(job, model), eval_after_train=False
            )
        )
    return made


def _evaluate_now(job: Job, model: nn.Module) -> dict[str, float]:
    """Evaluate during training: all processes predict, the first one scores."""
    with random_state_kept():
        write_detections(job, model)
    comm.synchronize()  # all shards are written
    metrics = on_first_process(lambda: _score(job))
    return {name: value for name, value in (metrics or {}).items() if value is not None}


def _score(job: Job) -> dict[str, float | None]:
    results = join_shards(job.output_dir / RESULTS_FILE.parent, comm.get_world_size())
    return finish_evaluation(job.cfg, job.load_experiment(), results)


def _writer(job: Job, start: int) -> HookBase:
    """Log to screen and files what happens from iteration ``start`` on."""
    log, period = job.output_dir / METRICS_FILE, job.cfg.MODEL.EQL.LOG_PERIOD
    keep_records(log, start)
    writers: list[EventWriter] = [
        CommonMetricPrinter(job.cfg.SOLVER.MAX_ITER, window_size=period),
        JSONWriter(str(log), window_size=period),
    ]
    if importlib.util.find_spec("tensorboard") is not None:
        writers.append(TensorboardXWriter(str(job.output_dir), window_size=period))
    return hooks.PeriodicWriter(writers, period=period)
