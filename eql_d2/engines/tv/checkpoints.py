"""Checkpoints: all that is needed to go on exactly, or to predict from the file alone."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from eql_d2.checkpoint import (
    LAST_CHECKPOINT,
    MAX_SEED,
    METADATA_KEY,
    check_finite,
    load_checkpoint,
    load_optimizer,
    model_state,
    resolve_checkpoint,
    stored_number,
)
from eql_d2.engines.tv.settings import Settings
from eql_d2.errors import ConfigError, UserError

logger = logging.getLogger("eql_d2.engines.tv")

# What torchvision's ImageNet classifiers were trained with, times 255.
RGB_MEAN = (123.675, 116.28, 103.53)
RGB_STD = (58.395, 57.12, 57.375)
STD_TOLERANCE = 2.0  # other people round these numbers, or exchange red and blue


@dataclass(frozen=True)
class Progress:
    """Where a training stands: iterations done, and the seed that the data order follows."""

    iteration: int
    seed: int


def checkpoint_name(iteration: int) -> str:
    """Return the file name after ``iteration`` finished iterations, as Detectron2 counts them."""
    return f"model_{iteration - 1:07d}.pth"


def save_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    metadata: Mapping[str, Any],
) -> None:
    """Write a checkpoint and make it the last one. A kill at any moment leaves a whole one.

    The file holds tensors and plain values only: ``torch.load(weights_only=True)`` reads it.

    Raises:
        UserError: weights, buffers or momentum are NaN or infinite; nothing is written.
    """
    device = next(model.parameters()).device
    content: dict[str, Any] = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "iteration": progress.iteration,
        "seed": progress.seed,
        "rng": torch.get_rng_state(),
        "cuda_rng": [torch.cuda.get_rng_state(device)] if device.type == "cuda" else [],
        METADATA_KEY: {**metadata, "iteration": progress.iteration - 1},
    }
    check_finite({**content["model"], "optimizer": content["optimizer"]}, path, saving=True)
    partial = path.with_name(path.name + ".partial")
    torch.save(content, partial)
    os.replace(partial, path)
    pointer = path.with_name(LAST_CHECKPOINT + ".partial")
    pointer.write_text(path.name, "utf-8")
    os.replace(pointer, path.with_name(LAST_CHECKPOINT))
    logger.info(f"saved {path}")


def resume(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Load everything that :func:`save_checkpoint` wrote, random state included, in place.

    The optimizer keeps its own hyper-parameters: who lowers the learning rate or changes the weight
    decay and resumes wants the new ones.

    Raises:
        UserError: the file is damaged, is of another model or of weights alone, or holds NaN or
            infinity.
    """
    content = load_checkpoint(path)
    missing = {"model", "optimizer", "iteration", "seed", "rng"} - set(content)
    if missing:
        raise UserError(
            f"{path} cannot be resumed: it lacks {', '.join(sorted(missing))}. To start from its "
            "weights, give it as MODEL.WEIGHTS without --resume"
        )
    progress = Progress(
        stored_number(content, "iteration", path), stored_number(content, "seed", path, MAX_SEED)
    )
    load_model_state(model, content["model"], path)
    load_optimizer(optimizer, content["optimizer"], path)
    device = next(model.parameters()).device
    try:
        torch.set_rng_state(content["rng"])
        if device.type == "cuda" and content.get("cuda_rng"):
            torch.cuda.set_rng_state(content["cuda_rng"][0], device)
    except (TypeError, AttributeError, LookupError, RuntimeError) as error:
        raise UserError(
            f"{path} cannot be resumed: the state of its random numbers is damaged. [{error}]"
        ) from error
    return progress


def load_model_state(model: nn.Module, state: Any, source: Path) -> None:
    """Load a full state into the model in place.

    Raises:
        UserError: it is none, or entries are missing, unknown or of another shape, or hold NaN or
            infinity; all are counted, some named.
    """
    own = model.state_dict()
    state = model_state(state, source)
    problems = [f"lacks {name}" for name in own if name not in state]
    problems += [f"has unknown {name}" for name in state if name not in own]
    problems += [
        f"{name} is {tuple(state[name].shape)}, the model needs {tuple(value.shape)}"
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    ]
    if problems:
        raise UserError(
            f"{source} does not fit the model of this configuration ({len(problems)} differences): "
            f"{'; '.join(problems[:4])}. Use the configuration it was trained with"
        )
    model.load_state_dict(state)


def load_weights(model: nn.Module, source: str | Path) -> None:
    """Load a checkpoint of this engine in place.

    Raises:
        UserError: the file is damaged, or is none.
    """
    path = resolve_checkpoint(source)
    if not _load_own(model, load_checkpoint(path), path):
        raise UserError(
            f"{path} is no checkpoint of this engine; give a model_final.pth, or the OUTPUT_DIR of "
            "a run"
        )


def load_initial_weights(model: nn.Module, settings: Settings) -> None:
    """Begin with ``MODEL.WEIGHTS``: a checkpoint of this engine, or torchvision's ResNet, in place.

    Raises:
        UserError: the file is damaged, or is neither.
        ConfigError: it is torchvision's ResNet, and the configuration feeds it other input than it
            was trained with.
    """
    path = resolve_checkpoint(settings.weights)
    content = load_checkpoint(path)
    if _load_own(model, content, path):
        return
    if "conv1.weight" not in content:
        raise UserError(
            f"{path} is neither a checkpoint of this engine nor a torchvision ResNet; its first "
            f"entries are {list(content)[:3]}"
        )
    check_resnet_input(settings)
    state = {k: v for k, v in model_state(content, path).items() if not k.startswith("fc.")}
    body = model.get_submodule("backbone.net.body")
    optional = {k for k in [*body.state_dict(), *state] if k.endswith("num_batches_tracked")}
    state = {k: v for k, v in state.items() if k not in optional}
    state.update({k: v for k, v in body.state_dict().items() if k in optional})
    load_model_state(body, state, path)
    logger.info(f"weights: ResNet from {path}; pyramid and heads start at random")


def check_resnet_input(settings: Settings) -> None:
    """Refuse to feed torchvision's ResNet what it was not trained on: silently, it trains worse.

    Raises:
        ConfigError: with the overrides that fix it.
    """
    given = settings.input
    close = max(abs(a - b) for a, b in zip(given.pixel_std, RGB_STD, strict=True)) < STD_TOLERANCE
    if given.channel_order == "RGB" and close and not settings.backbone.stride_in_1x1:
        return
    raise ConfigError(
        f"MODEL.WEIGHTS {settings.weights} is torchvision's ResNet, trained on RGB images over "
        f"their standard deviation; here INPUT.FORMAT is {given.channel_order}, MODEL.PIXEL_STD "
        f"{list(given.pixel_std)} and MODEL.RESNETS.STRIDE_IN_1X1 "
        f"{settings.backbone.stride_in_1x1}. Append INPUT.FORMAT RGB "
        f'MODEL.PIXEL_MEAN "{list(RGB_MEAN)}" MODEL.PIXEL_STD "{list(RGB_STD)}" '
        "MODEL.RESNETS.STRIDE_IN_1X1 False"
    )


def _load_own(model: nn.Module, content: Mapping[str, Any], path: Path) -> bool:
    """Load a checkpoint of this engine; False where ``content`` is none."""
    metadata = content.get(METADATA_KEY)
    if not isinstance(metadata, dict) or "model" not in content:
        return False
    if metadata.get("engine") != "torchvision":
        raise UserError(f"{path} was trained with Detectron2; run with --engine detectron2")
    load_model_state(model, content["model"], path)
    logger.info(f"weights: {path}, after {content.get('iteration')} iterations")
    return True
