"""Differences between configurations with their noise: a picture of intervals, and words."""

from __future__ import annotations

from collections.abc import Sequence

from eql_d2.evaluation.comparison import SOURCES, Comparison, Difference
from eql_d2.evaluation.comparison_text import METHODS, caveats, confidence_text, verdict
from eql_d2.reporting.charts import Chart, Scale, nice_range, symbol
from eql_d2.reporting.markup import Html, element, figure, join, table
from eql_d2.reporting.runs import IOU_TYPES

SHORT = {"images and categories": "images + categories", "seeds": "seeds", "all": "all"}
LANE, ROW_GAP, LEFT, WIDTH = 15.0, 20.0, 210.0, 900.0


def readable(metric: str) -> str:
    """Return "box APr" for "bbox/APr"."""
    kind, _, name = metric.partition("/")
    return f"{IOU_TYPES.get(kind, kind)} {name}"


def comparison_block(comparison: Comparison) -> Html:
    """Return heading, picture, table and caveats of one comparison."""
    first, second = comparison.names
    words = [
        _sentence(difference, comparison.names)
        for difference in comparison.differences
        if difference.metric.endswith(("/AP", "/APr"))
    ]
    notes = [element("li", line) for line in caveats(comparison)]
    return element(
        "div",
        element("h3", f"{second} against {first}"),
        element("ul", *words),
        _picture(comparison),
        _table(comparison),
        element("ul", *notes, class_="note"),
    )


def methods_note(comparison: Comparison) -> Html:
    """Return how the intervals were made."""
    methods = "; ".join(f"{source}: {method}" for source, method in METHODS.items())
    text = (
        f"{confidence_text(comparison)} intervals from {comparison.num_samples:,} resampled "
        f"sets of the {comparison.num_images:,} test images (random seed {comparison.seed}). "
        f"{methods}."
    )
    if comparison.groups_source:
        text += f" Rare, common, frequent: {comparison.groups_source}."

    return element("p", text, class_="note")


def _sentence(difference: Difference, names: tuple[str, str]) -> Html:
    words, clear = verdict(difference)
    way = "higher" if difference.value > 0 else "lower"
    class_ = "verdict"
    if clear:
        class_ += " better" if difference.value > 0 else " worse"
    return element(
        "li",
        f"{readable(difference.metric)}: {names[1]} is {abs(difference.value):.2f} {way}; ",
        element("span", words, class_=class_),
        ".",
    )


def _picture(comparison: Comparison) -> Html:
    """One block of lanes a metric, a lane a source of noise."""
    differences = comparison.differences
    sources = [s for s in SOURCES if any(d.intervals[s] for d in differences)]
    block = LANE * len(sources) + ROW_GAP
    ends = [v for d in differences for i in d.intervals.values() if i for v in (i.low, i.high)]
    low, high = nice_range([*ends, *(d.value for d in differences)], zero=True)
    bottom = 30 + block * len(differences)
    title = f"{comparison.names[1]} minus {comparison.names[0]}, percent points"
    x = Scale(low, high, LEFT, WIDTH - 20)
    chart = Chart(WIDTH, bottom + 30, title, x, Scale(0, 1, bottom, 30))
    chart.text(0, 14, title, "heading start")
    for tick in x.ticks(8):
        chart.line(x(tick), 26, x(tick), bottom, "zero" if abs(tick) < 1e-9 else "grid")
        chart.text(x(tick), bottom + 16, f"{tick:+g}" if tick else "0", "tick middle")
    for number, difference in enumerate(differences):
        top = 30 + block * number
        _lanes(chart, difference, sources, top + ROW_GAP / 2)
        if number:
            chart.line(0, top, WIDTH - 20, top, "grid")
    caption = (
        "A line is the interval of the difference for one source of noise; in blue all together."
    )
    return figure(element("div", chart.draw(), class_="wide"), caption)


def _lanes(chart: Chart, difference: Difference, sources: Sequence[str], top: float) -> None:
    name = readable(difference.metric)
    chart.text(0, top + LANE * len(sources) / 2 + 4, name, "value start")
    for lane, source in enumerate(sources):
        at = top + LANE * (lane + 0.5)
        interval = difference.intervals[source]
        chart.text(LEFT - 10, at + 4, SHORT.get(source, source), "tick end")
        if interval is None:
            chart.text(chart.x(difference.value) + 10, at + 4, "n/a", "tick start")
            continue
        class_ = "s0" if source in SHORT and source != "seeds" else "s6"
        chart.line(chart.x(interval.low), at, chart.x(interval.high), at, f"interval {class_}")
        tip = f"{name}, {source}: {interval.low:+.2f} to {interval.high:+.2f}"
        chart.parts.append(symbol(chart.x(difference.value), at, class_, "circle", tip, 3.6))


def _table(comparison: Comparison) -> Html:
    sources = [s for s in SOURCES if any(d.intervals[s] for d in comparison.differences)]
    rows = []
    for d in comparison.differences:
        cells = [readable(d.metric), f"{d.first:.2f}", f"{d.second:.2f}", f"{d.value:+.2f}"]
        for source in sources:
            interval = d.intervals[source]
            cells.append(
                "n/a" if interval is None else f"{interval.low:+.2f} to {interval.high:+.2f}"
            )
        rows.append([*cells, verdict(d)[0]])
    for metric, why in comparison.undefined.items():
        rows.append([readable(metric), *["n/a"] * (3 + len(sources)), why])
    header = ["metric", *comparison.names, "difference", *sources, "in words"]
    caption = f"{comparison.names[1]} minus {comparison.names[0]} in percent points"
    return element(
        "details", element("summary", "All numbers"), join([table(caption, header, rows)])
    )
