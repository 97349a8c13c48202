"""Checks of configuration values, before any data is read."""

import pytest
import torch

from eql_d2.config import default_config
from eql_d2.config_checks import config_problems, fit_problems, mask_problems
from eql_d2.errors import ConfigError
from eql_d2.losses import THRESHOLD_FUNCTIONS, threshold


@pytest.fixture
def cfg():
    cfg = default_config()
    cfg.MODEL.EQL.LOSS.TAIL_RATIO = 0.05
    return cfg


def test_a_sound_configuration_has_no_problems(cfg):
    assert config_problems(cfg) == []


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("MODEL.EQL.LOSS.NAME", "EQLL", "did you mean EQL?"),
        ("MODEL.EQL.LOSS.LAMBDA", -0.5, "LAMBDA must lie in [0, 1]"),
        ("MODEL.EQL.LOSS.LAMBDA", 0.01, "both choose the tail"),
        ("MODEL.EQL.LOSS.TAIL_RATIO", 0.0, "EQL needs MODEL.EQL.LOSS.LAMBDA"),
        ("MODEL.EQL.LOSS.GAMMA", -0.1, "GAMMA"),
        ("MODEL.EQL.LOSS.PRIOR_PROB", 0.0, "PRIOR_PROB must lie in (0, 1)"),
        ("MODEL.EQL.LOSS.THRESHOLD_FUNCTION", "linear", "step, exponential, gompertz"),
        ("MODEL.EQL.LOSS.THRESHOLD_PARAMETERS", [1.0], "needs 0 numbers (or none) for step"),
        ("DATASETS.TRAIN", ["lvis_v1_train"], "DATA.TRAIN_JSON"),
        ("DATA.GENERATE", "shapes", "longtail_shapes"),
        ("DATA.GROUP_MODE", "median", "counts or quantiles"),
        ("DATA.RARE_MAX_IMAGES", 100, "must be below"),
        ("SOLVER.MAX_ITER", 0, "SOLVER.MAX_ITER must be at least 1"),
        ("SOLVER.IMS_PER_BATCH", 0, "SOLVER.IMS_PER_BATCH"),
        ("SOLVER.BASE_LR", 0.0, "SOLVER.BASE_LR must be positive"),
        ("SOLVER.STEPS", [20, 10], "must increase"),
        ("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler", "above 0 (LVIS: 0.001)"),
        ("DATALOADER.NUM_WORKERS", -1, "NUM_WORKERS must be 0 or more"),
        ("MODEL.EQL.LOG_PERIOD", 0, "LOG_PERIOD must be at least 1"),
        ("MODEL.DEVICE", "gpu", "must be auto, cpu, cuda or cuda:N, got 'gpu'"),
    ],
)
def test_each_wrong_value_is_named_once(cfg, key, value, said):
    cfg.merge_from_list([key, value])
    problems = config_problems(cfg)
    assert len(problems) == 1
    assert said in problems[0]


def test_an_output_folder_that_cannot_be_made_is_named(cfg, tmp_path):
    (tmp_path / "file").touch()
    cfg.OUTPUT_DIR = str(tmp_path / "file" / "run")
    (problem,) = config_problems(cfg)
    assert problem.startswith(f"OUTPUT_DIR {cfg.OUTPUT_DIR}: ")
    assert "file is a file; give a folder" in problem


def test_baselines_need_no_tail(cfg):
    cfg.MODEL.EQL.LOSS.TAIL_RATIO = 0.0
    for name in ("SigmoidCE", "SoftmaxCE"):
        cfg.MODEL.EQL.LOSS.NAME = name
        assert config_problems(cfg) == []


@pytest.mark.parametrize("name", [n for n in THRESHOLD_FUNCTIONS if n != "step"])
@pytest.mark.parametrize("loss", ["EQL", "SEQL"])
def test_a_soft_threshold_needs_no_lambda(cfg, loss, name):
    cfg.MODEL.EQL.LOSS.TAIL_RATIO = 0.0
    cfg.MODEL.EQL.LOSS.NAME, cfg.MODEL.EQL.LOSS.THRESHOLD_FUNCTION = loss, name
    assert config_problems(cfg) == []
    cfg.MODEL.EQL.LOSS.THRESHOLD_FUNCTION = "step"
    assert "needs MODEL.EQL.LOSS.LAMBDA" in config_problems(cfg)[0]


@pytest.mark.parametrize("name", THRESHOLD_FUNCTIONS)
def test_a_count_of_parameters_is_accepted_where_the_threshold_function_takes_it(cfg, name):
    cfg.MODEL.EQL.LOSS.THRESHOLD_FUNCTION = name
    for given in range(5):
        parameters = [1.0] * given
        cfg.MODEL.EQL.LOSS.THRESHOLD_PARAMETERS = parameters
        try:
            threshold(name, torch.tensor([0.1]), 0.01, parameters)
        except ConfigError:
            assert "THRESHOLD_PARAMETERS" in config_problems(cfg)[0]
        else:
            assert config_problems(cfg) == []


def test_generated_data_and_given_data_exclude_each_other(cfg):
    cfg.DATA.GENERATE = "longtail_shapes"
    assert config_problems(cfg) == []
    cfg.DATA.TRAIN_JSON = "train.json"
    assert "DATA.TRAIN_JSON" in config_problems(cfg)[0]


def test_a_gpu_that_is_not_there_is_named(cfg, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cfg.MODEL.DEVICE = "cuda"
    assert "sees no GPU" in config_problems(cfg)[0]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert config_problems(cfg) == []


def test_problems_of_different_parts_come_together(cfg):
    cfg.SOLVER.BASE_LR = -1.0
    cfg.DATA.GENERATE = "x"
    cfg.MODEL.EQL.LOSS.GAMMA = 2.0
    assert len(config_problems(cfg)) == 3


@pytest.mark.parametrize("num_classes", [2, 4, 80, 1230])
def test_a_wrong_class_count_names_both_numbers_and_the_key(cfg, num_classes):
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = num_classes
    (problem,) = fit_problems(cfg, "test.json", [1, 5, 9], {})
    assert f"NUM_CLASSES is {num_classes}" in problem
    assert "has 3 categories" in problem


@pytest.mark.parametrize("num_classes", [-1, 3])
def test_the_right_class_count_and_minus_one_are_accepted(cfg, num_classes):
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = num_classes
    assert fit_problems(cfg, "test.json", [1, 5, 9], {"train": (1, 5, 9)}) == []


def test_category_lists_that_differ_are_named_with_examples(cfg):
    (problem,) = fit_problems(cfg, "test.json", [1, 5, 9], {"MODEL.EQL.STATISTICS": [1, 5, 10, 11]})
    assert "MODEL.EQL.STATISTICS has 4 categories" in problem
    assert "[9]" in problem
    assert "[10, 11]" in problem


def test_masks_are_needed_only_where_they_are_trained(cfg):
    cfg.MODEL.MASK_ON = True
    assert mask_problems(cfg, {"train.json": True}) == []
    (problem,) = mask_problems(cfg, {"train.json": False, "test.json": True})
    assert "train.json" in problem
    cfg.MODEL.MASK_ON = False
    assert mask_problems(cfg, {"train.json": False}) == []
