"""The losses as a reader of the paper would write them first: loops over Python floats."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor


def _log_sigmoid(z: float) -> float:
    return -math.log1p(math.exp(-z)) if z >= 0 else z - math.log1p(math.exp(z))


def _sigmoid(z: float) -> float:
    return math.exp(_log_sigmoid(z))


def _paper_eql(
    logits: Tensor, labels: Tensor, tail: Tensor, exclude_background: bool = True
) -> tuple[float, Tensor]:
    """Value and gradient of eq. 6-8, divided by the number of ROIs."""
    logits, tail = logits.detach(), tail.detach()
    rois, classes = logits.shape
    loss, gradient = 0.0, torch.zeros(rois, classes, dtype=torch.float64)
    for r in range(rois):
        is_foreground = int(labels[r]) != classes
        for j in range(classes):
            z, y = float(logits[r, j]), 1.0 if int(labels[r]) == j else 0.0
            e = 1.0 if is_foreground or not exclude_background else 0.0
            w = 1.0 - e * float(tail[j]) * (1.0 - y)
            loss -= w * (_log_sigmoid(z) if y else _log_sigmoid(-z))
            gradient[r, j] = w * (-_sigmoid(-z) if y else _sigmoid(z)) / rois
    return loss / rois, gradient


@pytest.fixture(scope="session")
def paper_eql() -> Callable[..., tuple[float, Tensor]]:
    return _paper_eql


def _paper_seql(logits: Tensor, labels: Tensor, beta_tail: Tensor) -> tuple[float, Tensor]:
    """Value and gradient of eq. 9-11 for given draws ``beta * T``, (R, C)."""
    logits = logits.detach()
    rois, classes = logits.shape
    loss, gradient = 0.0, torch.zeros(rois, classes, dtype=torch.float64)
    for r in range(rois):
        y = int(labels[r])
        w = [1.0 if k == y else 1.0 - float(beta_tail[r, k]) for k in range(classes)]
        exp = [w[k] * math.exp(float(logits[r, k])) for k in range(classes)]
        loss -= math.log(exp[y] / sum(exp))
        for k in range(classes):
            gradient[r, k] = (exp[k] / sum(exp) - (1.0 if k == y else 0.0)) / rois
    return loss / rois, gradient


@pytest.fixture(scope="session")
def paper_seql() -> Callable[..., tuple[float, Tensor]]:
    return _paper_seql


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """Function of (seed, rois, classes, dtype) -> leaf logits, labels 0..K, tail mask, all mixed.

    The first ROI is background, the second foreground of a tail category.
    """

    def make(
        seed: int = 0, rois: int = 9, classes: int = 7, dtype: torch.dtype = torch.float64
    ) -> tuple[Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(rois, classes, generator=generator, dtype=torch.float64) * 3
        labels = torch.randint(0, classes + 1, (rois,), generator=generator)
        tail = torch.rand(classes, generator=generator) < 0.5
        tail[0], tail[-1] = True, False
        labels[0], labels[1] = classes, 0
        return logits.to(dtype).requires_grad_(), labels, tail

    return make
