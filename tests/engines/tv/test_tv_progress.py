"""The training log."""

import json
import logging

import pytest
import torch

from eql_d2.engines.tv import progress
from eql_d2.engines.tv.progress import TrainingLog, format_duration


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def add(log, iteration, value, **statistics):
    found = {f"cls/{k}": torch.tensor(v) for k, v in statistics.items()}
    losses = {"loss_cls": torch.tensor(value), "loss_mask": torch.tensor(1.0)}
    log.add(iteration, losses, found, 0.01 * iteration, 0.5)


def test_records_hold_means_since_the_last_one(path):
    log = TrainingLog(path, 0, 5, period=2)
    for iteration, value in enumerate([1.0, 3.0, 10.0, 20.0, 7.0]):
        add(log, iteration, value, fg_accuracy=0.25)
    first, second, last = records(path)
    assert [r["iteration"] for r in (first, second, last)] == [1, 3, 4]
    assert [r["loss_cls"] for r in (first, second, last)] == [2.0, 15.0, 7.0]
    assert [r["total_loss"] for r in (first, second, last)] == [3.0, 16.0, 8.0]
    assert first["cls/fg_accuracy"] == 0.25
    assert first["lr"] == pytest.approx(0.01)
    assert first["data_time"] == 0.5


def test_a_statistic_without_value_is_null(path):
    log = TrainingLog(path, 0, 1, period=1)
    add(log, 0, 1.0, fg_accuracy=float("nan"))
    assert records(path)[0]["cls/fg_accuracy"] is None


def test_time_left_is_printed(path, caplog, monkeypatch):
    clock = iter([0.0, 10.0, 30.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with caplog.at_level(logging.INFO, logger="eql_d2.engines.tv"):
        log = TrainingLog(path, 0, 100, period=5)
        for iteration in range(5):
            add(log, iteration, 1.0)
    (line,) = [r.getMessage() for r in caplog.records]
    assert line.startswith("iteration 5/100  loss 2.000  cls 1.000  mask 1.000")
    assert line.endswith("2.00 s/it  left 3:10")


def test_a_pause_is_no_training_time(path, monkeypatch):
    clock = iter([0.0, 10.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    log = TrainingLog(path, 0, 1, period=1)
    log.pause(8.0)
    add(log, 0, 1.0)
    assert records(path)[0]["time"] == 2.0


def test_going_on_drops_records_behind_the_checkpoint(path):
    log = TrainingLog(path, 0, 10, period=1)
    for iteration in range(6):
        add(log, iteration, float(iteration))
    with path.open("a") as stream:
        stream.write('{"iteration": 6, "loss_c')  # a kill cut it off
    log = TrainingLog(path, 4, 10, period=1)
    add(log, 4, 99.0)
    assert [r["iteration"] for r in records(path)] == [0, 1, 2, 3, 4]
    assert records(path)[-1]["loss_cls"] == 99.0


def test_a_new_run_starts_a_new_file(path):
    path.write_text('{"iteration": 0}\n')
    TrainingLog(path, 0, 10, period=1)
    assert records(path) == []


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (125, "2:05"), (3600, "1:00:00")]
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text
