"""The runs of a report: what their output folders hold, seeds of one configuration together."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from eql_d2.categories import read_statistics
from eql_d2.errors import DataError, UserError
from eql_d2.files import STATISTICS_FILE, read_csv_text
from eql_d2.plotting.results_table import (
    ResultRow,
    groups_source,
    refuse_different_groups,
    rows_from_runs,
)

RESULTS_FILE = "inference/lvis_instances_results.json"
RUN_FILES = (
    "metrics.json",
    "per_category.csv",
    STATISTICS_FILE,
    "metrics.jsonl",
    "config.yaml",
    RESULTS_FILE,
)
IOU_TYPES = {"bbox": "box", "segm": "mask"}


@dataclass(frozen=True)
class CategoryResult:
    """A category in one evaluation; AP in percent, None where it has no object."""

    category_id: int
    name: str
    group: str | None
    images: int
    instances: int
    detections: int
    ap: dict[str, float | None]


@dataclass(frozen=True)
class Run:
    """One finished run.

    Attributes:
        folder: Its output folder.
        row: Configuration, seed and metrics.
        categories: From per_category.csv, by category id; empty where there is no such file.
        log: The training log, or None.
        results: The results file, or None.
    """

    folder: Path
    row: ResultRow
    categories: dict[int, CategoryResult]
    log: Path | None
    results: Path | None


@dataclass(frozen=True)
class Side:
    """The runs of one configuration, which differ in their seed."""

    name: str
    runs: tuple[Run, ...]

    def values(self, metric: str) -> list[float]:
        """Return a metric of all runs that define it."""
        found = [run.row.metrics.get(metric) for run in self.runs]
        return [value for value in found if value is not None]

    def category_ap(self, kind: str) -> dict[int, float]:
        """Return the mean over runs of each category's AP, percent."""
        ids = {i: None for run in self.runs for i in run.categories}
        means = {}
        for i in ids:
            found = [run.categories[i].ap.get(kind) for run in self.runs if i in run.categories]
            known = [value for value in found if value is not None]
            if known:
                means[i] = fmean(known)
        return means


def files_of_runs(folders: Sequence[str | Path]) -> list[Path]:
    """Return the files that output folders may hold, of which nothing may be overwritten."""
    return [Path(folder) / name for folder in folders for name in RUN_FILES]


def read_sides(folders: Sequence[str | Path]) -> list[Side]:
    """Read output folders, in the order given; those that share a configuration become one side.

    Raises:
        UserError: a folder does not exist, is named twice or holds no ``metrics.json``, or runs
            were evaluated with different groups.
        DataError: a file of a run is damaged.
    """
    paths = [Path(folder) for folder in folders]
    if not paths:
        raise UserError("name at least one output folder of a run")
    if len({os.path.realpath(path) for path in paths}) < len(paths):
        raise UserError(f"a run is named twice: {', '.join(map(str, paths))}")
    runs = [_read_run(path) for path in paths]
    refuse_different_groups(paths)
    names = dict.fromkeys(run.row.config for run in runs)
    return [Side(name, tuple(run for run in runs if run.row.config == name)) for name in names]


def groups_of(sides: Sequence[Side]) -> tuple[dict[int, str], str]:
    """Return the groups that the metrics of the runs are about.

    Returns:
        "r", "c" or "f" by category id, empty where the runs know no groups; and in words, which
        definition these follow.
    """
    runs = [run for side in sides for run in side.runs]
    letters = {i: c.group for run in reversed(runs) for i, c in run.categories.items() if c.group}
    return letters, groups_source([run.folder for run in runs])


def training_images_of(sides: Sequence[Side]) -> dict[int, int] | None:
    """Return the training images by category id, or None where the runs do not (all) know them.

    Raises:
        DataError: the statistics of a run cannot be read.
    """
    counts = []
    for side in sides:
        for run in side.runs:
            if not (run.folder / STATISTICS_FILE).is_file():
                return None
            statistics = read_statistics(run.folder)
            images = statistics.image_count.tolist()
            counts.append(dict(zip(statistics.category_ids, images, strict=True)))
    return counts[0] if all(images == counts[0] for images in counts) else None


def _read_run(folder: Path) -> Run:
    if not folder.is_dir():
        raise UserError(f"no such folder: {folder}")
    rows = rows_from_runs([folder])
    if not rows:
        raise UserError(f"{folder} holds no metrics.json; make it with tools/evaluate.py")
    log, results = folder / "metrics.jsonl", folder / RESULTS_FILE
    return Run(
        folder,
        rows[0],
        read_categories(folder / "per_category.csv"),
        log if log.is_file() else None,
        results if results.is_file() else None,
    )


def read_categories(path: Path) -> dict[int, CategoryResult]:
    """Read a ``per_category.csv``; nothing where it does not exist.

    Raises:
        DataError: it is not what ``tools/evaluate.py`` writes.
    """
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file))
        categories = [_category(line) for line in lines]
    except (OSError, ValueError, KeyError, TypeError, OverflowError, csv.Error) as error:
        raise DataError(f"{path} is no table as evaluate.py writes it: {error!r}") from error
    return {category.category_id: category for category in categories}


def _category(line: dict[str, str]) -> CategoryResult:
    ap = {kind: _percent(line[f"{kind}/AP"]) for kind in IOU_TYPES if f"{kind}/AP" in line}
    return CategoryResult(
        category_id=int(line["category_id"]),
        name=read_csv_text(line["name"]),
        group=line["group"] or None,
        images=_count(line["images"]),
        instances=_count(line["instances"]),
        detections=_count(line["detections"]),
        ap=ap,
    )


def _percent(text: str) -> float | None:
    value = float(text) if text else None
    if value is not None and not -0.001 < value < 100.001:  # NaN is none of these
        raise ValueError(f"AP must be 0 to 100, got {text}")
    return value


def _count(text: str) -> int:
    value = int(text)
    if not 0 <= value < 1 << 53:  # what a chart's axis can hold
        raise ValueError(f"a count must be a whole number from 0, got {text}")
    return value
