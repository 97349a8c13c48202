"""Bars of average precision: means, spread, undefined values."""

import itertools

import matplotlib.axes
import pytest
from PIL import Image

from eql_d2.errors import DataError
from eql_d2.plotting import ResultRow, plot_metrics_comparison, write_results_csv


class Spy:
    """Records what is drawn: heights of bars, error bars, texts."""

    def __init__(self, monkeypatch):
        self.bars, self.errors, self.texts, self.labels = [], [], [], []
        for name in ("bar", "errorbar", "annotate"):
            original = getattr(matplotlib.axes.Axes, name)
            monkeypatch.setattr(matplotlib.axes.Axes, name, self.wrap(name, original))

    def wrap(self, name, original):
        def call(axes, *args, **kwargs):
            if name == "bar":
                self.bars.append((round(args[0], 6), args[1]))
                self.labels.append(kwargs.get("label"))
            elif name == "errorbar":
                self.errors.append(args[2])
            else:
                self.texts.append(args[0])
            return original(axes, *args, **kwargs)

        return call


@pytest.fixture
def spy(monkeypatch):
    return Spy(monkeypatch)


def rows(values, iou_type="bbox", metric="AP"):
    return [
        ResultRow(config, seed, {f"{iou_type}/{metric}": value})
        for config, found in values.items()
        for seed, value in enumerate(found)
    ]


def test_a_bar_is_the_mean_and_its_error_the_standard_deviation(tmp_path, spy):
    plot_metrics_comparison(rows({"EQL": [10.0, 12.0, 14.0]}), tmp_path / "a.png")
    assert spy.bars[0] == (0.0, 12.0)
    assert spy.errors == [2.0]
    assert spy.texts == ["12.0", "n/a", "n/a", "n/a"]
    assert spy.labels[0] == "EQL (3 runs)"
    assert (tmp_path / "a.png").stat().st_size > 2000


def test_a_single_run_has_no_error_bar(tmp_path, spy):
    plot_metrics_comparison(rows({"EQL": [10.0], "SigmoidCE": [8.0]}), tmp_path / "a.png")
    assert spy.errors == []
    assert spy.labels[0] == "EQL (1 run)"
    assert [height for _, height in spy.bars if height] == [10.0, 8.0]


def test_undefined_values_are_no_zeros_in_the_mean(tmp_path, spy):
    plot_metrics_comparison(rows({"EQL": [10.0, None]}, metric="APr"), tmp_path / "a.png")
    assert spy.texts == ["n/a", "10.0", "n/a", "n/a"]
    assert spy.errors == []


def test_bars_of_a_metric_stand_apart(tmp_path, spy):
    plot_metrics_comparison(rows({c: [1.0, 2.0] for c in "abcde"}), tmp_path / "a.png")
    places = sorted(x for x, _ in spy.bars)
    assert len(set(places)) == len(places) == 20
    assert min(b - a for a, b in itertools.pairwise(places)) > 0.1


def test_a_panel_for_each_kind_of_metric_there_is(tmp_path):
    boxes = rows({"EQL": [10.0]})
    plot_metrics_comparison(boxes, tmp_path / "one.png")
    plot_metrics_comparison(boxes + rows({"EQL": [9.0]}, "segm"), tmp_path / "two.png")
    one, two = (Image.open(tmp_path / f"{name}.png").width for name in ("one", "two"))
    assert two == 2 * one


def test_csv_and_rows_give_the_same_file(tmp_path):
    table = rows({"EQL": [10.0, 11.0], "SigmoidCE": [8.0, 8.5]})
    write_results_csv(table, tmp_path / "r.csv")
    plot_metrics_comparison(table, tmp_path / "a.png")
    plot_metrics_comparison(tmp_path / "r.csv", tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("table", [[], [ResultRow("a", 0, {"keypoints/AP": 3.0})]])
def test_nothing_to_draw(tmp_path, table):
    with pytest.raises(DataError, match="no bbox/AP"):
        plot_metrics_comparison(table, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()
