"""The metrics of all runs: tables, and AP by frequency group as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev

from eql_d2.reporting.charts import Chart, Scale, legend, nice_range, series_mark, symbol
from eql_d2.reporting.markup import Html, element, figure, join, table
from eql_d2.reporting.runs import IOU_TYPES, Run, Side, groups_of

DRAWN = ("AP", "APr", "APc", "APf")
LEGENDS = {
    "AP": "AP: mean over categories and IoU 0.50 to 0.95",
    "APr": "r, c, f: rare, common and frequent categories",
    "APs": "s, m, l: small, medium and large objects",
}
ROW = 46.0


def kinds_of(sides: Sequence[Side]) -> dict[str, list[str]]:
    """Return the kinds of metric ("bbox", "segm" ...) and the names under each, in file order."""
    kinds: dict[str, dict[str, None]] = {}
    for side in sides:
        for run in side.runs:
            for key in run.row.metrics:
                kind, _, name = key.partition("/")
                kinds.setdefault(kind, {})[name] = None
    return {kind: list(names) for kind, names in kinds.items()}


def metric_tables(sides: Sequence[Side]) -> Html:
    """Return one table a kind: a row a configuration, and every run where there are several."""
    tables = []
    for kind, names in kinds_of(sides).items():
        rows = [_row(side, kind, names, _best(sides, kind, names)) for side in sides]
        title = f"{IOU_TYPES.get(kind, kind).capitalize()} metrics in percent"
        if any(len(side.runs) > 1 for side in sides):
            title += "; mean ± standard deviation over seeds"
        tables.append(table(title, ["configuration", "runs", *names], rows, text_columns=1))
    if any(len(side.runs) > 1 for side in sides):
        each = [_all_runs(sides, kind, names) for kind, names in kinds_of(sides).items()]
        tables.append(element("details", element("summary", "Every run"), *each))
    source = groups_of(sides)[1]
    legends = LEGENDS | {"APr": f"{LEGENDS['APr']} ({source})"} if source else LEGENDS
    return join([*tables, element("p", f"{'; '.join(legends.values())}.", class_="note")])


def _best(sides: Sequence[Side], kind: str, names: Sequence[str]) -> dict[str, float]:
    """The highest mean of each metric, where there is something to compare."""
    best = {}
    for name in names:
        means = [fmean(v) for v in (side.values(f"{kind}/{name}") for side in sides) if v]
        if len(means) > 1:
            best[name] = max(means)
    return best


def _row(side: Side, kind: str, names: Sequence[str], best: dict[str, float]) -> list[str]:
    cells: list[str] = [side.name, str(len(side.runs))]
    for name in names:
        values = side.values(f"{kind}/{name}")
        if not values:
            cells.append(element("span", "n/a", class_="muted"))
            continue
        mean = fmean(values)
        spread = element("span", f" ± {stdev(values):.1f}", class_="spread") if values[1:] else None
        bold = "best" if best.get(name) == mean else None
        cells.append(join([element("span", f"{mean:.1f}", class_=bold), spread]))
    return cells


def _all_runs(sides: Sequence[Side], kind: str, names: Sequence[str]) -> Html:
    rows = [_run_row(run, kind, names) for side in sides for run in side.runs]
    caption = f"{IOU_TYPES.get(kind, kind).capitalize()} metrics of every run in percent"
    return table(caption, ["run", "seed", *names], rows)


def _run_row(run: Run, kind: str, names: Sequence[str]) -> list[str]:
    values = [run.row.metrics.get(f"{kind}/{name}") for name in names]
    cells = ["n/a" if value is None else f"{value:.2f}" for value in values]
    seed = str(run.row.seed) if run.row.seed >= 0 else "n/a"
    return [run.folder.resolve().name, seed, *cells]


def metric_chart(sides: Sequence[Side]) -> Html:
    """Return AP and its groups as marks on a line, a panel a kind."""
    panels = [_panel(sides, kind) for kind, names in kinds_of(sides).items() if "AP" in names]
    keys = legend([(*series_mark(i), side.name) for i, side in enumerate(sides)])
    caption = "Average precision over all, rare, common and frequent categories."
    if any(len(side.runs) > 1 for side in sides):
        caption += " Large marks are means over seeds, faint ones single runs."
    return figure(join([keys, element("div", *panels, class_="panels")]), caption)


def _panel(sides: Sequence[Side], kind: str) -> Html:
    """One row a metric, a thin lane a configuration inside it."""
    names = [name for name in DRAWN if any(side.values(f"{kind}/{name}") for side in sides)]
    values = [v for side in sides for name in names for v in side.values(f"{kind}/{name}")]
    lane = max(13.0, min(16.0, 36.0 / len(sides)))
    row = max(ROW, lane * len(sides) + 14)
    bottom = 26 + row * len(names)
    x = Scale(0.0, nice_range(values, zero=True)[1], 52, 462)
    title = f"{IOU_TYPES.get(kind, kind)} average precision, percent"
    chart = Chart(508, bottom + 24, title, x, Scale(0, 1, bottom, bottom))
    chart.text(0, 12, title, "heading start")
    for tick in x.ticks(6):
        chart.line(x(tick), 24, x(tick), bottom, "grid")
        chart.text(x(tick), bottom + 16, f"{tick:g}", "tick middle")
    for number, name in enumerate(names):
        middle = 26 + row * (number + 0.5)
        chart.text(0, middle + 4, name, "value start")
        for index, side in enumerate(sides):
            at = middle + (index - (len(sides) - 1) / 2) * lane
            _dots(chart, side, side.values(f"{kind}/{name}"), index, at, f"{side.name} {name}")
        if number:
            chart.line(0, 26 + row * number, 462, 26 + row * number, "grid")
    return chart.draw()


def _dots(
    chart: Chart, side: Side, values: Sequence[float], index: int, at: float, what: str
) -> None:
    if not values:
        return
    class_, shape = series_mark(index)
    mean = fmean(values)
    chart.line(chart.x(min(values)), at, chart.x(max(values)), at, class_)
    if len(values) > 1:
        for value in values:
            tip = f"{what}: {value:.2f}"
            chart.parts.append(symbol(chart.x(value), at, f"{class_} seed", shape, tip, 3))
    chart.parts.append(symbol(chart.x(mean), at, class_, shape, f"{what}: {mean:.2f}", 5))
    chart.text(chart.x(max(values)) + 10, at + 4, f"{mean:.1f}", "value start")
