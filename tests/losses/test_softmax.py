"""The softmax baseline."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eql_d2.losses import (
    SoftmaxCrossEntropyLoss,
    SoftmaxEqualizationLoss,
    softmax_equalization_loss,
)


def test_detection_has_a_background_logit_and_takes_the_mean(make_batch):
    logits, labels, _ = make_batch(classes=8)
    labels = labels.clamp(max=7)
    loss = SoftmaxCrossEntropyLoss(7)
    assert (loss.num_classes, loss.num_logits) == (7, 8)
    torch.testing.assert_close(loss(logits, labels), F.cross_entropy(logits, labels))


def test_classification_has_none():
    loss = SoftmaxCrossEntropyLoss(7, background=False)
    assert (loss.num_classes, loss.num_logits) == (7, 7)
    scores = loss.scores(torch.randn(3, 7))
    torch.testing.assert_close(scores.sum(dim=1), torch.ones(3))


def test_scores_leave_background_out():
    logits = torch.tensor([[0.0, 0.0, 100.0], [1.0, 0.0, -100.0]], dtype=torch.bfloat16)
    scores = SoftmaxCrossEntropyLoss(2).scores(logits)
    assert scores.dtype == torch.float32
    assert scores.shape == (2, 2)
    assert scores[0].max() < 1e-30
    assert scores[1].tolist() == pytest.approx([0.731059, 0.268941], rel=1e-5)


def test_classifier_starts_without_bias():
    linear = nn.Linear(64, 8)
    SoftmaxCrossEntropyLoss(7).init_classifier(linear)
    assert linear.bias.tolist() == [0.0] * 8
    assert 0.005 < linear.weight.std().item() < 0.02
    without = nn.Linear(64, 8, bias=False)
    SoftmaxCrossEntropyLoss(7).init_classifier(without)
    assert without.weight.abs().max() < 0.06


def test_no_rois_give_a_zero_that_is_connected():
    logits = torch.zeros(0, 8, requires_grad=True)
    loss = SoftmaxCrossEntropyLoss(7)(logits, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.shape == (0, 8)


def test_half_precision_is_computed_in_float32(make_batch):
    logits, labels, _ = make_batch(classes=8, dtype=torch.bfloat16)
    labels = labels.clamp(max=7)
    value = SoftmaxCrossEntropyLoss(7)(logits, labels)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, F.cross_entropy(logits.float(), labels))


def test_loss_by_category_is_counted_at_the_labels():
    loss = SoftmaxCrossEntropyLoss(2)
    logits, labels = torch.randn(4, 3), torch.tensor([0, 2, 0, 2])
    parts = loss.loss_by_category(logits, labels)
    terms = F.cross_entropy(logits, labels, reduction="none") / 4
    torch.testing.assert_close(
        parts, torch.stack([terms[::2].sum(), terms[0] * 0, terms[1::2].sum()])
    )
    torch.testing.assert_close(parts.sum(), loss(logits, labels))


@pytest.mark.parametrize("value", [-1, 8])
def test_labels_out_of_range_are_named(value):
    """The last logit is the background's, so 7 = K is the highest label."""
    logits, labels = torch.zeros(3, 8), torch.tensor([0, value, 7])
    tail = torch.zeros(8, dtype=torch.bool)
    losses = (SoftmaxCrossEntropyLoss(7), SoftmaxEqualizationLoss(tail[:7]))
    functions = [lambda z, y: softmax_equalization_loss(z, y, tail)]
    for call in (*losses, *(loss.loss_by_category for loss in losses), *functions):
        with pytest.raises(ValueError, match=rf"labels must be in 0..7 with 8 .*, got {value}"):
            call(logits, labels)


def test_logits_of_another_width_are_named():
    with pytest.raises(ValueError, match=r"logits must be \(R, 8\), got \(2, 7\)"):
        SoftmaxCrossEntropyLoss(7)(torch.zeros(2, 7), torch.zeros(2, dtype=torch.int64))
