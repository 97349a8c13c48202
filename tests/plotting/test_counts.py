"""The picture and the table of the long tail."""

import csv

import numpy as np
import pytest
from PIL import Image

from eql_d2.categories import CategoryStatistics
from eql_d2.errors import ConfigError, DataError
from eql_d2.plotting import plot_category_counts, write_category_csv
from eql_d2.plotting.counts import _title
from eql_d2.plotting.palette import GROUP_COLORS


def statistics(counts, num_images=1000):
    return CategoryStatistics.from_counts(
        names=[f"name,{i}" for i in range(len(counts))],
        category_ids=[10 * i + 3 for i in range(len(counts))],
        image_count=counts,
        instance_count=[2 * c for c in counts],
        num_images=num_images,
    )


def colour_share(path, color):
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return (np.abs(pixels - wanted).max(axis=2) < 3).mean()


def test_every_group_has_its_colour(tmp_path):
    plot_category_counts(statistics([900, 500, 60, 40, 8, 1]), 0.01, tmp_path / "a.png")
    for letter in "rcf":
        assert colour_share(tmp_path / "a.png", GROUP_COLORS[letter]) > 0.02
    plot_category_counts(statistics([900, 500]), 0.01, tmp_path / "b.png")
    assert colour_share(tmp_path / "b.png", GROUP_COLORS["f"]) > 0.02
    assert colour_share(tmp_path / "b.png", GROUP_COLORS["r"]) == 0


def test_bars_are_sorted_from_most_to_fewest(tmp_path):
    plot_category_counts(statistics([1, 900, 8, 500]), None, tmp_path / "a.png")
    plot_category_counts(statistics([900, 500, 8, 1]), None, tmp_path / "b.png")
    bars = []
    for name in "ab":
        pixels = np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB"))
        bars.append(pixels[: int(pixels.shape[0] * 0.7)])  # without the names below
    assert np.array_equal(*bars)


def test_the_lambda_line_moves_with_lambda(tmp_path):
    rows = []
    for lambda_ in (0.005, 0.2):
        plot_category_counts(statistics([900] * 5 + [2] * 5), lambda_, tmp_path / "a.png")
        pixels = np.asarray(Image.open(tmp_path / "a.png").convert("L"))
        middle = pixels[100:-150, 100:-60]
        rows.append(int((middle < 60).mean(axis=1).argmax()))
    assert rows[1] < rows[0] - 50


@pytest.mark.parametrize(
    ("lambda_", "words"),
    [
        (1e-4, "lambda 0.0001 = 0.1 images, below the axis"),
        (0.9, "lambda 0.9 = 900 images, above the axis"),
        (0.0005, "lambda 0.0005 = 0.5 images"),
        (0.06, "lambda 0.06 = 60 images"),
    ],
)
def test_a_lambda_outside_of_the_axis_is_told(tmp_path, lambda_, words):
    plot_category_counts(statistics([40, 20, 1]), lambda_, tmp_path / "a.svg")
    # Matplotlib writes each text of an SVG as a comment beside its glyphs.
    assert f"<!-- {words} -->" in (tmp_path / "a.svg").read_text("utf-8")


def test_title_says_the_tail_and_what_is_empty():
    title = _title(statistics([900, 90, 9, 1, 0]), 0.0095)
    assert title == (
        "5 categories, 1,000 annotated images; 1 category without images; "
        "tail: 3 categories with 1.00 % of the image counts"
    )
    assert "tail" not in _title(statistics([900, 90]), None)
    assert "tail" not in _title(statistics([900, 90]), 0)


@pytest.mark.parametrize("count", [1, 60, 61, 1203])
def test_any_number_of_categories(tmp_path, count):
    plot_category_counts(
        statistics([max(900 - i, 0) for i in range(count)]), 0.5, tmp_path / "a.png"
    )
    width = Image.open(tmp_path / "a.png").width
    assert 800 <= width <= 2000


def test_all_categories_empty(tmp_path):
    plot_category_counts(statistics([0, 0], 0), None, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
    with pytest.raises(DataError, match="no category has an image"):
        plot_category_counts(statistics([0, 0], 0), 0.1, tmp_path / "b.png")
    assert not (tmp_path / "b.png").exists()


def test_negative_lambda(tmp_path):
    with pytest.raises(ConfigError, match="lambda must be"):
        plot_category_counts(statistics([3]), -0.1, tmp_path / "a.png")


def test_csv_has_one_row_a_category_in_contiguous_order(tmp_path):
    path = tmp_path / "new" / "categories.csv"
    write_category_csv(statistics([5, 900, 40]), 0.04, path)
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [r["id"] for r in rows] == ["3", "13", "23"]
    assert [r["name"] for r in rows] == ["name,0", "name,1", "name,2"]
    assert [r["group"] for r in rows] == ["r", "f", "c"]
    assert [r["images"] for r in rows] == ["5", "900", "40"]
    assert [r["instances"] for r in rows] == ["10", "1800", "80"]
    assert [float(r["image_fraction"]) for r in rows] == [0.005, 0.9, 0.04]
    assert [r["tail"] for r in rows] == ["1", "0", "0"]  # strictly below lambda


def test_csv_without_lambda_leaves_the_tail_open(tmp_path):
    write_category_csv(statistics([5, 900]), None, tmp_path / "c.csv")
    assert all(line.endswith(",") for line in (tmp_path / "c.csv").read_text().splitlines()[1:])
