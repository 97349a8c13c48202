"""Scales, ticks and marks."""

import math
from xml.etree import ElementTree

import pytest

from eql_d2.reporting.charts import (
    Chart,
    Scale,
    legend,
    log_ticks,
    nice_range,
    number,
    series_mark,
    symbol,
    ticks,
)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 100, [0, 20, 40, 60, 80, 100]),
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (-3, 14, [0, 5, 10]),
        (-12, 27, [-10, 0, 10, 20]),
        (0.3, 0.4, [0.3, 0.32, 0.34, 0.36, 0.38, 0.4]),
    ],
)
def test_ticks_are_round(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def test_log_ticks():
    assert log_ticks(0.8, 300) == pytest.approx([1, 2, 5, 10, 20, 50, 100, 200])
    assert log_ticks(0.8, 50_000) == pytest.approx([1, 10, 100, 1000, 10_000])


def test_scales_map_ends_and_middle():
    linear = Scale(0, 10, 100, 200)
    assert [linear(v) for v in (0, 5, 10)] == [100, 150, 200]
    upright = Scale(0, 10, 200, 100)
    assert upright(10) == 100
    log = Scale(1, 100, 0, 50, log=True)
    assert log(10) == pytest.approx(25)
    assert log(0) == log(1) == 0


def test_ranges_hold_their_values():
    low, high = nice_range([2.0, 5.0, math.nan])
    assert low < 2 < 5 < high
    assert nice_range([2.0, 5.0], zero=True)[0] == 0
    assert nice_range([-2.0, -5.0], zero=True)[1] == 0
    for values in ([], [3.0], [0.0, 0.0]):
        low, high = nice_range(values)
        assert low < high


def test_numbers_are_short():
    assert [number(v) for v in (0.2, 5.0, 1000, 12_000)] == ["0.2", "5", "1,000", "12,000"]


def test_lines_have_gaps_where_values_are_missing():
    chart = Chart(100, 100, "t", Scale(0, 3, 0, 90), Scale(0, 1, 100, 0))
    chart.path([(0, 0), (1, math.nan), (2, 1), (3, 0.5)], "s0")
    (path,) = chart.parts
    assert path.count("M") == 2
    assert path.count("L") == 1
    chart.path([(0, math.nan)], "s0")
    assert len(chart.parts) == 1


def test_series_differ_by_colour_and_shape():
    marks = [series_mark(i) for i in range(28)]
    assert len(set(marks)) == 28
    assert len({shape for _, shape in marks[:4]}) == 4


def test_a_chart_is_well_formed_and_says_what_it_is():
    chart = Chart(100, 100, "a < b", Scale(0, 3, 40, 90), Scale(1, 100, 80, 10, log=True))
    chart.axes("x & y", "z")
    chart.mark(1, 10, "s1", "diamond", "tip <1>")
    tree = ElementTree.fromstring(chart.draw())
    assert tree.attrib["role"] == "img"
    assert tree[0].text == "a < b"
    texts = [t.text for t in tree.iter() if t.tag.endswith("text")]
    assert {"x & y", "z", "0", "3"} <= set(texts)
    assert "tip <1>" in [t.text for t in tree.iter() if t.tag.endswith("title")]


@pytest.mark.parametrize("shape", ["circle", "square", "triangle", "diamond"])
def test_marks_are_centred(shape):
    tree = ElementTree.fromstring(symbol(50, 40, "s0", shape, None, 6))
    if shape == "circle":
        assert (tree.attrib["cx"], tree.attrib["cy"]) == ("50", "40")
    else:
        points = [tuple(map(float, p.split(","))) for p in tree.attrib["points"].split()]
        assert min(x for x, _ in points) < 50 < max(x for x, _ in points)
        assert min(y for _, y in points) < 40 < max(y for _, y in points)


def test_legend_names_every_entry():
    found = legend([("s0", "circle", "one"), ("s1", "square", "<two>")])
    assert ">one</li>" in found
    assert "&lt;two&gt;</li>" in found
