"""Check an LVIS folder tree, and link annotations and COCO images into it that lie elsewhere.

For each split: whether the json is there and valid, its sha256, how many images it wants from which
COCO folder, how many of them were found where, and the first that are missing.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from eql_d2.categories import CategoryStatistics, read_annotation_file, table_names
from eql_d2.command_line import run_tool
from eql_d2.data import ImageFinder, check_content
from eql_d2.errors import DataError
from eql_d2.files import terminal_text

SPLITS = ("train", "val")
FIRST_MISSING = 5


def main(argv: Sequence[str] | None = None) -> int:
    """Link what is to be linked, then check; 0 if all is complete, else 2."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", choices=("v1", "v0.5"), default="v1")
    parser.add_argument("--root", type=Path, default=Path("datasets"), metavar="DIR")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=list(SPLITS))
    parser.add_argument("--link-annotations", type=Path, metavar="DIR", help="folder of the json")
    parser.add_argument("--link-images", type=Path, metavar="DIR", help="folder of train2017/ ...")
    options = parser.parse_args(argv)
    names = [f"lvis_{options.version}_{split}.json" for split in options.splits]
    if options.link_annotations:
        link(options.link_annotations, options.root / "lvis", names)
    if options.link_images:
        link(options.link_images, options.root / "coco", ["train2017", "val2017"])
    complete = [check_split(options.root, name, options.version) for name in names]
    print("\nall complete" if all(complete) else "\nnot complete, see above")
    return 0 if all(complete) else 2


def link(source: Path, target: Path, names: Sequence[str]) -> None:
    """Link ``source/name`` as ``target/name`` for each name; what is there stays.

    Raises:
        DataError: there is nothing to link, or links cannot be made here.
    """
    if not any((source / name).exists() for name in names):
        raise DataError(f"{source} holds none of {', '.join(names)}")
    for name in names:
        place, original = target / name, Path(os.path.realpath(source / name))
        if place.exists() or not original.exists():
            print(f"{place}: {'is there' if place.exists() else f'not linked, no {original}'}")
            continue
        try:
            target.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            place.symlink_to(original, target_is_directory=original.is_dir())
        except OSError as error:
            raise DataError(
                f"{place} cannot be linked to {original}: {error}. Without links, give the paths "
                "to training with DATA.TRAIN_JSON, DATA.TRAIN_IMAGES, ..."
            ) from None
        print(f"{place} -> {original}")


def check_split(root: Path, name: str, version: str) -> bool:
    """Print what there is of one split, and return whether it is complete."""
    path = root / "lvis" / name
    print(f"\n{path}")
    if not path.exists():
        print("  missing")
        return False
    print(f"  {path.stat().st_size:,} bytes, sha256 {_sha256(path)}")
    try:
        content = read_annotation_file(path)
        data = check_content(content, path, root / "coco", check_images=False)
    except DataError as error:
        print(terminal_text(f"  {error}", keep_lines=True))
        return False
    print(
        f"  valid: {len(data.images):,} images, {int(data.statistics.instance_count.sum()):,} "
        f"instances, {len(data.statistics):,} categories"
    )
    right = _check_version(data.statistics, version)
    return _check_images(content, ImageFinder(root / "coco")) and right


def _check_version(statistics: CategoryStatistics, version: str) -> bool:
    """Compare the categories, not the file's name, with the tables of both versions."""
    for table in table_names():
        if CategoryStatistics.from_table(table).names == statistics.names:
            right = table == f"lvis_{version}"
            print(f"  categories of {table}{'' if right else f', not of lvis_{version}'}")
            return right
    print(f"  {len(statistics)} categories that are those of no LVIS version")
    return False


def _check_images(content: dict[str, Any], finder: ImageFinder) -> bool:
    wanted: Counter[str] = Counter()
    found: Counter[str] = Counter()
    missing = []
    for image in content["images"]:
        wanted[_coco_folder(image)] += 1
        path, exists = finder.find(image)
        if exists and path is not None:
            found[terminal_text(str(path.parent))] += 1
        else:
            missing.append(path)
    total = len(content["images"])
    print(f"  wants {total:,} images: {_listed(wanted, 'from')}")
    print(f"  found {total - len(missing):,}{': ' if found else ''}{_listed(found, 'in')}")
    if missing:
        print(f"  missing {len(missing):,}, first:")
        for path in missing[:FIRST_MISSING]:
            print(f"    {terminal_text(str(path))}")
    return not missing


def _coco_folder(image: dict[str, Any]) -> str:
    url = image.get("coco_url")
    name = url if isinstance(url, str) and url else "unnamed/image"
    return terminal_text(PurePosixPath(name).parent.name)


def _listed(counts: Counter[str], word: str) -> str:
    return ", ".join(f"{n:,} {word} {folder}" for folder, n in counts.most_common())


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


if __name__ == "__main__":
    run_tool(main)
