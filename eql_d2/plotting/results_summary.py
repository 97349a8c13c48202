"""Mean and spread over seeds of a table of runs, as CSV and as a table for a README."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Sequence
from pathlib import Path

from eql_d2.errors import UserError
from eql_d2.files import atomic_text_file, check_output_folder, csv_text
from eql_d2.plotting.results_table import ResultRow

METRICS = tuple(f"{k}/{n}" for k in ("bbox", "segm") for n in ("AP", "APr", "APc", "APf"))
TITLES = {"bbox": "box", "segm": "mask"}
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def summarise(
    rows: Sequence[ResultRow],
) -> dict[str, dict[str, tuple[float, float | None] | None]]:
    """Return mean and sample standard deviation of each configuration and metric.

    Args:
        rows: one a run.

    Returns:
        ``{config: {metric: (mean, deviation)}}``; the deviation of one run is None, and a metric
        that no run defines is None.
    """
    found: dict[str, dict[str, tuple[float, float | None] | None]] = {}
    for config in dict.fromkeys(row.config for row in rows):
        found[config] = {}
        for metric in METRICS:
            values = [row.metrics.get(metric) for row in rows if row.config == config]
            known = [value for value in values if value is not None]
            spread = statistics.stdev(known) if len(known) > 1 else None
            found[config][metric] = (statistics.fmean(known), spread) if known else None
    return found


def write_summary_csv(rows: Sequence[ResultRow], path: str | Path) -> None:
    """Write :func:`summarise` with the number of runs; undefined cells are empty."""
    with atomic_text_file(path) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["config", "runs", *(c for m in METRICS for c in (m, f"{m} std"))])
        for config, metrics in summarise(rows).items():
            pairs = [metrics[m] or (None, None) for m in METRICS]
            cells = ["" if v is None else f"{v:.4f}" for pair in pairs for v in pair]
            writer.writerow([csv_text(config), sum(row.config == config for row in rows), *cells])


def markdown_table(rows: Sequence[ResultRow]) -> str:
    """Return :func:`summarise` as a markdown table, "mean ± deviation" in percent."""
    titles = [f"{TITLES[kind]} {name}" for kind, name in (m.split("/") for m in METRICS)]
    lines = [
        f"| configuration | runs | {' | '.join(titles)} |",
        "|---|--:" + "|--:" * len(titles) + "|",
    ]
    for config, metrics in summarise(rows).items():
        cells = [_cell(metrics[m]) for m in METRICS]
        runs = sum(row.config == config for row in rows)
        lines.append(f"| {config} | {runs} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(pair: tuple[float, float | None] | None) -> str:
    if pair is None:
        return "n/a"
    mean, spread = pair
    return f"{mean:.1f}" if spread is None else f"{mean:.1f} ± {spread:.1f}"


def insert_between_markers(path: str | Path, text: str) -> None:
    """Replace what stands between the lines :data:`BEGIN` and :data:`END` of a file.

    Raises:
        UserError: the file lacks one of them, or cannot be read or written.
    """
    before, after = _read_around_markers(path)
    with atomic_text_file(path) as file:
        file.write(f"{before}{BEGIN}\n{text}\n{END}{after}")


def check_markers(path: str | Path) -> None:
    """Make sure that :func:`insert_between_markers` will work.

    Raises:
        UserError: it would not.
    """
    check_output_folder(Path(path).parent, f"the folder of {path},")
    _read_around_markers(path)


def _read_around_markers(path: str | Path) -> tuple[str, str]:
    """Return what stands before :data:`BEGIN` and what after :data:`END` in a file."""
    try:
        content = Path(path).read_bytes().decode("utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    before, begin, rest = content.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{path} lacks the lines {BEGIN} and {END}, between which the table goes")
    return before, after
