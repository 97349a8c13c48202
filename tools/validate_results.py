"""Check a results file before it is scored or submitted; see what is wrong with it and where.

    python tools/validate_results.py --annotations lvis_v1_val.json --results results.json

The annotations may be an image-info file of a test split. Exit code 0: valid, perhaps with
warnings; 2: not valid. Needs no GPU and little memory (8 bytes a record).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from eql_d2.command_line import run_tool
from eql_d2.files import check_output_file, write_json
from eql_d2.submission import validate_results
from eql_d2.submission.validation import IGNORABLE, MAX_DETECTIONS


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool."""
    args = _parser().parse_args(argv)
    if args.json is not None:
        check_output_file(args.json, "--json", args.annotations, args.results)
    report = validate_results(
        args.annotations,
        args.results,
        iou_types=args.iou_types,
        max_detections=args.max_detections,
        ignore=args.ignore,
    )
    print(report)
    if args.json is not None:
        write_json(args.json, report.to_dict())
    return 2 if report.errors or (args.strict and report.warnings) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Check an LVIS or COCO results file.")
    parser.add_argument("--annotations", required=True, metavar="JSON", help="or image info")
    parser.add_argument("--results", required=True, metavar="JSON", help="may be .gz or .zip")
    parser.add_argument(
        "--iou-types",
        nargs="+",
        choices=("bbox", "segm"),
        default=(),
        help="what every record must have (default: what any of them has)",
    )
    parser.add_argument(
        "--max-detections",
        type=int,
        default=MAX_DETECTIONS,
        metavar="N",
        help=f"of an image (default: {MAX_DETECTIONS}; 0: no limit, as for AP_fixed)",
    )
    parser.add_argument(
        "--ignore",
        nargs="+",
        default=(),
        metavar="CODE",
        help=f"errors to take as warnings, of: {', '.join(IGNORABLE)}",
    )
    parser.add_argument("--strict", action="store_true", help="warnings are errors")
    parser.add_argument("--json", metavar="FILE", help="write the report there as well")
    return parser


if __name__ == "__main__":
    run_tool(main)
