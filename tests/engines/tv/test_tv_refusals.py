"""Runs that cannot be as asked, and weights of every kind: refused, or begun with, in words."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
import torch

from eql_d2.command_line import TrainOptions
from eql_d2.engines.tv import load_predictor, run, training
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


@pytest.fixture(scope="module")
def short_run(tiny_config, squares, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    overrides = [*squares.overrides, "OUTPUT_DIR", str(folder), "SOLVER.MAX_ITER", "2"]
    run(TrainOptions(str(tiny_config), overrides=(*overrides, "SOLVER.STEPS", "[]")))
    return folder


@pytest.fixture
def trained(short_run, tmp_path):
    """Folder of a short run, to change and to resume with ``start("trained", ...)``."""
    return Path(shutil.copytree(short_run, tmp_path / "trained"))


def poison(path, part, name, value):
    """Put ``value`` into one tensor of a checkpoint."""
    content = torch.load(path, weights_only=True)
    if part == "model":
        content["model"][name].view(-1)[0] = value
    else:
        content["optimizer"]["state"][0]["momentum_buffer"].view(-1)[0] = value
    torch.save(content, path)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("model", "roi_heads.box_predictor.cls_score.weight", float("nan")),
        ("model", "backbone.net.body.bn1.running_var", float("inf")),
        ("optimizer", "optimizer.state.0.momentum_buffer", float("nan")),
    ],
)
def test_weights_that_are_not_finite_are_refused(start, trained, part, name, value):
    file = trained / "model_final.pth"
    before = (trained / "metrics.jsonl").read_text()
    poison(file, part, name, value)
    wanted = rf"{file} holds NaN or infinity: 1 of .* in 1 of .*first: {name}, 1 of"
    with pytest.raises(UserError, match=wanted):
        start("trained", "SOLVER.MAX_ITER", 4, resume=True)
    if part == "model":  # momentum is read for resuming alone
        with pytest.raises(UserError, match=wanted):
            start("trained", eval_only=True)
        with pytest.raises(UserError, match=wanted):
            start("b", "MODEL.WEIGHTS", file)
        with pytest.raises(UserError, match=wanted):
            load_predictor(file, device="cpu")
    assert (trained / "metrics.jsonl").read_text() == before


def test_buffers_that_are_not_finite_are_not_saved(start, tmp_path, monkeypatch):
    forward, calls = training._forward, []

    def poisoned(model, *args):
        calls.append(args)
        if len(calls) == 3:  # in training, nothing reads it
            model.backbone.net.body.bn1.running_var.fill_(float("nan"))
        return forward(model, *args)

    monkeypatch.setattr(training, "_forward", poisoned)
    wanted = (
        r"model_final\.pth is not saved.*first: backbone\.net\.body\.bn1\.running_var, 64 of 64"
    )
    with pytest.raises(UserError, match=wanted) as caught:
        start("a", "SOLVER.CHECKPOINT_PERIOD", 2, "MODEL.RESNETS.NORM", "BN")
    assert "(model_0000001.pth, which stays the last checkpoint)" in str(caught.value)
    assert (tmp_path / "a" / "last_checkpoint").read_text() == "model_0000001.pth"
    assert not (tmp_path / "a" / "model_final.pth").exists()
    monkeypatch.undo()
    start("a", resume=True)


@pytest.mark.parametrize("clip", [False, True])
def test_gradients_that_are_not_finite_stop_before_the_update(start, tmp_path, monkeypatch, clip):
    forward, models = training._forward, []

    def poisoned(model, *args):
        losses, statistics = forward(model, *args)
        models.append(model)
        if len(models) == 3:
            losses["loss_cls"].register_hook(lambda gradient: gradient * float("nan"))
        return losses, statistics

    monkeypatch.setattr(training, "_forward", poisoned)
    clipping = ("SOLVER.CLIP_GRADIENTS.ENABLED", clip)
    with pytest.raises(training.TrainingDivergedError) as caught:
        start("a", "SOLVER.CHECKPOINT_PERIOD", 2, *clipping)
    message = str(caught.value)
    assert "iteration 3: all losses are finite, but the gradients are NaN or infinite" in message
    assert "first: backbone.net.body.conv1.weight, 9,408 of 9,408" in message
    for part in ("learning rate 0.01", "image ids [10", "SOLVER.BASE_LR"):
        assert part in message
    last = torch.load(tmp_path / "a" / "model_0000001.pth", weights_only=True)["model"]
    for name, value in models[0].named_parameters():
        assert torch.equal(value, last[name]), f"{name} was updated"
    monkeypatch.undo()
    start("a", *clipping, resume=True)


def with_categories(squares, path, change):
    """The squares with other categories, annotations following the ids."""
    document = json.loads(Path(squares.json).read_text())
    new = change([(c["id"], c["name"]) for c in document["categories"]])
    ids = {c["id"]: i for c, (i, _) in zip(document["categories"], new, strict=True)}
    document["categories"] = [{"id": i, "name": name} for i, name in new]
    for annotation in document["annotations"]:
        annotation["category_id"] = ids[annotation["category_id"]]
    path.write_text(json.dumps(document))
    return type(squares)(str(path), squares.images)


OTHER_CATEGORIES = {
    "renamed": (lambda c: [c[0], (c[1][0], "cat"), c[2]], "id 7 is 'c7' in the former, 'cat' in"),
    "shifted": (lambda c: [(i + 1, name) for i, name in c], "the ids seem to be shifted"),
    "exchanged": (
        lambda c: [(c[0][0], c[1][1]), (c[1][0], c[0][1]), c[2]],
        "id 3 is 'c3' in the former, 'c7' in the latter",
    ),
}


@pytest.mark.parametrize("kind", OTHER_CATEGORIES)
def test_a_checkpoint_of_other_categories_is_neither_scored_nor_resumed(
    start, trained, squares, tmp_path, kind
):
    change, said = OTHER_CATEGORIES[kind]
    other = with_categories(squares, tmp_path / "other.json", change)
    file = trained / "model_final.pth"
    for options in ({"eval_only": True}, {"resume": True}):
        with pytest.raises(ConfigError) as caught:
            start("trained", "SOLVER.MAX_ITER", 3, data=other, **options)
        (problem,) = caught.value.problems
        assert problem.startswith(
            f"checkpoint {file} has 3 categories, DATA.TEST_JSON {other.json}"
        )
        assert said in problem
    with pytest.raises(ConfigError, match="checkpoint"):
        start("b", "MODEL.WEIGHTS", file, data=other, eval_only=True)
    assert (trained / "last_checkpoint").read_text() == "model_final.pth"


def test_fine_tuning_on_other_categories_says_what_the_weights_were(
    start, trained, squares, tmp_path, caplog
):
    change, said = OTHER_CATEGORIES["renamed"]
    other = with_categories(squares, tmp_path / "other.json", change)
    weights = ("MODEL.WEIGHTS", trained / "model_final.pth", "SOLVER.MAX_ITER", 1)
    with caplog.at_level("WARNING", logger="eql_d2"):
        start("same", *weights)
        assert "other categories" not in caplog.text
        start("other", *weights, data=other)
    assert f"{trained / 'model_final.pth'} was trained on other categories" in caplog.text
    assert said in caplog.text


@pytest.mark.parametrize("kind", ["renamed", "shifted"])
def test_training_and_test_files_of_other_categories_are_refused(start, squares, tmp_path, kind):
    change, said = OTHER_CATEGORIES[kind]
    other = with_categories(squares, tmp_path / "other.json", change)
    with pytest.raises(ConfigError, match=r"DATA\.TRAIN_JSON .* has 3 categories") as caught:
        start("a", "DATA.TEST_JSON", other.json)
    assert said in str(caught.value)
