"""The box head's last layer, whose width, start, loss and scores come from the loss object.

Shape legend:

    N   images in the batch;  R   ROIs of all images;  Ri  ROIs of image i
    K   foreground categories;  C   ``classification_loss.num_logits``
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eql_d2.engines.d2.compat import (
    FastRCNNOutputLayers,
    Instances,
    ShapeSpec,
    cat,
    configurable,
    get_event_storage,
    stock_fast_rcnn_inference,
)
from eql_d2.engines.d2.head_checks import head_problems
from eql_d2.engines.d2.selection import Limits, select_instances
from eql_d2.engines.d2.statistics import statistics_from_config
from eql_d2.errors import ConfigError
from eql_d2.experiment import loss_from_config, resolve_lambda
from eql_d2.inference import is_exporting
from eql_d2.losses import ClassificationLoss, classification_statistics


class EQLFastRCNNOutputLayers(FastRCNNOutputLayers):
    """Box regression as in Detectron2; classification as a :class:`ClassificationLoss` says.

    For EQL the parameters are ``cls_score.weight`` (K, D), ``cls_score.bias`` (K,),
    ``bbox_pred.weight`` (4K, D), ``bbox_pred.bias`` (4K,): the names and shapes of the checkpoints
    that the authors of EQL released.
    """

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        classification_loss: ClassificationLoss,
        tail_mask: Tensor,
        log_period: int = 20,
        **kwargs: Any,
    ) -> None:
        """Build both layers.

        Args:
            input_shape: shape of a ROI's features.
            classification_loss: decides C, the first bias, the loss and the scores.
            tail_mask: (K,) bool, categories that are tail in the logged statistics.
            log_period: iterations between two records of the classification statistics.
            kwargs: what :class:`FastRCNNOutputLayers` takes; ``num_classes`` must be K.

        Raises:
            ConfigError: the number of classes is not the loss's K.
        """
        num_classes = kwargs["num_classes"]
        if num_classes != classification_loss.num_classes:
            raise ConfigError(
                f"MODEL.ROI_HEADS.NUM_CLASSES is {num_classes} but the loss was built for "
                f"{classification_loss.num_classes} categories"
            )
        super().__init__(input_shape, **kwargs)
        self.cls_score = nn.Linear(self.bbox_pred.in_features, classification_loss.num_logits)
        classification_loss.init_classifier(self.cls_score)
        self.classification_loss = classification_loss
        self.log_period = log_period
        self.register_buffer("tail_mask", tail_mask, persistent=False)

    @classmethod
    def from_config(cls, cfg: Any, input_shape: ShapeSpec) -> dict[str, Any]:
        """Translate a configuration tree to arguments.

        Raises:
            ConfigError: ``MODEL.EQL.LOSS`` is wrong or has no tail where it needs one,
                ``USE_SIGMOID_CE`` or ``USE_FED_LOSS`` is set, which choose another loss, or the
                image counts do not fit.
        """
        problems = head_problems(cfg)
        if problems:
            raise ConfigError(problems)
        arguments = super().from_config(cfg, input_shape)
        statistics = statistics_from_config(cfg)
        arguments["classification_loss"] = loss_from_config(cfg, statistics)
        arguments["tail_mask"] = statistics.tail_mask(resolve_lambda(cfg, statistics))
        arguments["log_period"] = cfg.MODEL.EQL.LOG_PERIOD
        return arguments

    def losses(
        self, predictions: tuple[Tensor, Tensor], proposals: list[Instances]
    ) -> dict[str, Tensor]:
        """Return ``loss_cls`` and ``loss_box_reg``, both connected to the graph without any ROI.

        Args:
            predictions: (R, C) logits and (R, 4K) or (R, 4) box deltas.
            proposals: N images' ROIs with ``proposal_boxes``, ``gt_classes`` and, where the image
                has objects, ``gt_boxes``.
        """
        logits, deltas = predictions
        labels, proposal_boxes, gt_boxes = _targets(proposals, deltas)
        self._log_statistics(logits, labels)
        losses = {
            "loss_cls": self.classification_loss(logits, labels),
            "loss_box_reg": self.box_reg_loss(proposal_boxes, gt_boxes, deltas, labels),
        }
        return {name: loss * self.loss_weight.get(name, 1.0) for name, loss in losses.items()}

    def predict_probs(
        self, predictions: tuple[Tensor, Tensor], proposals: list[Instances]
    ) -> list[Tensor]:
        """Return each image's (Ri, K + 1) scores, the last column zero.

        Detectron2's inference drops the last column as background before it ranks anything, so
        the K foreground scores reach it unchanged.
        """
        scores = F.pad(self.classification_loss.scores(predictions[0]), [0, 1])
        # Not len(), which a traced model would keep as a number.
        counts = [p.proposal_boxes.tensor.shape[0] for p in proposals]
        return list(scores.split(counts))

    def inference(
        self, predictions: tuple[Tensor, Tensor], proposals: list[Instances]
    ) -> tuple[list[Instances], list[Tensor]]:
        """Return each image's detections and the ROIs they came from.

        They are those of Detectron2's method to the bit, but only boxes that may get among the
        best are decoded and compared. A model that is being exported takes Detectron2's way.
        """
        if torch.jit.is_scripting() or is_exporting():
            return stock_fast_rcnn_inference(
                self.predict_boxes(predictions, proposals),
                self.predict_probs(predictions, proposals),
                [p.image_size for p in proposals],
                self.test_score_thresh,
                self.test_nms_thresh,
                self.test_topk_per_image,
            )
        else:  # after a plain return TorchScript would compile it
            return self._best_detections(predictions, proposals)

    def _best_detections(
        self, predictions: tuple[Tensor, Tensor], proposals: list[Instances]
    ) -> tuple[list[Instances], list[Tensor]]:
        counts = [len(p) for p in proposals]
        scores = self.classification_loss.scores(predictions[0]).split(counts)
        found = [
            select_instances(image_scores, deltas, image, self.box2box_transform, self.limits)
            for image_scores, deltas, image in zip(
                scores, predictions[1].split(counts), proposals, strict=True
            )
        ]
        return [instances for instances, _ in found], [rois for _, rois in found]

    @property
    @torch.jit.unused
    def limits(self) -> Limits:
        """Thresholds of the detections and how many there may be."""
        return Limits(self.test_score_thresh, self.test_nms_thresh, self.test_topk_per_image)

    def _log_statistics(self, logits: Tensor, labels: Tensor) -> None:
        """Record ``cls/...`` every ``log_period`` iterations.

        They stand in for Detectron2's ``fast_rcnn/cls_accuracy``, which takes the last column for
        background and so means nothing for a sigmoid classifier.
        """
        storage = get_event_storage()
        if (storage.iter + 1) % self.log_period or not len(labels):
            return
        values = classification_statistics(
            self.classification_loss, logits.detach(), labels, self.tail_mask
        )
        for name, value in values.items():
            if math.isfinite(value):  # undefined without foreground; a log cannot hold it
                storage.put_scalar(f"cls/{name}", float(value), smoothing_hint=False)


def _targets(proposals: list[Instances], deltas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return (R,) labels, (R, 4) proposal boxes and (R, 4) ground truth boxes."""
    if not proposals:
        boxes = deltas.new_zeros((0, 4))
        return deltas.new_zeros((0,), dtype=torch.int64), boxes, boxes
    labels = cat([p.gt_classes for p in proposals])
    proposal_boxes = cat([p.proposal_boxes.tensor for p in proposals])
    # An image without objects has no gt_boxes; its ROIs are background, whose boxes are not read.
    gt = [(p.gt_boxes if p.has("gt_boxes") else p.proposal_boxes).tensor for p in proposals]
    return labels, proposal_boxes, cat(gt)
