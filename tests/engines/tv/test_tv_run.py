"""Whole runs: train, resume, evaluate, predict, and fail as a user should see it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from eql_d2.checkpoint import METADATA_KEY
from eql_d2.data import read_pixels
from eql_d2.engines.tv import load_predictor, training
from eql_d2.errors import ConfigError, UserError

TRAIN_NET = Path(__file__).parents[3] / "tools" / "train_net.py"


def checkpoint(path):
    return torch.load(path, weights_only=True)


def assert_same(a, b, where=""):
    """Compare nested dictionaries and lists of tensors bit for bit."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{i}]")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


def losses_of(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    kept = [json.loads(line) for line in lines]
    return [{k: v for k, v in r.items() if k not in ("time", "data_time")} for r in kept]


def assert_same_run(a, b):
    one, other = (checkpoint(folder / "model_final.pth") for folder in (a, b))
    for content in (one, other):
        content[METADATA_KEY].pop("config")  # holds OUTPUT_DIR
    assert_same(one, other)
    assert losses_of(a) == losses_of(b)


def test_a_run_leaves_everything_behind(start, tmp_path):
    metrics = start("a")
    folder = tmp_path / "a"
    assert {"bbox/AP", "segm/AP", "bbox/APr"} <= set(metrics)
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    assert (folder / "last_checkpoint").read_text() == "model_final.pth"
    assert (folder / "config.yaml").is_file()
    assert (folder / "per_category.csv").is_file()
    records = losses_of(folder)
    assert [r["iteration"] for r in records] == [1, 3]
    assert {"total_loss", "loss_cls", "loss_box_reg", "loss_mask", "loss_rpn_cls"} <= set(
        records[0]
    )
    assert {"loss_rpn_loc", "lr", "cls/fg_accuracy"} <= set(records[0])
    results = json.loads((folder / "inference/lvis_instances_results.json").read_text())
    assert {r["category_id"] for r in results} <= {3, 7, 20}
    assert {r["image_id"] for r in results} <= set(range(100, 107))
    assert set(results[0]) == {"image_id", "category_id", "score", "bbox", "segmentation"}
    content = checkpoint(folder / "model_final.pth")
    assert content["iteration"] == 4
    assert content[METADATA_KEY]["engine"] == "torchvision"
    assert not list(folder.rglob("*.partial"))


def test_the_same_seed_gives_the_same_run(start, tmp_path):
    start("a")
    start("b")
    assert_same_run(tmp_path / "a", tmp_path / "b")
    start("c", "SEED", 4)
    assert losses_of(tmp_path / "c") != losses_of(tmp_path / "a")


def test_a_schedule_that_never_reaches_its_rate_is_told_once(start, caplog):
    start("a")
    assert "SOLVER.WARMUP_ITERS" not in caplog.text
    start("b", "SOLVER.WARMUP_ITERS", 1000)
    # MAX_ITER 4 and STEPS [3]: the warm-up leads to a tenth of the rate, of which it reaches 3/4.
    said = "SOLVER.BASE_LR is 0.01, but the learning rate reaches at most 0.000753"
    assert caplog.text.count(said) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_equals_an_uninterrupted_one(start, tmp_path, monkeypatch, caplog, workers):
    extra = (
        *("SOLVER.CHECKPOINT_PERIOD", 2, "SOLVER.MAX_ITER", 5, "DATALOADER.NUM_WORKERS", workers),
        *("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler"),
        *("DATALOADER.REPEAT_THRESHOLD", 0.7, "INPUT.MIN_SIZE_TRAIN", [48, 64]),
    )
    start("whole", *extra)
    clip = training.clip_gradients
    calls = []

    def killed(*args):
        calls.append(args)
        if len(calls) == 4:
            raise SystemExit("killed in iteration 4")
        clip(*args)

    with monkeypatch.context() as patch:
        patch.setattr(training, "clip_gradients", killed)
        with pytest.raises(SystemExit):
            start("cut", *extra)
    assert (tmp_path / "cut/last_checkpoint").read_text() == "model_0000001.pth"
    with caplog.at_level("INFO", logger="eql_d2.engines.tv"):
        start("cut", *extra, resume=True)
    assert "model_0000001.pth, going on at iteration 3" in caplog.text
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_an_interrupt_saves_and_resumes(start, tmp_path, monkeypatch):
    start("whole")
    forward = training._forward
    calls = []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return forward(*args)

    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(training, "_forward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            start("cut")
    assert signal.getsignal(signal.SIGINT) is handler
    assert checkpoint(tmp_path / "cut/model_0000001.pth")["iteration"] == 2
    start("cut", resume=True)
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_ctrl_c_reaches_the_workers_too_and_still_saves(tiny_config, squares, tmp_path):
    overrides = [*squares.overrides, "OUTPUT_DIR", str(tmp_path), "DATALOADER.NUM_WORKERS", "2"]
    overrides += ["SOLVER.MAX_ITER", "100000", "SOLVER.CHECKPOINT_PERIOD", "100000"]
    command = [sys.executable, str(TRAIN_NET), "--engine", "torchvision"]
    command += ["--config-file", str(tiny_config), *overrides]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        for line in process.stdout:
            if line.startswith("iteration"):
                os.killpg(process.pid, signal.SIGINT)  # as a terminal does
                break
        rest = process.stdout.read()
    assert process.returncode == 130, rest
    assert "saving a checkpoint" in rest
    name = (tmp_path / "last_checkpoint").read_text()
    assert checkpoint(tmp_path / name)["iteration"] > 0


def test_a_lower_rate_counts_after_a_resume(start, tmp_path):
    start("a", "SOLVER.MAX_ITER", 2, "SOLVER.STEPS", "[]")
    lower = ("SOLVER.BASE_LR", 1e-5, "SOLVER.WEIGHT_DECAY", 0.25, "SOLVER.STEPS", "[]")
    start("a", *lower, "SOLVER.WARMUP_ITERS", 0, resume=True)
    groups = checkpoint(tmp_path / "a" / "model_final.pth")["optimizer"]["param_groups"]
    assert {group["lr"] for group in groups} == {1e-5}
    assert max(group["weight_decay"] for group in groups) == 0.25
    assert losses_of(tmp_path / "a")[-1]["lr"] == 1e-5


def test_resuming_does_not_ask_for_the_first_weights(start, tmp_path):
    start("a", "SOLVER.MAX_ITER", 2)
    start("a", "MODEL.WEIGHTS", tmp_path / "gone.pth", resume=True)
    with pytest.raises(ConfigError, match="does not exist"):
        start("b", "MODEL.WEIGHTS", tmp_path / "gone.pth", resume=True)


def test_resume_without_checkpoint_starts_and_says_so(start, tmp_path, caplog):
    with caplog.at_level("INFO", logger="eql_d2.engines.tv"):
        start("a", resume=True)
    assert "starting from the beginning" in caplog.text
    with caplog.at_level("INFO", logger="eql_d2.engines.tv"):
        start("a", resume=True)
    assert "going on at iteration 5" in caplog.text
    assert "nothing to train" in caplog.text
    assert [r["iteration"] for r in losses_of(tmp_path / "a")] == [1, 3]


def test_resume_with_another_model_is_refused(start):
    start("a")
    with pytest.raises(UserError, match=r"does not fit the model .*box_predictor"):
        start("a", "MODEL.ROI_BOX_HEAD.FC_DIM", 32, resume=True)


def test_evaluation_alone_gives_the_same_metrics(start, tmp_path):
    metrics = start("a")
    assert start("a", eval_only=True) == metrics
    weights = tmp_path / "a" / "model_final.pth"
    assert start("b", "MODEL.WEIGHTS", weights, eval_only=True) == metrics
    assert not (tmp_path / "b" / "last_checkpoint").exists()
    with pytest.raises(ConfigError, match="nothing to evaluate"):
        start("c", eval_only=True)


def test_evaluation_during_training_changes_nothing(start, tmp_path):
    start("a")
    start("b", "TEST.EVAL_PERIOD", 2)
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_lines_and_dots_are_trained_on_tested_and_predicted(start, lines_and_dots, tmp_path):
    annotations, folder = lines_and_dots
    extra = ("SOLVER.MAX_ITER", 4, "MODEL.EQL.LOSS.LAMBDA", 0.5, "EVALUATION.NUM_PICTURES", 8)
    extra += ("INPUT.MAX_SIZE_TRAIN", 128, "INPUT.MAX_SIZE_TEST", 128)
    for part in ("TRAIN", "TEST"):
        extra += (f"DATA.{part}_JSON", annotations, f"DATA.{part}_IMAGES", folder)
    metrics = start("a", *extra)
    assert metrics["segm/AP"] is not None
    assert len(list((tmp_path / "a" / "pictures").iterdir())) == 8
    predict = load_predictor(tmp_path / "a", score_threshold=0.0)
    for path in sorted(folder.glob("*.png")):
        predict(read_pixels(path))
