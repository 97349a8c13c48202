"""The benchmark's numbers: real measurements, comparisons, growth, failures named."""

import math

import pytest

from eql_d2.categories.bundled import read_table
from eql_d2.evaluation import benchmark, synthetic
from eql_d2.evaluation.benchmark import Measurement, growth, largest_difference, measure, ratios
from eql_d2.evaluation.synthetic import generate


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "SHAPES", 60)
        table = read_table("lvis_v1")
        return generate(tmp_path_factory.mktemp("data"), table, 20, detections_per_image=30)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_lvis_gives_identical_numbers(kind, files):
    pytest.importorskip("lvis")
    ours = measure("eql_d2", kind, 20, *files, gigabytes=64)
    theirs = measure("lvis", kind, 20, *files, gigabytes=64)
    assert not ours.failure
    assert ours.metrics["AP"] > 5
    assert len(ours.metrics) == 9 + 1203
    assert ours.metrics.keys() == theirs.metrics.keys()
    assert "0 (identical)" in theirs.row(ours)
    assert min(ours.evaluate, theirs.evaluate) > 0
    assert 20 < ours.megabytes < 500


def test_faster_coco_eval_agrees(files):
    pytest.importorskip("faster_coco_eval")
    ours = measure("eql_d2", "bbox", 20, *files, gigabytes=64)
    theirs = measure("faster-coco-eval", "bbox", 20, *files, gigabytes=64)
    assert not theirs.failure
    assert largest_difference(ours.metrics, theirs.metrics) < 1e-6


def test_the_least_there_is_to_do(files):
    parsing = measure("json parser alone", "bbox", 20, *files, gigabytes=64)
    assert parsing.read > 0
    assert parsing.metrics is None
    overlaps = measure("pycocotools mask IoU alone", "segm", 20, *files, gigabytes=64)
    assert 0 < overlaps.evaluate < 1


def test_failures_are_named(files, tmp_path):
    (tmp_path / "results.json").write_text("[{}]")
    broken = measure("eql_d2", "bbox", 20, files[0], tmp_path / "results.json", gigabytes=64)
    assert "failed: " in broken.failure
    assert "1 of 1 records: no '" in broken.failure
    assert broken.failure in broken.row(None)
    small = measure("eql_d2", "bbox", 20, *files, gigabytes=0.05)
    assert small.failure


def test_differences():
    assert largest_difference({"AP": 1.0, "APr": None}, {"AP": 1.25, "APr": None, "x": 3}) == 0.25
    assert largest_difference({"AP": None}, {"AP": 1.0}) == math.inf
    assert largest_difference({"AP": 1.0}, None) is None


def test_growth_is_an_exponent_between_the_extreme_sizes():
    sizes = (4000, 1000)
    rows = [Measurement("a", "bbox", n, 0.0, 2e-3 * n, (n / 1000) ** 2, 80.0) for n in sizes]
    rows += [Measurement("b", "bbox", n, failure="failed: x") for n in sizes]
    rows += [Measurement("c", "bbox", 1000, 1.0, 1.0, 1.0, 1.0)]
    (line,) = growth(rows)
    assert line.startswith("a ")
    assert line.endswith("results 1.00, AP 2.00, memory 0.00 (from 1000 to 4000 images)")


def test_ratios_are_to_this_package_at_the_same_size():
    rows = [Measurement("eql_d2", "segm", n, 1.0, 2.0, n / 100, 50.0) for n in (100, 200)]
    rows += [Measurement("lvis", "segm", n, 0.5, 4.0, 30.0, 100.0) for n in (100, 200)]
    rows += [Measurement("parser", "segm", 100, 1.0, 1.0, 0.0, 50.0)]
    rows += [Measurement("parser", "segm", 200, failure="failed: x")]
    assert [line.split("  ")[-1].strip() for line in ratios(rows)] == [
        "truth 0.50, results 2.00, AP 30.00, memory 2.00",
        "truth 0.50, results 2.00, AP 15.00, memory 2.00",
        "truth 1.00, results 0.50, memory 1.00",
    ]


def test_rows_line_up_with_the_header():
    row = Measurement("eql_d2", "bbox", 1000, 0.5, 1.5, 2.25, 99.0)
    text = row.row(row)
    assert text.split() == ["eql_d2", "bbox", "1000", "0.50", "1.50", "2.25", "99"]
    assert len(text) == benchmark.HEADER.index("MB") + 2
