"""What one process does: build the model, train it, and run it over its share of the test set."""

from __future__ import annotations

import importlib.util
import logging
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

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
from eql_d2.engines.d2.taking_turns import on_first_process
from eql_d2.engines.d2.trainer import (
    Trainer,
    freeze_unread_levels,
    parallel_model,
    share_buffers,
)
from eql_d2.evaluation import ResultsWriter
from eql_d2.experiment import finish_evaluation

logger = logging.getLogger("eql_d2")

METRICS_FILE = "metrics.jsonl"


def work(job: Job) -> None:
    """Do this process's part of ``job``; its detections are left in a shard on disk."""
    with _logging(job.output_dir):
        seed_process(job.cfg.SEED, 0)
        torch.backends.cudnn.benchmark = job.cfg.CUDNN_BENCHMARK and job.train is not None
        model = build_model(job.cfg)
        if job.train is None:
            Checkpointer(model, metadata=job.metadata, strict=True).load(job.cfg.MODEL.WEIGHTS)
        else:
            train(job, model)
        write_detections(job, model)


def train(job: Job, model: nn.Module) -> None:
    """Train ``model`` as the configuration says, from where its checkpoints left off if asked."""
    cfg = job.cfg
    freeze_unread_levels(
        model.get_submodule("backbone"),
        [*cfg.MODEL.RPN.IN_FEATURES, *cfg.MODEL.ROI_HEADS.IN_FEATURES],
    )
    optimizer = build_optimizer(cfg, model)
    scheduler = build_lr_scheduler(cfg, optimizer)
    parallel = parallel_model(model)
    batches = TrainingBatches(job)
    trainer = Trainer(parallel, batches, optimizer, mixed_precision=cfg.SOLVER.AMP.ENABLED)
    checkpointer = Checkpointer(
        parallel, cfg.OUTPUT_DIR, metadata=job.metadata, trainer=weakref.proxy(trainer)
    )
    trainer.register_hooks(_hooks(job, model, optimizer, scheduler, checkpointer))
    batches.start = _load_weights(job, checkpointer)
    seed_process(cfg.SEED, batches.start)
    trainer.train(batches.start, cfg.SOLVER.MAX_ITER)


def write_detections(job: Job, model: nn.Module) -> None:
    """Run ``model`` over this process's share of the test images."""
    share_buffers(model)
    directory = job.output_dir / RESULTS_FILE.parent
    directory.mkdir(parents=True, exist_ok=True)
    shard = shard_path(directory, comm.get_rank(), comm.get_world_size())
    with ResultsWriter(shard, job.category_ids) as writer:
        inference_on_dataset(RawDetections(model), test_batches(job), DetectionWriter(writer))


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
        hooks.LRScheduler(optimizer, scheduler),
    ]
    if comm.is_main_process():
        made.append(hooks.PeriodicCheckpointer(checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD))
    if cfg.TEST.EVAL_PERIOD > 0:
        made.append(
            hooks.EvalHook(
                cfg.TEST.EVAL_PERIOD, lambda: _evaluate_now(job, model), eval_after_train=False
            )
        )
    if comm.is_main_process():
        period = cfg.MODEL.EQL.LOG_PERIOD
        made.append(hooks.PeriodicWriter(_writers(job, period), period=period))
    return made


def _evaluate_now(job: Job, model: nn.Module) -> dict[str, float]:
    """Evaluate during training: all processes predict, the first one scores."""
    write_detections(job, model)
    comm.synchronize()  # all shards are written
    metrics = on_first_process(lambda: _score(job))
    return {name: value for name, value in (metrics or {}).items() if value is not None}


def _score(job: Job) -> dict[str, float | None]:
    results = join_shards(job.output_dir / RESULTS_FILE.parent, comm.get_world_size())
    return finish_evaluation(job.cfg, job.load_experiment(), results)


def _writers(job: Job, period: int) -> list[EventWriter]:
    log = job.output_dir / METRICS_FILE
    if not job.resume:
        log.unlink(missing_ok=True)
    writers: list[EventWriter] = [
        CommonMetricPrinter(job.cfg.SOLVER.MAX_ITER, window_size=period),
        JSONWriter(str(log), window_size=period),
    ]
    if importlib.util.find_spec("tensorboard") is not None:
        writers.append(TensorboardXWriter(str(job.output_dir), window_size=period))
    return writers


@contextmanager
def _logging(output_dir: Path) -> Iterator[None]:
    """Send this process's log to ``OUTPUT_DIR/log.txt``; the first process also prints it."""
    rank = comm.get_rank()
    output_dir.mkdir(parents=True, exist_ok=True)
    name = "log.txt" if rank == 0 else f"log.txt.rank{rank}"
    handlers: list[logging.Handler] = [logging.FileHandler(output_dir / name, encoding="utf-8")]
    if rank == 0 and not logging.getLogger().handlers:
        handlers.append(logging.StreamHandler(sys.stdout))
    loggers = [logging.getLogger(n) for n in ("eql_d2", "detectron2", "fvcore")]
    before = [(one.level, one.propagate) for one in loggers]
    for handler in handlers:
        handler.setFormatter(logging.Formatter("[%(asctime)s %(name)s] %(message)s"))
    for one in loggers:
        one.setLevel(logging.INFO)
        one.propagate = rank == 0
        for handler in handlers:
            one.addHandler(handler)
    try:
        yield
    finally:
        for one, (level, propagate) in zip(loggers, before, strict=True):
            one.setLevel(level)
            one.propagate = propagate
            for handler in handlers:
                one.removeHandler(handler)
        for handler in handlers:
            handler.close()
