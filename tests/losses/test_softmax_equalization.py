"""SEQL: values, gradients, the random draw, and the module."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from eql_d2.losses import SoftmaxEqualizationLoss, softmax_equalization_loss


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def batch_without_background(make_batch, **options):
    logits, labels, tail = make_batch(**options)
    return logits, labels.clamp(max=logits.shape[1] - 1), tail


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_formula_of_the_paper(make_batch, paper_seql, seed):
    logits, labels, tail = batch_without_background(make_batch, seed=seed)
    beta = torch.rand(9, 7, dtype=torch.float64, generator=seeded(seed)) < 0.6
    assert 0 < beta.sum() < beta.numel()
    expected, expected_gradient = paper_seql(logits, labels, beta * tail)
    value = softmax_equalization_loss(logits, labels, tail, gamma=0.6, generator=seeded(seed))
    value.backward()
    assert value.item() == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(logits.grad, expected_gradient)


def test_gamma_one_and_a_soft_mask_are_deterministic(make_batch, paper_seql):
    logits, labels, tail = batch_without_background(make_batch)
    for mask in (tail, torch.linspace(0, 1, 7, dtype=torch.float64)):
        expected, expected_gradient = paper_seql(logits, labels, mask.expand(9, 7))
        logits.grad = None
        value = softmax_equalization_loss(logits, labels, mask, gamma=1.0)
        value.backward()
        assert value.item() == pytest.approx(expected, rel=1e-12)
        torch.testing.assert_close(logits.grad, expected_gradient)


def test_gamma_zero_or_no_tail_is_cross_entropy(make_batch):
    logits, labels, tail = batch_without_background(make_batch)
    expected = F.cross_entropy(logits, labels)
    (expected_gradient,) = torch.autograd.grad(expected, logits)
    for mask, gamma in ((tail, 0.0), (torch.zeros_like(tail), 0.9)):
        value = softmax_equalization_loss(logits, labels, mask, gamma=gamma)
        (gradient,) = torch.autograd.grad(value, logits)
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(gradient, expected_gradient)


def test_generator_decides_the_draw(make_batch):
    logits, labels, tail = batch_without_background(make_batch)

    def value(seed):
        return softmax_equalization_loss(
            logits, labels, tail, gamma=0.5, generator=seeded(seed)
        ).item()

    assert value(1) == value(1)
    assert len({value(seed) for seed in range(5)}) == 5
    state = torch.get_rng_state()
    value(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_draws_are_independent_for_every_sample_and_category():
    """Equal samples would get equal gradients if a draw were shared by a batch."""
    logits = torch.zeros(4000, 5, requires_grad=True)
    labels = torch.zeros(4000, dtype=torch.int64)
    tail = torch.tensor([False, False, True, True, True])
    softmax_equalization_loss(logits, labels, tail, gamma=0.9, generator=seeded(0)).backward()
    left_out = (logits.grad == 0)[:, 2:].double()
    assert (logits.grad[:, 1] > 0).all()
    torch.testing.assert_close(
        left_out.mean(dim=0), torch.full((3,), 0.9).double(), atol=0.02, rtol=0
    )
    correlation = torch.corrcoef(left_out.T) - torch.eye(3)
    assert correlation.abs().max() < 0.06


def test_own_tail_category_is_never_left_out():
    logits = torch.zeros(50, 3, requires_grad=True)
    labels = torch.full((50,), 1)
    value = softmax_equalization_loss(logits, labels, torch.ones(3, dtype=torch.bool), gamma=1.0)
    assert value.item() == 0  # its own category is alone in the denominator
    value.backward()
    assert (logits.grad == 0).all()


def test_first_derivative(make_batch):
    logits, labels, tail = batch_without_background(make_batch, rois=4, classes=5)
    assert gradcheck(
        lambda z: softmax_equalization_loss(z, labels, tail, gamma=0.5, generator=seeded(3)), logits
    )


@pytest.mark.parametrize("size", [100.0, 1e4])
def test_large_logits_stay_finite(size):
    logits = torch.tensor([[size, -size, size], [-size, size, -size]], requires_grad=True)
    labels = torch.tensor([1, 1])
    tail = torch.tensor([True, True, False])
    value = softmax_equalization_loss(logits, labels, tail, gamma=1.0)
    value.backward()
    assert value.item() == pytest.approx(size, rel=1e-6)  # the first sample pays 2 size, half of it
    assert logits.grad.tolist() == [[0.0, -0.5, 0.5], [0.0, 0.0, 0.0]]


def test_half_precision_autocast_and_no_samples(make_batch):
    logits, labels, tail = batch_without_background(make_batch, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = softmax_equalization_loss(logits, labels, tail, gamma=1.0)
    assert value.dtype == torch.float32
    expected = softmax_equalization_loss(logits.float(), labels, tail, gamma=1.0)
    assert torch.equal(value, expected)
    none = torch.zeros(0, 7, requires_grad=True)
    loss = softmax_equalization_loss(none, torch.zeros(0, dtype=torch.int64), tail)
    loss.backward()
    assert loss.item() == 0
    assert none.grad.shape == (0, 7)


def test_compiled_equals_eager(make_batch):
    logits, labels, tail = batch_without_background(make_batch)

    def loss(z):
        return softmax_equalization_loss(z, labels, tail, gamma=1.0)

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(logits), loss(logits))


@pytest.mark.parametrize("gamma", [-0.1, 1.1, float("nan")])
def test_impossible_gamma_is_named(gamma):
    with pytest.raises(ValueError, match="gamma must be between 0 and 1"):
        SoftmaxEqualizationLoss(torch.ones(3), gamma=gamma)
    with pytest.raises(ValueError, match="gamma must be between 0 and 1"):
        softmax_equalization_loss(
            torch.zeros(1, 3), torch.zeros(1, dtype=torch.int64), torch.ones(3), gamma=gamma
        )


class TestModule:
    def test_detection_never_leaves_background_out(self, make_batch):
        logits, labels, tail = make_batch(classes=8)
        loss = SoftmaxEqualizationLoss(tail[:7], gamma=1.0)
        assert (loss.num_classes, loss.num_logits) == (7, 8)
        assert loss.tail_mask.tolist() == [*tail[:7].tolist(), False]
        loss(logits, labels.clamp(max=7)).backward()
        others = labels.clamp(max=7) != 7
        assert (logits.grad[others, 7] > 0).all()
        assert loss.scores(logits).shape == (9, 7)

    def test_classification_has_k_logits(self, make_batch):
        logits, labels, tail = batch_without_background(make_batch)
        loss = SoftmaxEqualizationLoss(tail, gamma=1.0, background=False)
        assert loss.num_logits == 7
        expected = softmax_equalization_loss(logits, labels, tail, gamma=1.0)
        assert torch.equal(loss(logits, labels), expected)

    def test_training_draws_from_the_global_generator(self, make_batch):
        logits, labels, tail = batch_without_background(make_batch)
        loss = SoftmaxEqualizationLoss(tail, gamma=0.5, background=False)
        torch.manual_seed(4)
        first = loss(logits, labels)
        torch.manual_seed(4)
        expected = softmax_equalization_loss(logits, labels, tail, gamma=0.5)
        assert torch.equal(first, expected)

    def test_evaluation_is_plain_cross_entropy(self, make_batch):
        logits, labels, tail = batch_without_background(make_batch)
        loss = SoftmaxEqualizationLoss(tail, gamma=0.9, background=False).eval()
        torch.testing.assert_close(loss(logits, labels), F.cross_entropy(logits, labels))

    def test_tail_mask_is_not_saved(self):
        loss = SoftmaxEqualizationLoss(torch.tensor([True, False]))
        assert loss.state_dict() == {}
        assert "gamma=0.9" in repr(loss)
