"""What to log about a classifier on long-tailed data, for sigmoid and softmax losses alike.

Every statistic is a share in 0..1:

fg_accuracy
    Of the foreground ROIs, those whose best foreground category is their label. There is no
    background column in it, unlike Detectron2's ``fg_cls_accuracy``.
false_negative
    Of the foreground ROIs, those for which no foreground category reaches probability 0.5. With
    sigmoids: every classifier answers no; with a softmax: no category is more likely than all else
    together. Detectron2's definition (background has the best score) has no meaning without a
    background logit.
tail_loss_share
    Of the loss on foreground categories, the part on tail categories
    (:meth:`~eql_d2.losses.base.ClassificationLoss.loss_by_category`).
tail_gradient_share
    Of the sum of |dL/dlogit| on foreground categories, that on tail ones.
tail_positive_gradient_share
    Of the sum of |dL/dlogit| on tail categories, the part that pulls up (dL/dlogit < 0). This is
    the balance that EQL is about (its Fig. 1): near 0, tail categories are only ever pushed down.
head_positive_gradient_share
    The same for the categories that are not tail.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor

from eql_d2.losses.base import ClassificationLoss

EVEN_ODDS = 0.5


def classification_statistics(
    loss: ClassificationLoss, logits: Tensor, labels: Tensor, tail_mask: Tensor
) -> dict[str, Tensor]:
    """Describe one batch by 0-dim tensors on the device of the logits, without waiting for it.

    Neither the loss nor the global random generators are changed.

    Args:
        loss: whose logits these are.
        logits: (R, num_logits).
        labels: (R,) int64 in 0..K; K is background.
        tail_mask: (K,) bool; or floating point in [0, 1], then a category counts in that part.

    Returns:
        The shares described at the head of this file, float32, detached; NaN where there is
        nothing to take a share of.
    """
    logits = logits.detach()
    num_classes = loss.num_classes
    with _untouched_random_state(logits.device):
        gradient = _gradient(loss, logits, labels)[:, :num_classes].float()
    with _untouched_random_state(logits.device):  # the same draws again
        by_category = loss.loss_by_category(logits, labels)[:num_classes].float()
    tail = tail_mask.detach().to(device=logits.device, dtype=torch.float32)
    best_score, best = loss.scores(logits).float().max(dim=1)
    foreground = labels < num_classes
    pull = gradient.clamp(max=0).abs().sum(dim=0)
    size = gradient.abs().sum(dim=0)
    return {
        "fg_accuracy": _share(foreground & (best == labels), foreground),
        "false_negative": _share(foreground & (best_score < EVEN_ODDS), foreground),
        "tail_loss_share": _share(by_category * tail, by_category),
        "tail_gradient_share": _share(size * tail, size),
        "tail_positive_gradient_share": _share(pull * tail, size * tail),
        "head_positive_gradient_share": _share(pull * (1 - tail), size * (1 - tail)),
    }


def _share(part: Tensor, whole: Tensor) -> Tensor:
    return part.sum(dtype=torch.float32) / whole.sum(dtype=torch.float32)


def _gradient(loss: ClassificationLoss, logits: Tensor, labels: Tensor) -> Tensor:
    """Gradient of the loss with respect to the logits, (R, num_logits)."""
    with torch.enable_grad():
        leaf = logits.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss.value(leaf, labels), leaf)
    return gradient


def _untouched_random_state(device: torch.device) -> AbstractContextManager[None]:
    """Give a loss's draws back, so that how often one logs does not change the training."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])
