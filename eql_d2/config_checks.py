"""Checks on configuration values that need no data: all problems are found before any work."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from fvcore.common.config import CfgNode

from eql_d2.config import leaves
from eql_d2.config_values import items
from eql_d2.errors import UserError
from eql_d2.files import check_output_folder
from eql_d2.losses import LOSSES, THRESHOLD_PARAMETERS

# Losses that mean something only with a tail; the others ignore lambda.
TAIL_LOSSES = ("EQL", "SEQL")
CHECKPOINT = "checkpoint"  # what a user calls the one that is evaluated or resumed

# The numbers in a configuration that a model of a file is built and run with: least and most by
# prefix of the key; the longest prefix counts. What is as large as the weights is not bounded here
# but by them (eql_d2.checkpoint.model_of_file).
PREDICTION_RANGES: Mapping[str, tuple[float, float]] = {
    "MODEL.": (-100_000, 100_000),
    "MODEL.EQL.LOG_PERIOD": (1, 2**31),
    "MODEL.ROI_HEADS.NUM_CLASSES": (1, 100_000),
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": (0, 1),
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": (0, 1),
    "MODEL.RPN.NMS_THRESH": (0, 1),
    "MODEL.RPN.PRE_NMS_TOPK_TEST": (1, 100_000),
    "MODEL.RPN.POST_NMS_TOPK_TEST": (1, 10_000),
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": (1, 128),
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": (0, 32),
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": (1, 128),
    "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": (0, 32),
    "INPUT.MIN_SIZE_TEST": (0, 10_000),
    "INPUT.MAX_SIZE_TEST": (1, 10_000),
    "TEST.DETECTIONS_PER_IMAGE": (-1, 100_000),
}


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


def config_warnings(cfg: CfgNode, learning_rate: Callable[[int], float]) -> list[str]:
    """Return what is legitimate, as in a rehearsal, and yet trains otherwise than it looks.

    Args:
        cfg: a tree without :func:`config_problems`; with ``SOLVER.REFERENCE_WORLD_SIZE`` the scaled
            one, which is what is trained with.
        learning_rate: of an iteration counted from 0, in the engine's own schedule.
    """
    solver = cfg.SOLVER
    last = solver.MAX_ITER - 1
    by_steps = solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR"
    steps = list(solver.STEPS) if by_steps else []
    warnings = []
    if solver.WARMUP_ITERS >= min([solver.MAX_ITER, *steps]):
        # A warm-up leads to the schedule's value at its own end, where the rate is lowered already;
        # it rises until then, and what follows it only falls.
        end = min(solver.WARMUP_ITERS, solver.MAX_ITER)
        highest = max(learning_rate(i) for i in {0, max(end - 1, 0), min(end, last)})
        first = f" and the first of SOLVER.STEPS {steps}" if steps else ""
        warnings.append(
            f"SOLVER.BASE_LR is {solver.BASE_LR:g}, but the learning rate reaches at most "
            f"{highest:.3g}: the warm-up of SOLVER.WARMUP_ITERS {solver.WARMUP_ITERS} iterations "
            f"is too long; set it below SOLVER.MAX_ITER {solver.MAX_ITER}{first}"
        )
    late = [step for step in steps if step > last]
    if late:
        come = [step for step in steps if step <= last]
        warnings.append(
            f"SOLVER.STEPS {late} are not below SOLVER.MAX_ITER {solver.MAX_ITER}: the learning "
            f"rate is {f'lowered at {come} only' if come else 'never lowered'}. Set SOLVER.STEPS "
            "below SOLVER.MAX_ITER, or to [] for a constant rate"
        )
    return warnings


def prediction_problems(cfg: CfgNode) -> list[str]:
    """Return which numbers of a stranger's configuration no model is built or run with.

    Args:
        cfg: the tree that a checkpoint holds.
    """
    problems = []
    for name, value in leaves(cfg):
        prefix = max((p for p in PREDICTION_RANGES if name.startswith(p)), key=len, default=None)
        if prefix is None:
            continue
        low, high = PREDICTION_RANGES[prefix]
        numbers = [n for n in items([value]) if isinstance(n, (int, float))]
        bad = [n for n in numbers if not low <= n <= high]  # NaN is in no range
        if bad:
            problems.append(f"{name} must lie in [{low}, {high}], got {bad[0]}")
    return problems


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
    test: Mapping[int, str],
    others: Mapping[str, Mapping[int, str]],
) -> list[str]:
    """Return where class count and categories disagree.

    Args:
        cfg: configuration tree.
        test_json: the test annotations, for messages.
        test: names of their categories by id, as :func:`category_difference` takes them.
        others: the same of every other source, by what a user calls it.
    """
    problems = []
    num_classes = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    if num_classes not in (-1, len(test)):
        problems.append(
            f"MODEL.ROI_HEADS.NUM_CLASSES is {num_classes} but {test_json} has {len(test)} "
            f"categories; set it to {len(test)}, or to -1 to take it from the data"
        )
    for name, categories in others.items():
        difference = category_difference(categories, test)
        if difference:
            hint = "Both must have the same ids and names"
            if name.startswith(CHECKPOINT):
                hint += (
                    "; to train these weights on other categories, begin a new run with them as "
                    "MODEL.WEIGHTS, without --resume"
                )
            problems.append(
                f"{name} has {len(categories)} categories, DATA.TEST_JSON {test_json} has "
                f"{len(test)}, and {difference}. {hint}"
            )
    return problems


def category_difference(former: Mapping[int, str], latter: Mapping[int, str]) -> str:
    """Say where two vocabularies differ: how often, and the first categories; "" where they agree.

    Args:
        former: category names by dataset id, in ascending order of the ids, which is the order of
            the classifier's outputs.
        latter: the same of another source.
    """
    ids = sorted({*former, *latter})
    differing = [i for i in ids if former.get(i) != latter.get(i)]
    if not differing:
        return ""
    shown = "; ".join(
        f"id {i} is {_category(former, i)} in the former, {_category(latter, i)} in the latter"
        for i in differing[:3]
    )
    shifted = list(former.values()) == list(latter.values())
    names = "; the names agree in order, so the ids seem to be shifted" if shifted else ""
    return f"{len(differing)} of {len(ids)} ids differ (first: {shown}){names}"


def _category(categories: Mapping[int, str], category_id: int) -> str:
    if category_id not in categories:
        return "missing"
    name = repr(categories[category_id])
    return name if len(name) <= 60 else f"{name[:57]}..."


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
    bad = [x for x in loss.THRESHOLD_PARAMETERS if type(x) not in (int, float)]
    if bad:
        return [f"MODEL.EQL.LOSS.THRESHOLD_PARAMETERS must hold numbers, got {bad[0]!r}"]
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
    for key in ("MOMENTUM", "WEIGHT_DECAY", "WEIGHT_DECAY_NORM", "WARMUP_ITERS"):
        if solver[key] < 0:
            problems.append(f"SOLVER.{key} must be 0 or more, got {solver[key]}")
    if cfg.SEED >= 2**63:
        problems.append(f"SEED must be below 2**63 (negative: one is drawn), got {cfg.SEED}")
    if not isinstance(solver.WEIGHT_DECAY_BIAS, (int, float, type(None))):  # None takes any value
        problems.append(
            "SOLVER.WEIGHT_DECAY_BIAS must be a number, or None for SOLVER.WEIGHT_DECAY, got "
            f"{solver.WEIGHT_DECAY_BIAS!r}"
        )
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
