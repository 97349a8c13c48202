"""Every key of the tree is honoured, shared, harmless or refused; nothing is silently ignored."""

import dataclasses
import logging

import pytest

from eql_d2.config import load_config
from eql_d2.engines.tv.keys import HARMLESS, SHARED, ConfigReader
from eql_d2.engines.tv.reading import read_settings
from eql_d2.errors import ConfigError


def all_keys(cfg, prefix=""):
    for name, value in cfg.items():
        if hasattr(value, "items") and value:
            yield from all_keys(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


@pytest.fixture
def asked(tiny_config, monkeypatch):
    """Names of all keys that the engine reads."""
    readers = []
    finish = ConfigReader.finish
    monkeypatch.setattr(ConfigReader, "finish", lambda self: (readers.append(self), finish(self)))
    read_settings(load_config(tiny_config))
    return readers[0].asked


def test_every_key_has_exactly_one_kind(asked, tiny_config):
    keys = set(all_keys(load_config(tiny_config)))
    harmless = {k for k in keys if k.startswith(tuple(HARMLESS))}
    shared = {k for k in keys if k.startswith(SHARED)}
    refused = keys - asked - harmless - shared
    assert asked <= keys
    assert not asked & harmless
    assert not harmless & shared
    assert refused == REFUSED


REFUSED = {
    "INPUT.CROP.ENABLED",
    "MODEL.ANCHOR_GENERATOR.NAME",
    "MODEL.ANCHOR_GENERATOR.OFFSET",
    "MODEL.FPN.FUSE_TYPE",
    "MODEL.KEYPOINT_ON",
    "MODEL.LOAD_PROPOSALS",
    "MODEL.PROPOSAL_GENERATOR.NAME",
    "MODEL.RESNETS.DEFORM_ON_PER_STAGE",
    "MODEL.RESNETS.RES5_DILATION",
    "MODEL.RESNETS.STEM_OUT_CHANNELS",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE",
    "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES",
    "MODEL.ROI_BOX_HEAD.USE_FED_LOSS",
    "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE",
    "MODEL.ROI_HEADS.PROPOSAL_APPEND_GT",
    "MODEL.RPN.BBOX_REG_LOSS_TYPE",
    "MODEL.RPN.BOUNDARY_THRESH",
    "MODEL.RPN.HEAD_NAME",
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST",
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN",
    "DATASETS.PROPOSAL_FILES_TEST",
    "DATASETS.PROPOSAL_FILES_TRAIN",
    "SOLVER.AMP.ENABLED",
    "SOLVER.REFERENCE_WORLD_SIZE",
    "SOLVER.RESCALE_INTERVAL",
    "TEST.AUG.ENABLED",
    "TEST.EXPECTED_RESULTS",
    "TEST.PRECISE_BN.ENABLED",
}


def test_harmless_prefixes_all_mean_a_key(tiny_config):
    keys = set(all_keys(load_config(tiny_config)))
    assert [p for p in HARMLESS if not any(k.startswith(p) for k in keys)] == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.ROI_HEADS.NAME", "EQLCascadeROIHeads"),
        ("MODEL.META_ARCHITECTURE", "RetinaNet"),
        ("MODEL.BACKBONE.NAME", "build_resnet_backbone"),
        ("MODEL.RPN.HEAD_NAME", "OtherHead"),
        ("MODEL.WEIGHTS", "detectron2://ImageNetPretrained/MSRA/R-50.pkl"),
        ("MODEL.WEIGHTS", "no/such/file.pth"),
        ("SOLVER.AMP.ENABLED", "True"),
        ("MODEL.RESNETS.DEPTH", "20"),
        ("MODEL.RESNETS.NORM", "nope"),
        ("MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", "True"),
        ("MODEL.RPN.IN_FEATURES", "['p2', 'p4']"),
        ("MODEL.ANCHOR_GENERATOR.SIZES", "[[16], [32]]"),
        ("MODEL.ANCHOR_GENERATOR.SIZES", "[[16], [32, 64], [128]]"),
        ("MODEL.ROI_HEADS.IOU_THRESHOLDS", "[0.3, 0.5]"),
        ("MODEL.ROI_HEADS.POSITIVE_FRACTION", "1.5"),
        ("DATALOADER.SAMPLER_TRAIN", "RandomSubsetTrainingSampler"),
        ("INPUT.FORMAT", "L"),
        ("INPUT.MIN_SIZE_TRAIN", "[]"),
        ("MODEL.RESNETS.OUT_FEATURES", "['res5']"),
        ("MODEL.RPN.CONV_DIMS", "[128]"),
        ("SOLVER.LR_SCHEDULER_NAME", "WarmupStepWithFixedGammaLR"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(tiny_config, key, value):
    with pytest.raises(ConfigError) as caught:
        read_settings(load_config(tiny_config, [key, value]))
    assert any(problem.startswith((key, f"{key}:")) for problem in caught.value.problems)


def test_all_problems_come_in_one_error(tiny_config):
    overrides = ["SOLVER.AMP.ENABLED", "True", "MODEL.RPN.NMS_THRESH", "2.0", "INPUT.FORMAT", "L"]
    with pytest.raises(ConfigError) as caught:
        read_settings(load_config(tiny_config, overrides))
    assert len(caught.value.problems) == 3


def test_the_repeat_threshold_is_read_where_images_are_to_repeat(tiny_config):
    overrides = ["DATALOADER.REPEAT_THRESHOLD", "0.25"]
    assert read_settings(load_config(tiny_config, overrides)).loader.repeat_threshold is None
    overrides += ["DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler"]
    assert read_settings(load_config(tiny_config, overrides)).loader.repeat_threshold == 0.25


def test_harmless_keys_are_warned_about(tiny_config, caplog):
    with caplog.at_level(logging.WARNING, logger="eql_d2.engines.tv"):
        read_settings(load_config(tiny_config, ["VIS_PERIOD", "7"]))
    assert [r.getMessage() for r in caplog.records] == [
        "VIS_PERIOD = 7 changes nothing: pictures are drawn after the evaluation instead"
    ]


# Keys with few possible values, by one that differs from the tiny configuration's.
SPECIAL = {
    "DATALOADER.SAMPLER_TRAIN": "RepeatFactorTrainingSampler",
    "FLOAT32_PRECISION": "high",
    "INPUT.FORMAT": "BGR",
    "INPUT.MIN_SIZE_TRAIN": [32, 96],
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": "range",
    "INPUT.RANDOM_FLIP": "none",
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[1.0, 2.0]],
    "MODEL.ANCHOR_GENERATOR.SIZES": [[8], [16], [32]],
    "MODEL.FPN.NORM": "GN",
    "MODEL.RESNETS.DEPTH": 34,
    "MODEL.RESNETS.NORM": "GN",
    "MODEL.ROI_BOX_HEAD.NORM": "BN",
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlign",
    "MODEL.ROI_HEADS.IN_FEATURES": ["p2"],
    "MODEL.ROI_HEADS.IOU_THRESHOLDS": [0.6],
    "MODEL.ROI_MASK_HEAD.NORM": "BN",
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": "ROIAlign",
    "MODEL.RPN.CONV_DIMS": [-1, -1],
    "MODEL.RPN.IOU_THRESHOLDS": [0.2, 0.8],
    "MODEL.RPN.IN_FEATURES": ["p3", "p4", "p5"],
    "OUTPUT_DIR": "elsewhere",
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "norm",
    "SOLVER.LR_SCHEDULER_NAME": "WarmupCosineLR",
    "SOLVER.STEPS": [1, 2],
    "SOLVER.WARMUP_METHOD": "constant",
    "SOLVER.WEIGHT_DECAY_BIAS": 0.5,
    "MODEL.DEVICE": "cuda",
}
# Read only to be checked: they have one value that works with the rest of the tiny configuration.
FIXED = {
    "MODEL.BACKBONE.NAME",
    "MODEL.FPN.IN_FEATURES",
    "MODEL.META_ARCHITECTURE",
    "MODEL.RESNETS.NUM_GROUPS",
    "MODEL.RESNETS.OUT_FEATURES",
    "MODEL.RESNETS.RES2_OUT_CHANNELS",
    "MODEL.RESNETS.WIDTH_PER_GROUP",
    "MODEL.ROI_BOX_HEAD.NAME",
    "MODEL.ROI_HEADS.IOU_LABELS",
    "MODEL.ROI_HEADS.NAME",
    "MODEL.ROI_MASK_HEAD.NAME",
    "MODEL.RPN.IOU_LABELS",
    "MODEL.WEIGHTS",
}


def other_value(name, value):
    if name in SPECIAL:
        return SPECIAL[name]
    if isinstance(value, bool):
        return not value
    if isinstance(value, (list, tuple)):
        return [2 * v for v in value]
    return value + 1 if isinstance(value, int) else value / 2 + 0.125


def test_every_key_that_is_read_changes_the_settings(asked, tiny_config):
    base_overrides = {
        "SOLVER.CLIP_GRADIENTS.ENABLED": True,
        "DATALOADER.REPEAT_THRESHOLD": 0.5,
        "INPUT.MIN_SIZE_TRAIN": [32, 64],
    }

    def read(**changed):
        cfg = load_config(tiny_config)
        for name, value in {**base_overrides, **changed}.items():
            node, leaf = cfg, name
            while "." in leaf:
                head, leaf = leaf.split(".", 1)
                node = node[head]
            node[leaf] = value
        return cfg, read_settings(cfg)

    cfg, base = read()
    unchanged = []
    for name in sorted(asked - FIXED):
        node = cfg
        for part in name.split("."):
            node = node[part]
        extra = {}
        if name in ("DATALOADER.REPEAT_THRESHOLD", "DATALOADER.REPEAT_SQRT"):
            extra["DATALOADER.SAMPLER_TRAIN"] = "RepeatFactorTrainingSampler"
        reference = read(**extra)[1] if extra else base
        if read(**extra, **{name: other_value(name, node)})[1] == reference:
            unchanged.append(name)
    assert unchanged == []


def test_settings_cannot_be_changed(settings_of):
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings_of().seed = 5
