"""What this engine reads from the configuration tree, as frozen plain data.

No class of this engine ever sees the tree: :func:`eql_d2.engines.tv.reading.read_settings` reads it
once. Keys keep Detectron2's meaning; their names there are those of the fields here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BackboneSettings:
    """ResNet with a feature pyramid. ``stride_in_1x1`` and ``freeze_at`` are Detectron2's."""

    depth: int
    norm: str
    groups: int
    width_per_group: int
    stride_in_1x1: bool
    freeze_at: int
    fpn_channels: int
    fpn_norm: str


@dataclass(frozen=True)
class RpnSettings:
    """Anchors, matching, losses and proposal counts; pairs are (training, test)."""

    levels: tuple[str, ...]
    anchor_sizes: tuple[tuple[int, ...], ...]
    aspect_ratios: tuple[tuple[float, ...], ...]
    num_convs: int
    iou_thresholds: tuple[float, float]
    batch_size_per_image: int
    positive_fraction: float
    box_weights: tuple[float, ...]
    smooth_l1_beta: float
    loss_weight: float
    box_loss_weight: float
    pre_nms_topk: tuple[int, int]
    post_nms_topk: tuple[int, int]
    nms_threshold: float
    min_box_size: float


@dataclass(frozen=True)
class PoolerSettings:
    """ROIAlign; ``aligned`` is the half-pixel correction of Detectron2's ``ROIAlignV2``."""

    resolution: int
    sampling_ratio: int
    aligned: bool


@dataclass(frozen=True)
class MaskSettings:
    """Mask head: 3x3 convolutions, one 2x up-sampling, one mask a class or one for all."""

    pooler: PoolerSettings
    num_convs: int
    channels: int
    norm: str
    class_agnostic: bool


@dataclass(frozen=True)
class RoiSettings:
    """Box head, sampling of proposals, and the choice of detections. ``mask`` None: boxes only."""

    num_classes: int
    levels: tuple[str, ...]
    pooler: PoolerSettings
    num_convs: int
    conv_channels: int
    num_fcs: int
    fc_width: int
    norm: str
    class_agnostic_boxes: bool
    iou_threshold: float
    batch_size_per_image: int
    positive_fraction: float
    box_weights: tuple[float, ...]
    smooth_l1_beta: float
    box_loss_weight: float
    score_threshold: float
    nms_threshold: float
    max_detections: int
    mask: MaskSettings | None


@dataclass(frozen=True)
class InputSettings:
    """Image sizes (shortest edge, pixels), flip and channel order ("RGB" or "BGR")."""

    min_sizes_train: tuple[int, ...]
    sample_size_in_range: bool
    max_size_train: int
    min_size_test: int
    max_size_test: int
    flip: str
    channel_order: str
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]


@dataclass(frozen=True)
class LoaderSettings:
    """Order of the training images and how they are read."""

    batch_size: int
    num_workers: int
    filter_empty: bool
    group_by_aspect_ratio: bool
    repeat_threshold: float | None
    repeat_sqrt: bool


@dataclass(frozen=True)
class SolverSettings:
    """SGD, learning-rate schedule and gradient clipping, with Detectron2's meaning."""

    max_iter: int
    base_lr: float
    base_lr_end: float
    schedule: str
    steps: tuple[int, ...]
    gamma: float
    warmup_iters: int
    warmup_factor: float
    warmup_method: str
    momentum: float
    nesterov: bool
    weight_decay: float
    weight_decay_norm: float
    weight_decay_bias: float | None
    bias_lr_factor: float
    clip_type: str | None
    clip_value: float
    clip_norm_type: float


@dataclass(frozen=True)
class Settings:
    """All of it. ``seed`` below 0 means: draw one. Periods are iterations; 0 means never."""

    backbone: BackboneSettings
    rpn: RpnSettings
    roi: RoiSettings
    input: InputSettings
    loader: LoaderSettings
    solver: SolverSettings
    weights: str
    device: str
    output_dir: str
    seed: int
    checkpoint_period: int
    eval_period: int
    log_period: int
    cudnn_benchmark: bool
    float32_precision: str
