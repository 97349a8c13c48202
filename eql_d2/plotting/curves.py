"""Training curves from ``metrics.jsonl`` files."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eql_d2.errors import DataError
from eql_d2.plotting.figures import figure, figure_text, series_style

if TYPE_CHECKING:
    from numpy.typing import NDArray

logger = logging.getLogger("eql_d2.plotting")

# What is drawn, where a log has it, one panel each.
PANELS = {
    "total_loss": "total loss",
    "loss_cls": "classification loss",
    "loss_box_reg": "box regression loss",
    "loss_mask": "mask loss",
    "loss_rpn_cls": "proposal objectness loss",
    "loss_rpn_loc": "proposal box loss",
    "cls/fg_accuracy": "foreground accuracy",
    "cls/false_negative": "false negatives",
    "cls/tail_loss_share": "tail share of the loss",
}
Record = dict[str, float]


def read_training_log(path: str | Path) -> list[Record]:
    """Read a training log: one json object a line, with ``iteration`` and numbers.

    Records are sorted by iteration; where a resumed run wrote an iteration again, the later line
    counts. A last line cut off by a killed run is left out, and logged.

    Raises:
        DataError: no such file, a damaged line before the last, or no record at all.
    """
    path = Path(path)
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"training log {path} cannot be read: {error}") from error
    records: dict[int, Record] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
            iteration = int(content["iteration"])
            numbers = {k: float(v) for k, v in content.items() if isinstance(v, (int, float))}
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            if number == len(lines):
                logger.warning("%s: the last line is cut off and is left out", path)
                continue
            raise DataError(
                f"{path} line {number} is no json record with 'iteration': {line[:80]!r}"
            ) from error
        records.setdefault(iteration, {}).update(numbers)
    if not records:
        raise DataError(f"training log {path} holds no record; the run stopped before its first")
    return [records[i] for i in sorted(records)]


def plot_loss_curves(runs: Mapping[str, str | Path], path: str | Path) -> None:
    """Draw the losses of one or more runs, a panel a loss, with a smoothed line over the records.

    Args:
        runs: label of a run -> its ``metrics.jsonl``.
        path: file to write.

    Raises:
        DataError: a log cannot be read, or no log holds a known loss.
        ValueError: no run is given.
    """
    if not runs:
        raise ValueError("at least one run is needed to draw loss curves")
    logs = {label: read_training_log(log) for label, log in runs.items()}
    keys = [k for k in PANELS if any(k in r for log in logs.values() for r in log)]
    if not keys:
        files = ", ".join(str(log) for log in runs.values())
        raise DataError(f"no loss to draw in {files}; expected one of {', '.join(PANELS)}")
    columns = min(3, len(keys))
    rows = -(-len(keys) // columns)
    with figure(path, 4.2 * columns, 2.9 * rows + 0.4) as page:
        grid = page.subplots(rows, columns, squeeze=False).ravel()
        for axes, key in zip(grid, keys, strict=False):
            for index, (label, log) in enumerate(logs.items()):
                _draw_curve(axes, log, key, figure_text(label), series_style(index))
            axes.set_title(PANELS[key], fontsize=11)
            axes.set_xlabel("iteration")
        for axes in grid[len(keys) :]:
            axes.set_visible(False)
        handles, labels = _legend(grid[: len(keys)])
        page.legend(handles, labels, loc="outside upper center", ncols=min(4, len(labels)))


def _draw_curve(
    axes: Any, log: list[Record], key: str, label: str, style: Mapping[str, Any]
) -> None:
    points = [(r["iteration"], r[key]) for r in log if key in r]
    if not points:
        return
    x, y = (np.array(column, dtype=np.float64) for column in zip(*points, strict=True))
    axes.plot(x, y, color=style["color"], alpha=0.25, linewidth=0.9)
    marker = "o" if len(points) < 3 else None
    axes.plot(x, smooth(y), label=label, linewidth=1.8, marker=marker, **style)
    broken = ~np.isfinite(y)
    if broken.any():
        # Where a run diverged is what one looks for in such a picture.
        axes.plot(
            x[broken], np.full(broken.sum(), 0.02), "x", color=style["color"],
            transform=axes.get_xaxis_transform(), clip_on=False, label=f"{label}: not finite",
        )  # fmt: skip
    axes.set_xlim(left=0)


def smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return centred running means over about a twentieth of the points.

    Windows shrink at the ends, so that the curve neither starts late nor is pulled to zero; values
    that are not finite are left out of the means and stay gaps.
    """
    half = math.ceil(len(values) / 40) if len(values) >= 10 else 0
    means = np.full(len(values), np.nan)
    for i, value in enumerate(values):
        # The same number of points on both sides: a one-sided window would shift a falling curve.
        reach = min(half, i, len(values) - 1 - i)
        window = values[i - reach : i + reach + 1]
        if math.isfinite(value):
            means[i] = window[np.isfinite(window)].mean()
    return means


def _legend(grid: Any) -> tuple[list[Any], list[str]]:
    """Collect each label once over all panels."""
    entries: dict[str, Any] = {}
    for axes in grid:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    return list(entries.values()), list(entries)
