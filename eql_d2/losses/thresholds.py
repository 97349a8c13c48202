"""Threshold functions T(f): how much of a category's negatives is left out (EQL, Table 3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from types import MappingProxyType

import torch
from torch import Tensor

from eql_d2.errors import ConfigError
from eql_d2.losses.names import unknown_name


def step(image_fraction: Tensor, lambda_: float) -> Tensor:
    """``T(f) = 1[f < lambda]`` (eq. 8), strict: (K,) bool."""
    return image_fraction < lambda_


def exponential(image_fraction: Tensor, a: float = 400.0, n: float = 2.0) -> Tensor:
    """``T(f) = 1 - (a f)^n``, cut to [0, 1]: 1 for a category without images, 0 from f = 1/a."""
    return (1 - (a * image_fraction) ** n).clamp(0, 1)


def gompertz(image_fraction: Tensor, a: float = 1.0, b: float = 80.0, c: float = 3000.0) -> Tensor:
    """``T(f) = 1 - a exp(-b exp(-c f))``, cut to [0, 1]: a smooth step."""
    return (1 - a * torch.exp(-b * torch.exp(-c * image_fraction))).clamp(0, 1)


_SOFT: dict[str, Callable[..., Tensor]] = {"exponential": exponential, "gompertz": gompertz}
# The names of what each function takes beside f and lambda.
THRESHOLD_PARAMETERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"step": (), **{name: tuple(signature(f).parameters)[1:] for name, f in _SOFT.items()}}
)
THRESHOLD_FUNCTIONS = tuple(THRESHOLD_PARAMETERS)


def threshold(
    name: str, image_fraction: Tensor, lambda_: float, parameters: Sequence[float] = ()
) -> Tensor:
    """Apply the threshold function of that name.

    Args:
        name: one of :data:`THRESHOLD_FUNCTIONS`.
        image_fraction: (K,) f, share of the annotated training images that show the category.
        lambda_: the step; the soft functions have none.
        parameters: of a soft function, in the order of its arguments; empty: those of Table 3.

    Returns:
        (K,) bool for the step, floating point in [0, 1] else.

    Raises:
        ConfigError: unknown name, or a wrong number of parameters.
    """
    if name not in THRESHOLD_FUNCTIONS:
        raise unknown_name("MODEL.EQL.LOSS.THRESHOLD_FUNCTION", name, THRESHOLD_FUNCTIONS)
    names = THRESHOLD_PARAMETERS[name]
    if parameters and len(parameters) != len(names):
        expected = f"[{', '.join(names)}] or []" if names else "[] (its threshold is LAMBDA)"
        raise ConfigError(
            f"MODEL.EQL.LOSS.THRESHOLD_PARAMETERS: {name} takes {expected}, got {list(parameters)}"
        )
    if name == "step":
        return step(image_fraction, lambda_)
    return _SOFT[name](image_fraction, *parameters)
