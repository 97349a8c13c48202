"""SEQL: the softmax equalization loss (Tan et al., CVPR 2020, section 4, eq. 9-11).

The paper leaves open how often beta is drawn. Here it is drawn independently for every sample and
category: the expected push on a tail category is the same as with one draw for a whole batch, but
each batch then holds close to a share 1 - gamma of it, where a single draw would give all of it
once in 1 / (1 - gamma) batches and nothing between, a variance larger by a factor of the batch
size. BagofTricks-LT (Zhang et al., AAAI 2021) also draws per sample and category.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from eql_d2.losses.base import (
    check_logits_and_labels,
    check_tail_mask,
    check_tail_mask_values,
    compute_dtype,
)
from eql_d2.losses.softmax import SoftmaxLoss, mean_over_rois


def softmax_equalization_loss(
    logits: Tensor,
    labels: Tensor,
    tail_mask: Tensor,
    *,
    gamma: float = 0.9,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Softmax cross-entropy in whose denominator tail categories of other samples go missing.

    ``L = -1/R sum_r log(exp(z_ry) / sum_k w_rk exp(z_rk))`` with
    ``w_rk = 1 - beta_rk T_k (1 - y_rk)`` and ``beta_rk ~ Bernoulli(gamma)``, drawn independently
    for every sample and category (why: see the head of this file). The weights are added as
    ``log w`` inside the log-sum-exp: -inf where w = 0, so nothing overflows and no gradient flows
    there. ``gamma = 0`` is plain cross-entropy.

    Args:
        logits: (R, C) floating point; half precisions are computed in float32.
        labels: (R,) int64 in 0..C-1.
        tail_mask: (C,) bool, or floating point in [0, 1] (not checked here, but where
            :class:`SoftmaxEqualizationLoss` is made). A background logit, if there is one, is
            False in it: unlike EQL there is no E(r), and background is the most frequent of all.
        gamma: probability that beta is 1; the paper takes 0.9 to 0.95.
        generator: source of beta on the device of the logits; None: the global one.

    Returns:
        Scalar in float32 (float64 for float64 logits); 0, connected to the graph, for R = 0.

    Raises:
        ValueError: shapes or devices do not fit, gamma is outside [0, 1]; on a CPU also a label
            out of range.
        TypeError: labels, logits or the mask have a wrong type.
    """
    check_logits_and_labels(logits, labels)
    check_tail_mask(tail_mask, logits)
    _check_gamma(gamma)
    return mean_over_rois(_terms(logits, labels, tail_mask, gamma, generator))


class SoftmaxEqualizationLoss(SoftmaxLoss):
    """:func:`softmax_equalization_loss` as a module.

    In evaluation mode it is plain cross-entropy (beta = 0): deterministic, comparable between
    values of gamma, and the loss of the probabilities that :meth:`scores` gives.

    Args:
        tail_mask: (K,) bool, or floating point in [0, 1]; a buffer that is not saved.
        gamma: probability that a tail category is left out for a sample of another.
        background: detection, K + 1 logits, the last for background, which is never tail. False:
            plain image classification, K logits.

    Raises:
        ValueError: the mask is no vector or not in [0, 1], or gamma outside [0, 1].
        TypeError: the mask is neither bool nor floating point.
    """

    def __init__(self, tail_mask: Tensor, *, gamma: float = 0.9, background: bool = True) -> None:
        check_tail_mask(tail_mask)
        check_tail_mask_values(tail_mask)
        _check_gamma(gamma)
        super().__init__(len(tail_mask), background=background)
        self.gamma = gamma
        padded = F.pad(tail_mask.detach().clone(), (0, self.num_logits - self.num_classes))
        self.register_buffer("tail_mask", padded, persistent=False)
        self.tail_mask: Tensor

    def terms(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of every ROI, (R,), with beta from the global generator."""
        gamma = self.gamma if self.training else 0.0
        return _terms(logits, labels, self.tail_mask, gamma, None)

    def extra_repr(self) -> str:
        """Show what the loss was made with."""
        return f"{super().extra_repr()}, gamma={self.gamma}"


def _terms(
    logits: Tensor,
    labels: Tensor,
    tail_mask: Tensor,
    gamma: float,
    generator: torch.Generator | None,
) -> Tensor:
    """The loss of every ROI, (R,)."""
    logits = logits.to(compute_dtype(logits))
    if gamma > 0:
        draws = torch.rand(
            logits.shape, dtype=logits.dtype, device=logits.device, generator=generator
        )
        left_out = (draws < gamma) * tail_mask.detach().to(logits.dtype)
        left_out = left_out.scatter(1, labels[:, None], 0.0)
        logits = logits + torch.log1p(-left_out)
    return F.cross_entropy(logits, labels, reduction="none")


def _check_gamma(gamma: float) -> None:
    if not 0.0 <= gamma <= 1.0:
        raise ValueError(f"gamma must be between 0 and 1, got {gamma}")
