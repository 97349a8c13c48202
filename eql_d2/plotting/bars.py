"""Average precision of several configurations next to each other, with their spread over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from eql_d2.errors import DataError
from eql_d2.plotting.figures import SERIES_COLORS, figure, figure_text
from eql_d2.plotting.results_table import ResultRow, read_results_csv

METRICS = ("AP", "APr", "APc", "APf")
IOU_TYPES = {"bbox": "box", "segm": "mask"}
# Bars differ by more than colour, for readers in black and white.
HATCHES = ("", "//", "..", "\\\\", "xx", "--", "oo")


def plot_metrics_comparison(results: str | Path | Sequence[ResultRow], path: str | Path) -> None:
    """Draw AP, APr, APc and APf of every configuration as bars, a panel for boxes and for masks.

    A bar is the mean over the seeds, its error bar the standard deviation (n - 1) where there are
    two or more, its dots the single runs. Undefined metrics say ``n/a``.

    Args:
        results: CSV file as in :func:`eql_d2.plotting.results_table.read_results_csv`, or rows.
        path: file to write.

    Raises:
        DataError: the file is wrong, or holds none of the metrics.
    """
    rows = read_results_csv(results) if isinstance(results, (str, Path)) else list(results)
    present = {name for row in rows for name in row.metrics}
    panels = [t for t in IOU_TYPES if any(f"{t}/{m}" in present for m in METRICS)]
    if not panels:
        raise DataError(f"no bbox/AP... or segm/AP... among the metrics {sorted(present)}")
    configs = list(dict.fromkeys(row.config for row in rows))
    width = max(4.6, 1.2 + 0.36 * len(METRICS) * (len(configs) + 1))
    with figure(path, width * len(panels), 4.6) as page:
        grid = page.subplots(1, len(panels), squeeze=False, sharey=True).ravel()
        for axes, iou_type in zip(grid, panels, strict=True):
            for index, config in enumerate(configs):
                runs = [row for row in rows if row.config == config]
                _draw_config(axes, runs, iou_type, index, len(configs))
            axes.set_xticks(range(len(METRICS)), METRICS)
            axes.tick_params(axis="x", length=0)
            axes.grid(axis="x", visible=False)
            axes.set_title(f"{IOU_TYPES[iou_type]} average precision", fontsize=11)
            axes.margins(y=0.12)
        grid[0].set_ylabel("percent")
        grid[0].set_ylim(bottom=0)
        handles, labels = grid[0].get_legend_handles_labels()
        columns = max(1, min(len(labels), int(width * len(panels) / 3)))
        page.legend(handles, labels, loc="outside upper center", ncols=columns)


def _draw_config(
    axes: Any, runs: Sequence[ResultRow], iou_type: str, index: int, total: int
) -> None:
    """Draw the bars of one configuration in every group of metrics."""
    bar = 0.8 / total
    color = SERIES_COLORS[index % len(SERIES_COLORS)]
    for place, metric in enumerate(METRICS):
        found = [run.metrics.get(f"{iou_type}/{metric}") for run in runs]
        values = [value for value in found if value is not None]
        x = place + (index - (total - 1) / 2) * bar
        label = f"{figure_text(runs[0].config)} ({len(runs)} run{'s' if len(runs) > 1 else ''})"
        height = mean(values) if values else 0.0
        spread = stdev(values) if len(values) > 1 else 0.0
        axes.bar(
            x, height, 0.92 * bar, color=color, alpha=0.8, edgecolor="white",
            hatch=HATCHES[index % len(HATCHES)], label=label if place == 0 else None,
        )  # fmt: skip
        if spread:
            axes.errorbar(x, height, spread, color="black", capsize=3, linewidth=1.2)
        if len(values) > 1:
            axes.plot([x] * len(values), values, "o", color="black", markersize=2.5, alpha=0.6)
        top = max([height + spread, *values])
        axes.annotate(
            f"{height:.1f}" if values else "n/a", (x, top), (0, 3), textcoords="offset points",
            ha="center", fontsize=8 if total < 5 else 6.5,
        )  # fmt: skip
