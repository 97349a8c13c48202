"""The sigmoid baseline and what the sigmoid losses share."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eql_d2.losses import EqualizationLoss, SigmoidCrossEntropyLoss, sigmoid_cross_entropy


def test_is_the_sum_over_categories_divided_by_rois(make_batch):
    logits, labels, _ = make_batch()
    target = F.one_hot(labels, 8)[:, :7].double()
    expected = F.binary_cross_entropy_with_logits(logits, target, reduction="sum") / 9
    torch.testing.assert_close(sigmoid_cross_entropy(logits, labels), expected)


def test_module_is_the_function_and_owns_k_logits(make_batch):
    logits, labels, _ = make_batch()
    loss = SigmoidCrossEntropyLoss(7)
    assert loss.num_logits == loss.num_classes == 7
    assert torch.equal(loss(logits, labels), sigmoid_cross_entropy(logits, labels))


def test_gradient_of_the_baseline_is_probability_minus_target(make_batch):
    logits, labels, _ = make_batch()
    sigmoid_cross_entropy(logits, labels).backward()
    target = F.one_hot(labels, 8)[:, :7].double()
    expected = (logits.detach().sigmoid() - target) / 9
    torch.testing.assert_close(logits.grad, expected)


def test_scores_are_the_sigmoids_in_float32():
    scores = SigmoidCrossEntropyLoss(2).scores(torch.tensor([[0.0, -6.9]], dtype=torch.bfloat16))
    assert scores.dtype == torch.float32
    assert scores[0, 0] == 0.5
    assert scores[0, 1].item() == pytest.approx(0.001, rel=0.05)


@pytest.mark.parametrize("prior", [0.001, 0.01, 0.5])
def test_classifier_starts_at_the_prior(prior):
    loss = SigmoidCrossEntropyLoss(5, prior_prob=prior)
    linear = nn.Linear(4, 5)
    loss.init_classifier(linear)
    scores = loss.scores(linear(torch.zeros(1, 4)))
    assert scores[0].tolist() == pytest.approx([prior] * 5, rel=1e-6)


@pytest.mark.parametrize("prior", [0.0, 1.0, -0.1, float("nan")])
def test_impossible_prior_is_named(prior):
    with pytest.raises(ValueError, match="prior_prob must be strictly between 0 and 1"):
        EqualizationLoss(torch.ones(3), prior_prob=prior)


def test_classifier_that_does_not_fit_is_named():
    loss = SigmoidCrossEntropyLoss(5)
    with pytest.raises(ValueError, match=r"SigmoidCrossEntropyLoss needs .* 5 outputs, got 6"):
        loss.init_classifier(nn.Linear(4, 6))
    with pytest.raises(ValueError, match="needs a classifier with a bias"):
        loss.init_classifier(nn.Linear(4, 5, bias=False))


def test_logits_of_another_width_are_named():
    with pytest.raises(ValueError, match=r"logits must be \(R, 5\), got \(2, 6\)"):
        SigmoidCrossEntropyLoss(5)(torch.zeros(2, 6), torch.zeros(2, dtype=torch.int64))


def test_loss_by_category_sums_to_the_loss_and_stays_out_of_the_graph(make_batch):
    logits, labels, tail = make_batch()
    for loss in (SigmoidCrossEntropyLoss(7), EqualizationLoss(tail)):
        parts = loss.loss_by_category(logits, labels)
        assert parts.shape == (7,)
        assert not parts.requires_grad
        torch.testing.assert_close(parts.sum(), loss(logits, labels).detach())
    none = loss.loss_by_category(torch.zeros(0, 7), torch.zeros(0, dtype=torch.int64))
    assert none.tolist() == [0.0] * 7
