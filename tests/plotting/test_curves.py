"""Training logs are read as they are written, also by runs that were killed or resumed."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from eql_d2.errors import DataError
from eql_d2.plotting import plot_loss_curves, read_training_log
from eql_d2.plotting.curves import smooth


def write_log(path, records, end="\n"):
    path.write_text("\n".join(json.dumps(r) for r in records) + end)
    return path


def losses(count, factor=1.0, keys=("total_loss", "loss_cls")):
    return [
        {"iteration": i * 20} | {k: factor * math.exp(-i / 10) for k in keys} for i in range(count)
    ]


def test_records_come_back_sorted(tmp_path):
    log = write_log(tmp_path / "m.jsonl", [{"iteration": 20, "lr": 0.1}, {"iteration": 0, "lr": 1}])
    assert read_training_log(log) == [{"iteration": 0, "lr": 1}, {"iteration": 20, "lr": 0.1}]


def test_a_resumed_run_overwrites_and_lines_of_one_iteration_are_joined(tmp_path):
    records = [
        {"iteration": 0, "total_loss": 3.0},
        {"iteration": 20, "total_loss": 2.0},
        {"iteration": 20, "bbox/AP": 5.0},
        {"iteration": 20, "total_loss": 1.5, "note": "text"},
    ]
    read = read_training_log(write_log(tmp_path / "m.jsonl", records))
    assert read[1] == {"iteration": 20, "total_loss": 1.5, "bbox/AP": 5.0}


def test_a_cut_off_last_line_is_left_out_and_said(tmp_path, caplog):
    log = write_log(tmp_path / "m.jsonl", losses(3), end='\n{"iteration": 60, "total_l')
    assert len(read_training_log(log)) == 3
    assert "the last line is cut off" in caplog.text


@pytest.mark.parametrize("line", ["{", "[1]", '{"total_loss": 1}', "3", '{"iteration": null}'])
def test_a_damaged_line_is_named(tmp_path, line):
    log = tmp_path / "m.jsonl"
    log.write_text(f'{{"iteration": 0}}\n{line}\n{{"iteration": 20}}\n')
    with pytest.raises(DataError, match=r"m\.jsonl line 2 is no json record"):
        read_training_log(log)


@pytest.mark.parametrize("content", ["", "\n\n", "{"])
def test_a_log_without_records(tmp_path, content):
    (tmp_path / "m.jsonl").write_text(content)
    with pytest.raises(DataError, match="holds no record"):
        read_training_log(tmp_path / "m.jsonl")


def test_a_missing_log(tmp_path):
    with pytest.raises(DataError, match=r"gone\.jsonl cannot be read"):
        plot_loss_curves({"a": tmp_path / "gone.jsonl"}, tmp_path / "a.png")


def test_no_known_loss_and_no_run(tmp_path):
    log = write_log(tmp_path / "m.jsonl", [{"iteration": 0, "lr": 0.1}])
    with pytest.raises(DataError, match="no loss to draw"):
        plot_loss_curves({"a": log}, tmp_path / "a.png")
    with pytest.raises(ValueError, match="at least one run"):
        plot_loss_curves({}, tmp_path / "a.png")


def colored(path, color):
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return int((np.abs(pixels - color).max(axis=2) < 4).sum())


BLUE, VERMILLION = (0, 114, 178), (213, 94, 0)


def test_each_run_has_its_line_and_each_loss_its_panel(tmp_path):
    one = write_log(tmp_path / "a.jsonl", losses(30))
    two = write_log(tmp_path / "b.jsonl", losses(30, 2.0, ("total_loss",)))
    plot_loss_curves({"sigmoid": one}, tmp_path / "one.png")
    plot_loss_curves({"sigmoid": one, "EQL": two}, tmp_path / "both.png")
    assert colored(tmp_path / "one.png", BLUE) > 300
    assert colored(tmp_path / "one.png", VERMILLION) == 0
    assert colored(tmp_path / "both.png", VERMILLION) > 300
    single = write_log(tmp_path / "c.jsonl", losses(30, 1.0, ("total_loss",)))
    plot_loss_curves({"c": single}, tmp_path / "single.png")
    widths = [Image.open(tmp_path / f"{n}.png").width for n in ("single", "one")]
    assert widths[1] == 2 * widths[0]


def test_divergence_is_marked(tmp_path):
    keys = ("total_loss",)
    good = losses(40, 1.0, keys)
    bad = [*good[:20], *({**r, "total_loss": float("nan")} for r in good[20:])]
    plot_loss_curves({"x": write_log(tmp_path / "g.jsonl", good[:20])}, tmp_path / "g.png")
    plot_loss_curves({"x": write_log(tmp_path / "b.jsonl", bad)}, tmp_path / "b.png")
    bottom = [np.asarray(Image.open(tmp_path / f"{n}.png").convert("RGB")) for n in "gb"]
    marks = [(np.abs(p.astype(int) - BLUE).max(axis=2) < 60)[-110:].sum() for p in bottom]
    assert marks[1] > marks[0] + 50


def test_a_single_record_is_visible(tmp_path):
    plot_loss_curves({"a": write_log(tmp_path / "m.jsonl", losses(1))}, tmp_path / "a.png")
    assert colored(tmp_path / "a.png", BLUE) > 40


def test_smoothing_keeps_lines_constants_and_ends():
    line = np.linspace(5, 1, 200)
    assert smooth(line) == pytest.approx(line)
    assert smooth(np.full(50, 3.0)) == pytest.approx(np.full(50, 3.0))
    noise = np.random.default_rng(0).normal(0, 1, 400)
    assert smooth(noise)[20:-20].std() < 0.4
    few = np.array([3.0, 1.0, 2.0])
    assert np.array_equal(smooth(few), few)


def test_smoothing_leaves_gaps_and_does_not_spread_them():
    values = np.arange(100.0)
    values[50] = np.nan
    values[60] = np.inf
    smoothed = smooth(values)
    assert np.isnan(smoothed[[50, 60]]).all()
    assert np.isfinite(np.delete(smoothed, [50, 60])).all()
    assert smoothed[49] == pytest.approx(49, abs=1)
