"""Region proposals: the losses by their definition, and which levels and boxes take part."""

import copy
import dataclasses

import pytest
import torch
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import box_iou

from eql_d2.engines.tv.rpn import Rpn

CHANNELS = 8


@pytest.fixture
def rpn_of(settings_of):
    """Function from changed settings to a network with fixed random weights."""

    def make(seed=0, **changes):
        settings = settings_of("MODEL.RPN.SMOOTH_L1_BETA", 1 / 9).rpn
        torch.manual_seed(seed)
        return Rpn(dataclasses.replace(settings, **changes), CHANNELS)

    return make


def inputs(side=64, number=2):
    """Images and a pyramid p2 ... p6 of noise, with two objects in the first image only."""
    generator = torch.Generator().manual_seed(1)
    images = ImageList(torch.zeros(number, 3, side, side), [(side, side)] * number)
    features = {
        f"p{level}": torch.randn(
            number, CHANNELS, side >> level, side >> level, generator=generator
        )
        for level in range(2, 7)
    }
    boxes = [torch.tensor([[4.0, 6, 24, 30], [30, 20, 60, 62]]), torch.zeros(0, 4)]
    return images, features, [{"boxes": b} for b in boxes[:number]]


def stock_losses(rpn, *arguments):
    """torchvision's own losses with the same weights, anchors and random draws."""
    stock = copy.deepcopy(rpn)
    stock.__class__ = RegionProposalNetwork
    images, features, targets = arguments
    chosen = {level: features[level] for level in ("p2", "p3", "p4")}
    torch.manual_seed(3)
    losses = stock.train()(images, chosen, targets)[1]
    return {name: value.detach() for name, value in losses.items()}


def our_losses(rpn, *arguments):
    torch.manual_seed(3)
    return rpn.train()(*arguments)[1]


def test_stock_settings_give_torchvisions_losses_to_the_bit(rpn_of):
    rpn = rpn_of()
    theirs, ours = stock_losses(rpn, *inputs()), our_losses(rpn, *inputs())
    assert float(ours["loss_rpn_cls"]) == float(theirs["loss_objectness"]) > 0
    assert float(ours["loss_rpn_loc"]) == float(theirs["loss_rpn_box_reg"]) > 0


def test_weights_of_the_losses(rpn_of):
    plain = our_losses(rpn_of(), *inputs())
    weighted = our_losses(rpn_of(loss_weight=3.0, box_loss_weight=0.5), *inputs())
    assert float(weighted["loss_rpn_cls"]) == pytest.approx(3 * float(plain["loss_rpn_cls"]))
    assert float(weighted["loss_rpn_loc"]) == pytest.approx(1.5 * float(plain["loss_rpn_loc"]))


@pytest.mark.parametrize("beta", [0.0, 0.3])
@pytest.mark.parametrize("box_weights", [(1.0, 1.0, 1.0, 1.0), (2.0, 3.0, 5.0, 7.0)])
def test_losses_by_their_definition(rpn_of, beta, box_weights):
    """Every anchor is sampled: labels by IoU with the objects, losses over all labelled anchors."""
    rpn = rpn_of(
        smooth_l1_beta=beta, box_weights=box_weights, batch_size_per_image=10**6,
        positive_fraction=1.0, iou_thresholds=(0.3, 0.7),
    )  # fmt: skip
    images, features, targets = inputs(number=1)
    levels = [features[level] for level in ("p2", "p3", "p4")]
    objectness, deltas = rpn.head(levels)
    flat = torch.cat([o.permute(0, 2, 3, 1).flatten() for o in objectness])
    moves = torch.cat(
        [d.view(1, -1, 4, *d.shape[-2:]).permute(0, 3, 4, 1, 2).reshape(-1, 4) for d in deltas]
    )
    (anchors,) = rpn.anchor_generator(images, levels)
    boxes = targets[0]["boxes"]
    iou = box_iou(boxes, anchors)
    best, which = iou.max(dim=0)
    positive = (best >= 0.7) | (iou == iou.max(dim=1).values[:, None]).any(dim=0)
    negative = ~positive & (best < 0.3)
    assert positive.any()
    assert (~positive & ~negative).any(), "no anchor lies between, so the test shows less"
    total = int((positive | negative).sum())
    wanted = positive.float()
    class_loss = -(wanted * F.logsigmoid(flat) + (1 - wanted) * F.logsigmoid(-flat))
    goal = BoxCoder(box_weights).encode([boxes[which[positive]]], [anchors[positive]])[0]
    gap = (moves[positive] - goal).abs()
    box_loss = torch.where(gap < beta, 0.5 * gap**2 / max(beta, 1e-9), gap - 0.5 * beta)
    found = our_losses(rpn, images, features, targets)
    expected = class_loss[positive | negative].sum() / total
    assert float(found["loss_rpn_cls"]) == pytest.approx(float(expected), rel=1e-5)
    assert float(found["loss_rpn_loc"]) == pytest.approx(float(box_loss.sum() / total), rel=1e-5)


def test_images_without_objects_have_no_box_loss(rpn_of):
    images, features, targets = inputs()
    rpn = rpn_of()
    losses = our_losses(rpn, images, features, [targets[1]] * 2)
    assert float(losses["loss_rpn_loc"]) == 0
    assert float(losses["loss_rpn_cls"]) > 0
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in rpn.parameters() if p.grad is not None)


def test_only_the_chosen_levels_are_read(rpn_of):
    images, features, _ = inputs()
    rpn = rpn_of().eval()
    with torch.no_grad():
        before, losses = rpn(images, features)
        features["p5"], features["p6"] = torch.full((2, 1), torch.nan), None
        after, _ = rpn(images, features)
        features["p3"] = features["p3"] + 1
        changed, _ = rpn(images, features)
    assert losses == {}
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not torch.equal(before[0], changed[0])


def test_numbers_of_proposals_in_training_and_testing(rpn_of):
    rpn = rpn_of(pre_nms_topk=(40, 20), post_nms_topk=(9, 4), nms_threshold=1.0)
    images, features, targets = inputs()
    torch.manual_seed(0)
    proposals, _ = rpn.train()(images, features, targets)
    assert [len(p) for p in proposals] == [9, 9]
    with torch.no_grad():
        proposals, _ = rpn.eval()(images, features)
    assert [len(p) for p in proposals] == [4, 4]


def test_proposals_stay_inside_and_above_the_least_size(rpn_of):
    images, features, _ = inputs()
    few = {}
    for least in (0.0, 20.0):
        with torch.no_grad():
            proposals, _ = rpn_of(min_box_size=least).eval()(images, features)
        boxes = torch.cat(proposals)
        sides = boxes[:, 2:] - boxes[:, :2]
        assert float(boxes.min()) >= 0
        assert float(boxes.max()) <= 64
        assert float(sides.min()) >= max(least, 1e-3)
        few[least] = float(sides.min())
    assert few[0.0] < 20, "every proposal is large, so the test shows nothing"
