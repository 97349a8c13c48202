"""Classification statistics, by cases small enough to count by hand."""

import math

import pytest
import torch

from eql_d2.losses import (
    EqualizationLoss,
    SigmoidCrossEntropyLoss,
    SoftmaxCrossEntropyLoss,
    SoftmaxEqualizationLoss,
    classification_statistics,
)

TAIL = torch.tensor([True, False])
NAMES = {
    "fg_accuracy",
    "false_negative",
    "tail_loss_share",
    "tail_gradient_share",
    "tail_positive_gradient_share",
    "head_positive_gradient_share",
}


def floats(statistics):
    return {name: value.item() for name, value in statistics.items()}


def test_accuracy_and_false_negatives_of_sigmoids():
    """Right and sure; right and unsure; wrong and sure; background, which does not count."""
    logits = torch.tensor([[3.0, -3.0], [-1.0, -2.0], [-2.0, 2.0], [5.0, 5.0]])
    labels = torch.tensor([0, 0, 0, 2])
    statistics = floats(classification_statistics(SigmoidCrossEntropyLoss(2), logits, labels, TAIL))
    assert statistics.keys() == NAMES
    assert statistics["fg_accuracy"] == pytest.approx(2 / 3)
    assert statistics["false_negative"] == pytest.approx(1 / 3)


def test_accuracy_of_a_softmax_ignores_the_background_column():
    logits = torch.tensor([[1.0, 0.0, 9.0], [5.0, 0.0, 0.0], [0.0, 5.0, 0.0]])
    labels = torch.tensor([0, 0, 2])
    statistics = floats(classification_statistics(SoftmaxCrossEntropyLoss(2), logits, labels, TAIL))
    assert statistics["fg_accuracy"] == 1
    assert statistics["false_negative"] == 0.5


def test_shares_of_sigmoids_at_zero():
    """At logit 0 every term is log 2 and every gradient 1/2 in size, whatever its sign."""
    logits, labels = torch.zeros(4, 2), torch.tensor([0, 1, 1, 2])
    plain = floats(classification_statistics(SigmoidCrossEntropyLoss(2), logits, labels, TAIL))
    assert plain["tail_loss_share"] == pytest.approx(0.5)
    assert plain["tail_gradient_share"] == pytest.approx(0.5)
    assert plain["tail_positive_gradient_share"] == pytest.approx(1 / 4)
    assert plain["head_positive_gradient_share"] == pytest.approx(2 / 4)
    eql = floats(classification_statistics(EqualizationLoss(TAIL), logits, labels, TAIL))
    assert eql["tail_loss_share"] == pytest.approx(2 / 6)
    assert eql["tail_gradient_share"] == pytest.approx(2 / 6)
    assert eql["tail_positive_gradient_share"] == pytest.approx(1 / 2)
    assert eql["head_positive_gradient_share"] == pytest.approx(2 / 4)


def test_shares_of_a_softmax_are_taken_over_foreground_categories():
    logits, labels = torch.zeros(4, 3), torch.tensor([0, 1, 1, 2])
    statistics = floats(classification_statistics(SoftmaxCrossEntropyLoss(2), logits, labels, TAIL))
    assert statistics["tail_loss_share"] == pytest.approx(1 / 3)
    # columns: tail 2/3 up and 3 x 1/3 down; the other 2 x 2/3 up and 2 x 1/3 down
    assert statistics["tail_gradient_share"] == pytest.approx(5 / 11)
    assert statistics["tail_positive_gradient_share"] == pytest.approx(2 / 5)
    assert statistics["head_positive_gradient_share"] == pytest.approx(4 / 6)


def test_soft_mask_counts_in_parts():
    logits, labels = torch.zeros(4, 2), torch.tensor([0, 1, 1, 2])
    loss = SigmoidCrossEntropyLoss(2)
    whole = floats(classification_statistics(loss, logits, labels, TAIL))
    half = floats(classification_statistics(loss, logits, labels, TAIL.double() / 2))
    assert half["tail_loss_share"] == pytest.approx(whole["tail_loss_share"] / 2)


def test_what_has_no_share_is_nan():
    labels = torch.full((3,), 2)
    statistics = floats(
        classification_statistics(SigmoidCrossEntropyLoss(2), torch.zeros(3, 2), labels, TAIL)
    )
    assert math.isnan(statistics["fg_accuracy"])
    assert math.isnan(statistics["false_negative"])
    assert statistics["tail_gradient_share"] == 0.5
    assert statistics["tail_positive_gradient_share"] == 0
    none = classification_statistics(
        SigmoidCrossEntropyLoss(2), torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), TAIL
    )
    assert all(math.isnan(value) for value in floats(none).values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_stays_out_of_the_graph_and_touches_no_gradient(dtype):
    logits = torch.randn(5, 2, dtype=dtype, requires_grad=True)
    before = logits.detach().clone()
    with torch.no_grad():
        statistics = classification_statistics(
            EqualizationLoss(TAIL), logits, torch.tensor([0, 1, 2, 2, 1]), TAIL
        )
    assert logits.grad is None
    assert torch.equal(logits.detach(), before)
    for value in statistics.values():
        assert value.shape == ()
        assert value.dtype == torch.float32
        assert not value.requires_grad


class CountingLoss(SigmoidCrossEntropyLoss):
    """A loss with state, as those that balance by what they have seen."""

    def __init__(self):
        super().__init__(2)
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, logits, labels):
        if self.training:
            self.seen += torch.bincount(labels, minlength=3)
        return super().forward(logits, labels)


def test_state_of_the_loss_moves_in_training_and_not_for_statistics():
    loss, labels = CountingLoss(), torch.tensor([0, 1, 2, 2, 1])
    logits = torch.randn(5, 2)
    statistics = floats(classification_statistics(loss, logits, labels, TAIL))
    assert loss.training
    assert loss.seen.tolist() == [0, 0, 0]
    plain = classification_statistics(SigmoidCrossEntropyLoss(2), logits, labels, TAIL)
    assert statistics == floats(plain)
    assert loss(logits, labels) == loss.value(logits, labels)
    assert loss.seen.tolist() == [1, 2, 2]
    loss.eval()(logits, labels)
    assert loss.seen.tolist() == [1, 2, 2]


def test_random_loss_is_described_as_it_trains():
    """In evaluation mode SEQL is plain cross-entropy, whose gradients are others."""
    loss = SoftmaxEqualizationLoss(TAIL, gamma=1.0)
    logits, labels = torch.zeros(4, 3), torch.tensor([0, 1, 1, 2])
    statistics = floats(classification_statistics(loss, logits, labels, TAIL))
    assert statistics["tail_positive_gradient_share"] == pytest.approx(1)
    plain = floats(classification_statistics(loss.eval(), logits, labels, TAIL))
    assert plain["tail_positive_gradient_share"] == pytest.approx(2 / 5)


def test_random_loss_leaves_the_global_generator_where_it_was():
    loss = SoftmaxEqualizationLoss(TAIL, gamma=0.5)
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 2, 1])
    state = torch.get_rng_state()
    classification_statistics(loss, logits, labels, TAIL)
    assert torch.equal(torch.get_rng_state(), state)
