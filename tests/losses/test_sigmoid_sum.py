"""The arithmetic under the sigmoid losses: precision, derivatives, compilation."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from eql_d2.losses import SigmoidCrossEntropyLoss, equalization_loss, sigmoid_cross_entropy
from eql_d2.losses import sigmoid_sum as module
from eql_d2.losses.benchmark import peak_memory


def passes(loss, logits, *arguments):
    leaf = logits.detach().clone().requires_grad_()
    value = loss(leaf, *arguments)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_softplus_is_exact_to_a_few_units_in_the_last_place(dtype):
    z = torch.cat([torch.linspace(-80, 100, 100001), torch.tensor([0.0, -0.0, 1e-30, -1e-30])])
    z = z.to(dtype)
    exact = torch.log1p(torch.exp(-z.double().abs())) + z.double().clamp_min(0)
    relative = (module._softplus(z).double() - exact).abs() / exact
    assert relative.max() < 3 * torch.finfo(dtype).eps


def test_softplus_at_the_ends():
    inf = float("inf")
    z = torch.tensor([-inf, -1e4, -104.0, 1e4, inf, float("nan")])
    expected = torch.tensor([0.0, 0.0, 0.0, 1e4, inf, float("nan")])
    torch.testing.assert_close(module._softplus(z), expected, equal_nan=True)


def test_softplus_of_accelerators_is_the_same_function():
    z = torch.linspace(-90, 90, 1001, dtype=torch.float64)
    ours = module._softplus_accelerator(z)
    torch.testing.assert_close(ours, module._softplus(z), rtol=1e-12, atol=0)


@pytest.mark.parametrize("exclude_background", [True, False])
@pytest.mark.parametrize("soft", [True, False])
def test_first_and_second_derivatives(make_batch, exclude_background, soft):
    logits, labels, tail = make_batch(rois=5, classes=4)
    mask = tail.double() * 0.3 if soft else tail

    def loss(z):
        return equalization_loss(z, labels, mask, exclude_background=exclude_background)

    assert gradcheck(loss, logits)
    assert gradgradcheck(loss, logits)
    assert gradgradcheck(lambda z: sigmoid_cross_entropy(z, labels), logits)


def test_gradient_that_can_be_differentiated_is_the_same_gradient(make_batch):
    logits, labels, tail = make_batch()
    plain = passes(equalization_loss, logits, labels, tail)[1]
    value = equalization_loss(logits, labels, tail)
    (graph,) = torch.autograd.grad(value, logits, create_graph=True)
    assert graph.requires_grad
    torch.testing.assert_close(graph.detach(), plain, rtol=1e-14, atol=0)
    functional = torch.func.grad(equalization_loss)(logits.detach(), labels, tail)
    torch.testing.assert_close(functional, plain, rtol=1e-14, atol=0)


def test_incoming_gradient_scales_the_gradient(make_batch):
    logits, labels, tail = make_batch()
    one = passes(equalization_loss, logits, labels, tail)[1]
    many = passes(lambda z: -1024 * equalization_loss(z, labels, tail), logits)[1]
    assert torch.equal(many, -1024 * one)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [100.0, -100.0, 1e4, -1e4])
def test_large_logits(make_batch, paper_eql, dtype, size):
    logits, labels, tail = make_batch(dtype=dtype)
    logits = torch.full_like(logits, size)
    if abs(size) == 100:
        expected, expected_gradient = paper_eql(logits, labels, tail)
        value, gradient = passes(equalization_loss, logits, labels, tail)
        assert value.item() == pytest.approx(expected, rel=1e-6)
        torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-5, atol=1e-38)
    value, gradient = passes(equalization_loss, logits, labels, tail)
    assert value.isfinite()
    assert gradient.isfinite().all()
    assert gradient.abs().max() <= 1 / 9


def test_a_sure_classifier_keeps_a_gradient():
    """Where sigmoid(z) rounds to 1, ``sigmoid(z) - 1`` is 0; exp(-z) is not."""
    value, gradient = passes(
        equalization_loss, torch.tensor([[30.0]]), torch.tensor([0]), torch.tensor([True])
    )
    assert value.item() == pytest.approx(9.357623e-14, rel=1e-5)
    assert gradient.item() == pytest.approx(-9.357623e-14, rel=1e-5)


def test_excluded_terms_do_not_swallow_the_rest():
    """A total from which excluded terms were taken off again would lose 0.69 beside 1e9."""
    logits = torch.tensor([[0.0, 1e9, 1e9]])
    value = equalization_loss(logits, torch.tensor([0]), torch.tensor([False, True, True]))
    assert value.item() == pytest.approx(0.693147, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(make_batch, dtype):
    logits, labels, tail = make_batch(rois=64, classes=1203, dtype=dtype)
    value, gradient = passes(equalization_loss, logits, labels, tail)
    expected = passes(equalization_loss, logits.float(), labels, tail)
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    torch.testing.assert_close(value, expected[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient, expected[1].to(dtype))


def test_autocast_changes_nothing(make_batch):
    features = torch.randn(8, 16)
    weight = torch.randn(7, 16, requires_grad=True)
    logits, labels, tail = make_batch(rois=8, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = passes(equalization_loss, logits, labels, tail)
        half = F.linear(features, weight)
        loss = equalization_loss(half, labels, tail)
    outside = passes(equalization_loss, logits, labels, tail)
    assert torch.equal(inside[0], outside[0])
    assert torch.equal(inside[1], outside[1])
    assert half.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    loss.backward()
    assert weight.grad.isfinite().all()


def test_no_rois_give_a_zero_that_is_connected():
    logits = torch.zeros(0, 5, requires_grad=True)
    labels = torch.zeros(0, dtype=torch.int64)
    for loss in (
        equalization_loss(logits, labels, torch.ones(5, dtype=torch.bool)),
        sigmoid_cross_entropy(logits, labels),
    ):
        logits.grad = None
        assert loss.item() == 0
        loss.backward()
        assert logits.grad.shape == (0, 5)


def test_inputs_are_left_as_they_are(make_batch):
    for dtype in (torch.float32, torch.bfloat16):
        logits, labels, tail = make_batch(dtype=dtype)
        soft = tail.float()
        before = [tensor.detach().clone() for tensor in (logits, labels, soft)]
        equalization_loss(logits, labels, soft).backward()
        for tensor, copy in zip((logits, labels, soft), before, strict=True):
            assert torch.equal(tensor.detach(), copy)


def test_transposed_logits(make_batch):
    logits, labels, tail = make_batch()
    strided = logits.detach().t().contiguous().t()
    assert not strided.is_contiguous()
    expected = passes(equalization_loss, logits, labels, tail)
    actual = passes(equalization_loss, strided, labels, tail)
    torch.testing.assert_close(actual, expected, rtol=1e-14, atol=0)


def test_elementwise_terms_sum_to_the_loss(make_batch):
    logits, labels, tail = make_batch()
    for weights in (
        module.NegativeWeights(),
        module.NegativeWeights(tail),
        module.NegativeWeights(tail, exclude_background=False),
    ):
        terms = module.elementwise_sigmoid_loss(logits.detach(), labels, weights)
        loss = module.sigmoid_loss(logits, labels, weights)
        torch.testing.assert_close(terms.sum() / 9, loss.detach(), rtol=1e-14, atol=0)


def check_compiled(make_batch, dtype, backend):
    logits, labels, tail = make_batch(rois=64, classes=400, dtype=dtype)
    logits.data[0, :3] = torch.tensor([0.0, 100.0, -100.0])
    compiled_loss = torch.compile(equalization_loss, backend=backend, dynamic=False)
    eager = passes(equalization_loss, logits, labels, tail)
    compiled = passes(compiled_loss, logits, labels, tail)
    torch.testing.assert_close(compiled[0], eager[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(compiled[1], eager[1])
    return compiled_loss, (logits, labels, tail)


def test_compiled_equals_eager_and_holds_the_gradient_alone(make_batch):
    compiled_loss, batch = check_compiled(make_batch, torch.float32, "inductor")
    gradient = batch[0].numel() * 4
    assert gradient <= peak_memory(compiled_loss, batch) < 1.2 * gradient


def test_compiled_equals_eager_in_half_precision(make_batch):
    check_compiled(make_batch, torch.bfloat16, "aot_eager")


def test_compiled_for_any_number_of_rois(make_batch):
    compiled_loss = torch.compile(equalization_loss, backend="aot_eager", dynamic=True)
    for rois in (3, 5, 8):
        batch = make_batch(rois=rois)
        torch.testing.assert_close(passes(compiled_loss, *batch), passes(equalization_loss, *batch))


def test_compiles_into_one_graph_without_breaks(make_batch):
    logits, labels, tail = make_batch(dtype=torch.float32)
    explanation = torch._dynamo.explain(equalization_loss)(logits, labels, tail)
    assert explanation.graph_count == 1
    assert explanation.graph_break_count == 0


@pytest.mark.parametrize(
    ("logits", "labels", "error", "match"),
    [
        (torch.zeros(2), torch.zeros(2).long(), ValueError, r"logits must be \(R, C\), got \(2,\)"),
        (torch.tensor(0.0), torch.zeros(2).long(), ValueError, r"logits must be \(R, C\)"),
        (torch.zeros(2, 0), torch.zeros(2).long(), ValueError, r"got \(2, 0\)"),
        (torch.zeros(2, 3), torch.zeros(3).long(), ValueError, r"labels must be \(2,\).*\(3,\)"),
        (torch.zeros(2, 3), torch.zeros(2), TypeError, "labels must be int64, got torch.float32"),
        (torch.zeros(2, 3).long(), torch.zeros(2).long(), TypeError, "logits must be floating"),
        (
            torch.zeros(2, 3),
            torch.zeros(2, device="meta").long(),
            ValueError,
            "labels are on meta, logits on cpu",
        ),
        (torch.zeros(2, 3), torch.tensor([3, -1]), ValueError, r"in 0..3 \(K = 3 .*\).*got -1"),
        (torch.zeros(2, 3), torch.tensor([4, 0]), ValueError, r"in 0..3 \(K = 3 .*\).*got 4"),
    ],
)
def test_wrong_inputs_are_named(logits, labels, error, match):
    with pytest.raises(error, match=match):
        sigmoid_cross_entropy(logits, labels)
    with pytest.raises(error, match=match):
        equalization_loss(logits, labels, torch.zeros(3, dtype=torch.bool))
    module_of_loss = SigmoidCrossEntropyLoss(3)
    for call in (module_of_loss, module_of_loss.loss_by_category):
        with pytest.raises(error):
            call(logits, labels)
