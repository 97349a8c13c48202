"""One run from the command line, and a predictor from a checkpoint."""

from __future__ import annotations

import dataclasses
import logging
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from fvcore.common.config import CfgNode
from torch.utils import deterministic

from eql_d2.categories import CategoryStatistics, write_statistics
from eql_d2.checkpoint import (
    LAST_CHECKPOINT,
    checkpoint_metadata,
    model_of_file,
    resolve_checkpoint,
)
from eql_d2.command_line import TrainOptions
from eql_d2.config import load_config
from eql_d2.config_checks import config_warnings
from eql_d2.engines.tv import checkpoints
from eql_d2.engines.tv.checking import checked_settings
from eql_d2.engines.tv.checkpoints import Progress
from eql_d2.engines.tv.inference import Predictor, predictor, write_results
from eql_d2.engines.tv.model import MaskRcnn, build_model
from eql_d2.engines.tv.progress import format_duration
from eql_d2.engines.tv.reading import read_settings
from eql_d2.engines.tv.settings import Settings
from eql_d2.engines.tv.solver import build_optimizer, rate_factor
from eql_d2.engines.tv.training import train, training_records
from eql_d2.errors import DataError, message_of
from eql_d2.experiment import (
    Experiment,
    finish_evaluation,
    loss_from_config,
    prepare_experiment,
    read_stored_model,
    resolve_device,
    resolved_config,
    warn_of_other_categories,
)
from eql_d2.training_log import FINAL_CHECKPOINT, remove_run, run_folder

logger = logging.getLogger("eql_d2.engines.tv")


def run(options: TrainOptions) -> dict[str, float | None]:
    """Train and evaluate, or only evaluate, as the command line says.

    Returns:
        flat metrics in percent, None where undefined.

    Raises:
        UserError: configuration, data or checkpoint cannot be used.
    """
    cfg = load_config(options.config_file, options.overrides)
    settings = checked_settings(cfg, options)
    with run_folder(cfg, options, "torchvision"):
        return _run(cfg, settings, options)


def _run(cfg: CfgNode, settings: Settings, options: TrainOptions) -> dict[str, float | None]:
    continued, initial = _starting_weights(settings, options)
    experiment = prepare_experiment(cfg, training=not options.eval_only, checkpoint=continued)
    if initial is not None:
        warn_of_other_categories(initial, experiment)
    cfg = resolved_config(cfg, experiment)
    settings = _resolved_settings(settings, cfg)
    with _torch_state(settings):
        model = _build(cfg, settings, experiment.statistics)
        try:
            if options.eval_only:
                assert continued is not None
                checkpoints.load_weights(model, continued)
            else:
                _train(model, cfg, settings, experiment, options)
            return _evaluate(model, cfg, settings, experiment)
        except DataError as error:
            raise DataError(message_of(error)) from error


def load_predictor(
    checkpoint: Path,
    *,
    device: str = "auto",
    score_threshold: float | None = None,
    max_detections: int | None = None,
) -> Predictor:
    """Build a predictor from a checkpoint alone; no data set needs to be there.

    Args:
        checkpoint: file, or an ``OUTPUT_DIR``.
        device: torch device, or "auto".
        score_threshold: least score of a detection; the training configuration's when None.
        max_detections: most detections an image; the training configuration's when None.

    Returns:
        function from an ``(H, W, 3)`` uint8 RGB image to its detections.

    Raises:
        UserError: the file is no checkpoint of this engine, or its weights, configuration and
            categories do not fit each other.
    """
    stored = read_stored_model(checkpoint, "torchvision")
    cfg = stored.cfg
    cfg.MODEL.DEVICE = resolve_device(device)
    if score_threshold is not None:
        cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = float(score_threshold)
    if max_detections is not None:
        cfg.TEST.DETECTIONS_PER_IMAGE = max_detections
    with model_of_file(stored.file):
        settings = read_settings(cfg)
        model = _build(cfg, settings, stored.statistics)
    checkpoints.load_weights(model, stored.file)
    return predictor(model, settings.input, torch.device(settings.device))


def _resolved_settings(settings: Settings, cfg: CfgNode) -> Settings:
    """Take class count and device from the resolved tree, and draw a seed where none is given."""
    seed = settings.seed
    if seed < 0:
        seed = random.SystemRandom().randrange(2**31)
        logger.info(f"SEED is negative; drew {seed}")
    roi = dataclasses.replace(settings.roi, num_classes=cfg.MODEL.ROI_HEADS.NUM_CLASSES)
    return dataclasses.replace(settings, roi=roi, device=cfg.MODEL.DEVICE, seed=seed)


@contextmanager
def _torch_state(settings: Settings) -> Iterator[None]:
    """Set torch's global switches for a run and put them back."""
    benchmark = torch.backends.cudnn.benchmark
    precision = torch.get_float32_matmul_precision()
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    fill = deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = settings.cudnn_benchmark
    if settings.float32_precision:
        torch.set_float32_matmul_precision(settings.float32_precision)
    if settings.device == "cpu":
        # Threads add gradients of an index in any order otherwise.
        torch.use_deterministic_algorithms(True)
        deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = benchmark
        torch.set_float32_matmul_precision(precision)
        torch.use_deterministic_algorithms(was_deterministic)
        deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


def _build(cfg: CfgNode, settings: Settings, statistics: CategoryStatistics) -> MaskRcnn:
    torch.manual_seed(max(settings.seed, 0))
    loss = loss_from_config(cfg, statistics)
    tail_mask = statistics.tail_mask(cfg.MODEL.EQL.LOSS.LAMBDA)
    return build_model(settings, loss, tail_mask).to(settings.device)


def _train(
    model: MaskRcnn,
    cfg: CfgNode,
    settings: Settings,
    experiment: Experiment,
    options: TrainOptions,
) -> None:
    output_dir = Path(settings.output_dir)
    assert experiment.train is not None
    solver = settings.solver
    for warning in config_warnings(cfg, lambda i: solver.base_lr * rate_factor(solver, i)):
        logger.warning(warning)
    records = training_records(experiment.train, settings)
    optimizer = build_optimizer(model, settings.solver)
    progress = _start(model, optimizer, settings, resume=options.resume)
    if progress.iteration >= settings.solver.max_iter:
        logger.info(f"nothing to train: SOLVER.MAX_ITER is {settings.solver.max_iter}")
        return
    if options.overwrite:
        remove_run(output_dir)
    (output_dir / "config.yaml").write_text(cfg.dump(), "utf-8")
    write_statistics(experiment.statistics, output_dir)
    metadata = checkpoint_metadata(cfg.dump(), experiment.statistics, "torchvision")
    max_iter = settings.solver.max_iter

    def save(reached: Progress) -> None:
        final = reached.iteration == max_iter
        name = FINAL_CHECKPOINT if final else checkpoints.checkpoint_name(reached.iteration)
        checkpoints.save_checkpoint(output_dir / name, model, optimizer, reached, metadata)

    started = time.monotonic()
    model.train()
    train(
        model,
        optimizer,
        records,
        settings,
        progress,
        save=save,
        evaluate=lambda: _evaluate(model, cfg, settings, experiment),
    )
    logger.info(f"trained in {format_duration(time.monotonic() - started)}")


def _starting_weights(settings: Settings, options: TrainOptions) -> tuple[Path | None, Path | None]:
    """Return the file that is evaluated or resumed, and the one that training begins with."""
    if options.eval_only:
        use_last = options.resume or not settings.weights
        return resolve_checkpoint(settings.output_dir if use_last else settings.weights), None
    if options.resume and (Path(settings.output_dir) / LAST_CHECKPOINT).is_file():
        return resolve_checkpoint(settings.output_dir), None
    return None, resolve_checkpoint(settings.weights) if settings.weights else None


def _start(
    model: MaskRcnn, optimizer: torch.optim.Optimizer, settings: Settings, *, resume: bool
) -> Progress:
    """Resume, or load ``MODEL.WEIGHTS``, or start at random; and say which."""
    last = Path(settings.output_dir) / LAST_CHECKPOINT
    if resume and last.is_file():
        path = resolve_checkpoint(settings.output_dir)
        progress = checkpoints.resume(path, model, optimizer)
        logger.info(f"resume: found {path}, going on at iteration {progress.iteration + 1}")
        return progress
    if resume:
        logger.info(f"resume: no {last}, starting from the beginning")
    if settings.weights:
        checkpoints.load_initial_weights(model, settings)
    elif settings.backbone.freeze_at > 0:
        logger.warning(
            f"MODEL.BACKBONE.FREEZE_AT is {settings.backbone.freeze_at} without MODEL.WEIGHTS: "
            "these stages stay random; set it to 0 to train from scratch"
        )
    torch.manual_seed(settings.seed)
    return Progress(0, settings.seed)


def _evaluate(
    model: MaskRcnn, cfg: CfgNode, settings: Settings, experiment: Experiment
) -> dict[str, float | None]:
    results = write_results(model, experiment.test, settings, Path(settings.output_dir))
    return finish_evaluation(cfg, experiment, results)
