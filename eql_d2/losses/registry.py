"""The losses by the names that configurations use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from eql_d2.losses.base import ClassificationLoss
from eql_d2.losses.equalization import EqualizationLoss
from eql_d2.losses.names import unknown_name
from eql_d2.losses.sigmoid import SigmoidCrossEntropyLoss
from eql_d2.losses.softmax import SoftmaxCrossEntropyLoss
from eql_d2.losses.softmax_equalization import SoftmaxEqualizationLoss
from eql_d2.losses.thresholds import threshold


@dataclass(frozen=True)
class LossOptions:
    """All that a configuration can say about a loss; each loss reads what concerns it.

    Attributes:
        image_fraction: (K,) float64, share of the annotated training images with each category.
        lambda_: tail is ``image_fraction < lambda_``.
        threshold_function: step, exponential or gompertz.
        threshold_parameters: of a soft threshold function; empty: those of EQL's Table 3.
        exclude_background: E(r) of EQL.
        gamma: SEQL's probability of leaving a tail category out.
        prior_prob: initial probability of every sigmoid.
    """

    image_fraction: Tensor
    lambda_: float
    threshold_function: str
    threshold_parameters: Sequence[float]
    exclude_background: bool
    gamma: float
    prior_prob: float

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.image_fraction)

    @property
    def tail_mask(self) -> Tensor:
        """T(f): (K,) bool, or floating point for the soft threshold functions."""
        return threshold(
            self.threshold_function, self.image_fraction, self.lambda_, self.threshold_parameters
        )


LOSSES: dict[str, Callable[[LossOptions], ClassificationLoss]] = {
    "EQL": lambda o: EqualizationLoss(
        o.tail_mask, exclude_background=o.exclude_background, prior_prob=o.prior_prob
    ),
    "SigmoidCE": lambda o: SigmoidCrossEntropyLoss(o.num_classes, prior_prob=o.prior_prob),
    "SoftmaxCE": lambda o: SoftmaxCrossEntropyLoss(o.num_classes),
    "SEQL": lambda o: SoftmaxEqualizationLoss(o.tail_mask, gamma=o.gamma),
}


def build_loss(
    name: str,
    *,
    image_fraction: Tensor,
    lambda_: float,
    threshold_function: str = "step",
    threshold_parameters: Sequence[float] = (),
    exclude_background: bool = True,
    gamma: float = 0.9,
    prior_prob: float = 0.001,
) -> ClassificationLoss:
    """Make the loss of that name for detection (see :class:`LossOptions` for the arguments).

    Raises:
        ConfigError: there is no loss, or no threshold function, of that name.
    """
    if name not in LOSSES:
        raise unknown_name("MODEL.EQL.LOSS.NAME", name, LOSSES)
    return LOSSES[name](
        LossOptions(
            image_fraction,
            lambda_,
            threshold_function,
            threshold_parameters,
            exclude_background,
            gamma,
            prior_prob,
        )
    )
