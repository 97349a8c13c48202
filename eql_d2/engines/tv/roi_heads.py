"""torchvision's ROI heads with a classification loss that owns the form of the classifier.

The forward pass is our own and short; matching, sampling and box coding are inherited. With a stock
softmax loss, losses and detections are torchvision's to the bit (a test).

Labels are ours (0..K-1, K background) outside this file and in it, except between the two halves of
:meth:`EqlRoIHeads.sample`, which hands torchvision the labels it expects.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import RoIHeads

from eql_d2.engines.tv.roi_losses import (
    Targets,
    box_regression_loss,
    mask_loss,
    own_category,
)
from eql_d2.engines.tv.selection import select_boxes
from eql_d2.engines.tv.settings import RoiSettings
from eql_d2.losses import ClassificationLoss, classification_statistics

Features = dict[str, Tensor]
Shapes = list[tuple[int, int]]


def labels_from_torchvision(labels: Tensor, num_classes: int) -> Tensor:
    """Turn torchvision's labels (0 background, 1..K) into ours (0..K-1, K background)."""
    return torch.where(labels == 0, num_classes, labels - 1)


class EqlRoIHeads(RoIHeads):
    """Box and mask heads driven by a :class:`~eql_d2.losses.ClassificationLoss`.

    Args:
        settings: sampling, thresholds, class-agnostic or not.
        loss: loss, classifier width and scores.
        tail_mask: ``(K,)`` bool, for the logged statistics only.
        box_pooler, box_head, box_predictor: as torchvision's; the predictor returns logits
            ``(R, loss.num_logits)`` and regression ``(R, 4 K)`` or ``(R, 4)``.
        mask_pooler, mask_head, mask_predictor: the same for masks, ``(R, K or 1, M, M)`` logits;
            all None for boxes only.
    """

    def __init__(
        self,
        settings: RoiSettings,
        loss: ClassificationLoss,
        tail_mask: Tensor,
        box_pooler: nn.Module,
        box_head: nn.Module,
        box_predictor: nn.Module,
        mask_pooler: nn.Module | None = None,
        mask_head: nn.Module | None = None,
        mask_predictor: nn.Module | None = None,
    ) -> None:
        super().__init__(
            box_pooler,
            box_head,
            box_predictor,
            settings.iou_threshold,
            settings.iou_threshold,
            settings.batch_size_per_image,
            settings.positive_fraction,
            settings.box_weights,
            settings.score_threshold,
            settings.nms_threshold,
            settings.max_detections,
            mask_pooler,
            mask_head,
            mask_predictor,
        )
        self.loss = loss
        self.settings = settings
        self.register_buffer("tail_mask", tail_mask, persistent=False)

    def forward(
        self,
        features: Features,
        proposals: list[Tensor],
        image_shapes: Shapes,
        targets: Targets | None = None,
        with_statistics: bool = False,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Return detections (empty in training) and losses (empty in inference).

        Args:
            features: pyramid levels by name.
            proposals: ``(R_i, 4)`` xyxy boxes an image, pixels of the batch.
            image_shapes: height and width of each image before padding.
            targets: in training, ``boxes`` (xyxy), ``labels`` (0..K-1) and, with masks, ``masks``
                ``(n, H, W)`` of each image.
            with_statistics: also return ``cls/...`` statistics among the losses.
        """
        if self.training:
            assert targets is not None
            return [], self.losses(features, proposals, image_shapes, targets, with_statistics)
        return self.detections(features, proposals, image_shapes), {}

    def sample(
        self, proposals: list[Tensor], targets: Targets
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor], Tensor]:
        """Match proposals with ground truth and draw foreground and background ROIs.

        Returns:
            ROIs, index of the matched ground truth, labels (0..K; one tensor an image each), and
            the regression targets of all ROIs ``(R, 4)``.
        """
        shifted = [{**t, "labels": t["labels"] + 1} for t in targets]
        rois, matched, labels, regression = self.select_training_samples(proposals, shifted)
        ours = [labels_from_torchvision(x, self.loss.num_classes) for x in labels]
        return rois, matched, ours, torch.cat(regression)

    def losses(
        self,
        features: Features,
        proposals: list[Tensor],
        image_shapes: Shapes,
        targets: Targets,
        with_statistics: bool,
    ) -> dict[str, Tensor]:
        """Return ``loss_cls``, ``loss_box_reg``, ``loss_mask``, and statistics where asked for."""
        rois, matched, labels, regression = self.sample(proposals, targets)
        logits, deltas = self.predict_boxes(features, rois, image_shapes)
        all_labels = torch.cat(labels)
        num_classes = self.loss.num_classes
        box_loss = box_regression_loss(
            deltas, all_labels, regression, num_classes, self.settings.smooth_l1_beta
        )
        losses = {
            "loss_cls": self.loss(logits, all_labels),
            "loss_box_reg": box_loss * self.settings.box_loss_weight,
        }
        if with_statistics:
            found = classification_statistics(
                self.loss, logits.detach(), all_labels, self.tail_mask
            )
            losses.update({f"cls/{name}": value for name, value in found.items()})
        if self.settings.mask is not None:
            positive = [torch.where(x < num_classes)[0] for x in labels]
            mask_rois = [r[p] for r, p in zip(rois, positive, strict=True)]
            losses["loss_mask"] = mask_loss(
                self.predict_masks(features, mask_rois, image_shapes),
                mask_rois,
                [m[p] for m, p in zip(matched, positive, strict=True)],
                targets,
                aligned=self.settings.mask.pooler.aligned,
            )
        return losses

    def detections(
        self, features: Features, proposals: list[Tensor], image_shapes: Shapes
    ) -> list[dict[str, Tensor]]:
        """Return ``boxes`` (xyxy, pixels of the batch), ``scores``, ``labels`` (0..K-1), ``masks``.

        Masks are probabilities ``(D, M, M)`` on the box, not yet pasted into the image.
        """
        counts = [p.shape[0] for p in proposals]
        logits, deltas = self.predict_boxes(features, proposals, image_shapes)
        scores = self.loss.scores(logits).split(counts)
        found = []
        for image_scores, image_deltas, boxes, shape in zip(
            scores, deltas.split(counts), proposals, image_shapes, strict=True
        ):
            best = select_boxes(
                image_scores,
                image_deltas,
                boxes,
                shape,
                self.box_coder,
                score_threshold=self.score_thresh,
                nms_threshold=self.nms_thresh,
                max_detections=self.detections_per_img,
            )
            found.append({"boxes": best.boxes, "scores": best.scores, "labels": best.categories})
        if self.settings.mask is not None:
            self._add_masks(found, features, image_shapes)
        return found

    def predict_boxes(
        self, features: Features, rois: list[Tensor], image_shapes: Shapes
    ) -> tuple[Tensor, Tensor]:
        """Return logits ``(R, num_logits)`` and regression ``(R, K or 1, 4)``."""
        pooled = self.box_roi_pool(features, rois, image_shapes)
        logits, deltas = self.box_predictor(self.box_head(pooled))
        return logits, deltas.unflatten(1, (-1, 4))

    def predict_masks(self, features: Features, rois: list[Tensor], image_shapes: Shapes) -> Tensor:
        """Return mask logits ``(R, K or 1, M, M)``."""
        pooled = self.mask_roi_pool(features, rois, image_shapes)
        return self.mask_predictor(self.mask_head(pooled))

    def _add_masks(
        self, found: list[dict[str, Tensor]], features: Features, image_shapes: Shapes
    ) -> None:
        logits = self.predict_masks(features, [d["boxes"] for d in found], image_shapes)
        labels = torch.cat([d["labels"] for d in found])
        chosen = own_category(logits.sigmoid(), labels)
        for detection, masks in zip(
            found, chosen.split([d["boxes"].shape[0] for d in found]), strict=True
        ):
            detection["masks"] = masks
