"""Whole models with our heads: noise images, empty ground truth, cascades, the authors' weights."""

from contextlib import suppress
from pathlib import Path

import pytest
import torch

from eql_d2.config import load_config
from eql_d2.errors import ConfigError, MissingPackageError, UserError
from eql_d2.losses import LOSSES

with suppress(MissingPackageError):
    from eql_d2.engines.d2.checkpointer import Checkpointer
    from eql_d2.engines.d2.compat import (
        ROI_HEADS_REGISTRY,
        Boxes,
        EventStorage,
        ImageList,
        Instances,
        build_model,
        get_cfg,
    )
    from eql_d2.engines.d2.parallel import freeze_unread_levels
    from eql_d2.engines.d2.roi_heads import EQLCascadeROIHeads, EQLROIHeads
    from eql_d2.engines.d2.statistics import statistics_from_config

pytestmark = pytest.mark.detectron2

CONFIGS = Path(__file__).parents[3] / "configs"
LVIS_RECIPES = sorted(
    path for path in CONFIGS.glob("LVIS*/*.yaml") if not path.name.startswith("Base")
)
LABELS = [[0, 3, 4], []]  # the second image has no ground truth


def use_cascade(cfg):
    cfg.MODEL.ROI_HEADS.NAME = "EQLCascadeROIHeads"
    cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = True
    return cfg


def train_step(model, batch):
    model.train()
    with EventStorage() as storage:
        losses = model(batch)
        sum(losses.values()).backward()
    return losses, storage.latest()


def test_heads_are_registered():
    assert ROI_HEADS_REGISTRY.get("EQLROIHeads") is EQLROIHeads
    assert ROI_HEADS_REGISTRY.get("EQLCascadeROIHeads") is EQLCascadeROIHeads


@pytest.mark.parametrize("cascade", [False, True], ids=["plain", "cascade"])
@pytest.mark.parametrize("name", LOSSES)
def test_training_and_inference_with_every_loss(tiny_cfg, make_batch, name, cascade):
    tiny_cfg.MODEL.EQL.LOSS.NAME = name
    model = build_model(use_cascade(tiny_cfg) if cascade else tiny_cfg)
    assert freeze_unread_levels(model.backbone, ["p2", "p3", "p4"]) == ["fpn_output5"]
    losses, _ = train_step(model, make_batch(LABELS))
    stages = [f"_stage{k}" for k in range(3)] if cascade else [""]
    heads = {f"{loss}{stage}" for loss in ("loss_cls", "loss_box_reg") for stage in stages}
    assert losses.keys() == heads | {"loss_mask", "loss_rpn_cls", "loss_rpn_loc"}
    assert all(torch.isfinite(value) for value in losses.values())
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without, "parameters that no loss reaches"
    model.eval()
    with torch.no_grad():
        outputs = model(make_batch([[], []]))
    for output in outputs:
        instances = output["instances"]
        assert 0 < len(instances) <= 10
        assert instances.pred_classes.max() < 5
        assert instances.pred_masks.shape[1:] == (64, 64)
        assert (instances.scores[:-1] >= instances.scores[1:]).all()


def test_first_classification_loss_is_small(tiny_cfg, make_batch):
    losses, _ = train_step(build_model(tiny_cfg), make_batch([[0], [1, 2]]))
    # 5 sigmoids at probability 0.001, and -log 0.001 = 6.9 for at most a quarter of the ROIs.
    assert losses["loss_cls"] < 6.9 / 4 + 0.1


def test_a_batch_without_any_object(tiny_model, make_batch):
    losses, _ = train_step(tiny_model, make_batch([[], []]))
    assert all(torch.isfinite(value) for value in losses.values())
    assert losses["loss_box_reg"].item() == 0.0


def test_a_cascade_logs_each_stage(tiny_cfg, make_batch):
    _, logged = train_step(build_model(use_cascade(tiny_cfg)), make_batch(LABELS))
    for stage in range(3):
        assert f"stage{stage}/cls/fg_accuracy" in logged
    assert not any("fast_rcnn" in name for name in logged)


def test_a_cascade_averages_the_scores_of_its_stages(tiny_cfg):
    tiny_cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    tiny_cfg.TEST.DETECTIONS_PER_IMAGE = -1
    heads = build_model(use_cascade(tiny_cfg)).roi_heads.eval()
    constant = [torch.linspace(-3, 1, 5), torch.linspace(2, 0, 5), torch.full((5,), -1.0)]
    for predictor, logits in zip(heads.box_predictor, constant, strict=True):
        torch.nn.init.zeros_(predictor.cls_score.weight)
        predictor.cls_score.bias.data.copy_(logits)
    features = {f"p{level}": torch.randn(1, 32, 64 >> level, 64 >> level) for level in (2, 3, 4)}
    proposals = Instances((64, 64))
    proposals.proposal_boxes = Boxes(torch.tensor([[4.0, 4.0, 40.0, 40.0]]))
    proposals.objectness_logits = torch.zeros(1)
    images = ImageList(torch.zeros(1, 3, 64, 64), [(64, 64)])
    with torch.no_grad():
        (found,), _ = heads(images, features, [proposals])
    expected = sum(logits.sigmoid() for logits in constant) / 3
    assert len(found) == 5
    assert torch.allclose(found.scores, expected[found.pred_classes], rtol=1e-6)


@pytest.mark.parametrize(("agnostic", "channels"), [(False, 5), (True, 1)])
def test_masks_for_each_category_or_for_all(tiny_cfg, make_batch, agnostic, channels):
    tiny_cfg.MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK = agnostic
    model = build_model(tiny_cfg)
    assert model.roi_heads.mask_head.predictor.out_channels == channels
    losses, _ = train_step(model, make_batch(LABELS))
    assert losses["loss_mask"] > 0


def test_number_of_classes_may_come_from_the_statistics(tiny_cfg, make_batch):
    tiny_cfg.MODEL.ROI_HEADS.NUM_CLASSES = -1
    model = build_model(tiny_cfg)
    assert model.roi_heads.num_classes == 5, "it labels background, too"
    assert model.roi_heads.mask_head.predictor.out_channels == 5
    assert tiny_cfg.MODEL.ROI_HEADS.NUM_CLASSES == -1, "the caller's tree was edited"
    train_step(model, make_batch(LABELS))


@pytest.mark.parametrize("wrong", [4, 6, 80, 1203, 1230])
def test_wrong_number_of_classes_names_both_numbers_and_the_key(tiny_cfg, wrong):
    tiny_cfg.MODEL.ROI_HEADS.NUM_CLASSES = wrong
    with pytest.raises(ConfigError, match=rf"MODEL\.ROI_HEADS\.NUM_CLASSES is {wrong} .* 5 cat"):
        build_model(tiny_cfg)


def test_cascade_settings_are_checked_together(tiny_cfg):
    tiny_cfg.MODEL.ROI_HEADS.NAME = "EQLCascadeROIHeads"
    tiny_cfg.MODEL.ROI_BOX_CASCADE_HEAD.IOUS = (0.6, 0.7)
    with pytest.raises(ConfigError) as caught:
        build_model(tiny_cfg)
    assert len(caught.value.problems) == 3


def build_on_meta(path):
    """Build a recipe's model without memory for its parameters."""
    cfg = load_config(path, defaults=get_cfg())
    statistics_from_config(cfg)  # cached, so that the counts themselves are real tensors
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        return cfg, build_model(cfg)


@pytest.mark.parametrize("path", LVIS_RECIPES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_lvis_recipes_build(path):
    cfg, model = build_on_meta(path)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    k = {"LVISv0.5": 1230, "LVISv1": 1203}[path.parent.name]
    outputs = k + 1 if "softmax" in path.stem else k
    cascade = "cascade" in path.stem
    for stage in (".0", ".1", ".2") if cascade else ("",):
        prefix = f"roi_heads.box_predictor{stage}"
        assert shapes[f"{prefix}.cls_score.weight"] == (outputs, 1024)
        assert shapes[f"{prefix}.bbox_pred.weight"] == (4 if cascade else 4 * k, 1024)
    masks = 1 if "agnostic" in path.stem else k
    assert shapes["roi_heads.mask_head.predictor.weight"] == (masks, 256, 1, 1)
    blocks = {len(stage) for stage in (model.backbone.bottom_up.res4,)}
    assert blocks == ({6} if "R_50" in path.stem else {23}), "depth of the backbone"
    assert cfg.OUTPUT_DIR == f"output/{path.parent.name}/{path.stem}"


def test_both_versions_have_the_same_recipes():
    names = {
        folder: sorted(p.name for p in LVIS_RECIPES if p.parent.name == folder)
        for folder in ("LVISv0.5", "LVISv1")
    }
    assert len(names["LVISv1"]) == 11
    assert names["LVISv0.5"] == names["LVISv1"]


def authors_checkpoint(path):
    """Write weights as the authors' R-50 release has them: Detectron2's names, K classifiers."""
    cfg = load_config(CONFIGS / "LVISv0.5/eql_R_50_FPN.yaml", defaults=get_cfg())
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        stock = build_model(cfg)
    shapes = {name: tuple(value.shape) for name, value in stock.state_dict().items()}
    shapes["roi_heads.box_predictor.cls_score.weight"] = (1230, 1024)
    shapes["roi_heads.box_predictor.cls_score.bias"] = (1230,)
    assert shapes["roi_heads.box_predictor.bbox_pred.weight"] == (4920, 1024)
    weights = {
        name: torch.full(shape, 0.001 * (i + 1)) for i, (name, shape) in enumerate(shapes.items())
    }
    torch.save({"model": weights}, path)
    return weights


def test_the_authors_checkpoint_loads_whole(tmp_path, caplog):
    weights = authors_checkpoint(tmp_path / "eql_r50.pth")
    cfg = load_config(CONFIGS / "LVISv0.5/eql_R_50_FPN.yaml", defaults=get_cfg())
    statistics_from_config(cfg)
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        model = build_model(cfg)
    model = model.to_empty(device="cpu")
    with caplog.at_level("WARNING"):
        Checkpointer(model, strict=True).load(str(tmp_path / "eql_r50.pth"))
    assert "Skip loading" not in caplog.text
    assert "not found" not in caplog.text
    loaded = model.state_dict()
    assert loaded.keys() == weights.keys()
    for name, value in weights.items():
        assert torch.equal(loaded[name], value), name


def test_weights_that_do_not_fit_are_refused_for_testing(tiny_cfg, tmp_path):
    Checkpointer(build_model(tiny_cfg), str(tmp_path)).save("sigmoid")
    tiny_cfg.MODEL.EQL.LOSS.NAME = "SoftmaxCE"
    with pytest.raises(UserError) as caught:
        Checkpointer(build_model(tiny_cfg), strict=True).load(str(tmp_path / "sigmoid.pth"))
    message = str(caught.value)
    assert "cls_score.weight has shape [5, 32] in the weights but [6, 32] in the model" in message
    assert "MODEL.EQL.LOSS.NAME" in message
    assert "not in the weights" not in message, "a mismatch was reported twice"


def test_backbone_weights_alone_are_refused_for_testing_only(tiny_cfg, tmp_path):
    model = build_model(tiny_cfg)
    backbone = {k: v for k, v in model.state_dict().items() if k.startswith("backbone.")}
    torch.save({"model": backbone}, tmp_path / "backbone.pth")
    Checkpointer(model).load(str(tmp_path / "backbone.pth"))
    with pytest.raises(UserError, match=r"\d+ parameters are not in the weights"):
        Checkpointer(model, strict=True).load(str(tmp_path / "backbone.pth"))


def test_weights_of_the_other_engine_are_named(tiny_model, tmp_path):
    torch.save({"model": {}, "eql_d2": {"engine": "torchvision"}}, tmp_path / "tv.pth")
    with pytest.raises(UserError, match="--engine torchvision"):
        Checkpointer(tiny_model).load(str(tmp_path / "tv.pth"))
