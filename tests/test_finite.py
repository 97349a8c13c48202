"""NaN and infinity are found wherever they are, and nowhere else."""

import math

import pytest
import torch
from torch import nn

from eql_d2.finite import gradient_problem, gradients_of, largest_norm, nonfinite


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_one_value_among_many_tensors_is_found(poison, dtype):
    tensors = {f"t{i}": torch.ones(7, 3, dtype=dtype) for i in range(20)}
    tensors["empty"] = torch.zeros(0)
    assert largest_norm(list(tensors.values())).item() == pytest.approx(math.sqrt(21), rel=0.01)
    assert nonfinite(tensors) == ""
    tensors["t13"][6, 2] = poison
    assert not math.isfinite(largest_norm(list(tensors.values())))
    assert nonfinite(tensors) == "1 of 420 values in 1 of 21 tensors (first: t13, 1 of 21)"


def test_large_values_overflow_the_norm_and_are_finite():
    tensors = {"large": torch.full((9,), -3e38)}
    assert largest_norm(list(tensors.values())).item() == math.inf
    assert nonfinite(tensors) == ""
    assert gradient_problem(math.inf, tensors) == ""


def test_of_many_the_first_are_named():
    tensors = {f"t{i}": torch.full((3,), math.nan) for i in range(5)}
    assert nonfinite(tensors) == (
        "15 of 15 values in 5 of 5 tensors (first: t0, 3 of 3; t1, 3 of 3; t2, 3 of 3)"
    )


def test_gradients_by_the_names_of_their_parameters():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    assert gradients_of(model) == {}
    assert largest_norm([]).item() == 0
    model[1](torch.ones(1, 3)).backward()
    gradients = gradients_of(model)
    assert list(gradients) == ["1.weight", "1.bias"]
    assert gradient_problem(1.0, gradients) == ""
    gradients["1.bias"].fill_(math.nan)
    norm = float(largest_norm(list(gradients.values())))
    assert "1 of 4 values in 1 of 2 tensors (first: 1.bias" in gradient_problem(norm, gradients)
