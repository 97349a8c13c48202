"""The LVIS recipes as text: short, derived, and with arithmetic that is right."""

import re
from pathlib import Path

import pytest

from eql_d2.categories import CategoryStatistics
from eql_d2.config import load_config

CONFIGS = Path(__file__).parents[3] / "configs"
BASES = {"LVISv0.5": "lvis_v0.5", "LVISv1": "lvis_v1"}
RECIPES = sorted(p for p in CONFIGS.glob("LVIS*/*.yaml") if p.name != "Base.yaml")
ARITHMETIC = re.compile(r"(\d+) x (\d+) / (\d+) = ([\d.]+) epochs; drops at ([\d.]+) and ([\d.]+)")


def test_all_recipes_are_here():
    assert len(RECIPES) == 22


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_recipes_are_short_and_derived(path):
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == '_BASE_: "Base.yaml"'
    assert len(lines) <= 20
    header = path.read_text().split("_BASE_")[0]
    assert "no published number found" in header or re.search(r"\d+\.\d / \d+\.\d", header)


@pytest.mark.parametrize("folder", BASES)
def test_schedule_arithmetic(folder):
    path = CONFIGS / folder / "Base.yaml"
    solver = load_config(path).SOLVER
    numbers = ARITHMETIC.search(path.read_text()).groups()
    iterations, batch, images, epochs, *drops = map(float, numbers)
    assert (iterations, batch) == (solver.MAX_ITER, solver.IMS_PER_BATCH)
    assert images == CategoryStatistics.from_table(BASES[folder]).num_images
    assert epochs == pytest.approx(iterations * batch / images, abs=0.05)
    assert drops == pytest.approx([step * batch / images for step in solver.STEPS], abs=0.05)


@pytest.mark.parametrize("folder", BASES)
def test_tail_in_the_comment_is_the_tail_of_the_table(folder):
    path = CONFIGS / folder / "Base.yaml"
    loss = load_config(path).MODEL.EQL.LOSS
    statistics = CategoryStatistics.from_table(BASES[folder])
    found = re.search(r"(\d+) of (\d+) categories, tail ratio ([\d.]+) %", path.read_text())
    tail, total, ratio = map(float, found.groups())
    assert tail == int(statistics.tail_mask(loss.LAMBDA).sum())
    assert total == len(statistics)
    assert ratio == pytest.approx(100 * statistics.tail_ratio(loss.LAMBDA), abs=0.005)


def test_resampling_and_masks_are_where_the_names_say():
    for path in RECIPES:
        cfg = load_config(path)
        resampled = cfg.DATALOADER.SAMPLER_TRAIN == "RepeatFactorTrainingSampler"
        assert resampled == ("rfs" in path.stem)
        assert cfg.MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK == ("agnostic_mask" in path.stem)
        assert cfg.MODEL.ROI_HEADS.NAME.startswith("EQLCascade") == ("cascade" in path.stem)
        name = {"softmax": "SoftmaxCE", "sigmoid": "SigmoidCE"}.get(path.stem.split("_")[0], "EQL")
        assert name == cfg.MODEL.EQL.LOSS.NAME
    authors = load_config(CONFIGS / "LVISv0.5" / "eql_rfs_R_50_FPN.yaml")
    assert authors.DATALOADER.REPEAT_THRESHOLD == 0.0005
