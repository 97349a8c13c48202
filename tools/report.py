"""Turn one or more finished runs into one self-contained html page.

    python tools/report.py --runs OUTPUT_DIR [OUTPUT_DIR ...] --output report.html \
        [--annotations gt.json --images DIR] [--train-annotations train.json]

Runs named NAME_seed0, NAME_seed1 ... are one configuration; the first configuration is the
baseline. The page holds the metrics, AP of every category, training curves, and with --annotations
and --images differences with their noise, and drawn examples of rare categories. Which categories
are rare, common and frequent is what the runs' own metrics say; tools/evaluate.py scores a run with
other groups.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from eql_d2.categories import read_statistics
from eql_d2.command_line import run_tool
from eql_d2.data import load_detection_data
from eql_d2.errors import UserError
from eql_d2.evaluation.bootstrap import NUM_SAMPLES
from eql_d2.files import check_output_file
from eql_d2.reporting import files_of_runs, read_sides, write_report
from eql_d2.reporting.comparing import compare_sides


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Make a results page of finished runs.")
    parser.add_argument("--runs", nargs="+", required=True, metavar="DIR", help="output folders")
    parser.add_argument("--output", required=True, metavar="HTML")
    parser.add_argument("--title", default="Long-tailed detection: results")
    parser.add_argument("--annotations", metavar="JSON", help="of the test images")
    parser.add_argument("--images", metavar="DIR", help="folder of the test images")
    parser.add_argument(
        "--train-annotations",
        metavar="JSON",
        help="for the number of training images (default: those that the runs wrote down)",
    )
    parser.add_argument(
        "--resamples", type=int, default=NUM_SAMPLES, metavar="R", help="0: no comparison"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool."""
    args = make_parser().parse_args(argv)
    if args.images and not args.annotations:
        raise UserError("--images needs --annotations")
    inputs = [path for path in (args.annotations, args.train_annotations) if path]
    check_output_file(args.output, "--output", *inputs, *files_of_runs(args.runs))
    if Path(args.output).is_file() and Path(args.output).suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--output {args.output} is there and no page (.html); it would be lost")
    sides = read_sides(args.runs)
    training_images = None
    if args.train_annotations:
        statistics = read_statistics(args.train_annotations)
        counts = statistics.image_count.tolist()
        training_images = dict(zip(statistics.category_ids, counts, strict=True))
    comparisons = []
    if args.annotations and args.resamples:
        comparisons = compare_sides(sides, args.annotations, args.resamples)
    data = load_detection_data(args.annotations, args.images) if args.images else None
    missing = write_report(
        args.output,
        sides,
        title=args.title,
        data=data,
        comparisons=comparisons,
        training_images=training_images,
    )
    for line in missing:
        print(f"not shown: {line}")
    print(f"{args.output} shows {sum(len(side.runs) for side in sides)} runs")
    return 0


if __name__ == "__main__":
    run_tool(main)
