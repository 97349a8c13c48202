"""With a stock softmax loss the model is torchvision's Mask R-CNN, to the last bit."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor

from eql_d2.engines.tv.roi_heads import labels_from_torchvision
from eql_d2.losses import ClassificationLoss

NUM_CLASSES = 3
STOCK = (
    *("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlign", "MODEL.ROI_MASK_HEAD.POOLER_TYPE", "ROIAlign"),
    *("MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO", 2),
    *("MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO", 2),
    *("MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA", 1 / 9, "MODEL.RPN.SMOOTH_L1_BETA", 1 / 9),
)


class StockSoftmax(ClassificationLoss):
    """torchvision's own loss: softmax cross-entropy with the background in column 0."""

    def __init__(self):
        super().__init__(NUM_CLASSES, NUM_CLASSES + 1)

    def value(self, logits, labels):
        return F.cross_entropy(logits, (labels + 1) % (NUM_CLASSES + 1))

    def loss_by_category(self, logits, labels):
        raise AssertionError("only for statistics, which were not asked for")

    def scores(self, logits):
        return F.softmax(logits, -1)[:, 1:]


class WithoutBackground(nn.Module):
    """Drops what torchvision's predictors hold for the background, which is never used."""

    def __init__(self, predictor):
        super().__init__()
        self.predictor = predictor

    def forward(self, features):
        found = self.predictor(features)
        if isinstance(found, tuple):
            return found[0], found[1][:, 4:]
        return found[:, 1:].contiguous()  # strided sigmoids round differently


class StockBackbone(nn.Module):
    """The levels of ours under the names that torchvision's model expects."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.out_channels = backbone.out_channels

    def forward(self, images):
        features = self.backbone(images)
        return {name: features[name] for name in ("p2", "p3", "p4")}


def stock_twin(ours, settings):
    """Build torchvision's MaskRCNN around copies of our parts; ours gets its predictors."""
    ours.roi_heads.box_predictor.bbox_pred = nn.Linear(64, 4 * (NUM_CLASSES + 1))
    nn.init.normal_(ours.roi_heads.box_predictor.cls_score.weight, std=0.5)
    nn.init.normal_(ours.roi_heads.box_predictor.bbox_pred.weight, std=0.1)
    mask_predictor = MaskRCNNPredictor(32, 32, NUM_CLASSES + 1)
    heads = ours.roi_heads
    rpn, roi = settings.rpn, settings.roi
    stock = MaskRCNN(
        StockBackbone(copy.deepcopy(ours.backbone)),
        image_mean=list(settings.input.pixel_mean),
        image_std=list(settings.input.pixel_std),
        _skip_resize=True,  # which would draw random numbers
        rpn_anchor_generator=copy.deepcopy(ours.rpn.anchor_generator),
        rpn_head=copy.deepcopy(ours.rpn.head),
        rpn_pre_nms_top_n_train=rpn.pre_nms_topk[0],
        rpn_pre_nms_top_n_test=rpn.pre_nms_topk[1],
        rpn_post_nms_top_n_train=rpn.post_nms_topk[0],
        rpn_post_nms_top_n_test=rpn.post_nms_topk[1],
        rpn_batch_size_per_image=rpn.batch_size_per_image,
        box_roi_pool=copy.deepcopy(heads.box_roi_pool),
        box_head=copy.deepcopy(heads.box_head),
        box_predictor=copy.deepcopy(heads.box_predictor),
        box_score_thresh=roi.score_threshold,
        box_batch_size_per_image=roi.batch_size_per_image,
        box_positive_fraction=roi.positive_fraction,
        mask_roi_pool=copy.deepcopy(heads.mask_roi_pool),
        mask_head=copy.deepcopy(heads.mask_head),
        mask_predictor=copy.deepcopy(mask_predictor),
    )
    heads.box_predictor = WithoutBackground(heads.box_predictor)
    heads.mask_predictor = WithoutBackground(mask_predictor)
    return stock


@pytest.fixture
def twins(model_of, settings_of):
    ours = model_of(*STOCK, loss=StockSoftmax())
    return ours, stock_twin(ours, settings_of(*STOCK))


def with_stock_labels(targets):
    return [{**target, "labels": target["labels"] + 1} for target in targets]


def test_training_losses_and_gradients_are_torchvisions(twins, batch):
    ours, stock = twins
    images, targets = batch
    torch.manual_seed(9)
    found = ours.train()(images, targets)
    torch.manual_seed(9)
    wanted = stock.train()(images, with_stock_labels(targets))
    names = {
        "loss_cls": "loss_classifier",
        "loss_box_reg": "loss_box_reg",
        "loss_mask": "loss_mask",
        "loss_rpn_cls": "loss_objectness",
        "loss_rpn_loc": "loss_rpn_box_reg",
    }
    assert set(found) == set(names)
    for name, stock_name in names.items():
        assert torch.equal(found[name], wanted[stock_name]), name
    assert float(found["loss_mask"]) > 0
    sum(found.values()).backward()
    sum(wanted[name] for name in names.values()).backward()
    for part in ("box_head", "mask_head"):
        ours_part, stock_part = (getattr(m.roi_heads, part) for m in (ours, stock))
        for a, b in zip(ours_part.parameters(), stock_part.parameters(), strict=True):
            assert torch.equal(a.grad, b.grad)
    for a, b in zip(ours.backbone.parameters(), stock.backbone.backbone.parameters(), strict=True):
        assert (a.grad is None and b.grad is None) or torch.equal(a.grad, b.grad)


@pytest.mark.parametrize("detections", [5, 100])
def test_detections_are_torchvisions(twins, batch, detections):
    ours, stock = twins
    images, _ = batch
    ours.roi_heads.detections_per_img = stock.roi_heads.detections_per_img = detections
    ours.eval()
    stock.eval()
    with torch.no_grad():
        found = ours(images)
        inputs = ImageList(ours.batch_images(images).tensors, [(64, 64), (48, 64)])
        features = stock.backbone(inputs.tensors)
        proposals, _ = stock.rpn(inputs, features)
        wanted, _ = stock.roi_heads(features, proposals, inputs.image_sizes)
    assert sum(len(x["scores"]) for x in wanted) > 5
    for mine, theirs in zip(found, wanted, strict=True):
        assert torch.equal(mine["boxes"], theirs["boxes"])
        assert torch.equal(mine["scores"], theirs["scores"])
        assert torch.equal(mine["labels"], theirs["labels"] - 1)
        assert torch.equal(mine["masks"], theirs["masks"][:, 0])


def test_label_conversion_is_the_inverse_of_torchvisions_shift():
    stock = torch.tensor([0, 1, 2, 3])
    assert labels_from_torchvision(stock, 3).tolist() == [3, 0, 1, 2]
