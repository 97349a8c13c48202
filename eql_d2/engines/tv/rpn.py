"""Region proposals: torchvision's network with the loss weights and anchors of the settings."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from eql_d2.engines.tv.anchors import PyramidAnchors
from eql_d2.engines.tv.settings import RpnSettings

# torchvision drops proposals thinner than this, which have no usable regression target. Pixels.
MIN_PROPOSAL_SIZE = 1e-3


class Rpn(RegionProposalNetwork):
    """torchvision's RPN on chosen pyramid levels, with an adjustable L1 loss.

    With ``smooth_l1_beta`` 1/9 and weights 1 its losses are torchvision's to the bit, given the
    same anchors; these are Detectron2's.

    Args:
        settings: anchors, matching, sampling, losses, proposal counts.
        in_channels: channels of every pyramid level.
    """

    def __init__(self, settings: RpnSettings, in_channels: int) -> None:
        anchors = PyramidAnchors(settings.levels, settings.anchor_sizes, settings.aspect_ratios)
        low, high = settings.iou_thresholds
        super().__init__(
            anchors,
            RPNHead(in_channels, anchors.num_anchors_per_location()[0], settings.num_convs),
            fg_iou_thresh=high,
            bg_iou_thresh=low,
            batch_size_per_image=settings.batch_size_per_image,
            positive_fraction=settings.positive_fraction,
            pre_nms_top_n=dict(zip(("training", "testing"), settings.pre_nms_topk, strict=True)),
            post_nms_top_n=dict(zip(("training", "testing"), settings.post_nms_topk, strict=True)),
            nms_thresh=settings.nms_threshold,
        )
        self.box_coder = BoxCoder(settings.box_weights)
        self.min_size = max(MIN_PROPOSAL_SIZE, settings.min_box_size)
        self._levels = settings.levels
        self._beta = settings.smooth_l1_beta
        self._class_weight = settings.loss_weight
        self._box_weight = settings.loss_weight * settings.box_loss_weight

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Return proposals per image (boxes xyxy, pixels of the batch) and, in training, losses."""
        chosen = {level: features[level] for level in self._levels}
        proposals, losses = super().forward(images, chosen, targets)
        if losses:
            losses = {
                "loss_rpn_cls": losses["loss_objectness"] * self._class_weight,
                "loss_rpn_loc": losses["loss_rpn_box_reg"] * self._box_weight,
            }
        return proposals, losses

    def compute_loss(
        self,
        objectness: Tensor,
        pred_bbox_deltas: Tensor,
        labels: list[Tensor],
        regression_targets: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Return objectness and box loss, both over the number of sampled anchors."""
        positive, negative = (torch.where(torch.cat(s))[0] for s in self.fg_bg_sampler(labels))
        sampled = torch.cat([positive, negative])
        box_loss = F.smooth_l1_loss(
            pred_bbox_deltas[positive],
            torch.cat(regression_targets)[positive],
            beta=self._beta,
            reduction="sum",
        ) / (sampled.numel())
        class_loss = F.binary_cross_entropy_with_logits(
            objectness.flatten()[sampled], torch.cat(labels)[sampled]
        )
        return class_loss, box_loss
