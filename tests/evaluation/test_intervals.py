"""Intervals: against tables, against known distributions, and whether they hold what they say."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from eql_d2.evaluation.intervals import (
    Interval,
    StandardError,
    combine,
    expanded_percentile_interval,
    student_t_quantile,
    welch,
)


@pytest.mark.parametrize(
    ("probability", "degrees", "expected"),
    [  # from printed tables of Student's t
        (0.975, 1, 12.7062),
        (0.975, 2, 4.30265),
        (0.95, 5, 2.01505),
        (0.995, 10, 3.16927),
        (0.975, 30, 2.04227),
        (0.9, 120, 1.28865),
    ],
)
def test_t_quantiles_are_those_of_the_tables(probability, degrees, expected):
    assert student_t_quantile(probability, degrees) == pytest.approx(expected, rel=1e-5)
    assert student_t_quantile(1 - probability, degrees) == pytest.approx(-expected, rel=1e-5)


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [  # scipy.stats.t.ppf at 0.6, 0.975 and 0.995
        (1.7, (0.29506112729782746, 5.1188389882530565, 13.453612659922465)),
        (2.5, (0.2814595127485477, 3.5746548420036817, 7.163728138948783)),
        (9.3, (0.2607065775260008, 2.25108222468444, 3.2234796594331345)),
        (47.2, (0.2547798195764774, 2.011515519042828, 2.684077021417452)),
        (1000.0, (0.25341451583949876, 1.9623390808264083, 2.580754698065951)),
    ],
)
def test_t_quantiles_of_broken_degrees(degrees, expected):
    found = [student_t_quantile(p, degrees) for p in (0.6, 0.975, 0.995)]
    assert found == pytest.approx(expected, rel=1e-7)


def test_t_with_many_degrees_is_normal():
    assert student_t_quantile(0.975, math.inf) == NormalDist().inv_cdf(0.975)
    assert student_t_quantile(0.5, 7) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("probability", "degrees"), [(0, 5), (1, 5), (0.9, 0.5), (0.9, -1)])
def test_t_refuses_what_has_no_quantile(probability, degrees):
    with pytest.raises(ValueError, match="no t quantile"):
        student_t_quantile(probability, degrees)


def test_percentile_interval_of_many_units_is_the_plain_one():
    draws = np.random.default_rng(0).normal(3, 2, 20_000)
    found = expanded_percentile_interval(draws, 0.95, 10**6)
    assert found is not None
    low, high = np.quantile(draws, (0.025, 0.975))
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-3)


def test_percentile_interval_widens_for_few_units():
    draws = np.random.default_rng(0).normal(0, 1, 20_000)
    widths = []
    for units in (3, 5, 10, 100):
        interval = expanded_percentile_interval(draws, 0.95, units)
        assert interval is not None
        widths.append(interval.high - interval.low)
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 1.5 * widths[-1]


def test_intervals_of_few_units_hold_what_they_promise():
    """The mean of 8 normal values: the expansion brings 88 % near the 95 % asked for."""
    rng = np.random.default_rng(4)
    sets = 300
    values = rng.normal(1.0, 1.0, (sets, 8))
    drawn = [v[rng.integers(0, 8, (500, 8))].mean(axis=1) for v in values]
    intervals = [expanded_percentile_interval(draws, 0.95, 8) for draws in drawn]
    expanded = np.mean([i is not None and i.low <= 1.0 <= i.high for i in intervals])
    plain = np.mean([low <= 1.0 <= high for low, high in np.quantile(drawn, (0.025, 0.975), 1).T])
    assert expanded > 0.90
    assert expanded > plain + 0.03


def test_no_interval_without_units_or_draws():
    draws = np.arange(10.0)
    assert expanded_percentile_interval(draws, 0.95, 1) is None
    assert expanded_percentile_interval(np.full(10, np.nan), 0.95, 5) is None
    with_gaps = expanded_percentile_interval(np.append(draws, np.nan), 0.8, 1000)
    assert with_gaps == expanded_percentile_interval(draws, 0.8, 1000)


def test_welch_is_the_textbook_interval():
    first, second = [27.5, 21.0, 19.0, 23.6], [27.1, 22.0, 30.8, 29.6, 36.4, 24.0]
    found = welch(first, second)
    assert found is not None
    # scipy.stats.ttest_ind(second, first, equal_var=False)
    assert found.degrees == pytest.approx(7.89303001937424)
    interval = found.interval(np.mean(second) - np.mean(first), 0.95)
    assert (interval.low, interval.high) == pytest.approx((-0.9164567951373, 11.9997901284707))


@pytest.mark.parametrize(("first", "second"), [([1.0], [2.0, 3.0]), ([1.0, 2.0], [3.0])])
def test_one_run_has_no_spread(first, second):
    assert welch(first, second) is None


def test_equal_runs_have_no_noise():
    found = welch([1.0, 1.0], [2.0, 2.0])
    assert found is not None
    assert found.interval(1.0, 0.95) == Interval(1.0, 1.0)


def test_combined_errors_add_as_squares():
    total = combine([StandardError(3.0, 10), StandardError(4.0, 10)])
    assert total.value == pytest.approx(5.0)
    assert 10 < total.degrees < 20
    assert combine([StandardError(3.0, 7), StandardError(0.0, 2)]).degrees == pytest.approx(7)


@pytest.mark.parametrize(
    ("interval", "excluded"), [((0.1, 2), True), ((-2, -0.1), True), ((-1, 1), False), ((0, 1), 0)]
)
def test_excluding_zero(interval, excluded):
    assert Interval(*interval).excludes_zero() == excluded
