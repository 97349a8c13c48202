"""The metrics of many runs as one table: columns ``config``, ``seed`` and one a metric."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eql_d2.categories import GROUP_NAMES, read_statistics
from eql_d2.errors import DataError, UserError
from eql_d2.files import STATISTICS_FILE, atomic_text_file, csv_text, read_csv_text
from eql_d2.json_files import read_json


@dataclass(frozen=True)
class ResultRow:
    """The metrics of one run: flat keys such as ``bbox/APr``, percent, ``None`` where undefined."""

    config: str
    seed: int
    metrics: Mapping[str, float | None]


def read_results_csv(path: str | Path) -> list[ResultRow]:
    """Read a table of runs. Columns without a ``/`` in their name, such as times, are ignored.

    Empty cells, ``n/a``, ``null`` and ``nan`` are undefined metrics.

    Raises:
        DataError: the file cannot be read, lacks a column or has a cell that is no number.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            header, lines = list(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from error
    metrics = [name for name in header if "/" in name]
    missing = [name for name in ("config", "seed") if name not in header]
    if missing or not metrics:
        wanted = ", ".join(missing) or "metrics such as bbox/AP"
        raise DataError(f"{path} lacks the column(s) {wanted}; its header is {header}")
    if not lines:
        raise DataError(f"{path} has a header but no rows")
    rows = []
    for number, line in enumerate(lines, 2):
        try:
            values = {name: _number(line[name]) for name in metrics}
            rows.append(ResultRow(read_csv_text(line["config"]), int(line["seed"]), values))
        except (ValueError, TypeError) as error:
            raise DataError(f"{path} line {number}: {error}") from error
    return rows


def _number(text: str | None) -> float | None:
    if text is None:
        raise ValueError("fewer cells than the header")
    if text.strip().lower() in ("", "n/a", "none", "null", "nan"):
        return None
    return _finite(float(text))


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"metric must be finite, got {value}")
    return value


def write_results_csv(rows: Sequence[ResultRow], path: str | Path) -> None:
    """Write a table that :func:`read_results_csv` reads; undefined metrics are empty cells."""
    names = list(dict.fromkeys(name for row in rows for name in row.metrics))
    with atomic_text_file(path) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["config", "seed", *map(csv_text, names)])
        for row in rows:
            values = [row.metrics.get(name) for name in names]
            cells = ["" if value is None else f"{value:.4f}" for value in values]
            writer.writerow([csv_text(row.config), row.seed, *cells])


def rows_from_runs(runs: Sequence[str | Path]) -> list[ResultRow]:
    """Read ``metrics.json`` of finished runs.

    The name of a run's folder is its configuration, without an ending such as ``_seed3`` or
    ``-s3``, so that seeds of one configuration come together. The seed is ``SEED`` of the run's
    ``config.yaml``, else the number in that ending, else -1.

    Args:
        runs: output folders; those without a ``metrics.json`` are left out.

    Raises:
        DataError: a ``metrics.json`` is damaged.
        UserError: runs were evaluated with different groups (:func:`refuse_different_groups`).
    """
    refuse_different_groups(runs)
    rows = []
    for run in map(Path, runs):
        file = run / "metrics.json"
        if not file.is_file():
            continue
        try:
            content = read_json(file, "metrics file")
            metrics = {
                k: None if v is None else _finite(float(v)) for k, v in content.items() if "/" in k
            }
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            raise DataError(f"{file} is no flat json of metrics: {error}") from error
        name = run.resolve().name
        ending = re.search(r"[-_]s(?:eed)?[-_]?(\d+)$", name)
        config = name[: ending.start()] if ending else name
        rows.append(ResultRow(config, _seed(run, ending.group(1) if ending else "-1"), metrics))
    return rows


def _seed(run: Path, otherwise: str) -> int:
    """Return the top-level ``SEED`` of the run's config.yaml, which is too simple for a parser."""
    file = run / "config.yaml"
    text = file.read_text("utf-8", errors="replace") if file.is_file() else ""
    written = re.search(r"^SEED: *(-?\d{1,18}) *$", text, flags=re.MULTILINE)
    return int(written.group(1)) if written else int(otherwise)


def refuse_different_groups(runs: Sequence[str | Path]) -> None:
    """Refuse runs whose APr, APc and APf are about different categories.

    Runs on other data, with other categories, are not held against each other.

    Args:
        runs: output folders; those without a ``per_category.csv`` take no part.

    Raises:
        UserError: naming the first category whose group differs.
        DataError: a ``per_category.csv`` is damaged.
    """
    seen: dict[tuple[tuple[int, str], ...], tuple[Path, tuple[str, ...]]] = {}
    for run in map(Path, runs):
        categories, letters = _groups_of(run)
        first, expected = seen.setdefault(categories, (run, letters))
        if letters != expected:
            pairs = zip(categories, expected, letters, strict=True)
            (number, name), *groups = next(p for p in pairs if p[1] != p[2])
            words = [GROUP_NAMES.get(letter, "in no group") for letter in groups]
            source = next(
                (r for r in (first, run) if (r / STATISTICS_FILE).is_file()), "TRAIN_JSON"
            )
            raise UserError(
                f"the runs have different groups: category {name!r} (id {number}) is {words[0]} in "
                f"{first} and {words[1]} in {run}, so their APr, APc and APf cannot be compared. "
                "Score them again with the same groups: tools/evaluate.py "
                f"--annotations TEST_JSON --results RESULTS --groups-from {source} --output-dir DIR"
            )


def groups_source(runs: Sequence[str | Path]) -> str:
    """Say in words which definition of rare, common and frequent the runs were evaluated with.

    Args:
        runs: output folders that :func:`refuse_different_groups` accepts.

    Returns:
        The words of the first run that has groups; "" where none has.
    """
    for run in map(Path, runs):
        categories, letters = _groups_of(run)
        if not any(letters):
            continue
        file = run / STATISTICS_FILE
        if file.is_file():
            statistics = read_statistics(file)
            ids = tuple(number for number, _ in categories)
            if (statistics.category_ids, statistics.groups) == (ids, letters):
                return f"{statistics.grouping or 'as given'}, from {file}"
        return f"as in {run / 'per_category.csv'}"
    return ""


def _groups_of(run: Path) -> tuple[tuple[tuple[int, str], ...], tuple[str, ...]]:
    """The ids and names of the categories that a run was evaluated on, and the group of each.

    They stand beside the metrics, of the same evaluation; "" is no group, and no file no category.
    """
    file = run / "per_category.csv"
    if not file.is_file():
        return (), ()
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            lines = sorted(csv.DictReader(stream), key=lambda line: int(line["category_id"]))
        names = tuple((int(line["category_id"]), read_csv_text(line["name"])) for line in lines)
        return names, tuple(line["group"] for line in lines)
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(f"{file} is no table as evaluate.py writes it: {error!r}") from error
