"""All that is wrong with a command is said at once, and before anything is read."""

from contextlib import suppress

import pytest

from eql_d2.command_line import TrainOptions
from eql_d2.config import load_config
from eql_d2.errors import ConfigError, MissingPackageError

with suppress(MissingPackageError):
    from eql_d2.engines.d2 import run, running
    from eql_d2.engines.d2.checks import key_problems, schedule_problems
    from eql_d2.engines.d2.compat import get_cfg
    from eql_d2.engines.d2.launch import TORCHRUN_VARIABLES

pytestmark = pytest.mark.detectron2


@pytest.fixture
def cfg(tiny_config):
    return load_config(tiny_config, defaults=get_cfg())


def test_one_list_of_configuration_engine_options_data_and_weights(options, tmp_path, monkeypatch):
    def read(*args, **kwargs):
        raise AssertionError("data were read")

    monkeypatch.setattr(running, "prepare_experiment", read)
    overrides = {
        "DATA.GENERATE": "",
        "DATA.TRAIN_JSON": tmp_path / "no_train.json",
        "MODEL.EQL.LOSS.GAMMA": 7.0,
        "MODEL.ROI_HEADS.NAME": "EQLCascadeROIHeads",
        "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": "True",
        "MODEL.META_ARCHITECTURE": "RetinaNet",
        "FLOAT32_PRECISION": "double",
        "SOLVER.IMS_PER_BATCH": 3,
        "MODEL.WEIGHTS": tmp_path / "no_weights.pth",
    }
    flat = [str(item) for pair in overrides.items() for item in pair]
    with pytest.raises(ConfigError) as caught:
        run(options(tmp_path / "out", *flat, num_gpus=2, num_machines=2))
    wanted = (
        "LOSS.GAMMA",
        "META_ARCHITECTURE must be 'GeneralizedRCNN', got 'RetinaNet'",
        "FLOAT32_PRECISION must be",
        "USE_SIGMOID_CE",
        "CLS_AGNOSTIC_BBOX_REG",
        "--dist-url",
        "IMS_PER_BATCH is 3, which 4 processes",
        "no_train.json does not exist",
        "DATA.TRAIN_IMAGES is not set",
        "DATA.TEST_JSON is not set",
        "no_weights.pth does not exist",
    )
    for text in wanted:
        assert sum(text in problem for problem in caught.value.problems) == 1, text
    assert not (tmp_path / "out").exists()


def test_keys_that_would_be_ignored_are_refused_together(cfg):
    assert key_problems(cfg) == []
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    cfg.DATALOADER.SAMPLER_TRAIN = "RandomSubsetTrainingSampler"
    cfg.TEST.AUG.ENABLED = True
    cfg.TEST.PRECISE_BN.ENABLED = True
    cfg.DATASETS.PROPOSAL_FILES_TRAIN = ("proposals.pkl",)
    cfg.DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST = 5
    problems = key_problems(cfg)
    assert len(problems) == 6
    assert "EQLROIHeads" in problems[0]
    for key in ("SAMPLER_TRAIN", "AUG", "PRECISE_BN", "PROPOSAL_FILES", "TOPK_TEST"):
        assert sum(key in problem for problem in problems) == 1, key


@pytest.mark.parametrize(
    ("changes", "processes", "expected"),
    [
        ({"IMS_PER_BATCH": 16}, 8, None),
        ({"IMS_PER_BATCH": 16}, 6, "IMS_PER_BATCH is 16, which 6 processes cannot share"),
        # Scaled with the processes, so that 3 share 6 images.
        ({"IMS_PER_BATCH": 4, "REFERENCE_WORLD_SIZE": 2}, 3, None),
        ({"IMS_PER_BATCH": 4, "REFERENCE_WORLD_SIZE": 3}, 3, "REFERENCE_WORLD_SIZE is 3"),
        ({"IMS_PER_BATCH": 4, "REFERENCE_WORLD_SIZE": -1}, 1, "REFERENCE_WORLD_SIZE is -1"),
        ({"REFERENCE_WORLD_SIZE": 1, "CHECKPOINT_PERIOD": 1}, 4, "CHECKPOINT_PERIOD is 1"),
        ({"REFERENCE_WORLD_SIZE": 1, "CHECKPOINT_PERIOD": 9}, 4, "EVAL_PERIOD is 1"),
    ],
)
def test_schedules(cfg, changes, processes, expected):
    for key, value in {"MAX_ITER": 100, "CHECKPOINT_PERIOD": 10, **changes}.items():
        cfg.SOLVER[key] = value
    eval_period = 1 if expected and "EVAL" in expected else 0
    problems = schedule_problems(cfg.SOLVER, eval_period, processes)
    assert len(problems) == (1 if expected else 0)
    assert expected is None or expected in problems[0]


def test_torchrun_decides_and_other_words_are_refused(options, tmp_path, monkeypatch):
    for name in TORCHRUN_VARIABLES:
        monkeypatch.setenv(name, "3")
    flags = {"num_gpus": 2, "num_machines": 4, "machine_rank": 1, "dist_url": "tcp://h:1"}
    with pytest.raises(ConfigError) as caught:
        run(options(tmp_path, "SOLVER.IMS_PER_BATCH", 4, **flags))
    *found, batch = caught.value.problems
    assert [problem.split()[0] for problem in found] == [
        f"--{name.replace('_', '-')}" for name in flags
    ]
    assert "IMS_PER_BATCH is 4, which 3 processes" in batch
    assert TrainOptions("c.yaml").num_gpus is None, "the default, which must not be refused"
