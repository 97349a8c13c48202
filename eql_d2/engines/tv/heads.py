"""Layers of the box and mask heads, with Detectron2's initialisation."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads

from eql_d2.engines.tv.backbone import norm_layer
from eql_d2.engines.tv.settings import MaskSettings, RoiSettings
from eql_d2.losses import ClassificationLoss


class BoxPredictor(nn.Module):
    """Classifier and box regressor on top of the box head's features.

    Args:
        in_features: width of the box head's output.
        loss: decides the classifier's width and initial values.
        num_regressions: number of box regressions, K or 1 (class-agnostic).
    """

    def __init__(self, in_features: int, loss: ClassificationLoss, num_regressions: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(in_features, loss.num_logits)
        self.bbox_pred = nn.Linear(in_features, num_regressions * 4)
        loss.init_classifier(self.cls_score)
        nn.init.normal_(self.bbox_pred.weight, std=0.001)
        nn.init.zeros_(self.bbox_pred.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits ``(R, num_logits)`` and regression ``(R, num_regressions * 4)``."""
        features = features.flatten(1)
        return self.cls_score(features), self.bbox_pred(features)


class MaskPredictor(nn.Sequential):
    """Doubles the resolution and predicts one mask a category, or one for all.

    Args:
        channels: of the input and of the up-sampled features.
        num_masks: K, or 1 when class-agnostic.
    """

    def __init__(self, channels: int, num_masks: int) -> None:
        up = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        logits = nn.Conv2d(channels, num_masks, 1)
        nn.init.kaiming_normal_(up.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(logits.weight, std=0.001)
        for layer in (up, logits):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        super().__init__(up, nn.ReLU(inplace=True), logits)


def build_box_head(settings: RoiSettings, in_channels: int) -> tuple[nn.Module, int]:
    """Return convolutions and fully connected layers, and the width of their output."""
    side = settings.pooler.resolution
    head = FastRCNNConvFCHead(
        (in_channels, side, side),
        [settings.conv_channels] * settings.num_convs,
        [settings.fc_width] * settings.num_fcs,
        norm_layer(settings.norm),
    )
    for layer in head.modules():
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)
    channels = settings.conv_channels if settings.num_convs else in_channels
    return head, settings.fc_width if settings.num_fcs else channels * side * side


def build_mask_head(settings: MaskSettings, in_channels: int) -> tuple[nn.Module, int]:
    """Return the 3x3 convolutions of the mask head, and their channels."""
    widths = [settings.channels] * settings.num_convs
    head = MaskRCNNHeads(in_channels, widths, 1, norm_layer(settings.norm))
    return head, widths[-1] if widths else in_channels
