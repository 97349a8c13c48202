"""What is wrong with a configuration of the heads: asked by runs, and by the heads themselves.

A run asks before any data are read; in somebody's own training script, the heads ask.
"""

from __future__ import annotations

from typing import Any

from eql_d2.config_checks import loss_problems


def head_problems(cfg: Any) -> list[str]:
    """Return what is wrong with the keys that the heads' classification depends on."""
    return loss_problems(cfg) + loss_key_problems(cfg)


def loss_key_problems(cfg: Any) -> list[str]:
    """Return which keys choose another loss than ``MODEL.EQL.LOSS.NAME`` does."""
    return [
        f"MODEL.ROI_BOX_HEAD.{key} has no meaning for these heads; the loss is chosen by "
        "MODEL.EQL.LOSS.NAME (plain sigmoid: SigmoidCE)"
        for key in ("USE_SIGMOID_CE", "USE_FED_LOSS")
        if cfg.MODEL.ROI_BOX_HEAD[key]
    ]


def cascade_problems(cfg: Any) -> list[str]:
    """Return what does not fit together in the keys of ``EQLCascadeROIHeads``."""
    problems = []
    box_head, cascade = cfg.MODEL.ROI_BOX_HEAD, cfg.MODEL.ROI_BOX_CASCADE_HEAD
    if not box_head.CLS_AGNOSTIC_BBOX_REG:
        problems.append(
            "EQLCascadeROIHeads needs MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG True: each stage "
            "refines one box a ROI"
        )
    if len(cascade.BBOX_REG_WEIGHTS) != len(cascade.IOUS):
        problems.append(
            f"MODEL.ROI_BOX_CASCADE_HEAD has {len(cascade.IOUS)} IOUS but "
            f"{len(cascade.BBOX_REG_WEIGHTS)} BBOX_REG_WEIGHTS; give one of each a stage"
        )
    if cascade.IOUS[0] != cfg.MODEL.ROI_HEADS.IOU_THRESHOLDS[0]:
        problems.append(
            f"the first of MODEL.ROI_BOX_CASCADE_HEAD.IOUS ({cascade.IOUS[0]}) must be "
            f"MODEL.ROI_HEADS.IOU_THRESHOLDS ({cfg.MODEL.ROI_HEADS.IOU_THRESHOLDS[0]})"
        )
    return problems
