"""Draw loss curves and average precision of one or more runs.

    python tools/plot_results.py --runs OUTPUT_DIR [OUTPUT_DIR ...] --output DIR
    python tools/plot_results.py --csv results.csv --output DIR

DIR gets loss_curves.png from the runs' metrics.jsonl, results.csv with their metrics.json (runs
named NAME_seed0, NAME_seed1 ... are one configuration), and metrics.png, bars with error bars.
With --csv the bars come from that table: columns config, seed and metrics such as bbox/APr.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from eql_d2.command_line import run_tool
from eql_d2.errors import UserError
from eql_d2.evaluation.report import GROUPS_LABEL
from eql_d2.files import check_output_folder
from eql_d2.plotting import (
    groups_source,
    plot_loss_curves,
    plot_metrics_comparison,
    rows_from_runs,
    write_results_csv,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool."""
    parser = argparse.ArgumentParser(description="Draw loss curves and average precision.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--runs", nargs="+", metavar="DIR", help="output folders of runs")
    source.add_argument("--csv", metavar="FILE", help="table with config, seed and metrics")
    parser.add_argument("--output", required=True, metavar="DIR")
    args = parser.parse_args(argv)
    output = check_output_folder(args.output, "--output")
    written = []
    if args.csv is not None:
        plot_metrics_comparison(args.csv, output / "metrics.png")
        written.append("metrics.png")
    else:
        runs = [Path(run) for run in args.runs]
        missing = [str(run) for run in runs if not run.is_dir()]
        if missing:
            raise UserError(f"--runs: no such folder: {', '.join(missing)}")
        if len({run.resolve() for run in runs}) < len(runs):
            raise UserError(f"--runs: a run is named twice: {', '.join(args.runs)}")
        logs = {label: run / "metrics.jsonl" for label, run in labels(runs).items()}
        logs = {label: log for label, log in logs.items() if log.is_file()}
        if logs:
            plot_loss_curves(logs, output / "loss_curves.png")
            written.append("loss_curves.png")
        rows = rows_from_runs(runs)
        if rows:
            write_results_csv(rows, output / "results.csv")
            plot_metrics_comparison(rows, output / "metrics.png")
            written += ["results.csv", "metrics.png"]
            if definition := groups_source(runs):
                print(f"{GROUPS_LABEL}: {definition}")
        if not written:
            raise UserError(f"no metrics.jsonl and no metrics.json in {', '.join(args.runs)}")
    print(f"{', '.join(written)} in {output}")
    return 0


def labels(runs: Sequence[Path]) -> dict[str, Path]:
    """Name every run by its folder, or by its whole path where folders share a name."""
    names = [run.resolve().name for run in runs]
    return {
        name if names.count(name) == 1 else str(run): run
        for name, run in zip(names, runs, strict=True)
    }


if __name__ == "__main__":
    run_tool(main)
