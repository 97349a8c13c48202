"""Whole runs: train, resume, evaluate, predict, and fail as a user should see it."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from eql_d2.checkpoint import METADATA_KEY
from eql_d2.command_line import TrainOptions
from eql_d2.engines.tv import run, training
from eql_d2.errors import ConfigError, UserError


@pytest.fixture
def start(tiny_config, squares, tmp_path):
    """Function that runs the tiny configuration on the squares into ``tmp_path / name``."""

    def start(name, *overrides, data=squares, **options):
        overrides = [*data.overrides, "OUTPUT_DIR", str(tmp_path / name), *map(str, overrides)]
        return run(TrainOptions(str(tiny_config), overrides=tuple(overrides), **options))

    return start


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


def test_a_loss_that_is_not_finite_stops_at_once(start, tmp_path):
    with pytest.raises(training.TrainingDivergedError) as caught:
        start("a", "SOLVER.BASE_LR", 1e18, "SOLVER.WARMUP_ITERS", 0, "SOLVER.MAX_ITER", 50)
    message = str(caught.value)
    for part in ("at iteration ", "loss_", "learning rate 1e+18", "image ids [10", "BASE_LR"):
        assert part in message
    assert not (tmp_path / "a" / "last_checkpoint").exists()


def test_several_processes_are_refused(start):
    for options in ({"num_gpus": 2}, {"num_machines": 2}):
        with pytest.raises(ConfigError, match="one process"):
            start("a", **options)


def test_pretrained_resnet_is_loaded(start, tmp_path, caplog):
    from torchvision.models import resnet18

    torch.manual_seed(77)
    torch.save(resnet18().state_dict(), tmp_path / "resnet18.pth")
    extra = ("MODEL.WEIGHTS", tmp_path / "resnet18.pth", "MODEL.BACKBONE.FREEZE_AT", 5)
    with caplog.at_level("INFO", logger="eql_d2.engines.tv"):
        start("a", *extra)
    assert "ResNet from" in caplog.text
    state = checkpoint(tmp_path / "a" / "model_final.pth")["model"]
    wanted = torch.load(tmp_path / "resnet18.pth", weights_only=True)
    assert torch.equal(state["backbone.net.body.conv1.weight"], wanted["conv1.weight"])
    name = "layer4.1.conv2.weight"
    assert torch.equal(state[f"backbone.net.body.{name}"], wanted[name])


def test_other_files_are_no_weights(start, tmp_path):
    torch.save({"something": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="neither a checkpoint"):
        start("a", "MODEL.WEIGHTS", tmp_path / "x.pth")


def test_boxes_alone_need_no_masks(start, squares, tmp_path):
    document = json.loads(Path(squares.json).read_text())
    for annotation in document["annotations"][:2]:
        del annotation["segmentation"]
    (tmp_path / "bare.json").write_text(json.dumps(document))
    bare = type(squares)(str(tmp_path / "bare.json"), squares.images)
    metrics = start("a", "MODEL.MASK_ON", False, data=bare)
    assert "bbox/AP" in metrics
    assert "segm/AP" not in metrics
    results = json.loads((tmp_path / "a/inference/lvis_instances_results.json").read_text())
    assert "segmentation" not in results[0]


def test_frozen_random_stages_are_warned_about(start, caplog):
    start("a", "MODEL.BACKBONE.FREEZE_AT", 2, "SOLVER.MAX_ITER", 1)
    assert "stay random" in caplog.text
