"""A small Detectron2 detector and data set."""

from contextlib import suppress

import pytest
import torch

from eql_d2.categories import CategoryStatistics, write_statistics
from eql_d2.command_line import TrainOptions
from eql_d2.config import load_config
from eql_d2.data import generate_longtail_shapes
from eql_d2.errors import MissingPackageError
from eql_d2.experiment import prepare_experiment

with suppress(MissingPackageError):
    from eql_d2.engines.d2 import run
    from eql_d2.engines.d2.compat import Boxes, Instances, build_model, get_cfg
    from eql_d2.engines.d2.job import prepare_job

TINY_CONFIG = """
MODEL:
  DEVICE: cpu
  MASK_ON: true
  BACKBONE: {NAME: build_resnet_fpn_backbone, FREEZE_AT: 0}
  RESNETS:
    DEPTH: 18
    RES2_OUT_CHANNELS: 64
    NORM: GN
    OUT_FEATURES: [res2, res3, res4, res5]
  FPN: {IN_FEATURES: [res2, res3, res4, res5], OUT_CHANNELS: 32}
  ANCHOR_GENERATOR: {SIZES: [[8], [16], [32]], ASPECT_RATIOS: [[0.5, 1.0, 2.0]]}
  RPN:
    IN_FEATURES: [p2, p3, p4]
    PRE_NMS_TOPK_TRAIN: 100
    PRE_NMS_TOPK_TEST: 100
    POST_NMS_TOPK_TRAIN: 50
    POST_NMS_TOPK_TEST: 30
  ROI_HEADS:
    NAME: EQLROIHeads
    IN_FEATURES: [p2, p3, p4]
    BATCH_SIZE_PER_IMAGE: 32
    SCORE_THRESH_TEST: 0.0001
  ROI_BOX_HEAD: {NAME: FastRCNNConvFCHead, NUM_FC: 1, FC_DIM: 32, POOLER_RESOLUTION: 7}
  ROI_MASK_HEAD:
    {NAME: MaskRCNNConvUpsampleHead, NUM_CONV: 1, CONV_DIM: 16, POOLER_RESOLUTION: 14}
  EQL: {LOG_PERIOD: 1, LOSS: {NAME: EQL, TAIL_RATIO: 0.2}}
DATA:
  GENERATE: longtail_shapes
  LONGTAIL_SHAPES: {NUM_CATEGORIES: 6, NUM_TRAIN_IMAGES: 12, NUM_TEST_IMAGES: 5, IMAGE_SIZE: 64}
INPUT: {MIN_SIZE_TRAIN: [64], MIN_SIZE_TEST: 64}
SOLVER:
  {IMS_PER_BATCH: 2, MAX_ITER: 4, STEPS: [3], BASE_LR: 0.01, WARMUP_ITERS: 2, CHECKPOINT_PERIOD: 2}
DATALOADER: {NUM_WORKERS: 0}
TEST: {DETECTIONS_PER_IMAGE: 10}
EVALUATION: {NUM_PICTURES: 0}
SEED: 3
"""
# Images with each of the five categories of the tests' statistics, of 1000: two are tail.
IMAGE_COUNTS = (600, 300, 100, 5, 2)
TAIL = [False, False, False, True, True]


@pytest.fixture(scope="session")
def statistics():
    return CategoryStatistics.from_counts(
        names=[f"thing {i}" for i in range(5)],
        category_ids=[2, 3, 5, 7, 11],
        image_count=IMAGE_COUNTS,
        instance_count=[2 * n for n in IMAGE_COUNTS],
        num_images=1000,
    )


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory):
    """Path of a configuration that trains on the generated set in a few seconds."""
    folder = tmp_path_factory.mktemp("d2")
    path = folder / "tiny.yaml"
    path.write_text(TINY_CONFIG)
    generate_longtail_shapes(
        folder / "shapes",
        num_categories=6,
        num_train_images=12,
        num_test_images=5,
        image_size=64,
        seed=0,
    )
    return path


@pytest.fixture
def tiny_cfg(tiny_config, tmp_path, statistics):
    """Detectron2's tree for the heads alone: five categories, lambda so that two are tail."""
    cfg = load_config(tiny_config, defaults=get_cfg())
    cfg.MODEL.EQL.LOSS.TAIL_RATIO = 0.0
    cfg.MODEL.EQL.LOSS.LAMBDA = 0.01
    cfg.MODEL.EQL.STATISTICS = str(write_statistics(statistics, tmp_path))
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 5
    return cfg


@pytest.fixture
def tiny_model(tiny_cfg):
    torch.manual_seed(0)
    return build_model(tiny_cfg)


@pytest.fixture
def options(tiny_config):
    """Build the options of a run: ``options("run1", "KEY", "VALUE", num_gpus=2)``."""

    def make(output_dir, *overrides, **fields):
        shapes = ("DATA.LONGTAIL_SHAPES.DIR", str(tiny_config.parent / "shapes"))
        overrides = (*shapes, "OUTPUT_DIR", str(output_dir), *map(str, overrides))
        return TrainOptions(config_file=str(tiny_config), overrides=overrides, **fields)

    return make


@pytest.fixture
def make_job(options, tmp_path):
    """Prepare a job: ``make_job("KEY", "VALUE", world_size=1)``."""

    def make(*overrides, training=True, **kwargs):
        chosen = options(tmp_path / "out", *overrides)
        cfg = load_config(chosen.config_file, chosen.overrides, defaults=get_cfg())
        experiment = prepare_experiment(cfg, training=training)
        kwargs = {"world_size": 1, **kwargs}
        return prepare_job(cfg, experiment, tmp_path, training=training, **kwargs)

    return make


@pytest.fixture(scope="session")
def trained(tmp_path_factory, tiny_config):
    """Folder and metrics of one trained run, for all tests that only look at what it left."""
    folder = tmp_path_factory.mktemp("trained")
    shapes = ("DATA.LONGTAIL_SHAPES.DIR", str(tiny_config.parent / "shapes"))
    overrides = (*shapes, "OUTPUT_DIR", str(folder), "TEST.EVAL_PERIOD", "2")
    overrides += ("EVALUATION.NUM_PICTURES", "1")
    metrics = run(TrainOptions(str(tiny_config), overrides=overrides))
    return folder, metrics


def noise_batch(labels_by_image, size=64, seed=0):
    """Return model inputs: noise images with squares of the given labels, with masks."""
    generator = torch.Generator().manual_seed(seed)
    batch = []
    for image_id, labels in enumerate(labels_by_image):
        instances = Instances((size, size))
        corners = torch.randint(0, size // 2, (len(labels), 2), generator=generator).float()
        boxes = torch.cat([corners, corners + 20], dim=1)
        instances.gt_boxes = Boxes(boxes)
        instances.gt_classes = torch.tensor(labels, dtype=torch.int64)
        instances.gt_masks = _squares(boxes, size)
        image = torch.randint(0, 256, (3, size, size), generator=generator).float()
        batch.append({"image": image, "image_id": image_id, "instances": instances})
    return batch


def _squares(boxes, size):
    from detectron2.structures import BitMasks

    masks = torch.zeros(len(boxes), size, size, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y0:y1, x0:x1] = True
    return BitMasks(masks)


@pytest.fixture
def make_batch():
    return noise_batch
