"""Turn any COCO json into a long-tail json in LVIS's format: counts, frequency, negative sets.

The file must be annotated exhaustively, as COCO files are. With --test-fraction its images are
divided into a training and a test file; the groups always come from the training part.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eql_d2.categories import CategoryStatistics, read_annotation_file
from eql_d2.command_line import run_tool
from eql_d2.data import check_content, longtail_content, split_images
from eql_d2.errors import DataError


def main(argv: Sequence[str] | None = None) -> int:
    """Read, check, convert and write; print the table of categories."""
    options = _parse(argv)
    source = Path(options.json)
    content = read_annotation_file(source)
    statistics = check_content(content, source, ".", check_images=False).statistics
    stem = options.output / source.stem
    if options.test_fraction is None:
        parts = {stem.with_name(f"{stem.name}_longtail.json"): content}
    else:
        names = (stem.with_name(f"{stem.name}_{part}.json") for part in ("train", "test"))
        split = split_images(content, options.test_fraction, options.seed)
        parts = dict(zip(names, split, strict=True))
        training_part = split[0]
        statistics = check_content(training_part, source, ".", check_images=False).statistics
    statistics = statistics.with_groups(options.group_mode, options.rare_max, options.common_max)
    for path, part in parts.items():
        _write(path, longtail_content(part, statistics), options.overwrite)
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
    parser.add_argument("--group-mode", choices=("counts", "quantiles"), default="counts")
    parser.add_argument("--rare-max", type=int, default=10, metavar="IMAGES")
    parser.add_argument("--common-max", type=int, default=100, metavar="IMAGES")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    return parser.parse_args(argv)


def _write(path: Path, content: dict[str, Any], overwrite: bool) -> None:
    """Write a file whole or not at all."""
    if path.exists() and not overwrite:
        raise DataError(f"{path} exists; give --overwrite to replace it, or another --output")
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error}") from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _tell_unseen(statistics: CategoryStatistics) -> None:
    counts = zip(statistics.names, statistics.image_count.tolist(), strict=True)
    unseen = [name for name, count in counts if count == 0]
    if unseen:
        print(f"{len(unseen)} categories have no training image: {', '.join(unseen[:5])} ...")


if __name__ == "__main__":
    run_tool(main)
