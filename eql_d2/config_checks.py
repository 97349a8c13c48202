"""Checks on configuration values that need no data: all problems are found before any work."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from fvcore.common.config import CfgNode

from eql_d2.errors import UserError
from eql_d2.files import check_output_folder
from eql_d2.losses import LOSSES, THRESHOLD_PARAMETERS

# Losses that mean something only with a tail; the others ignore lambda.
TAIL_LOSSES = ("EQL", "SEQL")


def config_problems(cfg: CfgNode) -> list[str]:
    """Return what is wrong with the values of ``cfg``, one sentence a problem; [] when nothing."""
    return [
        *loss_problems(cfg),
        *_data_problems(cfg),
        *_solver_problems(cfg),
        *_sampling_problems(cfg),
        *_machine_problems(cfg),
        *_output_problems(cfg),
    ]


def loss_problems(cfg: CfgNode) -> list[str]:
    """Return what is wrong with ``MODEL.EQL.LOSS``; asked by runs, and where a loss is built."""
    loss = cfg.MODEL.EQL.LOSS
    problems = []
    if loss.NAME not in LOSSES:
        close = difflib.get_close_matches(loss.NAME, LOSSES, n=1, cutoff=0.4)
        hint = f"; did you mean {close[0]}?" if close else ""
        problems.append(
            f"MODEL.EQL.LOSS.NAME must be one of {', '.join(LOSSES)}, got {loss.NAME!r}{hint}"
        )
    for key, high in (("LAMBDA", 1.0), ("TAIL_RATIO", 1.0), ("GAMMA", 1.0)):
        if not 0.0 <= loss[key] <= high:
            problems.append(f"MODEL.EQL.LOSS.{key} must lie in [0, 1], got {loss[key]}")
    if not 0.0 < loss.PRIOR_PROB < 1.0:
        problems.append(f"MODEL.EQL.LOSS.PRIOR_PROB must lie in (0, 1), got {loss.PRIOR_PROB}")
    if loss.LAMBDA > 0 and loss.TAIL_RATIO > 0:
        problems.append(
            f"MODEL.EQL.LOSS.LAMBDA ({loss.LAMBDA}) and TAIL_RATIO ({loss.TAIL_RATIO}) both choose "
            "the tail; set one of them to 0"
        )
    if needs_tail(cfg) and loss.LAMBDA == 0 and loss.TAIL_RATIO == 0:
        problems.append(
            f"{loss.NAME} needs MODEL.EQL.LOSS.LAMBDA (LVIS v0.5: 0.00177, v1: 0.0011) or "
            "TAIL_RATIO (0.02 to 0.10 for your own data); without a tail it is its own baseline, "
            "SigmoidCE or SoftmaxCE"
        )
    return problems + _threshold_problems(cfg)


def needs_tail(cfg: CfgNode) -> bool:
    """Whether the loss is one that, without a category below lambda, is its own baseline."""
    loss = cfg.MODEL.EQL.LOSS
    return loss.NAME in TAIL_LOSSES and loss.THRESHOLD_FUNCTION == "step"


def mask_problems(cfg: CfgNode, has_masks: Mapping[str, bool]) -> list[str]:
    """Return which annotation files lack the masks that ``MODEL.MASK_ON`` asks for."""
    if not cfg.MODEL.MASK_ON:
        return []
    return [
        f"MODEL.MASK_ON is True but {name} has instances without a segmentation; set it to False "
        "to train boxes alone"
        for name, there in has_masks.items()
        if not there
    ]


def fit_problems(
    cfg: CfgNode,
    test_json: Path,
    test_ids: Sequence[int],
    named_ids: Mapping[str, Sequence[int]],
) -> list[str]:
    """Return where class count and category lists disagree.

    Args:
        cfg: configuration tree.
        test_json: the test annotations, for messages.
        test_ids: their category ids.
        named_ids: category ids of every other source, by what a user calls it.
    """
    problems = []
    num_classes = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    if num_classes not in (-1, len(test_ids)):
        problems.append(
            f"MODEL.ROI_HEADS.NUM_CLASSES is {num_classes} but {test_json} has {len(test_ids)} "
            f"categories; set it to {len(test_ids)}, or to -1 to take it from the data"
        )
    for name, ids in named_ids.items():
        if tuple(ids) != tuple(test_ids):
            missing = sorted(set(test_ids) - set(ids))
            extra = sorted(set(ids) - set(test_ids))
            problems.append(
                f"{name} has {len(ids)} categories, DATA.TEST_JSON {test_json} has "
                f"{len(test_ids)}; ids only in the test file: {missing[:5]}, only in the "
                f"former: {extra[:5]}. Both must list the same categories"
            )
    return problems


def _threshold_problems(cfg: CfgNode) -> list[str]:
    loss = cfg.MODEL.EQL.LOSS
    if loss.THRESHOLD_FUNCTION not in THRESHOLD_PARAMETERS:
        return [
            f"MODEL.EQL.LOSS.THRESHOLD_FUNCTION must be one of {', '.join(THRESHOLD_PARAMETERS)}, "
            f"got {loss.THRESHOLD_FUNCTION!r}"
        ]
    wanted = len(THRESHOLD_PARAMETERS[loss.THRESHOLD_FUNCTION])
    given = len(loss.THRESHOLD_PARAMETERS)
    if given not in (0, wanted):
        return [
            f"MODEL.EQL.LOSS.THRESHOLD_PARAMETERS needs {wanted} numbers (or none) for "
            f"{loss.THRESHOLD_FUNCTION}, got {given}"
        ]
    return []


def _data_problems(cfg: CfgNode) -> list[str]:
    data = cfg.DATA
    problems = []
    for key in ("TRAIN", "TEST"):
        if cfg.DATASETS[key]:
            problems.append(
                f"DATASETS.{key} is not read; give DATA.{key}_JSON and DATA.{key}_IMAGES instead "
                "(no registration needed)"
            )
    if data.GENERATE not in ("", "longtail_shapes"):
        problems.append(f"DATA.GENERATE must be longtail_shapes or empty, got {data.GENERATE!r}")
    given = [k for k in ("TRAIN_JSON", "TEST_JSON") if data[k]]
    if data.GENERATE and given:
        problems.append(
            f"DATA.GENERATE makes its own data, but DATA.{' and DATA.'.join(given)} are set too; "
            "empty one of the two"
        )
    if data.GROUP_MODE not in ("counts", "quantiles"):
        problems.append(f"DATA.GROUP_MODE must be counts or quantiles, got {data.GROUP_MODE!r}")
    if not 0 <= data.RARE_MAX_IMAGES < data.COMMON_MAX_IMAGES:
        problems.append(
            "DATA.RARE_MAX_IMAGES must be below DATA.COMMON_MAX_IMAGES, got "
            f"{data.RARE_MAX_IMAGES} and {data.COMMON_MAX_IMAGES}"
        )
    return problems


def _solver_problems(cfg: CfgNode) -> list[str]:
    solver = cfg.SOLVER
    problems = []
    for key in ("MAX_ITER", "IMS_PER_BATCH", "CHECKPOINT_PERIOD"):
        if solver[key] < 1:
            problems.append(f"SOLVER.{key} must be at least 1, got {solver[key]}")
    if solver.BASE_LR <= 0:
        problems.append(f"SOLVER.BASE_LR must be positive, got {solver.BASE_LR}")
    steps = list(solver.STEPS)
    if steps != sorted(set(steps)):
        problems.append(f"SOLVER.STEPS must increase, got {steps}")
    return problems


def _sampling_problems(cfg: CfgNode) -> list[str]:
    loader = cfg.DATALOADER
    problems = []
    if loader.SAMPLER_TRAIN == "RepeatFactorTrainingSampler" and loader.REPEAT_THRESHOLD <= 0:
        problems.append(
            "RepeatFactorTrainingSampler repeats nothing with DATALOADER.REPEAT_THRESHOLD "
            f"{loader.REPEAT_THRESHOLD}; set it above 0 (LVIS: 0.001)"
        )
    if loader.NUM_WORKERS < 0:
        problems.append(f"DATALOADER.NUM_WORKERS must be 0 or more, got {loader.NUM_WORKERS}")
    if cfg.MODEL.EQL.LOG_PERIOD < 1:
        problems.append(f"MODEL.EQL.LOG_PERIOD must be at least 1, got {cfg.MODEL.EQL.LOG_PERIOD}")
    return problems


def _machine_problems(cfg: CfgNode) -> list[str]:
    device = str(cfg.MODEL.DEVICE)
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        return [f"MODEL.DEVICE must be auto, cpu, cuda or cuda:N, got {device!r}"]
    if device.startswith("cuda") and not torch.cuda.is_available():
        return [
            f"MODEL.DEVICE is {device} but torch {torch.__version__} sees no GPU; set it to auto "
            "or cpu, or install a torch build that fits the driver"
        ]
    return []


def _output_problems(cfg: CfgNode) -> list[str]:
    try:
        check_output_folder(cfg.OUTPUT_DIR, "OUTPUT_DIR")
    except UserError as error:
        return [str(error)]
    return []
