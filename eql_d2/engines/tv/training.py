"""The training loop."""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from eql_d2.data import DetectionData, ImageRecord
from eql_d2.engines.tv.checkpoints import Progress
from eql_d2.engines.tv.progress import TrainingLog
from eql_d2.engines.tv.sampler import batch_stream, index_stream, orientation, repeat_factors
from eql_d2.engines.tv.samples import Sample, TrainingImages
from eql_d2.engines.tv.settings import LoaderSettings, Settings
from eql_d2.engines.tv.solver import clip_gradients, set_learning_rate
from eql_d2.errors import DataError, UserError
from eql_d2.finite import gradient_problem, gradients_of, largest_norm
from eql_d2.training_log import METRICS_FILE

logger = logging.getLogger("eql_d2.engines.tv")


class TrainingDivergedError(UserError, FloatingPointError):
    """A loss or a gradient is not finite; the message says where and what usually helps."""


def training_records(data: DetectionData, settings: Settings) -> list[ImageRecord]:
    """Return the images to train on.

    Raises:
        DataError: nothing is left.
    """
    records = data.images
    if settings.loader.filter_empty:
        records = [r for r in records if any(not x.iscrowd for x in r.instances)]
        logger.info(f"training images: {len(records)} of {len(data.images)} have annotations")
    if not records:
        raise DataError(f"{data.json_path}: no image is left to train on")
    return records


def training_loader(
    records: list[ImageRecord], settings: Settings, progress: Progress
) -> Iterator[list[Sample]]:
    """Yield batches without end, going on where ``progress`` stands."""
    loader = settings.loader
    factors = _repeat_factors(records, loader)
    indices = index_stream(len(records), progress.seed, factors)
    group_of = (lambda i: orientation(records[i])) if loader.group_by_aspect_ratio else None
    batches = batch_stream(indices, loader.batch_size, group_of)
    images = TrainingImages(records, settings.input, progress.seed, settings.roi.mask is not None)
    return iter(
        DataLoader(
            images,
            batch_sampler=islice(batches, progress.iteration, settings.solver.max_iter),
            num_workers=loader.num_workers,
            collate_fn=list,
            worker_init_fn=_leave_signals_to_the_main_process,
            pin_memory=settings.device.startswith("cuda"),
            # Its own generator: else making the loader would draw from the training's.
            generator=torch.Generator().manual_seed(progress.seed),
        )
    )


def _leave_signals_to_the_main_process(_worker: int) -> None:
    """Ctrl-C reaches all processes of a terminal; a worker that dies of it takes the run along."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _repeat_factors(records: list[ImageRecord], loader: LoaderSettings) -> Tensor | None:
    if loader.repeat_threshold is None:
        return None
    factors = repeat_factors(records, loader.repeat_threshold, loader.repeat_sqrt)
    logger.info(
        f"repeat factor sampling: {int((factors > 1).sum())} of {len(factors)} images repeat, "
        f"up to {float(factors.max()):.1f} times; an epoch is {float(factors.sum()):.0f} images"
    )
    return factors


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    records: list[ImageRecord],
    settings: Settings,
    progress: Progress,
    *,
    save: Callable[[Progress], None],
    evaluate: Callable[[], object],
) -> None:
    """Train from ``progress`` to the last iteration.

    Args:
        model: in training mode, on its device.
        optimizer: over the model's parameters.
        records: images to train on.
        settings: of the run.
        progress: iterations done, seed.
        save: called with the new progress when a checkpoint is due.
        evaluate: called every ``eval_period`` iterations, but not after the last.

    Raises:
        TrainingDivergedError: a loss or a gradient is not finite.
        KeyboardInterrupt: SIGINT or SIGTERM came; a checkpoint was saved first.
    """
    max_iter = settings.solver.max_iter
    log = _start_log(settings, progress)
    batches = training_loader(records, settings, progress)
    with stop_signals() as stop:
        for iteration in range(progress.iteration, max_iter):
            _iterate(model, optimizer, batches, settings, log, iteration)
            done = iteration + 1
            if done == max_iter or done % settings.checkpoint_period == 0 or stop.is_set():
                save(Progress(done, progress.seed))
            if done == max_iter:
                break
            if stop.is_set():
                raise KeyboardInterrupt
            if settings.eval_period and done % settings.eval_period == 0:
                _pause_for(evaluate, log)


def _start_log(settings: Settings, progress: Progress) -> TrainingLog:
    path = Path(settings.output_dir) / METRICS_FILE
    return TrainingLog(path, progress.iteration, settings.solver.max_iter, settings.log_period)


def _iterate(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[list[Sample]],
    settings: Settings,
    log: TrainingLog,
    iteration: int,
) -> None:
    """Take a batch, update the model with it and log both."""
    started = time.monotonic()
    batch = next(batches)
    data_seconds = time.monotonic() - started
    rate = set_learning_rate(optimizer, settings.solver, iteration)
    losses, statistics = _forward(model, batch, settings, log.is_due(iteration))
    optimizer.zero_grad()
    torch.stack(list(losses.values())).sum().backward()
    check_finite(losses, gradients_of(model), iteration, rate, batch)
    clip_gradients(model.parameters(), settings.solver)
    optimizer.step()
    log.add(iteration, losses, statistics, rate, data_seconds)


def _pause_for(evaluate: Callable[[], object], log: TrainingLog) -> None:
    started = time.monotonic()
    evaluate()
    log.pause(time.monotonic() - started)


def _forward(
    model: nn.Module, batch: list[Sample], settings: Settings, with_statistics: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    device = torch.device(settings.device)
    images = [sample.image.to(device, non_blocking=True) for sample in batch]
    targets = [
        {name: value.to(device, non_blocking=True) for name, value in sample.target.items()}
        for sample in batch
    ]
    output = model(images, targets, with_statistics)
    losses = {name: value for name, value in output.items() if name.startswith("loss_")}
    return losses, {name: value for name, value in output.items() if name not in losses}


def check_finite(
    losses: dict[str, Tensor],
    gradients: dict[str, Tensor],
    iteration: int,
    learning_rate: float,
    batch: list[Sample],
) -> None:
    """Stop, before the model is updated, at the first loss or gradient that is NaN or infinite.

    All are read from the device at once, when the work of the backward pass is under way.

    Raises:
        TrainingDivergedError: naming iteration, loss terms or parameters, image ids and learning
            rate.
    """
    scalars = [*losses.values(), largest_norm(list(gradients.values()))]
    *values, norm = torch.stack([value.detach().float() for value in scalars]).tolist()
    bad = [
        f"{name} = {value}"
        for name, value in zip(losses, values, strict=True)
        if not math.isfinite(value)
    ]
    problem = ", ".join(bad) or gradient_problem(norm, gradients)
    if not problem:
        return
    raise TrainingDivergedError(
        f"training diverged at iteration {iteration + 1}: {problem}; learning rate "
        f"{learning_rate:.3g}, image ids {[sample.image_id for sample in batch]}. Lower "
        "SOLVER.BASE_LR, lengthen SOLVER.WARMUP_ITERS or set SOLVER.CLIP_GRADIENTS.ENABLED True, "
        "then go on from the last checkpoint with --resume; if it stops again at the same images, "
        "look at their annotations"
    )


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Turn the first SIGINT or SIGTERM into an event; a second one interrupts at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handle(number: int, _frame: object) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()
        logger.warning(f"{signal.Signals(number).name}: saving a checkpoint after this iteration")

    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, handle) for number in signals}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
