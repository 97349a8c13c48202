"""Plain sigmoid cross-entropy, the baseline of EQL, and what all sigmoid losses share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eql_d2.losses.base import (
    ClassificationLoss,
    check_logits_and_labels,
    compute_dtype,
    prior_bias,
)
from eql_d2.losses.sigmoid_sum import NegativeWeights, elementwise_sigmoid_loss, sigmoid_loss


def sigmoid_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum of the K binary cross-entropies of every ROI, divided by the number of ROIs.

    Equals ``equalization_loss`` with no tail category (lambda = 0), the sigmoid baseline of EQL.

    Args:
        logits: (R, K) floating point; half precisions are computed in float32.
        labels: (R,) int64 in 0..K; K is background, whose target is all zeros.

    Returns:
        Scalar in float32 (float64 for float64 logits); 0 if there are no ROIs.

    Raises:
        ValueError, TypeError: shapes, devices, types or, on a CPU, labels do not fit.
    """
    check_logits_and_labels(logits, labels, background_logit=False)
    return sigmoid_loss(logits, labels, NegativeWeights())


class SigmoidLoss(ClassificationLoss):
    """A loss over K independent sigmoids; background is "no category" and has no logit.

    Attributes:
        prior_prob: probability that every classifier gives before training.
        weights: the weights of the negatives.
    """

    def __init__(self, num_classes: int, *, prior_prob: float) -> None:
        super().__init__(num_classes, num_logits=num_classes)
        self.prior_prob = prior_prob
        self._prior_bias = prior_bias(prior_prob)

    @property
    @torch.jit.unused
    def weights(self) -> NegativeWeights:
        """The weights of the negatives: none are left out."""
        return NegativeWeights()

    def init_classifier(self, linear: nn.Linear) -> None:
        """Initialise weight ~ N(0, 0.01) and the bias at which every sigmoid gives the prior.

        Raises:
            ValueError: the layer has another width, or no bias.
        """
        super().init_classifier(linear)
        if linear.bias is None:
            raise ValueError(f"{type(self).__name__} needs a classifier with a bias for its prior")
        nn.init.constant_(linear.bias, self._prior_bias)

    def value(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of (R, K) logits: the sum over ROIs and categories, divided by R."""
        check_logits_and_labels(logits, labels, self.num_logits, background_logit=False)
        return sigmoid_loss(logits, labels, self.weights)

    @torch.no_grad()
    def loss_by_category(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the (K,) sums over ROIs, divided by R."""
        check_logits_and_labels(logits, labels, self.num_logits, background_logit=False)
        terms = elementwise_sigmoid_loss(logits, labels, self.weights)
        return terms.sum(dim=0) / max(logits.shape[0], 1)

    def scores(self, logits: Tensor) -> Tensor:
        """Return (R, K) probabilities: the sigmoids, each for itself."""
        return torch.sigmoid(logits.to(compute_dtype(logits)))

    def extra_repr(self) -> str:
        """Show what the loss was made with."""
        return f"num_classes={self.num_classes}, prior_prob={self.prior_prob}"


class SigmoidCrossEntropyLoss(SigmoidLoss):
    """Plain sigmoid cross-entropy, the baseline of EQL (its lambda = 0).

    Args:
        num_classes: K.
        prior_prob: probability that every classifier gives before training.
    """

    def __init__(self, num_classes: int, *, prior_prob: float = 0.001) -> None:
        super().__init__(num_classes, prior_prob=prior_prob)
