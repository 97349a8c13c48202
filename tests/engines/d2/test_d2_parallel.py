"""Layers that no loss reaches, and batches that have no loss."""

from contextlib import suppress

import pytest
import torch
from torch import nn

with suppress(ImportError):
    from detectron2.modeling import build_backbone

    from eql_d2.engines.d2.compat import get_cfg
    from eql_d2.engines.d2.parallel import Guarded, freeze_unread_levels, parallel_model

pytestmark = pytest.mark.detectron2


@pytest.fixture(scope="module")
def make_pyramid():
    """Build Detectron2's pyramid on a small ResNet, all of it to be trained."""

    def make():
        cfg = get_cfg()
        cfg.MODEL.DEVICE = "cpu"
        cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
        cfg.MODEL.BACKBONE.FREEZE_AT = 0
        cfg.MODEL.RESNETS.DEPTH = 18
        cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
        cfg.MODEL.RESNETS.NORM = "GN"
        cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
        cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
        cfg.MODEL.FPN.OUT_CHANNELS = 8
        return build_backbone(cfg)

    return make


@pytest.mark.parametrize(
    ("read", "frozen"),
    [
        (["p2", "p3", "p4", "p5"], []),
        (["p2", "p3"], ["fpn_output4", "fpn_output5"]),
        (["p2", "p3", "p4", "p6"], []),  # p6 is made from p5
        (["p3", "p6"], ["fpn_output2", "fpn_output4", "fpn_lateral2"]),
        (["p4", "p5"], ["fpn_output2", "fpn_output3", "fpn_lateral2", "fpn_lateral3"]),
        (["p6"], [*(f"fpn_output{i}" for i in (2, 3, 4)), *(f"fpn_lateral{i}" for i in (2, 3, 4))]),
    ],
)
def test_what_gets_no_gradient_is_not_trained(make_pyramid, read, frozen):
    pyramid = make_pyramid()
    assert freeze_unread_levels(pyramid, read) == frozen
    levels = pyramid(torch.rand(1, 3, 64, 64))
    torch.stack([levels[name].sum() for name in read]).sum().backward()
    trained = {name for name, p in pyramid.named_parameters() if p.requires_grad}
    reached = {name for name, p in pyramid.named_parameters() if p.grad is not None}
    assert trained == reached, "parallel training waits for each gradient"
    assert any(name.startswith("bottom_up.stem") for name in reached)


def test_other_backbones_are_left_alone():
    backbone = nn.Sequential(nn.Linear(1, 1))
    assert freeze_unread_levels(backbone, ["res4"]) == []
    assert all(p.requires_grad for p in backbone.parameters())


def test_a_single_process_is_not_wrapped():
    model = nn.Linear(1, 1)
    assert parallel_model(model) is model


class Proposer(nn.Linear):
    """Has a frozen and a trained parameter, and no proposals on images below zero."""

    def __init__(self):
        super().__init__(1, 1)
        self.bias.requires_grad_(False)

    def forward(self, batch):
        if batch[0] < 0:
            raise FloatingPointError("proposals contain NaN")
        return {"loss": super().forward(batch[0]).sum()}


def test_without_proposals_there_is_a_loss_that_is_no_number():
    model = Guarded(Proposer())
    losses, fault = model([torch.ones(1)])
    assert list(losses) == ["loss"]
    assert fault == ""
    losses, fault = model([-torch.ones(1)])
    assert fault == "proposals contain NaN"
    (loss,) = losses.values()
    loss.backward()
    assert model.model.weight.grad.isnan().all()
    assert model.model.bias.grad is None
