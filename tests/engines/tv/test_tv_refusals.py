"""Runs that cannot be as asked, and weights of every kind: refused, or begun with, in words."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
import torch

from eql_d2.engines.tv import training
from eql_d2.errors import ConfigError, DataError, UserError


def test_a_loss_that_is_not_finite_stops_at_once(start, tmp_path):
    with pytest.raises(training.TrainingDivergedError) as caught:
        start("a", "SOLVER.BASE_LR", 1e18, "SOLVER.WARMUP_ITERS", 0, "SOLVER.MAX_ITER", 50)
    message = str(caught.value)
    for part in ("at iteration ", "loss_", "learning rate 1e+18", "image ids [10", "BASE_LR"):
        assert part in message
    assert not (tmp_path / "a" / "last_checkpoint").exists()


@pytest.mark.parametrize(("part", "kind"), [("TRAIN", "truncated.jpg"), ("TEST", "huge.png")])
def test_an_unreadable_image_ends_the_run_with_its_name(
    start, squares, unreadable_images, tmp_path, part, kind
):
    """From a worker of the data loader, without its traceback."""
    folder = tmp_path / "images"
    shutil.copytree(squares.images, folder)
    shutil.copy(unreadable_images[kind], folder / "3.png")
    extra = (f"DATA.{part}_IMAGES", folder, "DATALOADER.NUM_WORKERS", 2)
    with pytest.raises(DataError) as caught:
        start("a", *extra)
    assert str(caught.value).startswith(f"{folder / '3.png'} ")
    assert "\n" not in str(caught.value)


def test_everything_that_is_wrong_is_told_at_once(start):
    wrong = ("SOLVER.MAX_ITER", 0, "SOLVER.AMP.ENABLED", True, "MODEL.WEIGHTS", "nowhere.pth")
    with pytest.raises(ConfigError) as caught:
        start("a", *wrong, "MODEL.EQL.LOSS.GAMMA", 2, num_gpus=2)
    assert len(caught.value.problems) == 5
    for part in ("MAX_ITER", "AMP", "nowhere.pth", "GAMMA", "--num-gpus"):
        assert part in str(caught.value)


def test_no_gpus_means_the_cpu(start, tmp_path):
    start("a", "SOLVER.MAX_ITER", 1, num_gpus=0)
    assert "DEVICE: cpu" in (tmp_path / "a" / "config.yaml").read_text()


def test_several_processes_are_refused(start):
    for options in ({"num_gpus": 2}, {"num_machines": 2}):
        with pytest.raises(ConfigError, match="one process"):
            start("a", **options)


def test_pretrained_resnet_is_loaded(start, tmp_path, caplog):
    from torchvision.models import resnet18

    torch.manual_seed(77)
    torch.save(resnet18().state_dict(), tmp_path / "resnet18.pth")
    extra = ("MODEL.WEIGHTS", tmp_path / "resnet18.pth", "MODEL.BACKBONE.FREEZE_AT", 5)
    with pytest.raises(ConfigError, match=r"Append (.*)$") as caught:
        start("a", *extra, "MODEL.RESNETS.STRIDE_IN_1X1", True, "INPUT.FORMAT", "BGR")
    extra += tuple(shlex.split(str(caught.value).rsplit("Append ")[-1]))
    with caplog.at_level("INFO", logger="eql_d2.engines.tv"):
        start("a", *extra)
    assert "ResNet from" in caplog.text
    state = torch.load(tmp_path / "a" / "model_final.pth", weights_only=True)["model"]
    wanted = torch.load(tmp_path / "resnet18.pth", weights_only=True)
    assert torch.equal(state["backbone.net.body.conv1.weight"], wanted["conv1.weight"])
    name = "layer4.1.conv2.weight"
    assert torch.equal(state[f"backbone.net.body.{name}"], wanted[name])


def test_a_backbone_alone_cannot_be_evaluated(start, tmp_path):
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "resnet18.pth")
    with pytest.raises(UserError, match="no checkpoint of this engine"):
        start("a", "MODEL.WEIGHTS", tmp_path / "resnet18.pth", eval_only=True)


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
