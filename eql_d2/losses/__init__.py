"""Classification losses for long-tailed data, under one contract."""

from eql_d2.losses.base import ClassificationLoss
from eql_d2.losses.equalization import EqualizationLoss, equalization_loss
from eql_d2.losses.registry import LOSSES, build_loss
from eql_d2.losses.sigmoid import SigmoidCrossEntropyLoss, sigmoid_cross_entropy
from eql_d2.losses.softmax import SoftmaxCrossEntropyLoss
from eql_d2.losses.softmax_equalization import (
    SoftmaxEqualizationLoss,
    softmax_equalization_loss,
)
from eql_d2.losses.statistics import classification_statistics
from eql_d2.losses.thresholds import THRESHOLD_FUNCTIONS, THRESHOLD_PARAMETERS, threshold

__all__ = [
    "LOSSES",
    "THRESHOLD_FUNCTIONS",
    "THRESHOLD_PARAMETERS",
    "ClassificationLoss",
    "EqualizationLoss",
    "SigmoidCrossEntropyLoss",
    "SoftmaxCrossEntropyLoss",
    "SoftmaxEqualizationLoss",
    "build_loss",
    "classification_statistics",
    "equalization_loss",
    "sigmoid_cross_entropy",
    "softmax_equalization_loss",
    "threshold",
]
