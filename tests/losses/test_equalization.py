"""EQL: values, gradients, the two switches, and the module."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eql_d2.losses import (
    EqualizationLoss,
    SigmoidCrossEntropyLoss,
    SoftmaxEqualizationLoss,
    equalization_loss,
)
from eql_d2.losses.benchmark import dense_equalization_loss

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}


def value_and_gradient(loss, logits):
    leaf = logits.detach().clone().requires_grad_()
    value = loss(leaf)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


def reference_cases(shared_data):
    cases = json.loads((shared_data / "eql_reference_values.json").read_text())["cases"]
    for case in cases:
        random = np.random.RandomState(case["seed"])
        shape = (case["R"], case["K"])
        logits = random.standard_normal(shape) * case["scale"] + case["shift"]
        labels = random.randint(0, case["K"], size=case["R"])
        labels[random.random_sample(case["R"]) < case["background_fraction"]] = case["K"]
        frequency = case["frequency"]
        if isinstance(frequency, str):
            table = json.loads((shared_data / f"{frequency}_categories.json").read_text())
            counts = [category["image_count"] for category in table["categories"]]
            frequency = np.array(counts) / table["num_images"]
        tail = torch.as_tensor(np.asarray(frequency) < case["lambda_"])
        yield case, torch.as_tensor(logits), torch.as_tensor(labels), tail


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_reference_values_of_the_released_code(shared_data, dtype):
    tolerance = {"rel": TOLERANCE[dtype], "abs": 1e-30}
    seen = 0
    for case, logits, labels, tail in reference_cases(shared_data):
        assert int(tail.sum()) == case["tail_classes"]
        value, gradient = value_and_gradient(
            lambda z, labels=labels, tail=tail: equalization_loss(z, labels, tail), logits.to(dtype)
        )
        gradient = gradient.double()
        assert value.item() == pytest.approx(case["loss"], **tolerance), case["name"]
        assert gradient.abs().sum().item() == pytest.approx(case["grad_abs_sum"], **tolerance)
        assert gradient.sum().item() == pytest.approx(case["grad_sum"], **tolerance)
        first, last = gradient[0, :8].tolist(), gradient[-1, -4:].tolist()
        assert first == pytest.approx(case["grad_first_row_first_8"], **tolerance)
        assert last == pytest.approx(case["grad_last_row_last_4"], **tolerance)
        seen += 1
    assert seen == 12


@pytest.mark.parametrize("exclude_background", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_formula_of_the_paper(make_batch, paper_eql, seed, exclude_background):
    logits, labels, tail = make_batch(seed)
    expected, expected_gradient = paper_eql(logits, labels, tail, exclude_background)
    value, gradient = value_and_gradient(
        lambda z: equalization_loss(z, labels, tail, exclude_background=exclude_background), logits
    )
    assert value.item() == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-12, atol=0)


def test_exclusion_changes_only_background_rois(make_batch):
    logits, labels, tail = make_batch()
    background = labels == 7
    on = value_and_gradient(lambda z: equalization_loss(z, labels, tail), logits)[1]
    off = value_and_gradient(
        lambda z: equalization_loss(z, labels, tail, exclude_background=False), logits
    )[1]
    assert torch.equal(on[~background], off[~background])
    assert torch.equal(on[:, ~tail], off[:, ~tail])
    assert (on[background][:, tail] > 0).all()
    assert (off[background][:, tail] == 0).all()


def test_a_foreground_roi_pulls_its_own_tail_category_and_pushes_no_other(make_batch):
    logits, labels, tail = make_batch()
    gradient = value_and_gradient(lambda z: equalization_loss(z, labels, tail), logits)[1]
    assert labels[1] == 0
    assert gradient[1, 0] < 0
    assert (gradient[1, 1:][tail[1:]] == 0).all()
    assert (gradient[1, ~tail] > 0).all()


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_without_tail_it_is_binary_cross_entropy(make_batch, dtype):
    logits, labels, tail = make_batch(dtype=dtype)
    target = F.one_hot(labels, 8)[:, :7].to(dtype)
    expected = value_and_gradient(
        lambda z: F.binary_cross_entropy_with_logits(z, target, reduction="sum") / len(z), logits
    )
    none = torch.zeros_like(tail)
    actual = value_and_gradient(lambda z: equalization_loss(z, labels, none), logits)
    module = value_and_gradient(lambda z: SigmoidCrossEntropyLoss(7)(z, labels), logits)
    torch.testing.assert_close(actual, expected, rtol=TOLERANCE[dtype], atol=1e-12)
    assert torch.equal(actual[0], module[0])
    assert torch.equal(actual[1], module[1])


def test_all_tail_leaves_foreground_rois_their_own_category_only(make_batch):
    logits, labels, _ = make_batch()
    tail = torch.ones(7, dtype=torch.bool)
    foreground = torch.arange(9)[labels < 7]
    own = logits.detach()[foreground, labels[foreground]]
    background = logits.detach()[labels == 7]
    expected = (F.softplus(-own).sum() + F.softplus(background).sum()) / 9
    torch.testing.assert_close(equalization_loss(logits, labels, tail).detach(), expected)


def test_only_background_or_only_foreground(make_batch, paper_eql):
    logits, labels, tail = make_batch()
    for batch in (torch.full_like(labels, 7), labels.clamp(max=6)):
        expected, expected_gradient = paper_eql(logits, batch, tail)
        value, gradient = value_and_gradient(
            lambda z, batch=batch: equalization_loss(z, batch, tail), logits
        )
        assert value.item() == pytest.approx(expected, rel=1e-12)
        torch.testing.assert_close(gradient, expected_gradient)


def test_soft_mask_scales_the_negatives(make_batch, paper_eql):
    logits, labels, _ = make_batch()
    soft = torch.linspace(0, 1, 7, dtype=torch.float64).requires_grad_()
    expected, expected_gradient = paper_eql(logits, labels, soft)
    value, gradient = value_and_gradient(lambda z: equalization_loss(z, labels, soft), logits)
    assert value.item() == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(gradient, expected_gradient)
    equalization_loss(logits, labels, soft).backward()
    assert soft.grad is None


def test_zero_and_one_as_a_soft_mask_equal_the_bool_mask(make_batch):
    logits, labels, tail = make_batch(dtype=torch.float32)
    hard = value_and_gradient(lambda z: equalization_loss(z, labels, tail), logits)
    soft = value_and_gradient(lambda z: equalization_loss(z, labels, tail.float()), logits)
    assert torch.equal(hard[0], soft[0])
    assert torch.equal(hard[1], soft[1])


def test_equals_the_dense_formulation_at_the_size_of_lvis(make_batch):
    logits, labels, tail = make_batch(rois=512, classes=1203, dtype=torch.float32)
    ours = value_and_gradient(lambda z: equalization_loss(z, labels, tail), logits)
    dense = value_and_gradient(lambda z: dense_equalization_loss(z, labels, tail), logits)
    torch.testing.assert_close(ours, dense, rtol=2e-6, atol=1e-9)


class TestModule:
    def test_equals_the_function(self, make_batch):
        logits, labels, tail = make_batch()
        for switch in (True, False):
            module = EqualizationLoss(tail, exclude_background=switch)
            expected = equalization_loss(logits, labels, tail, exclude_background=switch)
            assert torch.equal(module(logits, labels), expected)

    def test_tail_mask_is_a_buffer_that_is_not_saved(self):
        module = EqualizationLoss(torch.tensor([True, False]))
        assert module.state_dict() == {}
        assert [name for name, _ in module.named_buffers()] == ["tail_mask"]
        assert list(module.parameters()) == []
        assert module.to("meta").tail_mask.device.type == "meta"

    def test_later_edits_of_the_callers_mask_do_not_reach_it(self):
        mask = torch.tensor([True, False])
        module = EqualizationLoss(mask)
        mask[1] = True
        assert module.tail_mask.tolist() == [True, False]

    def test_classifier_of_the_authors_checkpoint_fits(self):
        """The released LVIS v0.5 model: cls_score (1230, 1024), no background row."""
        loss = EqualizationLoss(torch.zeros(1230, dtype=torch.bool))
        predictor = nn.Module()
        predictor.cls_score = nn.Linear(1024, loss.num_logits)
        loss.init_classifier(predictor.cls_score)
        checkpoint = {
            "cls_score.weight": torch.zeros(1230, 1024),
            "cls_score.bias": torch.zeros(1230),
        }
        keys = predictor.load_state_dict(checkpoint, strict=True)
        assert not keys.missing_keys
        assert not keys.unexpected_keys

    def test_first_loss_is_near_one(self):
        """Without the prior bias it would start at K log 2, about 850."""
        torch.manual_seed(0)
        loss = EqualizationLoss(torch.rand(1230) < 0.7)
        linear = nn.Linear(64, 1230)
        loss.init_classifier(linear)
        assert linear.bias.unique().tolist() == pytest.approx([-6.906755], rel=1e-6)
        assert 0.005 < linear.weight.std().item() < 0.015
        labels = torch.full((32,), 1230)
        assert loss(linear(torch.randn(32, 64)), labels).item() == pytest.approx(1.23, abs=0.1)

    def test_shows_what_it_was_made_with(self):
        text = repr(EqualizationLoss(torch.ones(3), exclude_background=False, prior_prob=0.01))
        assert "num_classes=3" in text
        assert "prior_prob=0.01" in text
        assert "exclude_background=False" in text


@pytest.mark.parametrize(
    ("mask", "error", "match"),
    [
        (torch.zeros(7, dtype=torch.int64), TypeError, "tail_mask must be bool or floating"),
        (torch.zeros(6, dtype=torch.bool), ValueError, r"tail_mask must be \(7,\).*\(6,\)"),
        (torch.zeros(1, 7), ValueError, r"tail_mask must be \(7,\).*\(1, 7\)"),
        (torch.zeros(7, device="meta"), ValueError, "tail_mask is on meta, logits on cpu"),
    ],
)
def test_wrong_mask_is_named(make_batch, mask, error, match):
    logits, labels, _ = make_batch()
    with pytest.raises(error, match=match):
        equalization_loss(logits, labels, mask)


@pytest.mark.parametrize("value", [2.0, -1.0, 1.125, float("nan"), float("inf")])
@pytest.mark.parametrize("loss", [EqualizationLoss, SoftmaxEqualizationLoss])
def test_module_refuses_weights_that_are_no_shares(loss, value):
    with pytest.raises(ValueError, match=rf"in \[0, 1\], got {value} for category 1"):
        loss(torch.tensor([1.0, value]))


@pytest.mark.parametrize("loss", [EqualizationLoss, SoftmaxEqualizationLoss])
def test_module_takes_every_share_and_a_mask_without_values(loss):
    assert loss(torch.tensor([0.0, 0.5, 1.0])).tail_mask[1] == 0.5
    assert loss(torch.ones(2, device="meta")).tail_mask.is_meta


def test_module_refuses_a_mask_that_is_no_vector():
    with pytest.raises(ValueError, match=r"tail_mask must be \(K,\), got \(2, 3\)"):
        EqualizationLoss(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        EqualizationLoss(torch.zeros(0))
