"""Make a submission file for a test server from a results file: checked, cut, json or zip.

    python tools/pack_submission.py --image-info lvis_v1_image_info_test_dev.json
        --results results.json --output submission.zip [--round]

Needs no annotations: the image info of a test split is enough. Keeps the 300 highest scores of an
image. Reads the results twice, in pieces (less than 500 MB of memory at LVIS's size).
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence

from eql_d2.command_line import run_tool
from eql_d2.submission import Submission, pack_submission
from eql_d2.submission.validation import IGNORABLE, MAX_DETECTIONS


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool."""
    args = _parser().parse_args(argv)
    submission = pack_submission(
        args.image_info,
        args.results,
        args.output,
        iou_types=args.iou_types,
        max_detections=args.max_detections,
        rounded=args.round,
        prove=args.prove,
        ignore=args.ignore,
    )
    print(submission.validation)
    print(submission)
    print(_how_to_score(args.image_info, args.max_detections, submission))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Make a submission file from a results file.")
    parser.add_argument("--image-info", required=True, metavar="JSON", help="or annotations")
    parser.add_argument("--results", required=True, metavar="JSON", help="may be .gz or .zip")
    parser.add_argument("--output", required=True, metavar="FILE", help="NAME.json or NAME.zip")
    parser.add_argument(
        "--iou-types",
        nargs="+",
        choices=("bbox", "segm"),
        default=(),
        help="what to keep of each detection (default: all there is)",
    )
    parser.add_argument(
        "--max-detections",
        type=int,
        default=MAX_DETECTIONS,
        metavar="N",
        help=f"of an image (default: {MAX_DETECTIONS}; 0: no limit)",
    )
    parser.add_argument("--round", action="store_true", help="shorter numbers, see the README")
    parser.add_argument(
        "--prove",
        action="store_true",
        help="score both files with the annotations of --image-info; write nothing if any metric "
        "differs by 1e-4 percent points or more",
    )
    parser.add_argument(
        "--ignore",
        nargs="+",
        default=(),
        metavar="CODE",
        help=f"errors to let pass, of: {', '.join(IGNORABLE)}",
    )
    return parser


def _how_to_score(annotations: str, limit: int, submission: Submission) -> str:
    command = ["python", "tools/evaluate.py", "--annotations", annotations, "--results"]
    command += [str(submission.path), "--output-dir", str(submission.path.with_suffix(""))]
    command += ["--iou-types", *submission.kinds]
    counting = limit or max(1, submission.most_of_an_image)  # evaluate.py counts 300 unless told
    command += ["--max-detections", str(counting)] if counting != MAX_DETECTIONS else []
    if submission.validation.labels_known:
        return f"score the same file:\n  {shlex.join(command)}"
    command[3] = "ANNOTATIONS.json"
    return f"with the annotations, which are not in {annotations}:\n  {shlex.join(command)}"


if __name__ == "__main__":
    run_tool(main)
