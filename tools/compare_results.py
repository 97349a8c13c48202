"""Say whether the difference between two results files, or two sets of them, exceeds the noise.

    python tools/compare_results.py A.json B.json --annotations gt.json
    python tools/compare_results.py A0.json A1.json A2.json --against B0.json B1.json B2.json \
        --annotations gt.json [--json OUT]

The first form compares B with A, the second all runs of B with all runs of A (seeds of one
configuration). A folder stands for its inference/lvis_instances_results.json, and results in the
folders of runs are compared with the groups of these runs. Prints AP, APr, APc
and APf of both sides with intervals of the difference over images, over categories, over both and
over seeds, and in words whether it exceeds each.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from eql_d2.command_line import add_groups_from, chosen_groups, group_sources, run_tool
from eql_d2.errors import UserError
from eql_d2.evaluation.bootstrap import IOU_TYPES, KNOWN_TYPES, NUM_SAMPLES, resample_results
from eql_d2.evaluation.comparison import compare_results
from eql_d2.evaluation.comparison_text import as_json, table
from eql_d2.files import check_output_file, write_json


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Compare results files by paired bootstrap.")
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS")
    parser.add_argument("--against", nargs="+", type=Path, metavar="RESULTS", help="side B")
    parser.add_argument("--annotations", required=True, metavar="JSON", help="COCO or LVIS json")
    parser.add_argument("--names", nargs=2, metavar=("A", "B"), help="what the sides are called")
    parser.add_argument("--iou-types", nargs="+", choices=KNOWN_TYPES, default=IOU_TYPES)
    add_groups_from(parser)
    parser.add_argument("--resamples", type=int, default=NUM_SAMPLES, metavar="R")
    parser.add_argument("--confidence", type=float, default=0.95, metavar="C")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all numbers here")
    return parser


def _files(side: Sequence[Path]) -> list[Path]:
    """The results files of a side, each once: a copy is no second run."""
    files = [p / "inference/lvis_instances_results.json" if p.is_dir() else p for p in side]
    if len({os.path.realpath(file) for file in files}) < len(files):
        names = ", ".join(map(str, side))
        raise UserError(f"a file is named twice on one side ({names}); a copy is no second run")
    return files


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool."""
    args = make_parser().parse_args(argv)
    first, second = args.results, args.against
    if second is None:
        if len(first) != 2:
            raise UserError(f"give two results files, or --against; got {len(first)} and no other")
        first, second = first[:1], first[1:]
    first, second = _files(first), _files(second)
    sources = group_sources(args, first + second)
    if args.json is not None:
        check_output_file(args.json, "--json", args.annotations, *sources, *first, *second)
    groups = chosen_groups(args, sources)
    resampled = resample_results(
        args.annotations,
        first + second,
        iou_types=args.iou_types,
        groups=groups.letters,
        groups_source=groups.source,
        num_samples=args.resamples,
        seed=args.seed,
    )
    sides = range(len(first)), range(len(first), len(first) + len(second))
    names = tuple(args.names or ("A", "B"))
    comparison = compare_results(resampled, *sides, names=names, confidence=args.confidence)
    print(table(comparison))
    if args.json is not None:
        write_json(args.json, as_json(comparison))
    return 0


if __name__ == "__main__":
    run_tool(main)
