"""Mask R-CNN: the parts put together, and built from settings."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from eql_d2.engines.tv.backbone import PyramidBackbone
from eql_d2.engines.tv.heads import BoxPredictor, MaskPredictor, build_box_head, build_mask_head
from eql_d2.engines.tv.pooling import build_pooler
from eql_d2.engines.tv.roi_heads import EqlRoIHeads
from eql_d2.engines.tv.roi_losses import Targets
from eql_d2.engines.tv.rpn import Rpn
from eql_d2.engines.tv.settings import RoiSettings, Settings
from eql_d2.losses import ClassificationLoss

# The coarsest level that the backbone computes with strided convolutions has stride 32.
SIZE_DIVISIBILITY = 32


class MaskRcnn(nn.Module):
    """Images in, losses (training) or detections (inference) out.

    For export it can be traced (``torch.jit.trace``, one image size a trace), not scripted.

    Args:
        backbone: images to pyramid levels.
        rpn: levels to proposals.
        roi_heads: proposals to losses or detections.
        pixel_mean, pixel_std: of the channels, in the order in which images come, 0..255.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        rpn: nn.Module,
        roi_heads: nn.Module,
        pixel_mean: tuple[float, ...],
        pixel_std: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.rpn = rpn
        self.roi_heads = roi_heads
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(
        self,
        images: list[Tensor],
        targets: Targets | None = None,
        with_statistics: bool = False,
    ) -> list[dict[str, Tensor]] | dict[str, Tensor]:
        """Run on a batch.

        Args:
            images: ``(3, H_i, W_i)`` float images, values 0..255, already resized.
            targets: in training, as :meth:`EqlRoIHeads.forward` wants them.
            with_statistics: in training, add the loss's ``cls/...`` statistics.

        Returns:
            training: ``loss_...`` scalars (and statistics); inference: one dictionary an image with
            ``boxes``, ``scores``, ``labels`` and ``masks``, in pixels of ``images``.
        """
        batch = self.batch_images(images)
        features = self.backbone(batch.tensors)
        proposals, rpn_losses = self.rpn(batch, features, targets)
        detections, losses = self.roi_heads(
            features, proposals, batch.image_sizes, targets, with_statistics
        )
        return {**losses, **rpn_losses} if self.training else detections

    def batch_images(self, images: list[Tensor]) -> ImageList:
        """Normalise images and pad them with zeros, right and below, to one common size.

        A traced model (``torch.jit.trace``) is one for images of the size it was traced with, and
        refuses others.
        """
        shapes = [(int(image.shape[1]), int(image.shape[2])) for image in images]
        # The sizes, by which boxes are clipped, are numbers in a traced model; expand checks them.
        images = [
            (image.expand(-1, *shape) - self.pixel_mean) / self.pixel_std
            for image, shape in zip(images, shapes, strict=True)
        ]
        height, width = (
            math.ceil(max(sides) / SIZE_DIVISIBILITY) * SIZE_DIVISIBILITY
            for sides in zip(*shapes, strict=True)
        )
        batch = images[0].new_zeros((len(images), 3, height, width))
        for place, image in zip(batch, images, strict=True):
            place[:, : image.shape[1], : image.shape[2]] = image
        return ImageList(batch, shapes)


def build_model(settings: Settings, loss: ClassificationLoss, tail_mask: Tensor) -> MaskRcnn:
    """Build the model that the settings describe, with random weights, on the CPU.

    Args:
        settings: ``roi.num_classes`` must be resolved.
        loss: the classification loss, for as many classes.
        tail_mask: ``(K,)`` bool, for the logged statistics.

    Raises:
        ValueError: loss and settings disagree on the number of classes.
    """
    if loss.num_classes != settings.roi.num_classes:
        raise ValueError(
            f"the loss is for {loss.num_classes} classes, the model for {settings.roi.num_classes}"
        )
    backbone = PyramidBackbone(settings.backbone)
    rpn = Rpn(settings.rpn, backbone.out_channels)
    heads = build_roi_heads(settings.roi, loss, tail_mask, backbone.out_channels)
    return MaskRcnn(backbone, rpn, heads, settings.input.pixel_mean, settings.input.pixel_std)


def build_roi_heads(
    settings: RoiSettings, loss: ClassificationLoss, tail_mask: Tensor, in_channels: int
) -> EqlRoIHeads:
    """Build box and, where the settings have one, mask head."""
    box_head, width = build_box_head(settings, in_channels)
    regressions = 1 if settings.class_agnostic_boxes else loss.num_classes
    parts: list[nn.Module] = [
        build_pooler(settings.pooler, settings.levels),
        box_head,
        BoxPredictor(width, loss, regressions),
    ]
    if settings.mask is not None:
        mask_head, channels = build_mask_head(settings.mask, in_channels)
        masks = 1 if settings.mask.class_agnostic else loss.num_classes
        pooler = build_pooler(settings.mask.pooler, settings.levels)
        parts += [pooler, mask_head, MaskPredictor(channels, masks)]
    return EqlRoIHeads(settings, loss, tail_mask, *parts)
