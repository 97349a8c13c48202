"""Time and memory of one forward and backward pass of EQL, against other ways to write it.

Every candidate takes the same float logits and integer labels; what it makes of them (a dense
target, weights) is part of what is measured.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from eql_d2.losses.allocations import peak_bytes
from eql_d2.losses.equalization import equalization_loss

DENSE = "(a) dense EQL"
OTHER_LOSSES = ("(b) dense BCE", "(c) cross_entropy")
OURS = "ours, eager"
COMPILED = "ours, compiled"
TAIL_SHARE = 815 / 1203  # of the categories of LVIS v1 at lambda = 0.0011
FOREGROUND_SHARE = 0.25  # of the ROIs that Mask R-CNN samples

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
Batch = tuple[Tensor, Tensor, Tensor]  # logits (R, K), labels (R,), tail mask (K,)


@dataclass(frozen=True)
class Measurement:
    """One candidate at one size and type.

    Attributes:
        seconds: median of the repetitions.
        peak_bytes: most memory that the pass had allocated at once, the gradient included and the
            logits, labels and tail mask, which exist before, not.
        relative_error: of the loss, against the dense formulation in float64. None: another loss.
        time_ratio, memory_ratio: to the dense formulation.
    """

    candidate: str
    rois: int
    categories: int
    dtype: str
    seconds: float
    peak_bytes: int
    relative_error: float | None
    time_ratio: float
    memory_ratio: float

    HEADER: ClassVar[str] = (
        f"{'candidate':20}{'ms':>10}{'time':>8}{'MiB':>10}{'memory':>8}{'loss error':>12}"
    )

    def row(self) -> str:
        """One line of the table under :attr:`HEADER`."""
        error = "" if self.relative_error is None else f"{self.relative_error:.1e}"
        times = f"{self.seconds * 1e3:10.2f}{self.time_ratio:8.2f}"
        memory = f"{self.peak_bytes / 2**20:10.2f}{self.memory_ratio:8.2f}"
        return f"{self.candidate:20}{times}{memory}{error:>12}"


def dense_equalization_loss(logits: Tensor, labels: Tensor, tail_mask: Tensor) -> Tensor:
    """EQL as one writes the formula down: one-hot target, two expanded weights, BCE, sum."""
    rois, classes = logits.shape
    target = logits.new_zeros(rois, classes + 1)
    target[torch.arange(rois, device=logits.device), labels] = 1
    target = target[:, :classes]
    foreground = (labels < classes).to(logits.dtype).view(rois, 1).expand(rois, classes)
    tail = tail_mask.to(logits.dtype).view(1, classes).expand(rois, classes)
    weight = 1 - foreground * tail * (1 - target)
    losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return torch.sum(losses * weight) / rois


def dense_binary_cross_entropy(logits: Tensor, labels: Tensor, tail_mask: Tensor) -> Tensor:
    """Plain sigmoid cross-entropy with a dense target; the tail is of no concern to it."""
    target = F.one_hot(labels, logits.shape[1] + 1)[:, :-1].to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, target, reduction="sum") / len(labels)


def softmax_cross_entropy(logits: Tensor, labels: Tensor, tail_mask: Tensor) -> Tensor:
    """Softmax cross-entropy of logits of the same width, whose last column stands for background.

    One exponential an element and no logarithm: the bound that a sigmoid loss cannot reach.
    """
    return F.cross_entropy(logits, labels.clamp(max=logits.shape[1] - 1))


def candidates(*, compiled: bool) -> dict[str, Loss]:
    """What is compared, by name."""
    losses: dict[str, Loss] = {
        DENSE: dense_equalization_loss,
        OTHER_LOSSES[0]: dense_binary_cross_entropy,
        OTHER_LOSSES[1]: softmax_cross_entropy,
        OURS: equalization_loss,
    }
    if compiled:
        losses[COMPILED] = torch.compile(equalization_loss, dynamic=False)
    return losses


def measure(
    losses: dict[str, Loss],
    batch: Batch,
    *,
    repetitions: int,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Measurement]:
    """Measure every candidate on one batch, in turn within each repetition.

    What was compiled for other batches is forgotten: past a few shapes and types the compiler
    would leave a function as it is, without a word.

    Args:
        losses: by name; :data:`DENSE` must be among them.
        batch: see :func:`make_batch`.
        repetitions: timed passes of every candidate.
        progress: is told what is being done.
    """
    torch.compiler.reset()
    peaks: dict[str, int] = {}
    values: dict[str, float] = {}
    for name, loss in losses.items():
        progress(f"warm-up and memory: {name}")
        values[name] = run_pass(loss, *batch).item()  # also compiles and warms up
        peaks[name] = peak_memory(loss, batch)
    seconds: dict[str, list[float]] = {name: [] for name in losses}
    for repetition in range(repetitions):
        progress(f"repetition {repetition + 1}/{repetitions}")
        for name, loss in losses.items():
            seconds[name].append(timed_pass(loss, batch))
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return _measurements(batch, values, peaks, medians)


def _measurements(
    batch: Batch, values: dict[str, float], peaks: dict[str, int], seconds: dict[str, float]
) -> list[Measurement]:
    logits, labels, tail_mask = batch
    exact = dense_equalization_loss(logits.detach().double(), labels, tail_mask).item()
    return [
        Measurement(
            candidate=name,
            rois=logits.shape[0],
            categories=logits.shape[1],
            dtype=str(logits.dtype).removeprefix("torch."),
            seconds=seconds[name],
            peak_bytes=peaks[name],
            relative_error=None if name in OTHER_LOSSES else abs(values[name] / exact - 1),
            time_ratio=seconds[name] / seconds[DENSE],
            memory_ratio=peaks[name] / peaks[DENSE],
        )
        for name in values
    ]


def make_batch(
    rois: int, categories: int, dtype: torch.dtype, device: torch.device, seed: int
) -> Batch:
    """Logits that spread around the prior bias, labels of which a quarter is foreground, a tail."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rois, categories, generator=generator) * 2 - 6.9
    labels = torch.randint(0, categories, (rois,), generator=generator)
    background = torch.rand(rois, generator=generator) >= FOREGROUND_SHARE
    labels[background] = categories
    tail_mask = torch.rand(categories, generator=generator) < TAIL_SHARE
    leaf = logits.to(device, dtype).requires_grad_()
    return leaf, labels.to(device), tail_mask.to(device)


def run_pass(loss: Loss, logits: Tensor, labels: Tensor, tail_mask: Tensor) -> Tensor:
    """Forward and backward; the gradient is made anew and left in ``logits.grad``."""
    logits.grad = None
    value = loss(logits, labels, tail_mask)
    value.backward()
    return value.detach()


def timed_pass(loss: Loss, batch: Batch) -> float:
    """Seconds of one pass, the device's work included."""
    batch[0].grad = None
    _synchronize(batch[0])
    start = time.perf_counter()
    run_pass(loss, *batch)
    _synchronize(batch[0])
    return time.perf_counter() - start


def peak_memory(loss: Loss, batch: Batch) -> int:
    """Bytes that one pass has allocated at most at once, beyond those allocated before it."""
    batch[0].grad = None
    return peak_bytes(lambda: run_pass(loss, *batch), batch[0].device)


def environment(device: torch.device) -> dict[str, str | int]:
    """What times and memory depend on beside sizes and types, to be kept with them."""
    return {
        "hardware": hardware_name(device),
        "device": device.type,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def hardware_name(device: torch.device) -> str:
    """The GPU's name, or the processor's with the number of its cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")  # platform.processor() is often empty on Linux
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0]} x {len(models)}" if models else platform.processor()


def _synchronize(tensor: Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize()
