"""Score a results file: LVIS box and mask average precision and more. Needs no GPU and no engine.

    python tools/evaluate.py --annotations gt.json --results results.json --output-dir DIR
    ... --metrics ap ar fixed pool agnostic proposals       (the default is ap)
    ... --iou-types boundary --metrics fixed                 the LVIS challenge of 2021
    ... --metrics coco                                       plain COCO data, as pycocotools
    ... --minival ids.json                                   some of the images
    ... --groups-from train.json --group-mode quantiles      other rare, common, frequent ones

Results in a run's folder are scored with the groups of that run. Prints the table with the number
of categories behind each number and the definition of the groups, and writes DIR/metrics.json
(percent, null where undefined), DIR/per_category.csv, and with --plot DIR/per_category.png.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from eql_d2.command_line import add_groups_from, chosen_groups, group_sources, run_tool
from eql_d2.evaluation import IOU_TYPES, METRICS, evaluate, read_image_ids
from eql_d2.files import check_output_folder


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool."""
    args = _parser().parse_args(argv)
    check_output_folder(args.output_dir, "--output-dir")
    groups = chosen_groups(args, group_sources(args, [args.results]))
    evaluation = evaluate(
        args.annotations,
        args.results,
        iou_types=args.iou_types,
        metrics=args.metrics,
        groups=groups.letters,
        groups_source=groups.source,
        max_detections=args.max_detections,
        max_per_category=args.max_per_category,
        image_ids=None if args.minival is None else read_image_ids(args.minival),
    )
    print(evaluation.table())
    evaluation.write(args.output_dir)
    print(f"metrics.json and per_category.csv are in {args.output_dir}")
    if args.plot:
        from eql_d2.plotting import plot_category_ap  # imports matplotlib

        picture = Path(args.output_dir) / "per_category.png"
        plot_category_ap(evaluation.categories, picture, groups.training_images)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Score a results file with LVIS AP.")
    add = parser.add_argument
    add("--annotations", required=True, metavar="JSON", help="COCO or LVIS json")
    add("--results", required=True, metavar="JSON", help="LVIS results file")
    add("--output-dir", required=True, metavar="DIR")
    add("--iou-types", nargs="+", choices=IOU_TYPES, default=("bbox", "segm"))
    add("--metrics", nargs="+", choices=METRICS, default=("ap",))
    add_groups_from(parser)
    add("--minival", metavar="FILE", help="image ids (json list, annotations, or text)")
    add("--max-detections", type=int, default=300, metavar="N", help="per image, for ap and ar")
    add(
        "--max-per-category",
        type=int,
        default=10_000,
        metavar="N",
        help="over all images, for fixed and pool",
    )
    add("--plot", action="store_true", help="draw AP against images of each category")
    return parser


if __name__ == "__main__":
    run_tool(main)
