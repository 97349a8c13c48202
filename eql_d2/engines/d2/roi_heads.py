"""ROI heads for ``MODEL.ROI_HEADS.NAME``: ``EQLROIHeads`` and ``EQLCascadeROIHeads``.

They are Detectron2's heads with another last layer. Importing this module registers them.
"""

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from eql_d2.engines.d2.compat import (
    ROI_HEADS_REGISTRY,
    CascadeROIHeads,
    Instances,
    ShapeSpec,
    StandardROIHeads,
)
from eql_d2.engines.d2.head_checks import cascade_problems, head_problems
from eql_d2.engines.d2.output_layers import EQLFastRCNNOutputLayers
from eql_d2.engines.d2.selection import fast_rcnn_inference
from eql_d2.engines.d2.statistics import with_num_classes
from eql_d2.errors import ConfigError
from eql_d2.inference import is_exporting


@ROI_HEADS_REGISTRY.register()
class EQLROIHeads(StandardROIHeads):
    """Detectron2's box and mask heads, with the loss that ``MODEL.EQL.LOSS.NAME`` names."""

    # Constants for TorchScript, as Detectron2 declares them for StandardROIHeads: it reads those of
    # the class itself alone, and as objects (so this file postpones no annotations).
    mask_on: torch.jit.Final[bool]  # type: ignore[misc]
    keypoint_on: torch.jit.Final[bool]  # type: ignore[misc]

    @classmethod
    def from_config(cls, cfg: Any, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Translate a configuration tree to arguments; see :mod:`eql_d2.engines.d2.statistics`."""
        return super().from_config(_checked(cfg, head_problems(cfg)), input_shape)

    @classmethod
    def _init_box_head(cls, cfg: Any, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        parts = super()._init_box_head(cfg, input_shape)
        parts["box_predictor"] = EQLFastRCNNOutputLayers(cfg, parts["box_head"].output_shape)
        return parts


@ROI_HEADS_REGISTRY.register()
class EQLCascadeROIHeads(CascadeROIHeads):
    """Cascade R-CNN heads: the same loss in every stage, scores averaged over the stages.

    The stages' losses are logged as ``loss_cls_stage0`` and so on, their statistics as
    ``stage0/cls/...``.
    """

    @classmethod
    def from_config(cls, cfg: Any, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Translate a configuration tree to arguments; see :mod:`eql_d2.engines.d2.statistics`."""
        problems = head_problems(cfg) + cascade_problems(cfg)
        return super().from_config(_checked(cfg, problems), input_shape)

    @classmethod
    def _init_box_head(cls, cfg: Any, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        parts = super()._init_box_head(cfg, input_shape)
        heads: list[nn.Module] = parts["box_heads"]
        stock: list[nn.Module] = parts["box_predictors"]
        parts["box_predictors"] = [
            EQLFastRCNNOutputLayers(
                cfg, head.output_shape, box2box_transform=predictor.box2box_transform
            )
            for head, predictor in zip(heads, stock, strict=True)
        ]
        return parts

    def _forward_box(
        self, features: dict[str, Tensor], proposals: list[Instances], targets: Any = None
    ) -> Any:
        """Return losses in training; else detections, by the short way to Detectron2's."""
        if self.training or is_exporting():
            return super()._forward_box(features, proposals, targets)
        levels = [features[name] for name in self.box_in_features]
        sizes = [image.image_size for image in proposals]
        boxes: tuple[Tensor, ...] = ()
        scores: list[tuple[Tensor, ...]] = []
        for stage, predictor in enumerate(self.box_predictor):
            if stage > 0:
                proposals = self._create_proposals_from_boxes(boxes, sizes)
            predictions = self._run_stage(levels, proposals, stage)
            boxes = predictor.predict_boxes(predictions, proposals)
            scores.append(predictor.predict_probs(predictions, proposals))
        mean = [sum(stages) * (1.0 / len(stages)) for stages in zip(*scores, strict=True)]
        limits = dataclasses.astuple(self.box_predictor[-1].limits)
        return fast_rcnn_inference(boxes, mean, sizes, *limits)[0]


def _checked(cfg: Any, problems: list[str]) -> Any:
    """Return ``cfg`` with the number of classes spelled out, or raise for all that is wrong."""
    try:
        resolved = with_num_classes(cfg)
    except ConfigError as error:
        raise ConfigError(problems + error.problems) from error
    if problems:
        raise ConfigError(problems)
    return resolved
