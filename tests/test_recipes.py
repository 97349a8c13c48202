"""Every YAML recipe loads in both engines, and its numbers agree with the data it is for."""

import json
import re
from pathlib import Path

import pytest

from eql_d2.categories import CategoryStatistics
from eql_d2.config import changed_keys, load_config
from eql_d2.config_checks import config_problems, config_warnings
from eql_d2.engines.tv.reading import read_settings
from eql_d2.errors import ConfigError
from eql_d2.experiment import loss_from_config

CONFIGS = Path(__file__).parents[1] / "configs"
LVIS_TABLES = {"LVISv0.5": "lvis_v0.5", "LVISv1": "lvis_v1"}
TAIL_CATEGORIES = {"lvis_v0.5": 915, "lvis_v1": 815}
# Two folders of LVIS recipes with a base each, and the quick ones with two.
NUM_FILES = {"LVISv0.5": 12, "LVISv1": 12, "quick": 7}


def files(folder: str) -> list[Path]:
    found = sorted((CONFIGS / folder).glob("*.yaml"))
    assert len(found) == NUM_FILES[folder], f"{folder} holds {[p.name for p in found]}"
    return found


ALL = [path for folder in NUM_FILES for path in files(folder)]
LVIS = [path for folder in LVIS_TABLES for path in files(folder)]
RECIPES = [path for path in ALL if "base" not in path.stem.lower()]


def name(path: Path) -> str:
    return path.relative_to(CONFIGS).as_posix()


def test_no_recipe_lies_where_the_tests_do_not_look():
    assert sorted(CONFIGS.rglob("*.yaml")) == sorted(ALL)


@pytest.mark.parametrize("path", RECIPES, ids=name)
def test_values_are_sound(path):
    assert config_problems(load_config(path)) == []


@pytest.mark.parametrize("path", RECIPES, ids=name)
def test_schedules_are_what_they_look_like(path):
    def not_asked(iteration):
        raise AssertionError("a warning that quotes the learning rate is about to be given")

    assert config_warnings(load_config(path), not_asked) == []


@pytest.mark.parametrize("path", LVIS, ids=name)
def test_lvis_recipes_fit_their_version(path):
    cfg = load_config(path)
    table = LVIS_TABLES[path.parent.name]
    statistics = CategoryStatistics.from_table(table)
    assert cfg.MODEL.EQL.STATISTICS == table
    assert len(statistics.names) == cfg.MODEL.ROI_HEADS.NUM_CLASSES
    version = table.replace("lvis_v0.5", "lvis_v0.5_").replace("lvis_v1", "lvis_v1_")
    for key in ("TRAIN_JSON", "TEST_JSON"):
        assert Path(cfg.DATA[key]).name.startswith(version)
    loss = loss_from_config(cfg, statistics)
    assert loss.num_classes == len(statistics.names)
    if cfg.MODEL.EQL.LOSS.NAME == "EQL":
        assert int(loss.tail_mask.sum()) == TAIL_CATEGORIES[table]
        assert loss.num_logits == loss.num_classes, "the authors' checkpoints have K outputs"


@pytest.mark.parametrize("path", LVIS, ids=name)
def test_lvis_recipes_keep_the_evaluation_protocol(path):
    cfg = load_config(path)
    assert cfg.TEST.DETECTIONS_PER_IMAGE == 300
    assert cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST == 0.0001
    assert cfg.SOLVER.IMS_PER_BATCH == 16
    assert cfg.SOLVER.BASE_LR == 0.02


@pytest.mark.parametrize("path", RECIPES, ids=name)
def test_headers_tell_command_hardware_and_expectation(path):
    header = path.read_text().split("_BASE_")[0]
    for word in ("command:", "hardware:", "expected:"):
        assert f"# {word}" in header, f"{path.name} does not say its {word[:-1]}"
    named = re.search(r"--config-file (\S+)", header)
    assert named, f"{path.name} gives no command"
    assert named.group(1) == f"configs/{name(path)}"


@pytest.mark.parametrize("path", RECIPES, ids=name)
def test_every_recipe_writes_where_its_name_says(path):
    folder = "output" if path.parent.name == "quick" else f"output/{path.parent.name}"
    assert load_config(path).OUTPUT_DIR == f"{folder}/{path.stem}"


@pytest.mark.parametrize("path", ALL, ids=name)
def test_the_torchvision_engine_honours_a_recipe_or_names_why_not(path):
    cfg = load_config(path)
    weights = cfg.MODEL.WEIGHTS
    is_cascade = "Cascade" in cfg.MODEL.ROI_HEADS.NAME
    if weights or is_cascade:
        with pytest.raises(ConfigError) as caught:
            read_settings(cfg)
        assert len(caught.value.problems) == bool(weights) + is_cascade
        assert weights in str(caught.value)
    cfg.MODEL.WEIGHTS = ""
    if is_cascade:
        with pytest.raises(ConfigError, match=r"MODEL\.ROI_HEADS\.NAME"):
            read_settings(cfg)
    else:
        settings = read_settings(cfg)
        assert settings.solver.max_iter == cfg.SOLVER.MAX_ITER


@pytest.mark.detectron2
@pytest.mark.parametrize("path", ALL, ids=name)
def test_detectron2_accepts_every_recipe(path):
    from detectron2.config import get_cfg

    from eql_d2.engines.d2.checks import key_problems

    cfg = load_config(path, defaults=get_cfg())
    assert not key_problems(cfg)
    assert as_json(changed_keys(load_config(path))) == as_json(changed_keys(cfg)), (
        "the engines read different trees"
    )


def as_json(values: dict) -> dict:
    """Return ``values`` with lists for tuples, of which Detectron2's defaults hold some."""
    return json.loads(json.dumps(values))
