"""Turn any COCO json into a long-tail json in LVIS's format: counts, frequency, negative sets.

The file must be annotated exhaustively, as COCO files are. With --test-fraction its images are
divided into a training and a test file; the groups always come from the training part.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from eql_d2.categories import CategoryStatistics, read_annotation_file
from eql_d2.command_line import add_group_options, run_tool
from eql_d2.data import check_content, longtail_content, split_images, usable_content
from eql_d2.errors import DataError
from eql_d2.files import atomic_text_file, check_output_folder, terminal_text


def main(argv: Sequence[str] | None = None) -> int:
    """Read, check, convert and write; print the table of categories."""
    options = _parse(argv)
    source = Path(options.json)
    name = source.name.removesuffix(".gz").removesuffix(".zip").removesuffix(".json")
    stem = check_output_folder(options.output, "--output") / name
    content = usable_content(read_annotation_file(source), source)
    training_part = content
    if options.test_fraction is None:
        parts = {stem.with_name(f"{stem.name}_longtail.json"): content}
    else:
        names = (stem.with_name(f"{stem.name}_{part}.json") for part in ("train", "test"))
        split = split_images(content, options.test_fraction, options.seed)
        parts = dict(zip(names, split, strict=True))
        training_part = split[0]
    existing = [str(path) for path in parts if path.exists()]
    if existing and not options.overwrite:
        raise DataError(
            f"{', '.join(existing)} exists; give --overwrite to replace it, or another --output"
        )
    statistics = check_content(training_part, source, ".", check_images=False).statistics
    statistics = statistics.with_groups(options.group_mode, options.rare_max, options.common_max)
    for path, part in parts.items():
        with atomic_text_file(path) as file:
            json.dump(longtail_content(part, statistics), file, separators=(",", ":"))
    print(statistics.table())
    _tell_unseen(statistics)
    for path, part in parts.items():
        print(f"{path}: {len(part['images']):,} images")
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("json", help="COCO annotation file")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--test-fraction", type=float, metavar="SHARE", help="e.g. 0.2")
    parser.add_argument("--seed", type=int, default=0, help="of the split")
    add_group_options(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    return parser.parse_args(argv)


def _tell_unseen(statistics: CategoryStatistics) -> None:
    counts = zip(statistics.names, statistics.image_count.tolist(), strict=True)
    unseen = [name for name, count in counts if count == 0]
    if unseen:
        first = ", ".join(map(terminal_text, unseen[:5]))
        print(f"{len(unseen)} categories have no training image: {first} ...")


if __name__ == "__main__":
    run_tool(main)
