"""The contract between a classification loss and a detection head.

Shape legend used by every loss in this package:

    R   ROIs (region proposals) in the batch, foreground and background
    K   foreground categories
    C   ``num_logits``, the width of the classifier: K, K + 1, ... as the loss decides

Labels are int64 in ``0..K``; ``K`` means background.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class ClassificationLoss(nn.Module, ABC):
    """A loss that owns all that depends on its form: logit count, initial bias, loss and scores.

    A head asks the loss for these instead of knowing them, so a sigmoid loss cannot meet a
    softmax decoder. A loss with state keeps it in persistent buffers and overrides
    :meth:`forward`, the only method that may change it, and in training mode alone.

    TorchScript compiles :meth:`scores` and nothing else; what else it would look at, a property or
    an overridden :meth:`forward`, is marked ``torch.jit.unused``, and annotations of buffers stand
    in ``__init__``.

    Attributes:
        num_classes: K, the number of foreground categories.
        num_logits: C, the width the classifier must have.
    """

    num_classes: int
    num_logits: int

    def __init__(self, num_classes: int, num_logits: int) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        self.num_classes = num_classes
        self.num_logits = num_logits

    def init_classifier(self, linear: nn.Linear) -> None:
        """Initialise the classification layer in place: weight ~ N(0, 0.01), bias 0.

        Args:
            linear: layer with ``out_features == num_logits``.

        Raises:
            ValueError: the layer has another width.
        """
        if linear.out_features != self.num_logits:
            raise ValueError(
                f"{type(self).__name__} needs a classifier with {self.num_logits} outputs, "
                f"got {linear.out_features}"
            )
        nn.init.normal_(linear.weight, std=0.01)
        if linear.bias is not None:
            nn.init.zeros_(linear.bias)

    @torch.jit.unused
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return :meth:`value`; a loss with state also updates it here, in training mode."""
        return self.value(logits, labels)

    @abstractmethod
    def value(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of ``(R, num_logits)`` logits and ``(R,)`` labels.

        It is that of the module's mode but changes no state in either: with the same state and the
        same random draws it always gives the same value and gradient.
        """

    @abstractmethod
    def loss_by_category(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Split :meth:`value` over logits, for logging: ``(num_logits,)``, detached.

        A sigmoid loss counts a term where its logit is; a softmax loss, which has one term a ROI,
        at the ROI's label.
        """

    @abstractmethod
    def scores(self, logits: Tensor) -> Tensor:
        """Return ``(R, K)`` foreground probabilities, by which detections are ranked."""


def compute_dtype(logits: Tensor) -> torch.dtype:
    """Type of a loss's arithmetic: float64 for float64 logits, float32 for all others."""
    return torch.promote_types(logits.dtype, torch.float32)


def prior_bias(prior_prob: float) -> float:
    """Bias at which a sigmoid gives ``prior_prob`` before training: ``log(p / (1 - p))``.

    With K independent sigmoids a bias of zero starts at ``K log 2`` a ROI (about 850 for
    K = 1230), which overflows half precision; a prior of 0.001 starts near 1.2. Source: RetinaNet
    (Lin et al., ICCV 2017, section 3.3) and the released code of EQL.

    Raises:
        ValueError: the prior is not strictly between 0 and 1.
    """
    if not 0.0 < prior_prob < 1.0:
        raise ValueError(f"prior_prob must be strictly between 0 and 1, got {prior_prob}")
    return math.log(prior_prob / (1.0 - prior_prob))


def check_logits_and_labels(
    logits: Tensor, labels: Tensor, num_logits: int | None = None, *, background_logit: bool = True
) -> None:
    """Check shapes, types and devices, and on a CPU the range of the labels.

    Elsewhere, and in compiled code, reading labels would stall every iteration. There a sigmoid
    loss takes a label above K for background, and compiled also one below 0; any other wrong label
    is an index out of range, at which the device stops.

    Args:
        logits: to be ``(R, num_logits)`` and floating point.
        labels: to be ``(R,)`` int64 on the same device.
        num_logits: None: any number but 0.
        background_logit: every label has a logit. False: background, the highest, has none.

    Raises:
        ValueError: ``logits`` is not ``(R, num_logits)`` or ``labels`` not ``(R,)``, they are on
            different devices, or a label is out of range.
        TypeError: ``labels`` is not int64 or ``logits`` not floating point.
    """
    shape = tuple(logits.shape)
    if len(shape) != 2 or shape[1] == 0 or (num_logits is not None and shape[1] != num_logits):
        raise ValueError(f"logits must be (R, {num_logits or 'C'}), got {shape}")
    if labels.shape != logits.shape[:1]:
        raise ValueError(
            f"labels must be ({logits.shape[0]},) to match logits, got {tuple(labels.shape)}"
        )
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating point, got {logits.dtype}")
    if labels.dtype != torch.int64:
        raise TypeError(f"labels must be int64, got {labels.dtype}")
    if labels.device != logits.device:
        raise ValueError(f"labels are on {labels.device}, logits on {logits.device}")
    if labels.device.type == "cpu" and not torch.compiler.is_compiling():
        _check_label_range(labels, shape[1], background_logit)


def _check_label_range(labels: Tensor, num_logits: int, background_logit: bool) -> None:
    if not len(labels):
        return
    highest = num_logits - 1 if background_logit else num_logits
    low, high = (int(bound) for bound in labels.aminmax())
    if low < 0 or high > highest:
        meaning = "" if background_logit else f" (K = {highest} is background)"
        raise ValueError(
            f"labels must be in 0..{highest}{meaning} with {num_logits} logits, "
            f"got {low if low < 0 else high}"
        )


def check_tail_mask(tail_mask: Tensor, logits: Tensor | None = None) -> None:
    """Check the tail mask's type, and that it fits the logits; its values are not read.

    Raises:
        TypeError: it is neither bool nor floating point.
        ValueError: it is not a vector of one entry a logit, or on another device.
    """
    if tail_mask.dtype != torch.bool and not tail_mask.is_floating_point():
        raise TypeError(f"tail_mask must be bool or floating point, got {tail_mask.dtype}")
    if tail_mask.ndim != 1 or (logits is not None and tail_mask.shape != logits.shape[1:]):
        expected = "(K,)" if logits is None else f"({logits.shape[1]},) to match logits"
        raise ValueError(f"tail_mask must be {expected}, got {tuple(tail_mask.shape)}")
    if logits is not None and tail_mask.device != logits.device:
        raise ValueError(f"tail_mask is on {tail_mask.device}, logits on {logits.device}")


def check_tail_mask_values(tail_mask: Tensor) -> None:
    """Check once, where a loss is made, that a soft tail mask leaves out shares of a term.

    Raises:
        ValueError: an entry is not in [0, 1], or no number.
    """
    if tail_mask.is_meta:  # it has no values
        return
    wrong = ~((tail_mask >= 0) & (tail_mask <= 1))
    if wrong.any():
        category = int(wrong.nonzero()[0])
        raise ValueError(
            f"tail_mask must be in [0, 1], got {float(tail_mask[category])} for category {category}"
        )
