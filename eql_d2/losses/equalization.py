"""EQL: the equalization loss on sigmoids (Tan et al., CVPR 2020, arXiv 2003.05176, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from eql_d2.losses.base import (
    check_logits_and_labels,
    check_tail_mask,
    check_tail_mask_values,
)
from eql_d2.losses.sigmoid import SigmoidLoss
from eql_d2.losses.sigmoid_sum import NegativeWeights, sigmoid_loss


def equalization_loss(
    logits: Tensor, labels: Tensor, tail_mask: Tensor, *, exclude_background: bool = True
) -> Tensor:
    """Sigmoid cross-entropy in which foreground ROIs of others do not push tail categories down.

    ``L = 1/R sum_rj w_rj BCE(z_rj, y_rj)`` with ``w_rj = 1 - E_r T_j (1 - y_rj)`` (eq. 6-8).
    The paper's exception for an image's annotated positive and negative category sets is left out,
    as in the released code, whose author found that it does not help.

    Args:
        logits: (R, K) floating point; half precisions are computed in float32.
        labels: (R,) int64 in 0..K; K is background.
        tail_mask: (K,) bool T, or floating point in [0, 1] for the soft threshold functions of
            Table 3 (not checked here, but where :class:`EqualizationLoss` is made). No gradient
            flows into it.
        exclude_background: E_r = 0 for background ROIs, so that these still push every category
            down; False sets E_r = 1 everywhere (the ablation of Table 4).

    Returns:
        Scalar in float32 (float64 for float64 logits); 0, connected to the graph, for R = 0.

    Raises:
        ValueError: shapes or devices do not fit; on a CPU also a label out of range.
        TypeError: labels, logits or the mask have a wrong type.
    """
    check_logits_and_labels(logits, labels, background_logit=False)
    check_tail_mask(tail_mask, logits)
    return sigmoid_loss(logits, labels, NegativeWeights(tail_mask.detach(), exclude_background))


class EqualizationLoss(SigmoidLoss):
    """:func:`equalization_loss` as a module with K logits.

    Args:
        tail_mask: (K,) bool, or floating point in [0, 1]. A buffer that is not saved: it follows
            from the annotations, and a checkpoint must not override them.
        exclude_background: E(r) of eq. 7 (True), or E = 1 (False, Table 4).
        prior_prob: probability that every classifier gives before training.

    Raises:
        ValueError: the mask is no vector or not in [0, 1], or the prior not in (0, 1).
        TypeError: the mask is neither bool nor floating point.
    """

    def __init__(
        self, tail_mask: Tensor, *, exclude_background: bool = True, prior_prob: float = 0.001
    ) -> None:
        check_tail_mask(tail_mask)
        check_tail_mask_values(tail_mask)
        super().__init__(len(tail_mask), prior_prob=prior_prob)
        self.exclude_background = exclude_background
        self.register_buffer("tail_mask", tail_mask.detach().clone(), persistent=False)
        self.tail_mask: Tensor

    @property
    @torch.jit.unused
    def weights(self) -> NegativeWeights:
        """The weights ``1 - E_r T_j`` of the negatives."""
        return NegativeWeights(self.tail_mask, self.exclude_background)

    def extra_repr(self) -> str:
        """Show what the loss was made with."""
        return f"{super().extra_repr()}, exclude_background={self.exclude_background}"
