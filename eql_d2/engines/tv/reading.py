"""From the configuration tree to :class:`~eql_d2.engines.tv.settings.Settings`, once."""

from __future__ import annotations

from pathlib import Path

from fvcore.common.config import CfgNode

from eql_d2.engines.tv.keys import ConfigReader
from eql_d2.engines.tv.settings import (
    BackboneSettings,
    InputSettings,
    LoaderSettings,
    MaskSettings,
    PoolerSettings,
    RoiSettings,
    RpnSettings,
    Settings,
    SolverSettings,
)

LEVELS = ("p2", "p3", "p4", "p5", "p6")
NORMS = ("FrozenBN", "BN", "SyncBN", "GN")


def read_settings(cfg: CfgNode, *, needs_weights: bool = True) -> Settings:
    """Read the tree once.

    Args:
        cfg: tree of :func:`eql_d2.config.load_config`; ``NUM_CLASSES`` may still be -1.
        needs_weights: ``MODEL.WEIGHTS`` will be read, so it must be there.

    Returns:
        The settings of one run.

    Raises:
        ConfigError: every key that torchvision's Mask R-CNN cannot honour and every value out of
            range, in one message. Keys that change nothing here are only warned about.
    """
    read = ConfigReader(cfg)
    settings = Settings(
        backbone=_backbone(read),
        rpn=_rpn(read),
        roi=_roi(read),
        input=_input(read),
        loader=_loader(read),
        solver=_solver(read),
        weights=_weights(read, needs_weights),
        device=read("MODEL.DEVICE"),
        output_dir=read("OUTPUT_DIR"),
        seed=read("SEED"),
        checkpoint_period=read.number("SOLVER.CHECKPOINT_PERIOD", 1),
        eval_period=read.number("TEST.EVAL_PERIOD", 0),
        log_period=read.number("MODEL.EQL.LOG_PERIOD", 1),
        cudnn_benchmark=read("CUDNN_BENCHMARK"),
        float32_precision=read.choice("FLOAT32_PRECISION", ("", "highest", "high", "medium")),
    )
    read.finish()
    return settings


def _weights(read: ConfigReader, needed: bool) -> str:
    weights = str(read("MODEL.WEIGHTS"))
    if not needed:
        return weights
    if "://" in weights:
        read.problem(
            f"MODEL.WEIGHTS {weights!r} is an address; this engine downloads nothing. Give a local "
            "file (a checkpoint of this engine or torchvision's ResNet .pth), or '' for none"
        )
    elif weights and not Path(weights).exists():
        read.problem(f"MODEL.WEIGHTS: {weights} does not exist")
    return weights


def _backbone(read: ConfigReader) -> BackboneSettings:
    read.choice("MODEL.META_ARCHITECTURE", ("GeneralizedRCNN",))
    read.choice("MODEL.BACKBONE.NAME", ("build_resnet_fpn_backbone",))
    stages = ("res2", "res3", "res4", "res5")
    read.exactly("MODEL.RESNETS.OUT_FEATURES", stages)
    read.exactly("MODEL.FPN.IN_FEATURES", stages)
    depth = read.choice("MODEL.RESNETS.DEPTH", (18, 34, 50, 101, 152))
    read.choice("MODEL.RESNETS.RES2_OUT_CHANNELS", (64,) if depth in (18, 34) else (256,))
    groups = read.number("MODEL.RESNETS.NUM_GROUPS", 1)
    width = read.number("MODEL.RESNETS.WIDTH_PER_GROUP", 1)
    if depth in (18, 34) and (groups, width) != (1, 64):
        read.problem(f"MODEL.RESNETS.NUM_GROUPS/WIDTH_PER_GROUP: R{depth} has only 1 and 64")
    return BackboneSettings(
        depth=depth,
        norm=read.choice("MODEL.RESNETS.NORM", NORMS),
        groups=groups,
        width_per_group=width,
        stride_in_1x1=read("MODEL.RESNETS.STRIDE_IN_1X1"),
        freeze_at=read.number("MODEL.BACKBONE.FREEZE_AT", 0, 5),
        fpn_channels=read.number("MODEL.FPN.OUT_CHANNELS", 1),
        fpn_norm=read.choice("MODEL.FPN.NORM", ("", *NORMS)),
    )


def _rpn(read: ConfigReader) -> RpnSettings:
    levels = read.levels("MODEL.RPN.IN_FEATURES", LEVELS)
    read.exactly("MODEL.RPN.IOU_LABELS", (0, -1, 1))
    convs = read("MODEL.RPN.CONV_DIMS")
    if any(channels != -1 for channels in convs) or not convs:
        read.problem(f"MODEL.RPN.CONV_DIMS must hold -1 for each convolution, got {convs}")
    return RpnSettings(
        levels=levels,
        anchor_sizes=read.per_level("MODEL.ANCHOR_GENERATOR.SIZES", len(levels)),
        aspect_ratios=read.per_level("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", len(levels)),
        num_convs=len(convs),
        iou_thresholds=read.sequence("MODEL.RPN.IOU_THRESHOLDS", 2),
        batch_size_per_image=read.number("MODEL.RPN.BATCH_SIZE_PER_IMAGE", 1),
        positive_fraction=read.number("MODEL.RPN.POSITIVE_FRACTION", 0, 1),
        box_weights=read.sequence("MODEL.RPN.BBOX_REG_WEIGHTS", 4),
        smooth_l1_beta=read.number("MODEL.RPN.SMOOTH_L1_BETA", 0),
        loss_weight=read.number("MODEL.RPN.LOSS_WEIGHT", 0),
        box_loss_weight=read.number("MODEL.RPN.BBOX_REG_LOSS_WEIGHT", 0),
        pre_nms_topk=read.train_and_test("MODEL.RPN.PRE_NMS_TOPK"),
        post_nms_topk=read.train_and_test("MODEL.RPN.POST_NMS_TOPK"),
        nms_threshold=read.number("MODEL.RPN.NMS_THRESH", 0, 1),
        min_box_size=read.number("MODEL.PROPOSAL_GENERATOR.MIN_SIZE", 0),
    )


def _pooler(read: ConfigReader, head: str) -> PoolerSettings:
    kind = read.choice(f"MODEL.{head}.POOLER_TYPE", ("ROIAlignV2", "ROIAlign"))
    return PoolerSettings(
        resolution=read.number(f"MODEL.{head}.POOLER_RESOLUTION", 1),
        sampling_ratio=read.number(f"MODEL.{head}.POOLER_SAMPLING_RATIO", 0),
        aligned=kind == "ROIAlignV2",
    )


def _mask(read: ConfigReader) -> MaskSettings:
    read.choice("MODEL.ROI_MASK_HEAD.NAME", ("MaskRCNNConvUpsampleHead",))
    return MaskSettings(
        pooler=_pooler(read, "ROI_MASK_HEAD"),
        num_convs=read.number("MODEL.ROI_MASK_HEAD.NUM_CONV", 0),
        channels=read.number("MODEL.ROI_MASK_HEAD.CONV_DIM", 1),
        norm=read.choice("MODEL.ROI_MASK_HEAD.NORM", ("", *NORMS)),
        class_agnostic=read("MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK"),
    )


def _roi(read: ConfigReader) -> RoiSettings:
    read.choice("MODEL.ROI_HEADS.NAME", ("EQLROIHeads",))
    read.choice("MODEL.ROI_BOX_HEAD.NAME", ("FastRCNNConvFCHead",))
    read.exactly("MODEL.ROI_HEADS.IOU_LABELS", (0, 1))
    (iou_threshold,) = read.sequence("MODEL.ROI_HEADS.IOU_THRESHOLDS", 1)
    box, mask = "MODEL.ROI_BOX_HEAD", _mask(read)
    convs, fcs = read.number(f"{box}.NUM_CONV", 0), read.number(f"{box}.NUM_FC", 0)
    if convs + fcs == 0:
        read.problem(f"{box}.NUM_CONV and NUM_FC are both 0; the usual FPN head has NUM_FC 2")
    return RoiSettings(
        num_classes=read("MODEL.ROI_HEADS.NUM_CLASSES"),
        levels=read.levels("MODEL.ROI_HEADS.IN_FEATURES", LEVELS[:4]),
        pooler=_pooler(read, "ROI_BOX_HEAD"),
        num_convs=convs,
        conv_channels=read.number(f"{box}.CONV_DIM", 1),
        num_fcs=fcs,
        fc_width=read.number(f"{box}.FC_DIM", 1),
        norm=read.choice(f"{box}.NORM", ("", *NORMS)),
        class_agnostic_boxes=read(f"{box}.CLS_AGNOSTIC_BBOX_REG"),
        iou_threshold=iou_threshold,
        batch_size_per_image=read.number("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 1),
        positive_fraction=read.number("MODEL.ROI_HEADS.POSITIVE_FRACTION", 0, 1),
        box_weights=read.sequence(f"{box}.BBOX_REG_WEIGHTS", 4),
        smooth_l1_beta=read.number(f"{box}.SMOOTH_L1_BETA", 0),
        box_loss_weight=read.number(f"{box}.BBOX_REG_LOSS_WEIGHT", 0),
        score_threshold=read.number("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0, 1),
        nms_threshold=read.number("MODEL.ROI_HEADS.NMS_THRESH_TEST", 0, 1),
        max_detections=read.number("TEST.DETECTIONS_PER_IMAGE", 1),
        mask=mask if read("MODEL.MASK_ON") else None,
    )


def _input(read: ConfigReader) -> InputSettings:
    sampling = read.choice("INPUT.MIN_SIZE_TRAIN_SAMPLING", ("choice", "range"))
    sizes = read.sequence("INPUT.MIN_SIZE_TRAIN", 2 if sampling == "range" else None)
    if not sizes or min(sizes) < 1:
        read.problem(f"INPUT.MIN_SIZE_TRAIN must hold positive sizes, got {list(sizes)}")
    return InputSettings(
        min_sizes_train=sizes,
        sample_size_in_range=sampling == "range",
        max_size_train=read.number("INPUT.MAX_SIZE_TRAIN", 1),
        min_size_test=read.number("INPUT.MIN_SIZE_TEST", 0),
        max_size_test=read.number("INPUT.MAX_SIZE_TEST", 1),
        flip=read.choice("INPUT.RANDOM_FLIP", ("horizontal", "vertical", "none")),
        channel_order=read.choice("INPUT.FORMAT", ("BGR", "RGB")),
        pixel_mean=read.sequence("MODEL.PIXEL_MEAN", 3),
        pixel_std=read.sequence("MODEL.PIXEL_STD", 3),
    )


def _loader(read: ConfigReader) -> LoaderSettings:
    samplers = ("TrainingSampler", "RepeatFactorTrainingSampler")
    sampler = read.choice("DATALOADER.SAMPLER_TRAIN", samplers)
    threshold = read.number("DATALOADER.REPEAT_THRESHOLD", 0)
    repeats = sampler == "RepeatFactorTrainingSampler"
    return LoaderSettings(
        batch_size=read.number("SOLVER.IMS_PER_BATCH", 1),
        num_workers=read.number("DATALOADER.NUM_WORKERS", 0),
        filter_empty=read("DATALOADER.FILTER_EMPTY_ANNOTATIONS"),
        group_by_aspect_ratio=read("DATALOADER.ASPECT_RATIO_GROUPING"),
        repeat_threshold=threshold if repeats else None,
        repeat_sqrt=read("DATALOADER.REPEAT_SQRT"),
    )


def _solver(read: ConfigReader) -> SolverSettings:
    clip = "SOLVER.CLIP_GRADIENTS"
    clip_type = read.choice(f"{clip}.CLIP_TYPE", ("value", "norm"))
    return SolverSettings(
        max_iter=read.number("SOLVER.MAX_ITER", 1),
        base_lr=read("SOLVER.BASE_LR"),
        base_lr_end=read.number("SOLVER.BASE_LR_END", 0),
        schedule=read.choice("SOLVER.LR_SCHEDULER_NAME", ("WarmupMultiStepLR", "WarmupCosineLR")),
        steps=read.sequence("SOLVER.STEPS", None),
        gamma=read("SOLVER.GAMMA"),
        warmup_iters=read.number("SOLVER.WARMUP_ITERS", 0),
        warmup_factor=read("SOLVER.WARMUP_FACTOR"),
        warmup_method=read.choice("SOLVER.WARMUP_METHOD", ("linear", "constant")),
        momentum=read("SOLVER.MOMENTUM"),
        nesterov=read("SOLVER.NESTEROV"),
        weight_decay=read("SOLVER.WEIGHT_DECAY"),
        weight_decay_norm=read("SOLVER.WEIGHT_DECAY_NORM"),
        weight_decay_bias=read("SOLVER.WEIGHT_DECAY_BIAS"),
        bias_lr_factor=read("SOLVER.BIAS_LR_FACTOR"),
        clip_type=clip_type if read(f"{clip}.ENABLED") else None,
        clip_value=read(f"{clip}.CLIP_VALUE"),
        clip_norm_type=read(f"{clip}.NORM_TYPE"),
    )
