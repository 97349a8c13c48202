"""Checks of configuration values, before any data is read."""

import pytest
import torch

from eql_d2.config import default_config
from eql_d2.config_checks import (
    category_difference,
    config_problems,
    config_warnings,
    fit_problems,
    mask_problems,
)
from eql_d2.errors import ConfigError
from eql_d2.losses import THRESHOLD_FUNCTIONS, threshold

CATEGORIES = {1: "cat", 5: "dog", 9: "bird"}


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
        ("SOLVER.MOMENTUM", -1.0, "SOLVER.MOMENTUM must be 0 or more"),
        ("SOLVER.WEIGHT_DECAY_NORM", -0.1, "SOLVER.WEIGHT_DECAY_NORM must be 0 or more"),
        ("SEED", 10**20, "SEED must be below 2**63"),
        ("SOLVER.WEIGHT_DECAY_BIAS", "nan", "must be a number, or None"),
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
    (problem,) = fit_problems(cfg, "test.json", CATEGORIES, {})
    assert f"NUM_CLASSES is {num_classes}" in problem
    assert "has 3 categories" in problem


@pytest.mark.parametrize("num_classes", [-1, 3])
def test_the_right_class_count_and_minus_one_are_accepted(cfg, num_classes):
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = num_classes
    assert fit_problems(cfg, "test.json", CATEGORIES, {"train": dict(CATEGORIES)}) == []


def test_category_lists_that_differ_are_named_with_examples(cfg):
    others = {"MODEL.EQL.STATISTICS": {1: "cat", 5: "dog", 10: "bird", 11: "cow"}}
    (problem,) = fit_problems(cfg, "test.json", CATEGORIES, others)
    assert problem == (
        "MODEL.EQL.STATISTICS has 4 categories, DATA.TEST_JSON test.json has 3, and 3 of 5 ids "
        "differ (first: id 9 is missing in the former, 'bird' in the latter; id 10 is 'bird' in "
        "the former, missing in the latter; id 11 is 'cow' in the former, missing in the latter). "
        "Both must have the same ids and names"
    )


def test_names_are_compared_and_the_first_that_differ_are_named():
    assert category_difference(CATEGORIES, dict(CATEGORIES)) == ""
    other = {1: "cat", 5: "Dog", 9: "bird"}
    assert category_difference(CATEGORIES, other) == (
        "1 of 3 ids differ (first: id 5 is 'dog' in the former, 'Dog' in the latter)"
    )
    many = {i: f"c{i}" for i in range(1000)}
    text = category_difference(many, {i: f"other{i}" for i in many})
    assert "1000 of 1000 ids differ" in text
    assert "'other2'" in text
    assert "'other3'" not in text
    assert len(category_difference({1: "x" * 10**6}, {1: "\x1b[31m"})) < 300
    assert "\x1b" not in category_difference({1: "a"}, {1: "\x1b[31m"})


def test_shifted_ids_are_recognised():
    shifted = {i + 1: name for i, name in CATEGORIES.items()}
    assert "the ids seem to be shifted" in category_difference(CATEGORIES, shifted)


def test_masks_are_needed_only_where_they_are_trained(cfg):
    cfg.MODEL.MASK_ON = True
    assert mask_problems(cfg, {"train.json": True}) == []
    (problem,) = mask_problems(cfg, {"train.json": False, "test.json": True})
    assert "train.json" in problem
    cfg.MODEL.MASK_ON = False
    assert mask_problems(cfg, {"train.json": False}) == []


def warnings_of(cfg, *overrides, rate=lambda iteration: iteration / 1000):
    cfg.merge_from_list(list(overrides))
    return config_warnings(cfg, rate)


def test_a_warm_up_longer_than_the_training_is_told_with_both_rates_and_the_key(cfg):
    (warning,) = warnings_of(
        cfg, "SOLVER.MAX_ITER", 600, "SOLVER.STEPS", [450, 550], "SOLVER.BASE_LR", 0.8
    )
    assert warning == (
        "SOLVER.BASE_LR is 0.8, but the learning rate reaches at most 0.599: the warm-up of "
        "SOLVER.WARMUP_ITERS 1000 iterations is too long; set it below SOLVER.MAX_ITER 600 and the "
        "first of SOLVER.STEPS [450, 550]"
    )


@pytest.mark.parametrize(
    ("warmup", "steps", "warned"),
    [
        (99, [], False),
        (100, [], True),
        (49, [50, 80], False),
        (50, [50, 80], True),  # ends where the rate is lowered: it never was the whole one
        (70, [50, 80], True),
        (0, [50], False),
    ],
)
def test_a_warm_up_must_end_before_the_first_step_and_the_end(cfg, warmup, steps, warned):
    overrides = ("SOLVER.WARMUP_ITERS", warmup, "SOLVER.STEPS", steps, "SOLVER.MAX_ITER", 100)
    lines = warnings_of(cfg, *overrides)
    assert [" SOLVER.WARMUP_ITERS " in line for line in lines] == [True] * warned


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([], None),
        ([99], None),
        ([100], "[100] are not below SOLVER.MAX_ITER 100: the learning rate is never lowered"),
        ([60, 100, 200], "[100, 200] are not below SOLVER.MAX_ITER 100: the learning rate is "
         "lowered at [60] only"),
    ],
)  # fmt: skip
def test_steps_that_never_come_are_told(cfg, steps, said):
    overrides = ("SOLVER.WARMUP_ITERS", 0, "SOLVER.STEPS", steps, "SOLVER.MAX_ITER", 100)
    lines = warnings_of(cfg, *overrides)
    assert len(lines) == (said is not None)
    assert all(said in line for line in lines)


def test_a_schedule_without_steps_is_not_asked_for_them(cfg):
    overrides = ("SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR", "SOLVER.STEPS", [100, 900])
    assert warnings_of(cfg, *overrides, "SOLVER.MAX_ITER", 1001) == []


def test_threshold_parameters_must_be_numbers(cfg):
    cfg.MODEL.EQL.LOSS.THRESHOLD_FUNCTION = "exponential"
    cfg.MODEL.EQL.LOSS.THRESHOLD_PARAMETERS = ["nan", 2]
    (problem,) = config_problems(cfg)
    assert problem == "MODEL.EQL.LOSS.THRESHOLD_PARAMETERS must hold numbers, got 'nan'"
