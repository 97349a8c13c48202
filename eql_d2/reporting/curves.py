"""Training curves as small charts, a panel a quantity."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from eql_d2.plotting.curves import PANELS, Record, read_training_log, smooth
from eql_d2.reporting.charts import Chart, Scale, legend, nice_range, series_mark
from eql_d2.reporting.markup import Html, element, figure, join
from eql_d2.reporting.runs import Side

MOST_POINTS = 300  # of a line: more cannot be seen at this size
WIDTH, HEIGHT = 332.0, 210.0


def loss_curves(sides: Sequence[Side]) -> Html | None:
    """Return the curves of the first run of every configuration; None where no run has a log.

    Raises:
        DataError: a log is damaged.
    """
    logs: list[tuple[int, str, list[Record]]] = []
    for index, side in enumerate(sides):
        run = next((run for run in side.runs if run.log is not None), None)
        if run is not None and run.log is not None:
            logs.append((index, run.folder.resolve().name, read_training_log(run.log)))
    keys = [key for key in PANELS if any(key in record for *_, log in logs for record in log)]
    if not keys:
        return None
    panels = [_panel(logs, key) for key in keys]
    entries = [(*series_mark(index), name) for index, name, _ in logs]
    caption = "Training curves; the thin line is the log, the thick one its running mean."
    if any(len(side.runs) > 1 for side in sides):
        caption += " Of several seeds the first is shown."
    return figure(join([legend(entries), element("div", *panels, class_="panels")]), caption)


def _panel(logs: Sequence[tuple[int, str, list[Record]]], key: str) -> Html:
    lines = []
    for index, _, log in logs:
        points = [(r["iteration"], r[key]) for r in log if key in r]
        if points:
            x, y = np.array(points, dtype=np.float64).T
            lines.append((index, x, y, smooth(y)))
    last = max(float(x[-1]) for _, x, _, _ in lines)
    # The first records of a loss may be far above the rest; the smoothed line sets the limits.
    smoothed = [v for *_, means in lines for v in means.tolist()]
    low, high = nice_range(smoothed, zero=True)
    across = Scale(0, max(last, 1.0), 44, WIDTH - 12)
    chart = Chart(WIDTH, HEIGHT, PANELS[key], across, Scale(low, high, HEIGHT - 42, 34))
    chart.text(0, 14, PANELS[key], "heading start")
    chart.axes("iteration", x_ticks=4)
    for index, x, y, means in lines:
        class_, _ = series_mark(index)
        chosen = _thin(len(x))
        raw = np.clip(y[chosen], low, high)
        chart.path(list(zip(x[chosen].tolist(), raw.tolist(), strict=True)), f"{class_} faint")
        chart.path(list(zip(x[chosen].tolist(), means[chosen].tolist(), strict=True)), class_)
    return chart.draw()


def _thin(length: int) -> list[int]:
    """Evenly spread indices, the first and the last among them."""
    step = max(1, math.ceil(length / MOST_POINTS))
    return sorted({*range(0, length, step), length - 1})
