"""What every loss inherits: checks by name, the classifier's start, and the prior."""

import math

import pytest
import torch
from torch import nn

from eql_d2.losses import LOSSES, build_loss
from eql_d2.losses.base import (
    ClassificationLoss,
    check_logits_and_labels,
    check_tail_mask,
    check_tail_mask_values,
    compute_dtype,
    prior_bias,
)

FRACTION = torch.tensor([0.6, 0.4, 0.1, 0.05], dtype=torch.float64)
NUM_CLASSES = len(FRACTION)
ALL_LOSSES = pytest.mark.parametrize("name", sorted(LOSSES))


def loss_named(name):
    return build_loss(name, image_fraction=FRACTION, lambda_=0.3)


class Plain(ClassificationLoss):
    """The smallest loss that fulfils the contract."""

    def __init__(self, num_classes=3):
        super().__init__(num_classes, num_classes + 2)

    def value(self, logits, labels):
        return logits.sum() * 0

    def loss_by_category(self, logits, labels):
        return logits.detach().sum(0)

    def scores(self, logits):
        return logits[:, : self.num_classes]


@pytest.mark.parametrize("missing", ["value", "loss_by_category", "scores"])
def test_a_loss_without_one_of_its_parts_cannot_be_made(missing):
    parts = {name: vars(Plain)[name] for name in ("value", "loss_by_category", "scores")}
    del parts[missing]
    unfinished = type("Unfinished", (ClassificationLoss,), parts)
    with pytest.raises(TypeError, match=missing):
        unfinished(3, 3)


@pytest.mark.parametrize("number", [0, -1])
def test_a_loss_needs_a_category(number):
    with pytest.raises(ValueError, match=f"at least 1, got {number}"):
        Plain(number)


def test_the_classifier_starts_small_and_unbiased():
    torch.manual_seed(0)
    linear = nn.Linear(2000, 5)
    Plain().init_classifier(linear)
    assert float(linear.weight.detach().std()) == pytest.approx(0.01, rel=0.05)
    assert float(linear.weight.detach().mean()) == pytest.approx(0, abs=5e-4)
    assert linear.bias.tolist() == [0] * 5
    Plain().init_classifier(nn.Linear(4, 5, bias=False))


@ALL_LOSSES
@pytest.mark.parametrize("change", [-1, 1])
def test_a_classifier_of_another_width_is_refused(name, change):
    loss = loss_named(name)
    wrong = nn.Linear(4, loss.num_logits + change)
    before = wrong.weight.detach().clone()
    with pytest.raises(ValueError, match=f"with {loss.num_logits} outputs, got"):
        loss.init_classifier(wrong)
    assert torch.equal(wrong.weight, before)


@ALL_LOSSES
def test_labels_out_of_range_and_logits_of_another_width_are_refused(name):
    loss = loss_named(name)
    logits, labels = torch.zeros(2, loss.num_logits), torch.tensor([0, NUM_CLASSES])
    assert math.isfinite(float(loss(logits, labels)))
    for wrong in (-1, NUM_CLASSES + 1):
        with pytest.raises(ValueError, match=rf"labels must be in 0\.\..* got {wrong}"):
            loss(logits, torch.tensor([0, wrong]))
    for width in (loss.num_logits - 1, loss.num_logits + 1):
        with pytest.raises(ValueError, match=rf"\(R, {loss.num_logits}\), got \(2, {width}\)"):
            loss(torch.zeros(2, width), labels)


@ALL_LOSSES
def test_scores_are_probabilities_of_the_foreground(name):
    """Also far out, where a naive softmax or sigmoid overflows."""
    loss = loss_named(name).eval()
    generator = torch.Generator().manual_seed(0)
    for scale in (1.0, 100.0, 1e4):
        logits = torch.randn(50, loss.num_logits, generator=generator) * scale
        scores = loss.scores(logits)
        assert scores.shape == (50, NUM_CLASSES)
        assert bool(((scores >= 0) & (scores <= 1)).all())
        higher = logits.clone()
        higher[:, 1] += scale
        assert bool((loss.scores(higher)[:, 1] >= scores[:, 1]).all())


@pytest.mark.parametrize(
    ("logits", "labels", "error", "message"),
    [
        ((2, 3, 1), (2,), ValueError, r"logits must be \(R, 3\), got \(2, 3, 1\)"),
        ((2,), (2,), ValueError, r"logits must be \(R, 3\), got \(2,\)"),
        ((2, 4), (2,), ValueError, r"logits must be \(R, 3\), got \(2, 4\)"),
        ((2, 3), (3,), ValueError, r"labels must be \(2,\) to match logits, got \(3,\)"),
        ((2, 3), (2, 1), ValueError, r"labels must be \(2,\) to match logits, got \(2, 1\)"),
    ],
)
def test_wrong_shapes_are_named(logits, labels, error, message):
    with pytest.raises(error, match=message):
        check_logits_and_labels(torch.zeros(logits), torch.zeros(labels, dtype=torch.int64), 3)


def test_wrong_types_are_named():
    logits, labels = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    for dtype in (torch.int32, torch.float32, torch.bool):
        with pytest.raises(TypeError, match=f"labels must be int64, got {dtype}"):
            check_logits_and_labels(logits, labels.to(dtype))
    with pytest.raises(TypeError, match=r"logits must be floating point, got torch\.int64"):
        check_logits_and_labels(labels[:, None], labels)
    with pytest.raises(ValueError, match="labels are on meta, logits on cpu"):
        check_logits_and_labels(logits, labels.to("meta"))
    with pytest.raises(ValueError, match=r"\(R, C\), got \(2, 0\)"):
        check_logits_and_labels(torch.zeros(2, 0), labels)


@pytest.mark.parametrize(("background_logit", "highest"), [(True, 2), (False, 3)])
def test_the_highest_label_is_background(background_logit, highest):
    def check(label):
        labels = torch.tensor([0, label])
        check_logits_and_labels(torch.zeros(2, 3), labels, background_logit=background_logit)

    check(highest)
    for wrong in (highest + 1, -1):
        with pytest.raises(ValueError, match=rf"0\.\.{highest}.* with 3 logits, got {wrong}"):
            check(wrong)
    no_rois = torch.zeros(0, dtype=torch.int64)
    check_logits_and_labels(torch.zeros(0, 3), no_rois, background_logit=background_logit)


@pytest.mark.parametrize("prior", [1e-9, 0.001, 0.5, 0.9])
def test_the_prior_is_what_the_sigmoid_gives(prior):
    assert 1 / (1 + math.exp(-prior_bias(prior))) == pytest.approx(prior, rel=1e-12)


@pytest.mark.parametrize("prior", [0.0, 1.0, -0.1, 1.1, math.nan])
def test_priors_that_are_no_probability(prior):
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        prior_bias(prior)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_arithmetic_has_at_least_single_precision(dtype):
    wanted = torch.float64 if dtype is torch.float64 else torch.float32
    assert compute_dtype(torch.zeros(1, dtype=dtype)) is wanted


def test_tail_masks():
    logits = torch.zeros(2, 3)
    for good in (torch.tensor([True, False, True]), torch.tensor([0.0, 0.5, 1.0])):
        check_tail_mask(good, logits)
        check_tail_mask_values(good)
    with pytest.raises(TypeError, match=r"bool or floating point, got torch\.int64"):
        check_tail_mask(torch.tensor([0, 1, 1]))
    with pytest.raises(ValueError, match=r"must be \(3,\) to match logits, got \(2,\)"):
        check_tail_mask(torch.zeros(2), logits)
    with pytest.raises(ValueError, match=r"must be \(K,\), got \(1, 3\)"):
        check_tail_mask(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="tail_mask is on meta, logits on cpu"):
        check_tail_mask(torch.zeros(3, device="meta"), logits)
    for value in (-0.01, 1.01, math.nan):
        with pytest.raises(ValueError, match=f"got {value:.2f}.* for category 1"):
            check_tail_mask_values(torch.tensor([0.5, value, 2.0], dtype=torch.float64))
