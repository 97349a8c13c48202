"""Backbone, heads and the whole model, built from settings."""

import pytest
import torch
from torch import nn
from torchvision.models import resnet18, resnet50
from torchvision.ops.misc import FrozenBatchNorm2d

from eql_d2.engines.tv.backbone import PyramidBackbone, build_resnet
from eql_d2.engines.tv.model import build_model
from eql_d2.engines.tv.roi_losses import box_regression_loss, mask_loss, own_category
from eql_d2.losses import LOSSES, build_loss

FRACTION = torch.tensor([0.6, 0.4, 0.1], dtype=torch.float64)


def loss_named(name):
    return build_loss(name, image_fraction=FRACTION, lambda_=0.3)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_classifier_width_and_start_come_from_the_loss(model_of, name):
    loss = loss_named(name)
    predictor = model_of(loss=loss).roi_heads.box_predictor
    assert predictor.cls_score.out_features == loss.num_logits
    wanted = nn.Linear(64, loss.num_logits)
    loss.init_classifier(wanted)
    assert torch.equal(predictor.cls_score.bias, wanted.bias)
    assert float(predictor.cls_score.weight.detach().std()) == pytest.approx(0.01, rel=0.3)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_loss_trains_and_detects(model_of, batch, name):
    images, targets = batch
    model = model_of(loss=loss_named(name))
    losses = model.train()(images, targets)
    assert set(losses) == {
        *("loss_cls", "loss_box_reg", "loss_mask", "loss_rpn_cls", "loss_rpn_loc")
    }
    sum(losses.values()).backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
    assert float(model.roi_heads.box_predictor.cls_score.weight.grad.abs().sum()) > 0
    with torch.no_grad():
        for found in model.eval()(images):
            count = len(found["scores"])
            assert found["boxes"].shape == (count, 4)
            assert found["masks"].shape == (count, 28, 28)
            assert ((found["labels"] >= 0) & (found["labels"] < 3)).all()


def test_statistics_come_when_asked_for(model_of, batch):
    images, targets = batch
    found = model_of().train()(images, targets, with_statistics=True)
    statistics = {name for name in found if name.startswith("cls/")}
    assert "cls/fg_accuracy" in statistics
    assert all(not found[name].requires_grad for name in statistics)


@pytest.mark.parametrize("number", [1, 2])
def test_images_without_ground_truth(model_of, batch, number):
    images, targets = batch
    losses = model_of().train()(images[1:] * number, targets[1:] * number)
    assert float(losses["loss_mask"]) == float(losses["loss_box_reg"]) == 0
    assert float(losses["loss_cls"]) > 0
    sum(losses.values()).backward()


def test_no_detections_at_all(model_of, batch):
    model = model_of("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 1.0).eval()
    with torch.no_grad():
        found = model(batch[0])
    assert [f["masks"].shape for f in found] == [(0, 28, 28)] * 2


def test_class_agnostic_and_class_specific_heads(model_of, batch):
    for agnostic in (False, True):
        model = model_of(
            *("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", agnostic),
            *("MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK", agnostic),
        )
        assert model.roi_heads.box_predictor.bbox_pred.out_features == (4 if agnostic else 12)
        assert model.roi_heads.mask_predictor[-1].out_channels == (1 if agnostic else 3)
        sum(model.train()(*batch).values()).backward()
        assert len(model.eval()(batch[0])) == 2


def test_without_masks(model_of, batch):
    model = model_of("MODEL.MASK_ON", False)
    assert "loss_mask" not in model.train()(*batch)
    assert "masks" not in model.eval()(batch[0])[0]
    assert model.roi_heads.mask_head is None


def test_loss_weights_scale_their_terms(model_of, batch):
    weights = (
        *("MODEL.RPN.LOSS_WEIGHT", 3.0, "MODEL.RPN.BBOX_REG_LOSS_WEIGHT", 0.5),
        *("MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT", 2.0),
    )
    found = []
    for overrides in ((), weights):
        model = model_of(*overrides).train()
        torch.manual_seed(1)
        found.append(model(*batch))
    ratios = {name: float(found[1][name] / found[0][name]) for name in found[0]}
    assert ratios == pytest.approx(
        {
            "loss_cls": 1.0,
            "loss_box_reg": 2.0,
            "loss_mask": 1.0,
            "loss_rpn_cls": 3.0,
            "loss_rpn_loc": 1.5,
        }
    )


def test_padding_and_normalisation(model_of):
    model = model_of("MODEL.PIXEL_MEAN", [1.0, 2.0, 3.0], "MODEL.PIXEL_STD", [2.0, 2.0, 2.0])
    images = [torch.full((3, 33, 20), 5.0), torch.full((3, 10, 64), 5.0)]
    batch = model.batch_images(images)
    assert batch.tensors.shape == (2, 3, 64, 64)
    assert batch.image_sizes == [(33, 20), (10, 64)]
    assert batch.tensors[1, :, 9, 63].tolist() == [2.0, 1.5, 1.0]
    assert float(batch.tensors[1, :, 10:].abs().sum()) == 0
    assert images[0][0, 0, 0] == 5.0


def test_a_loss_for_other_classes_is_refused(settings_of):
    loss = build_loss("SigmoidCE", image_fraction=torch.ones(5, dtype=torch.float64), lambda_=0.0)
    with pytest.raises(ValueError, match="5 classes, the model for 3"):
        build_model(settings_of(), loss, torch.zeros(5, dtype=torch.bool))


def test_pyramid_levels_have_their_strides(settings_of):
    backbone = PyramidBackbone(settings_of().backbone)
    features = backbone(torch.rand(2, 3, 64, 128))
    sizes = {name: tuple(value.shape) for name, value in features.items()}
    assert sizes == {f"p{i}": (2, 32, 64 >> i, 128 >> i) for i in range(2, 7)}


def test_frozen_stages_have_no_gradients_and_no_moving_statistics(settings_of):
    body = PyramidBackbone(settings_of("MODEL.BACKBONE.FREEZE_AT", 2).backbone).net.body
    frozen = {n for n, p in body.named_parameters() if not p.requires_grad}
    assert frozen == {
        n for n, _ in body.named_parameters() if n.startswith(("conv1", "bn1", "layer1"))
    }
    assert isinstance(body.bn1, FrozenBatchNorm2d)
    assert isinstance(body.layer1[0].bn1, FrozenBatchNorm2d)
    assert isinstance(body.layer2[0].bn1, nn.BatchNorm2d)


@pytest.mark.parametrize(
    ("norm", "kind"),
    [("FrozenBN", FrozenBatchNorm2d), ("BN", nn.BatchNorm2d), ("GN", nn.GroupNorm)],
)
def test_norms(settings_of, norm, kind):
    resnet = build_resnet(settings_of("MODEL.RESNETS.NORM", norm).backbone)
    assert type(resnet.bn1) is kind
    assert type(resnet.layer3[0].downsample[1]) is kind


def test_strides_in_the_first_convolution_keep_shapes(settings_of):
    deep = ("MODEL.RESNETS.DEPTH", 50, "MODEL.RESNETS.RES2_OUT_CHANNELS", 256)
    original = build_resnet(settings_of(*deep).backbone)
    torchvisions = build_resnet(settings_of(*deep, "MODEL.RESNETS.STRIDE_IN_1X1", False).backbone)
    assert original.layer2[0].conv1.stride == torchvisions.layer2[0].conv2.stride == (2, 2)
    assert original.layer2[0].conv2.stride == torchvisions.layer2[0].conv1.stride == (1, 1)
    reference = resnet50()
    torchvisions.load_state_dict(reference.state_dict(), strict=False)
    for name, module in reference.named_modules():
        if isinstance(module, nn.Conv2d):
            assert torchvisions.get_submodule(name).stride == module.stride
    images = torch.rand(1, 3, 64, 64)
    assert original.eval()(images).shape == torchvisions.eval()(images).shape


def test_resnext_is_torchvisions(settings_of):
    deep = ("MODEL.RESNETS.DEPTH", 101, "MODEL.RESNETS.RES2_OUT_CHANNELS", 256)
    groups = ("MODEL.RESNETS.NUM_GROUPS", 32, "MODEL.RESNETS.WIDTH_PER_GROUP", 8)
    ours = build_resnet(settings_of(*deep, *groups).backbone)
    assert ours.layer1[0].conv2.weight.shape == (256, 8, 3, 3)
    assert ours.layer4[2].conv2.groups == 32


def test_resnet18_has_torchvisions_parameters(settings_of):
    ours = build_resnet(settings_of().backbone).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {
        k: v.shape for k, v in resnet18().state_dict().items()
    }


def test_own_category_picks_columns():
    values = torch.arange(6.0).view(2, 3)
    assert own_category(values, torch.tensor([2, 0])).tolist() == [2, 3]
    assert own_category(values[:, :1], torch.tensor([2, 0])).tolist() == [0, 3]


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_box_loss_is_a_sum_over_foreground_by_all_rois(beta):
    generator = torch.Generator().manual_seed(0)
    deltas = torch.randn(5, 3, 4, generator=generator)
    targets = torch.randn(5, 4, generator=generator)
    labels = torch.tensor([0, 3, 2, 3, 1])
    total = 0.0
    for roi, label in enumerate(labels.tolist()):
        for i in range(4 if label < 3 else 0):
            error = abs(float(deltas[roi, label, i] - targets[roi, i]))
            total += 0.5 * error**2 / beta if error < beta else error - 0.5 * beta
    found = box_regression_loss(deltas, labels, targets, 3, beta)
    assert float(found) == pytest.approx(total / 5)


def test_box_loss_of_no_rois_is_a_connected_zero():
    deltas = torch.zeros(0, 3, 4, requires_grad=True)
    loss = box_regression_loss(deltas, torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4), 3, 0.1)
    loss.backward()
    assert float(loss) == 0


def test_aligned_mask_targets_have_no_shift():
    """The crop of a mask at its own box is all ones; half a pixel off, its edge is not."""
    masks = torch.zeros(1, 32, 32)
    masks[0, 8:24, 8:24] = 1
    targets = [{"masks": masks, "labels": torch.tensor([1])}]
    rois, matched = [torch.tensor([[8.0, 8, 24, 24]])], [torch.tensor([0])]
    confident = torch.full((1, 3, 16, 16), 20.0)
    aligned = mask_loss(confident, rois, matched, targets, aligned=True)
    shifted = mask_loss(confident, rois, matched, targets, aligned=False)
    assert float(aligned) < 1e-6
    assert float(shifted) > 0.1
