"""Columns of records, and problems with counts and examples."""

import numpy as np
import pytest

from eql_d2.errors import ResultsError
from eql_d2.evaluation.columns import (
    Problems,
    box_column,
    column,
    integer_column,
    number_column,
)


@pytest.fixture
def problems():
    return Problems("the file", "records", 3, ResultsError)


def test_problems_give_counts_and_first_examples(problems):
    problems.add("never", [], lambda i: 1 / 0)
    problems.raise_if_any()
    problems.add("too high", np.array([0, 1, 2, 3]), lambda i: i * 10)
    problems.add("too low", [2], str)
    with pytest.raises(ResultsError) as caught:
        problems.raise_if_any()
    assert str(caught.value) == (
        "the file:\n"
        "  - 4 of 3 records: too high (number 0: 0, number 1: 10, number 2: 20, ...)\n"
        "  - 1 of 3 records: too low (number 2: '2')"
    )


def test_problems_of_batches_are_counted_together(problems):
    other = Problems("the file", "records", 3, ResultsError)
    for first in (0, 1, 2):
        problems.first = first
        problems.add("too high", [0], lambda i: "x")
        problems.add("too high", range(first), lambda i: "y")
    other.add("too low", [1], lambda i: "z")
    problems.absorb(other)
    assert (problems.count, other.count) == (7, 1)
    assert problems.lines == [
        "6 of 3 records: too high (number 0: 'x', number 1: 'x', number 1: 'y', ...)",
        "1 of 3 records: too low (number 1: 'z')",
    ]


def test_column(problems):
    records = [{"a": 1}, {"a": None}]
    assert column(records, "a", problems) == [1, None]
    assert problems.lines == []
    assert column([*records, {}, 5], "a", problems, ", needed for b") is None
    assert "2 of 3 records: no 'a', needed for b (number 2: {}, number 3: 5)" in problems.lines[0]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], []),
        ([3, 1], [3, 1]),
        ([2.0, 3], [2, 3]),
        ([np.uint8(4)], [4]),
        ([-(2**61)], [-(2**61)]),
    ],
)
def test_integers(values, expected, problems):
    array = integer_column(values, "id", problems)
    assert array.dtype == np.int64
    assert array.tolist() == expected


def test_integers_that_nobody_uses_as_ids_are_kept_apart_from_those_in_use(problems):
    assert integer_column([3, 2**63, -(10**400)], "id", problems).tolist() == [3, 2**62, -(2**62)]


@pytest.mark.parametrize("bad", [None, "3", 1.5, True, [3], float("inf"), {}])
def test_no_integers(bad, problems):
    assert integer_column([bad], "id", problems) is None
    assert integer_column([1, 2, bad], "key", problems) is None
    assert "'key' is not an integer (number 2: " in problems.lines[1]


def test_numbers(problems):
    array = number_column([1, 2.5, np.float32(0.5)], "score", problems)
    assert array.tolist() == [1, 2.5, 0.5]
    assert array.dtype == np.float64
    assert number_column([], "score", problems).shape == (0,)
    for bad in (None, "3", True, float("nan"), 10**400, [1]):
        assert number_column([0.5, bad], "score", problems) is None
        assert number_column([bad], "score", problems) is None


def test_boxes(problems):
    boxes = box_column([[1, 2, 3, 4], (0.5, 0, 0, 1), np.ones(4)], problems)
    assert boxes.tolist() == [[1, 2, 3, 4], [0.5, 0, 0, 1], [1, 1, 1, 1]]
    assert box_column([], problems).shape == (0, 4)
    for bad in ([1, 2, 3], [1, 2, 3, 4, 5], [1, 2, -3, 4], [1, 2, 3, True], None, "1234", 7):
        assert box_column([[0, 0, 1, 1], bad], problems) is None
