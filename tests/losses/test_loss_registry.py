"""Losses by name, and the contract that every one of them keeps."""

import pytest
import torch
from torch import nn

from eql_d2.errors import ConfigError
from eql_d2.losses import (
    LOSSES,
    ClassificationLoss,
    EqualizationLoss,
    SigmoidCrossEntropyLoss,
    SoftmaxCrossEntropyLoss,
    SoftmaxEqualizationLoss,
    build_loss,
)

FRACTION = torch.tensor([0.5, 0.01, 0.0001, 0.0], dtype=torch.float64)
EXPECTED = {
    "EQL": (EqualizationLoss, 4),
    "SigmoidCE": (SigmoidCrossEntropyLoss, 4),
    "SoftmaxCE": (SoftmaxCrossEntropyLoss, 5),
    "SEQL": (SoftmaxEqualizationLoss, 5),
}


def test_all_names_are_tested():
    assert LOSSES.keys() == EXPECTED.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_contract(name):
    loss = build_loss(name, image_fraction=FRACTION, lambda_=0.001)
    kind, width = EXPECTED[name]
    assert type(loss) is kind
    assert isinstance(loss, ClassificationLoss)
    assert (loss.num_classes, loss.num_logits) == (4, width)
    linear = nn.Linear(3, width)
    loss.init_classifier(linear)
    logits = linear(torch.randn(6, 3))
    labels = torch.tensor([0, 1, 2, 3, 4, 4])
    torch.manual_seed(0)
    value = loss(logits, labels)
    assert value.shape == ()
    torch.manual_seed(0)
    assert torch.equal(loss.value(logits, labels), value)
    value.backward()
    assert linear.weight.grad.abs().sum() > 0
    scores = loss.scores(logits)
    assert scores.shape == (6, 4)
    assert ((scores >= 0) & (scores <= 1)).all()
    assert loss.loss_by_category(logits, labels).shape == (width,)
    assert loss.state_dict() == {}
    with pytest.raises(ValueError, match=f"needs a classifier with {width} outputs, got 9"):
        loss.init_classifier(nn.Linear(3, 9))


def test_options_arrive():
    eql = build_loss(
        "EQL", image_fraction=FRACTION, lambda_=0.001, exclude_background=False, prior_prob=0.02
    )
    assert eql.tail_mask.tolist() == [False, False, True, True]
    assert (eql.exclude_background, eql.prior_prob) == (False, 0.02)
    soft = build_loss(
        "EQL",
        image_fraction=FRACTION,
        lambda_=0.0,
        threshold_function="exponential",
        threshold_parameters=[50, 1],
    )
    assert soft.tail_mask.tolist() == pytest.approx([0.0, 0.5, 0.995, 1.0])
    assert build_loss("SEQL", image_fraction=FRACTION, lambda_=0.001, gamma=0.5).gamma == 0.5
    baseline = build_loss("SigmoidCE", image_fraction=FRACTION, lambda_=0.0, prior_prob=0.03)
    assert baseline.prior_prob == 0.03


@pytest.mark.parametrize(
    ("name", "hint"), [("eql", "'EQL'"), ("SoftmaxC", "'SoftmaxCE'"), ("sigmoidce", "'SigmoidCE'")]
)
def test_nearest_name_is_offered(name, hint):
    with pytest.raises(
        ConfigError, match=f"MODEL.EQL.LOSS.NAME: unknown name .*did you mean {hint}"
    ):
        build_loss(name, image_fraction=FRACTION, lambda_=0.1)


def test_a_name_like_no_other_gets_the_list():
    with pytest.raises(ConfigError, match=r"expected one of EQL, SigmoidCE, SoftmaxCE, SEQL$"):
        build_loss("zzz", image_fraction=FRACTION, lambda_=0.1)


def test_a_wrong_threshold_function_is_named_whatever_needs_it():
    for name in ("EQL", "SEQL"):
        with pytest.raises(ConfigError, match="THRESHOLD_FUNCTION: unknown name 'stepp'"):
            build_loss(name, image_fraction=FRACTION, lambda_=0.1, threshold_function="stepp")
