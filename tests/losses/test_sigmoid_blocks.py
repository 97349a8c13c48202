"""The blocks of rows over which the eager path walks, and those of accelerators, on a CPU."""

import pytest
import torch

from eql_d2.losses import benchmark, equalization_loss
from eql_d2.losses import sigmoid_sum as module


def passes(logits, labels, mask):
    leaf = logits.detach().clone().requires_grad_()
    value = equalization_loss(leaf, labels, mask)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_blocks_of_any_size_agree(make_batch, monkeypatch, dtype):
    logits, labels, tail = make_batch(rois=23, classes=11, dtype=dtype)
    whole = passes(logits, labels, tail)
    for elements in (1, 11, 34, 110):
        monkeypatch.setattr(module, "FORWARD_BLOCKS", module.BlockSize(elements, 1))
        monkeypatch.setattr(module, "BACKWARD_BLOCKS", module.BlockSize(elements, 1))
        value, gradient = passes(logits, labels, tail)
        torch.testing.assert_close(value, whole[0], rtol=1e-6, atol=0)
        torch.testing.assert_close(gradient, whole[1], rtol=8 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("soft", [True, False])
def test_path_of_accelerators_gives_the_same(make_batch, monkeypatch, dtype, soft):
    logits, labels, tail = make_batch(rois=300, classes=403, dtype=dtype)
    mask = tail * 0.3 if soft else tail
    expected = passes(logits, labels, mask)
    seen = []
    monkeypatch.setattr(module, "_is_on_cpu", lambda tensor: bool(seen.append(tensor)))
    actual = passes(logits, labels, mask)
    assert seen
    torch.testing.assert_close(actual[0], expected[0], rtol=1e-6, atol=0)
    assert torch.equal(actual[1], expected[1])


def test_an_accelerator_gets_as_many_blocks_for_every_large_batch(monkeypatch):
    """Each costs several kernel launches; on a small batch they would cost more than they save."""
    monkeypatch.setattr(module, "_is_on_cpu", lambda tensor: False)
    for rois in (1024, 4096, 8192):
        logits = torch.empty(rois, 1203, device="meta")
        forward = list(module._row_blocks(logits, module.FORWARD_BLOCKS))
        backward = list(module._row_blocks(logits, module.BACKWARD_BLOCKS))
        assert (len(forward), len(backward)) == (4, 16)
    small = torch.empty(64, 1000, device="meta")
    assert list(module._row_blocks(small, module.BACKWARD_BLOCKS)) == [slice(0, 65)]


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("on_cpu", [True, False])
def test_eager_loss_needs_a_third_of_the_memory(monkeypatch, on_cpu, soft):
    """Allocations, unlike times, are the same on every machine with as many threads.

    The blocks of accelerators are walked over on the CPU.
    """
    monkeypatch.setattr(module, "_is_on_cpu", lambda tensor: on_cpu)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for dtype in (torch.float32, torch.bfloat16):
            logits, labels, tail = benchmark.make_batch(
                1024, 1203, dtype, torch.device("cpu"), seed=0
            )
            batch = (logits, labels, tail * 0.5 if soft else tail)
            ours = benchmark.peak_memory(equalization_loss, batch)
            dense = benchmark.peak_memory(benchmark.dense_equalization_loss, batch)
            assert ours <= 0.33 * dense
    finally:
        torch.set_num_threads(threads)
