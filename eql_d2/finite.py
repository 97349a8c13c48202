"""NaN and infinity in many tensors, found in one pass over them.

Weights, buffers, momentum and gradients with such values train nothing and detect nothing. All of
them are asked first for the largest L2 norm, which is one value to read from the device; only where
that is no number are the tensors looked at one by one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

EXAMPLES = 3


def largest_norm(tensors: list[Tensor]) -> Tensor:
    """Return the largest L2 norm of ``tensors``, a scalar on their device; 0 of none.

    It is NaN or infinite wherever a value is. The reverse does not hold: finite values above 1e19
    overflow the norm in float32, so ask :func:`nonfinite` then.
    """
    if not tensors:
        return torch.zeros(())
    device = tensors[0].device
    norms = [norm.to(device, torch.float32) for norm in torch._foreach_norm(tensors)]
    return torch.stack(norms).amax()


def nonfinite(tensors: Mapping[str, Tensor]) -> str:
    """Say which of ``tensors`` hold NaN or infinity: how many, and the first by name.

    Returns:
        ``"65 of 1,234 values in 2 of 80 tensors (first: bn1.running_var, 64 of 64; ...)"``, or
        ``""`` where all values are finite.
    """
    counts = {name: int((~torch.isfinite(value)).sum()) for name, value in tensors.items()}
    found = {name: count for name, count in counts.items() if count}
    if not found:
        return ""
    total = sum(value.numel() for value in tensors.values())
    examples = "; ".join(
        f"{name}, {count:,} of {tensors[name].numel():,}"
        for name, count in list(found.items())[:EXAMPLES]
    )
    return (
        f"{sum(found.values()):,} of {total:,} values in {len(found)} of {len(tensors)} tensors "
        f"(first: {examples})"
    )


def gradients_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the gradients of those of a model's parameters that have one, by name."""
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def gradient_problem(norm: float, gradients: Mapping[str, Tensor]) -> str:
    """Say which gradients are not finite, beside finite losses; or return ``""``.

    Args:
        norm: :func:`largest_norm` of them, as read from the device; nothing else is read where it
            is finite.
        gradients: of :func:`gradients_of`.
    """
    found = "" if math.isfinite(norm) else nonfinite(gradients)
    return f"all losses are finite, but the gradients are NaN or infinite: {found}" if found else ""
