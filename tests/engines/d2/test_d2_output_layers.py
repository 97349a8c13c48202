"""The box head's last layer: width, start, loss and scores come from the loss object."""

from contextlib import suppress

import pytest
import torch

from eql_d2.errors import ConfigError, MissingPackageError
from eql_d2.losses import EqualizationLoss, SigmoidCrossEntropyLoss, SoftmaxCrossEntropyLoss

with suppress(MissingPackageError):
    from eql_d2.engines.d2.compat import (
        Box2BoxTransform,
        Boxes,
        EventStorage,
        FastRCNNOutputLayers,
        Instances,
        ShapeSpec,
    )
    from eql_d2.engines.d2.output_layers import EQLFastRCNNOutputLayers

pytestmark = pytest.mark.detectron2

K, D = 5, 8
TAIL_MASK = torch.tensor([False, False, False, True, True])
LOSSES = {
    "EQL": lambda: EqualizationLoss(TAIL_MASK),
    "SigmoidCE": lambda: SigmoidCrossEntropyLoss(K),
    "SoftmaxCE": lambda: SoftmaxCrossEntropyLoss(K),
}


def make_layers(loss, **kwargs):
    return EQLFastRCNNOutputLayers(
        ShapeSpec(channels=D),
        classification_loss=loss,
        tail_mask=TAIL_MASK,
        box2box_transform=Box2BoxTransform(weights=(10.0, 10.0, 5.0, 5.0)),
        num_classes=K,
        **kwargs,
    )


def make_proposals(labels_by_image):
    """Images with one proposal a label, and ground truth boxes only where there is foreground."""
    proposals = []
    for labels in labels_by_image:
        one = Instances((100, 100))
        corners = torch.arange(len(labels), dtype=torch.float32)[:, None].expand(-1, 2)
        one.proposal_boxes = Boxes(torch.cat([corners, corners + 30], dim=1))
        one.gt_classes = torch.tensor(labels, dtype=torch.int64)
        if any(label < K for label in labels):
            one.gt_boxes = Boxes(one.proposal_boxes.tensor + 2)
        proposals.append(one)
    return proposals


def naive_eql(logits, labels):
    """EQL, equations 6 and 7, one ROI and category after the other."""
    total = 0.0
    for row, label in zip(logits.sigmoid().tolist(), labels, strict=True):
        for j, p in enumerate(row):
            if j == label:
                total -= torch.tensor(p).log().item()
            elif label == K or not TAIL_MASK[j]:
                total -= torch.tensor(1 - p).log().item()
    return total / len(labels)


@pytest.mark.parametrize(("name", "outputs"), [("EQL", K), ("SigmoidCE", K), ("SoftmaxCE", K + 1)])
def test_the_loss_decides_the_width(name, outputs):
    layers = make_layers(LOSSES[name]())
    assert layers.cls_score.weight.shape == (outputs, D)
    assert layers.cls_score.bias.shape == (outputs,)
    assert layers.bbox_pred.weight.shape == (4 * K, D)
    assert set(layers.state_dict()) == {
        "cls_score.weight",
        "cls_score.bias",
        "bbox_pred.weight",
        "bbox_pred.bias",
    }, "no buffer of ours may stand in a checkpoint that Detectron2 programs exchange"


def test_classifier_starts_at_the_prior():
    layers = make_layers(EqualizationLoss(TAIL_MASK, prior_prob=0.02))
    assert torch.allclose(layers.cls_score.bias.sigmoid(), torch.tensor(0.02))
    assert layers.cls_score.weight.abs().max() < 0.1
    assert torch.equal(layers.bbox_pred.bias, torch.zeros(4 * K))


def test_eql_equals_the_paper_written_as_loops():
    layers = make_layers(LOSSES["EQL"]())
    labels = [[0, 3, K], [K, 4]]
    logits = torch.randn(5, K, generator=torch.Generator().manual_seed(0))
    with EventStorage():
        losses = layers.losses((logits, torch.zeros(5, 4 * K)), make_proposals(labels))
    expected = naive_eql(logits, [0, 3, K, K, 4])
    assert losses["loss_cls"].item() == pytest.approx(expected, rel=1e-5)


def test_softmax_is_detectron2s_own():
    ours = make_layers(SoftmaxCrossEntropyLoss(K))
    stock = FastRCNNOutputLayers(
        ShapeSpec(channels=D), box2box_transform=ours.box2box_transform, num_classes=K
    )
    stock.load_state_dict(ours.state_dict())
    proposals = make_proposals([[0, 3, K, K], [K, K], [4, 1, 1]])
    predictions = ours(torch.randn(9, D))
    with EventStorage():
        ours_losses = ours.losses(predictions, proposals)
        stock_losses = stock.losses(predictions, proposals)
    assert ours_losses.keys() == stock_losses.keys()
    assert torch.equal(ours_losses["loss_box_reg"], stock_losses["loss_box_reg"])
    assert torch.allclose(ours_losses["loss_cls"], stock_losses["loss_cls"], rtol=1e-6, atol=0)
    results, _ = ours.inference(predictions, proposals)
    expected, _ = stock.inference(predictions, proposals)
    for one, other in zip(results, expected, strict=True):
        assert torch.equal(one.pred_boxes.tensor, other.pred_boxes.tensor)
        assert torch.equal(one.pred_classes, other.pred_classes)
        assert torch.allclose(one.scores, other.scores, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_scores_reach_inference_unchanged(name):
    layers = make_layers(LOSSES[name](), test_score_thresh=0.0, test_topk_per_image=-1)
    proposals = make_proposals([[0, 1], [2]])
    logits = torch.randn(3, layers.cls_score.out_features) * 3
    probabilities = layers.predict_probs((logits, None), proposals)
    assert [p.shape for p in probabilities] == [(2, K + 1), (1, K + 1)]
    joined = torch.cat(probabilities)
    assert torch.equal(joined[:, -1], torch.zeros(3))
    assert torch.equal(joined[:, :-1], layers.classification_loss.scores(logits))
    results, rows = layers.inference((logits, torch.zeros(3, 4 * K)), proposals)
    for image, kept, scores in zip(results, rows, probabilities, strict=True):
        assert torch.equal(image.scores, scores[kept, image.pred_classes])
        assert image.pred_classes.max() < K, "background was reported as a category"


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("labels", [[], [[]], [[], []], [[K, K], [K]]])
def test_losses_without_foreground_stay_connected(name, labels):
    layers = make_layers(LOSSES[name]())
    count = sum(len(one) for one in labels)
    with EventStorage():
        losses = layers.losses(layers(torch.randn(count, D)), make_proposals(labels))
    total = sum(losses.values())
    assert torch.isfinite(total)
    total.backward()
    assert layers.cls_score.weight.grad is not None
    assert torch.isfinite(layers.cls_score.weight.grad).all()
    assert losses["loss_box_reg"].item() == 0.0


def test_class_agnostic_boxes():
    layers = make_layers(LOSSES["EQL"](), cls_agnostic_bbox_reg=True)
    predictions = layers(torch.randn(3, D))
    assert predictions[1].shape == (3, 4)
    proposals = make_proposals([[0, 4, K]])
    with EventStorage():
        assert layers.losses(predictions, proposals)["loss_box_reg"] > 0


def test_loss_weights_apply():
    layers = make_layers(LOSSES["EQL"](), loss_weight={"loss_cls": 2.0, "loss_box_reg": 0.0})
    plain = make_layers(LOSSES["EQL"]())
    plain.load_state_dict(layers.state_dict())
    proposals, features = make_proposals([[0, K]]), torch.randn(2, D)
    with EventStorage():
        weighted = layers.losses(layers(features), proposals)
        unweighted = plain.losses(plain(features), proposals)
    assert weighted["loss_cls"].item() == pytest.approx(2 * unweighted["loss_cls"].item())
    assert weighted["loss_box_reg"].item() == 0.0


def test_statistics_are_logged_at_their_period():
    layers = make_layers(LOSSES["EQL"](), log_period=3)
    logits = torch.full((4, K), -5.0)
    logits[0, 0] = logits[1, 3] = 5.0  # two of three foreground ROIs are right and sure
    recorded = {}
    with EventStorage() as storage:
        for iteration in range(4):
            storage.iter = iteration
            layers.losses((logits, torch.zeros(4, 4 * K)), make_proposals([[0, 3, 4, K]]))
            recorded[iteration] = {k: v for k, v in storage.latest().items() if v[1] == iteration}
    assert not recorded[0]
    assert not recorded[1]
    assert not recorded[3]
    values = {name: value for name, (value, _) in recorded[2].items()}
    assert values["cls/fg_accuracy"] == pytest.approx(2 / 3)
    assert values["cls/false_negative"] == pytest.approx(1 / 3)
    assert 0 < values["cls/tail_gradient_share"] < 1
    assert not any("cls_accuracy" in name for name in values), "it means nothing for a sigmoid"


def test_other_class_count_than_the_losss_is_refused():
    with pytest.raises(ConfigError, match=r"NUM_CLASSES is 5 .* 4 categories"):
        make_layers(SigmoidCrossEntropyLoss(4))


@pytest.mark.parametrize("key", ["USE_SIGMOID_CE", "USE_FED_LOSS"])
def test_a_second_way_to_choose_a_loss_is_refused(tiny_cfg, key):
    tiny_cfg.MODEL.ROI_BOX_HEAD[key] = True
    with pytest.raises(ConfigError, match=key):
        EQLFastRCNNOutputLayers(tiny_cfg, ShapeSpec(channels=D))


def test_from_config_reads_the_loss_and_the_tail(tiny_cfg):
    tiny_cfg.MODEL.EQL.LOG_PERIOD = 7
    layers = EQLFastRCNNOutputLayers(tiny_cfg, ShapeSpec(channels=D))
    assert isinstance(layers.classification_loss, EqualizationLoss)
    assert torch.equal(layers.tail_mask, TAIL_MASK)
    assert layers.log_period == 7
    assert not any("cfg" in name for name in vars(layers))
