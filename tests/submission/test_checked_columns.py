"""Columns of good and bad values: the fast way for plain ones, one by one for the rest."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eql_d2.submission.checked_columns import (
    LARGEST_INTEGER,
    MISSING,
    boxes,
    field,
    finite_numbers,
    whole_numbers,
)

ANYTHING = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-3, 3)
    | st.floats()
    | st.text(max_size=2)
    | st.lists(st.integers(0, 2), max_size=2)
    | st.just(MISSING)
)


def is_number(value):
    return type(value) in (int, float) and -1e308 < value < 1e308


@given(st.lists(ANYTHING, max_size=6) | st.lists(st.integers(), max_size=6))
def test_whole_numbers(values):
    numbers, good = whole_numbers(values)
    assert numbers.dtype == np.int64
    assert numbers.shape == good.shape == (len(values),)
    for value, number, fits in zip(values, numbers.tolist(), good.tolist(), strict=True):
        expected = is_number(value) and value == int(value) and abs(value) < LARGEST_INTEGER
        assert fits == expected
        assert number == (int(value) if expected else -1)


@given(st.lists(ANYTHING, max_size=6) | st.lists(st.floats(), max_size=6))
def test_finite_numbers(values):
    numbers, good = finite_numbers(values)
    for value, number, fits in zip(values, numbers.tolist(), good.tolist(), strict=True):
        assert fits == (type(value) in (int, float) and is_finite(value))
        assert number == float(value) if fits else math.isnan(number)


def is_finite(value):
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


@given(st.lists(st.lists(ANYTHING, min_size=3, max_size=5) | ANYTHING, max_size=4))
def test_boxes(values):
    numbers, good = boxes(values)
    assert numbers.shape == (len(values), 4)
    for value, row, fits in zip(values, numbers.tolist(), good.tolist(), strict=True):
        assert fits == (
            isinstance(value, list)
            and len(value) == 4
            and all(type(v) in (int, float) and is_finite(v) for v in value)
        )
        assert row == [float(v) for v in value] if fits else all(map(math.isnan, row))


def test_boxes_of_one_kind():
    numbers, good = boxes([[1, 2, 3, 4], [1.5, -2, 3, float("inf")]])
    assert good.tolist() == [True, False]
    assert numbers[0].tolist() == [1, 2, 3, 4]
    assert np.isnan(numbers[1]).all()


@pytest.mark.parametrize("value", [np.int32(5), np.float32(5), np.float64(5), 5, 5.0])
def test_numpy_numbers_count(value):
    assert whole_numbers([value])[0].tolist() == [5]
    assert finite_numbers([value])[0].tolist() == [5]


@pytest.mark.parametrize("value", [np.bool_(True), True, "5", b"5", 5j])
def test_others_do_not(value):
    assert not whole_numbers([value])[1].any()
    assert not finite_numbers([value])[1].any()


def test_field():
    values, has = field([{"a": 1}, {"a": None}], "a")
    assert (values, has.tolist()) == ([1, None], [True, True])
    values, has = field([{"a": 1}, {"b": 2}], "a")
    assert values == [1, MISSING]
    assert has.tolist() == [True, False]
