"""All that is wrong with a command, found at once, before data are read or processes started."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from eql_d2.checkpoint import LAST_CHECKPOINT, resolve_checkpoint
from eql_d2.command_line import TrainOptions
from eql_d2.config import get_value
from eql_d2.config_checks import config_problems
from eql_d2.engines.d2.compat import PathManager, get_cfg
from eql_d2.engines.d2.head_checks import cascade_problems, loss_key_problems
from eql_d2.engines.d2.launch import process_problems, world_size
from eql_d2.errors import ConfigError, UserError
from eql_d2.experiment import data_paths
from eql_d2.training_log import folder_problems

logger = logging.getLogger("eql_d2")

OUR_HEADS = ("EQLROIHeads", "EQLCascadeROIHeads")
# Keys with the values that this engine honours.
CHOICES = {
    "MODEL.META_ARCHITECTURE": ("GeneralizedRCNN",),
    "DATALOADER.SAMPLER_TRAIN": ("TrainingSampler", "RepeatFactorTrainingSampler"),
    "INPUT.FORMAT": ("BGR", "RGB"),
    "FLOAT32_PRECISION": ("", "highest", "high", "medium"),
}
UNSUPPORTED = (
    "MODEL.KEYPOINT_ON",
    "MODEL.LOAD_PROPOSALS",
    "DATASETS.PROPOSAL_FILES_TRAIN",
    "DATASETS.PROPOSAL_FILES_TEST",
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN",
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST",
    "TEST.AUG.ENABLED",
    "TEST.PRECISE_BN.ENABLED",
    "TEST.EXPECTED_RESULTS",
)


def checked_weights(cfg: Any, options: TrainOptions) -> str:
    """Check configuration, command line, paths and weights.

    Args:
        cfg: the tree as read, with ``MODEL.DEVICE`` resolved.
        options: the command line.

    Returns:
        ``MODEL.WEIGHTS`` with an ``OUTPUT_DIR`` replaced by its last checkpoint. An address was
        fetched: it is in Detectron2's cache, where all processes find it.

    Raises:
        ConfigError: naming every problem; a folder that cannot be used is named too, and where
            nothing else is wrong it is refused by :func:`eql_d2.training_log.run_folder`, under
            its lock.
    """
    problems = [
        *config_problems(cfg),
        *key_problems(cfg),
        *process_problems(options, cfg.MODEL.DEVICE),
        *schedule_problems(cfg.SOLVER, cfg.TEST.EVAL_PERIOD, world_size(options)),
    ]
    if not cfg.DATA.GENERATE:
        _, found = _attempt(lambda: data_paths(cfg, training=not options.eval_only))
        problems += found
    weights, found = _attempt(lambda: _weights(cfg, options))
    problems += found
    if problems:
        raise ConfigError([*problems, *folder_problems(cfg, options, "detectron2")])
    assert weights is not None
    if urlparse(weights).scheme and not _resumes(cfg, options):
        _fetch(weights)
    return weights


def starting_weights(cfg: Any, options: TrainOptions) -> tuple[Path | None, Path | None]:
    """Return the file that is evaluated or resumed, and the one that training begins with.

    Args:
        cfg: the tree with the weights of :func:`checked_weights`.
        options: the command line.

    Returns:
        one path, and None for the other; two Nones where training begins at random.
    """
    if _resumes(cfg, options):
        return resolve_checkpoint(cfg.OUTPUT_DIR), None
    if not cfg.MODEL.WEIGHTS:
        return None, None
    address = urlparse(cfg.MODEL.WEIGHTS)._replace(query="").geturl()
    path = Path(PathManager.get_local_path(address))
    return (path, None) if options.eval_only else (None, path)


def key_problems(cfg: Any) -> list[str]:
    """Return which values this engine would not honour."""
    problems = []
    heads = cfg.MODEL.ROI_HEADS.NAME
    if heads not in OUR_HEADS:
        problems.append(
            f"MODEL.ROI_HEADS.NAME is {heads}, which knows nothing of MODEL.EQL.LOSS; set it to "
            f"{' or '.join(OUR_HEADS)}"
        )
    for key, allowed in CHOICES.items():
        if get_value(cfg, key) not in allowed:
            options = " or ".join(repr(a) for a in allowed)
            problems.append(f"{key} must be {options}, got {get_value(cfg, key)!r}")
    defaults = get_cfg()
    for key in UNSUPPORTED:
        value = get_value(cfg, key)
        if value != get_value(defaults, key):
            problems.append(
                f"{key} is {value}, which this project does not support; leave it at its default"
            )
    problems += loss_key_problems(cfg)
    return problems + (cascade_problems(cfg) if heads == "EQLCascadeROIHeads" else [])


def schedule_problems(solver: Any, eval_period: int, processes: int) -> list[str]:
    """Return what is wrong with sharing or scaling the schedule among ``processes``.

    Args:
        solver: ``cfg.SOLVER``. With ``REFERENCE_WORLD_SIZE`` the schedule is scaled to keep the
            images of a process; else ``IMS_PER_BATCH`` is what all processes share.
        eval_period: ``TEST.EVAL_PERIOD``, scaled too.
        processes: their number.
    """
    batch, reference = solver.IMS_PER_BATCH, solver.REFERENCE_WORLD_SIZE
    if reference == 0:
        if batch % processes == 0:
            return []
        return [
            f"SOLVER.IMS_PER_BATCH is {batch}, which {processes} processes cannot share evenly; "
            f"make it a multiple of {processes}"
        ]
    if reference < 0 or batch % reference:
        return [
            f"SOLVER.REFERENCE_WORLD_SIZE is {reference}, but must divide SOLVER.IMS_PER_BATCH "
            f"({batch}), which it says is shared by so many processes; 0 scales nothing"
        ]
    scaled = {
        "SOLVER.MAX_ITER": solver.MAX_ITER,
        "SOLVER.CHECKPOINT_PERIOD": solver.CHECKPOINT_PERIOD,
        "TEST.EVAL_PERIOD": eval_period,
    }
    return [
        f"{key} is {value} for {reference} processes (SOLVER.REFERENCE_WORLD_SIZE), which scales "
        f"to 0 for {processes}; make it larger"
        for key, value in scaled.items()
        if value > 0 and round(value * reference / processes) < 1
    ]


def _weights(cfg: Any, options: TrainOptions) -> str:
    """Return ``MODEL.WEIGHTS`` as the checkpoint it means, or raise a UserError."""
    weights = cfg.MODEL.WEIGHTS
    if options.eval_only and (options.resume or not weights):
        if not _has_checkpoint(cfg):
            raise ConfigError(
                "--eval-only needs MODEL.WEIGHTS (a checkpoint, or an OUTPUT_DIR for its last one) "
                f"or the last checkpoint of OUTPUT_DIR, but {cfg.OUTPUT_DIR} has no "
                f"{LAST_CHECKPOINT}"
            )
        last = resolve_checkpoint(cfg.OUTPUT_DIR)
        logger.info(f"evaluating the last checkpoint of OUTPUT_DIR: {last}")
        return str(last)
    if not weights or _resumes(cfg, options) or urlparse(weights).scheme:
        return weights
    path, mark, query = weights.partition("?")  # as in ?matching_heuristics=True
    return f"{resolve_checkpoint(path)}{mark}{query}"


def _resumes(cfg: Any, options: TrainOptions) -> bool:
    """Whether the run goes on from a checkpoint, so that ``MODEL.WEIGHTS`` is not read."""
    return options.resume and _has_checkpoint(cfg)


def _has_checkpoint(cfg: Any) -> bool:
    return (Path(cfg.OUTPUT_DIR) / LAST_CHECKPOINT).is_file()


def _attempt(step: Callable[[], Any]) -> tuple[Any, list[str]]:
    """Return the result of ``step``, or None and what it found wrong."""
    try:
        return step(), []
    except ConfigError as error:
        return None, error.problems
    except UserError as error:
        return None, [str(error)]


def _fetch(weights: str) -> None:
    """Download once, before processes start; they find the file in the cache."""
    try:
        local = PathManager.get_local_path(urlparse(weights)._replace(query="").geturl())
        if not Path(local).is_file():
            raise OSError(f"no such file, or no known kind of address: {local}")
    except (OSError, KeyError, RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"MODEL.WEIGHTS {weights} cannot be fetched ({type(error).__name__}: {error}). "
            "Download it where there is a network and give its path, or train from scratch with "
            'MODEL.WEIGHTS "" MODEL.BACKBONE.FREEZE_AT 0 MODEL.RESNETS.NORM BN'
        ) from error
