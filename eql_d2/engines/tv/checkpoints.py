"""Checkpoints: all that is needed to go on exactly, or to predict from the file alone."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eql_d2.checkpoint import LAST_CHECKPOINT, METADATA_KEY, load_checkpoint, resolve_checkpoint
from eql_d2.errors import UserError

logger = logging.getLogger("eql_d2.engines.tv")

FINAL = "model_final.pth"


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
    """
    content = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "iteration": progress.iteration,
        "seed": progress.seed,
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        METADATA_KEY: {**metadata, "iteration": progress.iteration - 1},
    }
    partial = path.with_name(path.name + ".partial")
    torch.save(content, partial)
    os.replace(partial, path)
    pointer = path.with_name(LAST_CHECKPOINT + ".partial")
    pointer.write_text(path.name, "utf-8")
    os.replace(pointer, path.with_name(LAST_CHECKPOINT))
    logger.info(f"saved {path}")


def resume(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Load everything that :func:`save_checkpoint` wrote, random state included, in place.

    Raises:
        UserError: the file is damaged, or is of another model or of weights alone.
    """
    content = load_checkpoint(path)
    missing = {"model", "optimizer", "iteration", "seed", "rng"} - set(content)
    if missing:
        raise UserError(
            f"{path} cannot be resumed: it lacks {', '.join(sorted(missing))}. To start from its "
            "weights, give it as MODEL.WEIGHTS without --resume"
        )
    load_model_state(model, content["model"], path)
    try:
        optimizer.load_state_dict(content["optimizer"])
    except ValueError as error:
        raise UserError(
            f"{path}: its optimizer state is for other parameter groups; were SOLVER.WEIGHT_DECAY* "
            f"or BIAS_LR_FACTOR changed? Resume with the same ones. [{error}]"
        ) from error
    torch.set_rng_state(content["rng"])
    if content["cuda_rng"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(content["cuda_rng"])
    return Progress(int(content["iteration"]), int(content["seed"]))


def load_model_state(model: nn.Module, state: Mapping[str, Tensor], source: Path) -> None:
    """Load a full state into the model in place.

    Raises:
        UserError: entries are missing, unknown or of another shape; all are counted, some named.
    """
    own = model.state_dict()
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


def load_weights(model: nn.Module, source: str) -> None:
    """Start from a checkpoint of this engine, or from torchvision's ImageNet ResNet, in place.

    Raises:
        UserError: the file is damaged, or is neither.
    """
    path = resolve_checkpoint(source)
    content = load_checkpoint(path)
    if METADATA_KEY in content and "model" in content:
        if content[METADATA_KEY].get("engine") != "torchvision":
            raise UserError(f"{path} was trained with Detectron2; run with --engine detectron2")
        load_model_state(model, content["model"], path)
        logger.info(f"weights: {path}, after {content['iteration']} iterations")
        return
    state = {k: v for k, v in content.items() if not k.startswith("fc.")}
    if "conv1.weight" not in state:
        raise UserError(
            f"{path} is neither a checkpoint of this engine nor a torchvision ResNet; its first "
            f"entries are {list(content)[:3]}"
        )
    body = model.get_submodule("backbone.net.body")
    optional = {k for k in [*body.state_dict(), *state] if k.endswith("num_batches_tracked")}
    state = {k: v for k, v in state.items() if k not in optional}
    state.update({k: v for k, v in body.state_dict().items() if k in optional})
    load_model_state(body, state, path)
    logger.info(f"weights: ResNet from {path}; pyramid and heads start at random")
