"""A small detector and a small data set for the tests of the torchvision engine."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from eql_d2.command_line import TrainOptions
from eql_d2.config import load_config
from eql_d2.engines.tv import run
from eql_d2.engines.tv.model import build_model
from eql_d2.engines.tv.reading import read_settings
from eql_d2.losses import build_loss

TINY_CONFIG = """
MODEL:
  META_ARCHITECTURE: GeneralizedRCNN
  DEVICE: cpu
  MASK_ON: true
  BACKBONE: {NAME: build_resnet_fpn_backbone, FREEZE_AT: 0}
  RESNETS:
    {DEPTH: 18, RES2_OUT_CHANNELS: 64, NORM: BN, OUT_FEATURES: [res2, res3, res4, res5]}
  FPN: {IN_FEATURES: [res2, res3, res4, res5], OUT_CHANNELS: 32}
  ANCHOR_GENERATOR: {SIZES: [[16], [32], [64]], ASPECT_RATIOS: [[0.5, 1.0, 2.0]]}
  RPN:
    IN_FEATURES: [p2, p3, p4]
    PRE_NMS_TOPK_TRAIN: 100
    PRE_NMS_TOPK_TEST: 100
    POST_NMS_TOPK_TRAIN: 50
    POST_NMS_TOPK_TEST: 50
    BATCH_SIZE_PER_IMAGE: 64
  ROI_HEADS:
    NAME: EQLROIHeads
    IN_FEATURES: [p2, p3]
    BATCH_SIZE_PER_IMAGE: 32
    POSITIVE_FRACTION: 0.5
    SCORE_THRESH_TEST: 0.0001
  ROI_BOX_HEAD: {NAME: FastRCNNConvFCHead, NUM_FC: 1, FC_DIM: 64, POOLER_RESOLUTION: 7}
  ROI_MASK_HEAD:
    {NAME: MaskRCNNConvUpsampleHead, NUM_CONV: 1, CONV_DIM: 32, POOLER_RESOLUTION: 14}
  EQL: {LOG_PERIOD: 2, LOSS: {NAME: EQL, LAMBDA: 0.4}}
INPUT: {MIN_SIZE_TRAIN: [64], MIN_SIZE_TEST: 64, FORMAT: RGB}
SOLVER: {IMS_PER_BATCH: 2, MAX_ITER: 4, STEPS: [3], BASE_LR: 0.01, WARMUP_ITERS: 2}
DATALOADER: {NUM_WORKERS: 0}
EVALUATION: {NUM_PICTURES: 0}
SEED: 3
"""
NUM_CLASSES = 3
COLOURS = np.array([[220, 40, 40], [40, 220, 40], [40, 40, 220]], np.uint8)


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory):
    """Path of a configuration that trains in a second."""
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(TINY_CONFIG)
    return path


@pytest.fixture
def settings_of(tiny_config):
    """Function from KEY VALUE overrides to settings with three classes."""

    def make(*overrides):
        overrides = ["MODEL.ROI_HEADS.NUM_CLASSES", str(NUM_CLASSES), *map(str, overrides)]
        return read_settings(load_config(tiny_config, overrides))

    return make


@pytest.fixture
def model_of(settings_of):
    """Function from overrides (and a loss) to a model with fixed random weights."""

    def make(*overrides, loss=None, seed=0):
        settings = settings_of(*overrides)
        torch.manual_seed(seed)
        fraction = torch.tensor([0.6, 0.4, 0.1], dtype=torch.float64)
        loss = loss or build_loss("EQL", image_fraction=fraction, lambda_=0.3)
        return build_model(settings, loss, fraction < 0.3)

    return make


@pytest.fixture
def batch():
    """Two images with targets; the second has no objects."""
    generator = torch.Generator().manual_seed(5)
    images = [torch.rand(3, 64, 64, generator=generator) * 255, torch.full((3, 48, 64), 99.0)]
    masks = torch.zeros(2, 64, 64, dtype=torch.uint8)
    masks[0, 8:30, 6:28] = 1
    masks[1, 30:60, 35:60] = 1
    targets = [
        {
            "boxes": torch.tensor([[6.0, 8, 28, 30], [35, 30, 60, 60]]),
            "labels": torch.tensor([0, 2]),
            "masks": masks,
        },
        {
            "boxes": torch.zeros(0, 4),
            "labels": torch.zeros(0, dtype=torch.int64),
            "masks": torch.zeros(0, 48, 64, dtype=torch.uint8),
        },
    ]
    return images, targets


@dataclasses.dataclass
class SquaresData:
    """Where a data set of coloured squares lies."""

    json: str
    images: str

    @property
    def overrides(self):
        """The data set as training and test data."""
        return [
            *("DATA.TRAIN_JSON", str(self.json), "DATA.TRAIN_IMAGES", str(self.images)),
            *("DATA.TEST_JSON", str(self.json), "DATA.TEST_IMAGES", str(self.images)),
        ]


@pytest.fixture(scope="session")
def squares(tmp_path_factory):
    """Six images of 64 x 64 with one or two coloured squares, category ids 3, 7, 20; one empty."""
    folder = tmp_path_factory.mktemp("squares")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    document = {"images": [], "annotations": [], "categories": []}
    document["categories"] = [{"id": i, "name": f"c{i}"} for i in (3, 7, 20)]
    for number in range(7):
        pixels = rng.integers(90, 120, (64, 64, 3)).astype(np.uint8)
        entry = {"id": 100 + number, "file_name": f"{number}.png", "height": 64, "width": 64}
        document["images"].append(entry)
        for left in (4, 36)[: 0 if number == 6 else 1 + number % 2]:
            # The third category is in two of the six images, and tail at the lambda above.
            category = (0, 1, 2, 0, 1, 2, 0, 1, 0)[len(document["annotations"])]
            top, side = int(rng.integers(4, 34)), int(rng.integers(18, 25))
            pixels[top : top + side, left : left + side] = COLOURS[category]
            box = [left, top, side, side]
            x, y, w, h = box
            document["annotations"].append(
                {
                    "id": len(document["annotations"]) + 1,
                    "image_id": entry["id"],
                    "category_id": (3, 7, 20)[category],
                    "bbox": box,
                    "area": side * side,
                    "iscrowd": 0,
                    "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                }
            )
        Image.fromarray(pixels).save(folder / "images" / entry["file_name"])
    path = folder / "squares.json"
    path.write_text(json.dumps(document))
    return SquaresData(str(path), str(folder / "images"))


@pytest.fixture
def start(tiny_config, squares, tmp_path):
    """Function that runs the tiny configuration on the squares into ``tmp_path / name``."""

    def start(name, *overrides, data=squares, **options):
        overrides = [*data.overrides, "OUTPUT_DIR", str(tmp_path / name), *map(str, overrides)]
        return run(TrainOptions(str(tiny_config), overrides=tuple(overrides), **options))

    return start
