"""The groups of a run are those that every tool scores it with."""

import importlib

import pytest

from eql_d2.categories import Grouping, read_statistics

pytestmark = pytest.mark.detectron2


def test_a_quantile_run_and_all_tools_agree(
    options, tiny_config, tmp_path, monkeypatch, graded_results, assert_tools_agree
):
    test_json = tiny_config.parent / "shapes" / "test.json"
    path = tmp_path / "run/inference/lvis_instances_results.json"
    running = importlib.import_module("eql_d2.engines.d2.running")
    monkeypatch.setattr(running, "join_shards", lambda *_: graded_results(test_json, path))
    short = ("SOLVER.MAX_ITER", 1, "SOLVER.STEPS", "[]")
    running.run(options(tmp_path / "run", "DATA.GROUP_MODE", "quantiles", *short))
    assert read_statistics(tmp_path / "run").grouping == Grouping("quantiles")
    assert_tools_agree(tmp_path / "run", test_json)


def test_official_groups_are_written_as_they_are_evaluated(trained):
    folder, _ = trained
    statistics = read_statistics(folder)
    assert statistics.grouping == Grouping("frequency")
    lines = (folder / "per_category.csv").read_text().splitlines()[1:]
    assert statistics.groups == tuple(line.split(",")[2] for line in lines)
