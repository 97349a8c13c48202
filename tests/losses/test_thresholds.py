"""The threshold functions of Table 3."""

import math

import pytest
import torch

from eql_d2.errors import ConfigError
from eql_d2.losses import THRESHOLD_FUNCTIONS, THRESHOLD_PARAMETERS, threshold

FRACTION = torch.tensor([0.0, 1e-4, 1.77e-3, 2.5e-3, 0.5], dtype=torch.float64)


def test_step_is_strict_and_bool():
    mask = threshold("step", FRACTION, 1.77e-3)
    assert mask.dtype == torch.bool
    assert mask.tolist() == [True, True, False, False, False]
    assert not threshold("step", FRACTION, 0.0).any()


def test_exponential_decay():
    expected = [max(0.0, 1 - (400 * f) ** 2) for f in FRACTION.tolist()]
    values = threshold("exponential", FRACTION, 0.0)
    assert values.tolist() == pytest.approx(expected, abs=1e-15)
    assert values[0] == 1
    assert values[3] == 0
    other = threshold("exponential", FRACTION, 0.0, [100, 1])
    assert other[1].item() == pytest.approx(0.99)


def test_gompertz_decay():
    expected = [1 - math.exp(-80 * math.exp(-3000 * f)) for f in FRACTION.tolist()]
    values = threshold("gompertz", FRACTION, 0.0)
    assert values.tolist() == pytest.approx(expected, abs=1e-15)
    other = threshold("gompertz", FRACTION, 0.0, [0.5, 1, 0])
    assert other.tolist() == pytest.approx([1 - 0.5 * math.exp(-1)] * 5)


def test_parameters_are_those_of_the_functions():
    assert THRESHOLD_PARAMETERS == {
        "step": (),
        "exponential": ("a", "n"),
        "gompertz": ("a", "b", "c"),
    }
    assert tuple(THRESHOLD_PARAMETERS) == THRESHOLD_FUNCTIONS


@pytest.mark.parametrize("name", THRESHOLD_FUNCTIONS)
def test_every_function_falls_from_one_to_zero(name):
    fraction = torch.linspace(0, 0.02, 500, dtype=torch.float64)
    values = threshold(name, fraction, 1.77e-3).double()
    assert values[0].item() == pytest.approx(1)
    assert values[-1].item() == pytest.approx(0, abs=1e-12)
    assert (values.diff() <= 0).all()


@pytest.mark.parametrize("name", ["exponential", "gompertz"])
def test_parameters_out_of_the_ordinary_stay_in_range(name):
    parameters = [900.0, 3.0] if name == "exponential" else [4.0, 1.0, 10.0]
    values = threshold(name, FRACTION, 0.0, parameters)
    assert (values >= 0).all()
    assert (values <= 1).all()


@pytest.mark.parametrize(
    ("name", "parameters", "match"),
    [
        ("gompert", [], "THRESHOLD_FUNCTION: unknown name 'gompert'.*did you mean 'gompertz'"),
        ("exponential", [1.0], r"exponential takes \[a, n\] or \[\], got \[1.0\]"),
        ("gompertz", [1.0, 2.0], r"gompertz takes \[a, b, c\] or \[\]"),
        ("step", [0.001], r"step takes \[\] \(its threshold is LAMBDA\), got \[0.001\]"),
    ],
)
def test_wrong_names_and_parameters_are_named(name, parameters, match):
    with pytest.raises(ConfigError, match=match):
        threshold(name, FRACTION, 0.1, parameters)
