"""Measure checking and packing of a results file of LVIS v1 val's size: time and largest memory.

    python tools/benchmark_submission.py --directory DIR            # 19,809 images x 300, 2 GB
    python tools/benchmark_submission.py --directory DIR --images 1000 --prove

Generates the files in DIR (kept for the next time), runs the tools on them and says whether all
stayed below 500 MB. --prove also scores the file before and after rounding, which needs more.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from eql_d2.command_line import from_one, run_tool
from eql_d2.files import check_output_folder
from eql_d2.submission import benchmark


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool."""
    parser = argparse.ArgumentParser(description="Measure checking and packing of results.")
    parser.add_argument("--directory", required=True, type=Path, help="for the generated files")
    parser.add_argument("--images", type=from_one, default=benchmark.LVIS_IMAGES)
    parser.add_argument("--detections", type=from_one, default=300, help="of each image")
    parser.add_argument("--prove", action="store_true", help="measure what rounding does to AP")
    args = parser.parse_args(argv)
    check_output_folder(args.directory, "--directory")
    files = benchmark.make_files(args.directory, args.images, args.detections)
    size = files[2].stat().st_size / benchmark.MEGABYTE
    print(f"{args.images} images x {args.detections} detections, results file {size:.1f} MB")
    print(benchmark.HEADER)
    rows = []
    for name, command, output in benchmark.commands(
        Path(__file__).parent, *files, prove=args.prove
    ):
        rows.append(benchmark.measure(name, command, output))
        print(rows[-1], flush=True)
    largest = max(row.megabytes for row in rows[: len(rows) - args.prove])
    below = largest < benchmark.MEMORY_LIMIT
    print(
        f"largest memory without --prove: {largest:.0f} MB, {'' if below else 'NOT '}below 500 MB"
    )
    if args.prove:
        print(next(line for line in rows[-1].said if line.startswith("no metric changed")))
    return 0 if below else 1


if __name__ == "__main__":
    run_tool(main)
