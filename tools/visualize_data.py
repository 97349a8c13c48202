"""Look at a data set before training on it: its long tail, and annotated images.

    python tools/visualize_data.py --annotations train.json --images train/ --output DIR

Prints the category table and writes categories.csv, category_counts.png and images/*.png, those
with rare categories first.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from eql_d2.command_line import add_group_options, run_tool
from eql_d2.data import load_detection_data
from eql_d2.errors import UserError
from eql_d2.files import check_output_folder
from eql_d2.plotting import plot_category_counts, save_ground_truth_pictures, write_category_csv


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool."""
    parser = argparse.ArgumentParser(description="Show the long tail and annotated images.")
    parser.add_argument("--annotations", required=True, metavar="JSON", help="COCO or LVIS json")
    parser.add_argument("--images", required=True, metavar="DIR", help="folder of the images")
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument("--number", type=int, default=8, metavar="N", help="images (default: 8)")
    tail = parser.add_mutually_exclusive_group()
    tail.add_argument(
        "--lambda", dest="lambda_", type=float, metavar="L", help="tail: image fraction below L"
    )
    tail.add_argument(
        "--tail-ratio", type=float, metavar="T", help="lambda for this share of all image counts"
    )
    add_group_options(parser)
    args = parser.parse_args(argv)
    output = check_output_folder(args.output, "--output")
    if args.number < 0:
        raise UserError(f"--number must be 0 or more, got {args.number}")
    data = load_detection_data(args.annotations, args.images, check_images=args.number > 0)
    statistics = data.statistics.with_groups(args.group_mode, args.rare_max, args.common_max)
    lambda_ = args.lambda_
    if args.tail_ratio is not None:
        lambda_ = statistics.lambda_for_tail_ratio(args.tail_ratio)
    print(statistics.table())
    if lambda_ is not None:
        tail_count = int(statistics.tail_mask(lambda_).sum())
        print(
            f"lambda {lambda_:.6g}: {tail_count} of {len(statistics.names)} categories are tail, "
            f"tail ratio {100 * statistics.tail_ratio(lambda_):.2f} %"
        )
    write_category_csv(statistics, lambda_, output / "categories.csv")
    plot_category_counts(statistics, lambda_, output / "category_counts.png")
    pictures = save_ground_truth_pictures(
        data, output / "images", args.number, groups=statistics.groups
    )
    print(f"categories.csv, category_counts.png and {len(pictures)} images are in {output}")
    return 0


if __name__ == "__main__":
    run_tool(main)
