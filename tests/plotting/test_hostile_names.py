"""Names of categories and runs as a stranger's file may hold them, in figures, drawings, tables."""

import csv

import numpy as np
import pytest

from eql_d2.categories import CategoryStatistics
from eql_d2.evaluation.report import CategoryRow, Evaluation
from eql_d2.plotting import (
    ResultRow,
    draw_instances,
    plot_category_ap,
    plot_category_counts,
    plot_metrics_comparison,
    read_results_csv,
    write_category_csv,
    write_results_csv,
)
from eql_d2.reporting.runs import read_categories

NAMES = (
    "=cmd|' /c calc'!A1", "@x", "-1", "\t=1", "\r=1", "\x1b[31mred\x1b]0;title\x07", "a\u202eb",
    "line\nerror: forged", "$\\frac{$", "$x^{$", "a$b$c", "\x00", "\ud800", "x" * 2000, "_", "{0}",
)  # fmt: skip


def statistics(*names):
    counts = list(range(1, len(names) + 1))
    return CategoryStatistics.from_counts(
        names=names,
        category_ids=counts,
        image_count=counts,
        instance_count=counts,
        num_images=100,
    )


@pytest.mark.parametrize("name", [*NAMES[5:13], NAMES[-1]], ids=ascii)
def test_figures_and_drawings_take_any_name(tmp_path, name):
    plot_category_counts(statistics(name, "cup"), 0.01, tmp_path / "counts.png")
    rows = [CategoryRow(i, name, "r", 3 * i + 1, 4, 5, {"bbox": 90.0 * i}) for i in (0, 1)]
    plot_category_ap(rows, tmp_path / "ap.png")
    plot_metrics_comparison([ResultRow(name, 0, {"bbox/AP": 3.0})], tmp_path / "bars.png")
    image = np.zeros((60, 80, 3), np.uint8)
    assert draw_instances(image, [[1, 1, 20, 20]], [name], [0.5]).any()


def test_tables_hold_no_commands_and_one_line_for_each_category():
    table = statistics(*NAMES).table()
    assert all(line.isprintable() for line in table.split("\n"))
    assert table.count("\n") == statistics(*map(str, range(len(NAMES)))).table().count("\n")


def test_csv_files_hold_no_formulas_and_are_read_again(tmp_path):
    write_category_csv(statistics(*NAMES), 0.01, tmp_path / "categories.csv")
    rows = tuple(CategoryRow(i, n, "r", 1, 1, 1, {"bbox": 1.0}) for i, n in enumerate(NAMES))
    Evaluation({"bbox/AP": 1.0}, {"AP": "all"}, rows).write(tmp_path)
    write_results_csv([ResultRow(n, 0, {"bbox/AP": -1.0}) for n in NAMES], tmp_path / "runs.csv")
    for file, column in (("categories", "name"), ("per_category", "name"), ("runs", "config")):
        with (tmp_path / f"{file}.csv").open(newline="", encoding="utf-8") as stream:
            lines = list(csv.DictReader(stream))
        assert len(lines) == len(NAMES), file
        assert not [c for line in lines if (c := line[column])[0] in "=+-@\t\r\n"], file
    assert lines[0]["bbox/AP"] == "-1.0000"  # a number, not text
    first = [category.name for category in read_categories(tmp_path / "per_category.csv").values()]
    assert first[:3] == list(NAMES[:3])
    assert [row.config for row in read_results_csv(tmp_path / "runs.csv")][:3] == list(NAMES[:3])
