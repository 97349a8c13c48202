"""Score a results file: LVIS box and mask average precision. Needs no GPU and no engine.

    python tools/evaluate.py --annotations gt.json --results results.json --output-dir DIR

Prints the table with the number of categories behind each number, and writes DIR/metrics.json
(percent, null where undefined) and DIR/per_category.csv.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from eql_d2.command_line import run_tool
from eql_d2.evaluation import evaluate


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool."""
    parser = argparse.ArgumentParser(description="Score a results file with LVIS AP.")
    parser.add_argument("--annotations", required=True, metavar="JSON", help="COCO or LVIS json")
    parser.add_argument("--results", required=True, metavar="JSON", help="LVIS results file")
    parser.add_argument("--output-dir", required=True, metavar="DIR")
    parser.add_argument(
        "--iou-types", nargs="+", choices=("bbox", "segm"), default=("bbox", "segm")
    )
    parser.add_argument(
        "--groups-from",
        metavar="JSON",
        help="training annotations whose image counts say which categories are rare, common and "
        "frequent (default: the frequency field of --annotations)",
    )
    args = parser.parse_args(argv)
    groups = None
    if args.groups_from:
        from eql_d2.categories import CategoryStatistics  # imports torch

        statistics = CategoryStatistics.from_json(args.groups_from)
        groups = dict(zip(statistics.category_ids, statistics.groups, strict=True))
    evaluation = evaluate(args.annotations, args.results, iou_types=args.iou_types, groups=groups)
    print(evaluation.table())
    evaluation.write(args.output_dir)
    print(f"metrics.json and per_category.csv are in {args.output_dir}")
    return 0


if __name__ == "__main__":
    run_tool(main)
