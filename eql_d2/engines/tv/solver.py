"""SGD with Detectron2's parameter groups, learning-rate schedules and gradient clipping."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from eql_d2.engines.tv.settings import SolverSettings

NORM_LAYERS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.GroupNorm,
    nn.LayerNorm,
)


def build_optimizer(model: nn.Module, settings: SolverSettings) -> torch.optim.SGD:
    """Return SGD over the trainable parameters.

    Normalisation layers and biases have their own weight decay, biases their own factor on the
    learning rate. Each group carries its factor as ``lr_factor`` for :func:`set_learning_rate`.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    seen: set[nn.Parameter] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            factor, decay = 1.0, settings.weight_decay
            if isinstance(module, NORM_LAYERS):
                decay = settings.weight_decay_norm
            if name == "bias":
                factor = settings.bias_lr_factor
                if settings.weight_decay_bias is not None:
                    decay = settings.weight_decay_bias
            groups.setdefault((factor, decay), []).append(parameter)
    options: list[dict[str, Any]] = [
        {"params": parameters, "lr_factor": factor, "weight_decay": decay}
        for (factor, decay), parameters in groups.items()
    ]
    return torch.optim.SGD(
        options, lr=settings.base_lr, momentum=settings.momentum, nesterov=settings.nesterov
    )


def set_learning_rate(
    optimizer: torch.optim.Optimizer, settings: SolverSettings, iteration: int
) -> float:
    """Set every group's rate for this iteration in place and return the rate without factors."""
    rate = settings.base_lr * rate_factor(settings, iteration)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_factor"]
    return rate


def rate_factor(settings: SolverSettings, iteration: int) -> float:
    """Return the multiple of ``BASE_LR`` at an iteration, counted from 0.

    During warm-up the factor rises in a line to the schedule's value at the end of the warm-up, or
    stays constant, as Detectron2's ``WarmupParamScheduler``.
    """
    length = min(settings.warmup_iters, settings.max_iter)
    if iteration >= length:
        return _schedule(settings, iteration)
    start = settings.warmup_factor * _schedule(settings, 0)
    if settings.warmup_method == "constant":
        return start
    share = iteration / length
    return start * (1 - share) + _schedule(settings, length) * share


def _schedule(settings: SolverSettings, iteration: int) -> float:
    if settings.schedule == "WarmupCosineLR":
        end = settings.base_lr_end / settings.base_lr
        wave = 0.5 * (1 + math.cos(math.pi * iteration / settings.max_iter))
        return end + (1 - end) * wave
    steps = [step for step in settings.steps if step <= settings.max_iter]
    return float(settings.gamma ** bisect.bisect_right(steps, iteration))


def clip_gradients(parameters: Iterable[nn.Parameter], settings: SolverSettings) -> None:
    """Clip each parameter's gradient on its own, in place: to a norm, or by value.

    Per parameter, not over all of them: that is what Detectron2's ``CLIP_GRADIENTS`` does.
    """
    if settings.clip_type is None:
        return
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if settings.clip_type == "norm":
            nn.utils.clip_grad_norm_(parameter, settings.clip_value, settings.clip_norm_type)
        else:
            nn.utils.clip_grad_value_(parameter, settings.clip_value)
