"""What the loss benchmark measures, and that it measures what it says."""

import pytest
import torch
import torch.nn.functional as F

from eql_d2.losses import benchmark, equalization_loss

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def batch():
    return benchmark.make_batch(256, 300, torch.float32, CPU, seed=0)


def test_dense_formulation_is_the_formula_of_the_paper(make_batch, paper_eql):
    logits, labels, tail = make_batch()
    expected, expected_gradient = paper_eql(logits, labels, tail)
    value = benchmark.run_pass(benchmark.dense_equalization_loss, logits, labels, tail)
    assert value.item() == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(logits.grad, expected_gradient)


def test_other_losses_are_what_they_are_called(batch):
    logits, labels, _ = batch
    target = torch.zeros(256, 301).scatter(1, labels[:, None], 1)[:, :300]
    expected = F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum() / 256
    torch.testing.assert_close(benchmark.dense_binary_cross_entropy(*batch), expected)
    with_last = labels.clamp(max=299)
    torch.testing.assert_close(
        benchmark.softmax_cross_entropy(*batch), F.cross_entropy(logits, with_last)
    )


def test_batch_is_like_training_and_repeatable(batch):
    logits, labels, tail = batch
    again = benchmark.make_batch(256, 300, torch.float32, CPU, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(batch, again, strict=True))
    assert logits.requires_grad
    assert labels.max() == 300
    assert (labels < 300).float().mean().item() == pytest.approx(0.25, abs=0.08)
    assert tail.float().mean().item() == pytest.approx(0.68, abs=0.1)


def test_peak_memory_of_a_pass_counts_the_gradient_and_not_the_batch(batch):
    size = batch[0].numel() * 4
    peak = benchmark.peak_memory(lambda z, labels, tail: z.mul(2).sum(), batch)
    assert size <= peak < 1.1 * size


def test_measure_compares_with_the_dense_formulation(batch):
    said = []
    rows = benchmark.measure(
        benchmark.candidates(compiled=False), batch, repetitions=3, progress=said.append
    )
    dense, bce, softmax, ours = rows
    assert dense.candidate == benchmark.DENSE
    assert (dense.time_ratio, dense.memory_ratio) == (1, 1)
    assert ours.time_ratio == pytest.approx(ours.seconds / dense.seconds)
    assert ours.memory_ratio < 1
    assert ours.relative_error < 1e-6
    assert bce.relative_error is None
    assert softmax.relative_error is None
    assert (ours.rois, ours.categories, ours.dtype) == (256, 300, "float32")
    assert said[-1] == "repetition 3/3"
    assert len(ours.row()) == len(benchmark.Measurement.HEADER)


def test_every_batch_is_compiled_anew(monkeypatch):
    """Of many sizes all but the first few would else be measured uncompiled, and be called so."""
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 2)
    compiled_for = []

    def backend(graph, inputs):
        compiled_for.append({tuple(x.shape) for x in inputs if isinstance(x, torch.Tensor)})
        return graph

    losses = {
        benchmark.DENSE: benchmark.dense_equalization_loss,
        benchmark.COMPILED: torch.compile(equalization_loss, backend=backend, dynamic=False),
    }
    sizes = [(4, 8), (4, 9), (5, 8), (6, 8)]
    for size in sizes:
        batch = benchmark.make_batch(*size, torch.float32, CPU, seed=0)
        benchmark.measure(losses, batch, repetitions=1)
    assert len(compiled_for) == len(sizes)
    assert all(size in shapes for size, shapes in zip(sizes, compiled_for, strict=True))


def test_hardware_is_named():
    assert len(benchmark.hardware_name(CPU)) > 2
