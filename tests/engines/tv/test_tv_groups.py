"""The groups of a run are those that every tool scores it with."""

import importlib
from types import SimpleNamespace

import pytest

from eql_d2.categories import Grouping, read_statistics

SHAPES = {"DIR": None, "NUM_CATEGORIES": 6, "NUM_TRAIN_IMAGES": 12, "NUM_TEST_IMAGES": 5}


@pytest.fixture
def shapes(tmp_path):
    """Generated data whose files say which categories are rare, common and frequent."""
    numbers = SHAPES | {"DIR": tmp_path / "shapes", "IMAGE_SIZE": 64}
    keys = [str(v) for k, n in numbers.items() for v in (f"DATA.LONGTAIL_SHAPES.{k}", n)]
    return SimpleNamespace(overrides=["DATA.GENERATE", "longtail_shapes", *keys])


@pytest.fixture
def test_json(tmp_path):
    return tmp_path / "shapes" / "test.json"


def test_a_quantile_run_and_all_tools_agree(
    start, shapes, test_json, tmp_path, monkeypatch, graded_results, assert_tools_agree
):
    path = tmp_path / "run/inference/lvis_instances_results.json"
    module = importlib.import_module("eql_d2.engines.tv.run")  # the package has a function run
    monkeypatch.setattr(module, "write_results", lambda *_: graded_results(test_json, path))
    start("run", "DATA.GROUP_MODE", "quantiles", "SOLVER.MAX_ITER", 1, "SOLVER.STEPS", "[]",
          data=shapes)  # fmt: skip
    assert read_statistics(tmp_path / "run").grouping == Grouping("quantiles")
    assert_tools_agree(tmp_path / "run", test_json)


def test_official_groups_are_written_as_they_are_evaluated(start, shapes, tmp_path):
    start("run", "SOLVER.MAX_ITER", 1, "SOLVER.STEPS", "[]", data=shapes)
    statistics = read_statistics(tmp_path / "run")
    assert statistics.grouping == Grouping("frequency")
    lines = (tmp_path / "run/per_category.csv").read_text().splitlines()[1:]
    assert statistics.groups == tuple(line.split(",")[2] for line in lines)
