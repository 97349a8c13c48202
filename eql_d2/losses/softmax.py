"""Softmax cross-entropy, the common baseline, with or without a background logit."""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from eql_d2.losses.base import ClassificationLoss, check_logits_and_labels, compute_dtype


class SoftmaxLoss(ClassificationLoss):
    """A loss over one softmax: one term a ROI, averaged over ROIs.

    The mean is the sum over ROIs divided by R, as in the sigmoid losses, whose ROIs have K terms.

    Args:
        num_classes: K.
        background: detection, K + 1 logits, the last for background, labels in 0..K. False: plain
            image classification, K logits, labels in 0..K-1.
    """

    def __init__(self, num_classes: int, *, background: bool = True) -> None:
        super().__init__(num_classes, num_logits=num_classes + int(background))

    @abstractmethod
    def terms(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of every ROI, (R,)."""

    def value(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over ROIs of (R, num_logits) logits; 0, connected, for R = 0."""
        check_logits_and_labels(logits, labels, self.num_logits)
        return mean_over_rois(self.terms(logits, labels))

    @torch.no_grad()
    def loss_by_category(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the (num_logits,) sums of the ROIs' terms at their labels, divided by R."""
        check_logits_and_labels(logits, labels, self.num_logits)
        terms = self.terms(logits, labels)
        sums = terms.new_zeros(self.num_logits).index_add(0, labels, terms)
        return sums / max(logits.shape[0], 1)

    def scores(self, logits: Tensor) -> Tensor:
        """Return (R, K) probabilities of the foreground categories."""
        probabilities = F.softmax(logits, dim=1, dtype=compute_dtype(logits))
        return probabilities[:, : self.num_classes]

    def extra_repr(self) -> str:
        """Show what the loss was made with."""
        return f"num_classes={self.num_classes}, num_logits={self.num_logits}"


class SoftmaxCrossEntropyLoss(SoftmaxLoss):
    """Softmax cross-entropy, the mean over ROIs."""

    def terms(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy of every ROI, (R,)."""
        return F.cross_entropy(logits.to(compute_dtype(logits)), labels, reduction="none")


def mean_over_rois(terms: Tensor) -> Tensor:
    """Mean of (R,) terms, 0 and connected to the graph for R = 0 (where a mean is NaN)."""
    return terms.sum() / max(len(terms), 1)
