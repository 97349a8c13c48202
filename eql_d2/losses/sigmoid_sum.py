r"""Sum of sigmoid cross-entropies with weighted negatives: the arithmetic of EQL and its baseline.

With :math:`p = \sigma(z)` and ``T = tail`` in ``[0, 1]``, ROI r and category j contribute

    -log p_rj                            if j is the label of r
    -(1 - E_r T_j) log(1 - p_rj)         otherwise

(EQL, Tan et al., CVPR 2020, eq. 6-7). The gradient has a closed form, so the eager path keeps
nothing for the backward pass but its inputs and walks over blocks of rows: the only array of size
R x K that it ever makes is the gradient itself, and what it needs beside it is small on a CPU and
about a quarter of it elsewhere. See :mod:`eql_d2.losses.base` for R and K.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from eql_d2.losses.base import compute_dtype


class BlockSize(NamedTuple):
    """How large the blocks of rows are that the eager path walks over.

    Attributes:
        elements_per_thread: on a CPU. A block is shared by the threads, each of which should get
            work for longer than a handover takes and stay in its cache.
        accelerator_parts: into how many blocks a batch is cut elsewhere. Few, large kernels are
            wanted there, whose number does not grow with the batch; but a block needs up to two
            float32 arrays of its own size, four times a half-precision one.
    """

    elements_per_thread: int
    accelerator_parts: int


# A backward block is smaller because it is held beside the gradient.
FORWARD_BLOCKS = BlockSize(elements_per_thread=1 << 16, accelerator_parts=4)
BACKWARD_BLOCKS = BlockSize(elements_per_thread=1 << 15, accelerator_parts=16)
LEAST_ACCELERATOR_ELEMENTS = 1 << 16  # a kernel on less takes no less time


class NegativeWeights(NamedTuple):
    """What the weights ``1 - E_r T_j`` of the negatives are made of.

    Attributes:
        tail: (K,) bool, or floating point in [0, 1]: T, how much of a category's negatives is left
            out. None: nothing is.
        exclude_background: E_r is 0 for background ROIs, so that they push every category down.
    """

    tail: Tensor | None = None
    exclude_background: bool = True


def sigmoid_loss(logits: Tensor, labels: Tensor, weights: NegativeWeights) -> Tensor:
    """Weighted sum over ROIs and categories, divided by R. Arguments are taken as checked.

    The divisor is the number of sampled ROIs (foreground and background) on this process, as in
    the released code of EQL; the paper names none. It keeps the scale of the loss independent of
    the batch size and of how many ROIs are foreground.
    """
    return _SigmoidLoss.apply(logits, labels, *weights)


def elementwise_sigmoid_loss(logits: Tensor, labels: Tensor, weights: NegativeWeights) -> Tensor:
    """The (R, K) terms of the sum in :func:`sigmoid_loss`, before the division by R."""
    logits = logits.to(compute_dtype(logits))
    positive = _positives(labels, logits.shape[1])
    losses = _softplus(torch.where(positive, -logits, logits))
    weight = _dense_weights(positive, weights, logits.dtype)
    return losses if weight is None else losses * weight


class _SigmoidLoss(torch.autograd.Function):
    """The loss with its closed-form gradient.

    Eager: by blocks of rows, no array of size R x K but the gradient. Compiled: the same formula
    over whole arrays, which the compiler fuses into one kernel each way. Higher derivatives
    differentiate that formula.
    """

    @staticmethod
    def forward(
        logits: Tensor, labels: Tensor, tail: Tensor | None, exclude_background: bool
    ) -> Tensor:
        weights = NegativeWeights(tail, exclude_background)
        if torch.compiler.is_compiling():
            total = elementwise_sigmoid_loss(logits, labels, weights).sum()
        else:
            total = _blockwise_sum(logits, labels, weights)
        return total / max(logits.shape[0], 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        logits, labels, tail, exclude_background = inputs
        ctx.save_for_backward(logits, labels, tail)
        ctx.exclude_background = exclude_background

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        logits, labels, tail = ctx.saved_tensors
        weights = NegativeWeights(tail, ctx.exclude_background)
        scale = grad_outputs[0] / max(logits.shape[0], 1)
        # Grad mode is on in a backward pass only under create_graph: someone will differentiate
        # this gradient, so it must be made of operations that autograd can follow.
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            gradient = _dense_gradient(logits, labels, weights, scale)
        else:
            gradient = _blockwise_gradient(logits, labels, weights, scale)
        return gradient, None, None, None


def _softplus(z: Tensor) -> Tensor:
    """log(1 + e^z) to a few units in the last place, for every z.

    Where log1p is one kernel like any other (accelerators), ``F.softplus`` is best. On CPUs
    PyTorch's vectorised log1p was measured up to 15 times slower than exp and log, so it is written
    with log: with u = 1 + e rounded, log(1 + e) = log(u) + (e - (u - 1)) up to the rounding of a
    result. Both differences are exact for e in [0, 1], so e = exp(-|z|), and max(z, 0) is added.
    """
    if not _is_on_cpu(z):
        return _softplus_accelerator(z)
    exp = torch.abs(z).neg_().exp_()
    one_plus = exp + 1
    rounding = exp.sub_(one_plus - 1)
    return one_plus.log_().add_(rounding).add_(z.clamp_min(0))


def _softplus_accelerator(z: Tensor) -> Tensor:
    return F.softplus(z, threshold=40)  # above 40 the difference to z is below 1e-17


def _is_on_cpu(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"


def _positives(labels: Tensor, num_classes: int) -> Tensor:
    """(R, K) bool: the category is the ROI's label."""
    return labels[:, None] == torch.arange(num_classes, device=labels.device)


def _dense_weights(positive: Tensor, weights: NegativeWeights, dtype: torch.dtype) -> Tensor | None:
    """(R, K) weights of the terms, 1 for positives; None where all are 1."""
    if weights.tail is None:
        return None
    left_out = weights.tail.to(dtype) * ~positive
    if weights.exclude_background:
        left_out = left_out * positive.any(dim=1, keepdim=True)
    return 1 - left_out


def _dense_gradient(
    logits: Tensor, labels: Tensor, weights: NegativeWeights, scale: Tensor
) -> Tensor:
    """Gradient (R, K) by ordinary differentiable operations over whole arrays."""
    z = logits.to(compute_dtype(logits))
    positive = _positives(labels, z.shape[1])
    # -sigmoid(-z), not sigmoid(z) - 1, which is 0 where the classifier is almost sure
    gradient = torch.where(positive, -torch.sigmoid(-z), torch.sigmoid(z))
    weight = _dense_weights(positive, weights, z.dtype)
    if weight is not None:
        gradient = gradient * weight
    return (gradient * scale).to(logits.dtype)


class _LabelColumns(NamedTuple):
    """What the block-wise path needs of each ROI's label; every field is (R, 1)."""

    foreground: Tensor  # bool
    column: Tensor  # the label's column; for background any valid one, here the last
    logit: Tensor  # the logit in that column
    weight: Tensor  # the weight of that column's negative, for background ROIs
    excluded: Tensor  # E_r


def _label_columns(logits: Tensor, labels: Tensor, weights: NegativeWeights) -> _LabelColumns:
    dtype, last = compute_dtype(logits), logits.shape[1] - 1
    foreground = (labels <= last)[:, None]
    column = labels.clamp(max=last)[:, None]
    excluded = foreground if weights.exclude_background else torch.ones_like(foreground)
    excluded = excluded.to(dtype)
    weight = torch.ones_like(excluded)
    if weights.tail is not None:
        weight = weight - excluded * weights.tail.to(dtype)[column]
    return _LabelColumns(foreground, column, logits.gather(1, column).to(dtype), weight, excluded)


def _row_blocks(logits: Tensor, size: BlockSize) -> Iterator[slice]:
    if _is_on_cpu(logits):
        elements = size.elements_per_thread * torch.get_num_threads()
    else:
        elements = max(LEAST_ACCELERATOR_ELEMENTS, logits.numel() // size.accelerator_parts)
    step = max(1, elements // logits.shape[1])
    return (slice(start, start + step) for start in range(0, logits.shape[0], step))


def _blockwise_sum(logits: Tensor, labels: Tensor, weights: NegativeWeights) -> Tensor:
    """Sum of :func:`elementwise_sigmoid_loss` without making it."""
    label = _label_columns(logits, labels, weights)
    at_label = torch.where(
        label.foreground, _softplus(-label.logit), _softplus(label.logit) * label.weight
    )
    dtype = compute_dtype(logits)
    one = torch.ones((), dtype=dtype, device=logits.device)
    tail = None if weights.tail is None else weights.tail.to(dtype)

    def block_sum(rows: slice) -> Tensor:
        losses = _softplus(logits[rows].to(dtype))
        if tail is not None:
            losses.mul_(torch.addcmul(one, label.excluded[rows], tail, value=-1))
        return losses.scatter_(1, label.column[rows], at_label[rows]).sum()

    blocks = _row_blocks(logits, FORWARD_BLOCKS)
    return torch.stack([torch.zeros_like(one), *map(block_sum, blocks)]).sum()


def _blockwise_gradient(
    logits: Tensor, labels: Tensor, weights: NegativeWeights, scale: Tensor
) -> Tensor:
    """Equal to :func:`_dense_gradient`, made where it is to be."""
    label = _label_columns(logits, labels, weights)
    at_label = scale * torch.where(
        label.foreground, -torch.sigmoid(-label.logit), torch.sigmoid(label.logit) * label.weight
    )
    dtype = compute_dtype(logits)
    tail = None if weights.tail is None else weights.tail.to(dtype)
    excluded = label.excluded * scale
    gradient = torch.empty_like(logits)

    def fill(rows: slice) -> None:
        if logits.dtype == dtype:
            block = torch.sigmoid(logits[rows], out=gradient[rows])
        else:  # rounded once, at the end
            block = logits[rows].to(dtype).sigmoid_()
        weight = scale if tail is None else torch.addcmul(scale, excluded[rows], tail, value=-1)
        block.mul_(weight).scatter_(1, label.column[rows], at_label[rows])
        if logits.dtype != dtype:
            gradient[rows] = block

    for rows in _row_blocks(logits, BACKWARD_BLOCKS):
        fill(rows)
    return gradient
