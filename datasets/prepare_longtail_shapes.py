"""Make the generated data set longtail_shapes, and show its categories.

The defaults are those of the recipes in configs/quick, which find it made.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from eql_d2.command_line import run_tool
from eql_d2.data import generate_longtail_shapes, load_detection_data


def main(argv: Sequence[str] | None = None) -> int:
    """Generate the set, or find it there, and print where it is and what it holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default="datasets/longtail_shapes_80", metavar="DIR")
    parser.add_argument("--categories", type=int, default=80, metavar="K")
    parser.add_argument("--train-images", type=int, default=2000, metavar="N")
    parser.add_argument("--test-images", type=int, default=200, metavar="N")
    parser.add_argument("--image-size", type=int, default=128, metavar="PIXELS")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    train_json, train_images, test_json, test_images = generate_longtail_shapes(
        options.output,
        num_categories=options.categories,
        num_train_images=options.train_images,
        num_test_images=options.test_images,
        image_size=options.image_size,
        seed=options.seed,
    )
    print(load_detection_data(train_json, train_images).statistics.table())
    print(
        f"\nDATA.TRAIN_JSON {train_json} DATA.TRAIN_IMAGES {train_images} "
        f"DATA.TEST_JSON {test_json} DATA.TEST_IMAGES {test_images}"
    )
    return 0


if __name__ == "__main__":
    run_tool(main)
