"""AP against image count: every category with objects is a point of its group's colour."""

import numpy as np
import pytest
from PIL import Image

from eql_d2.evaluation import CategoryRow
from eql_d2.plotting import category_ap, plot_category_ap
from eql_d2.plotting.palette import GROUP_COLORS


def rows(groups="rrccff", kinds=("bbox", "segm"), ap=20.0):
    return [
        CategoryRow(i + 1, f"category {i}", g, 3**i, 3**i, 9, dict.fromkeys(kinds, ap + 9 * i))
        for i, g in enumerate(groups)
    ]


def colour_share(path, color):
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return (np.abs(pixels - wanted).max(axis=2) < 3).mean()


def test_every_group_has_its_colour(tmp_path):
    plot_category_ap(rows(), tmp_path / "a.png")
    for letter in "rcf":
        assert colour_share(tmp_path / "a.png", GROUP_COLORS[letter]) > 0.0005
    plot_category_ap(rows("ffff"), tmp_path / "b.png")
    assert colour_share(tmp_path / "b.png", GROUP_COLORS["r"]) == 0


def test_a_panel_for_each_kind(tmp_path):
    widths = []
    for kinds in (("bbox",), ("bbox", "segm"), ("bbox", "segm", "boundary")):
        plot_category_ap(rows(kinds=kinds), tmp_path / "a.png")
        widths.append(Image.open(tmp_path / "a.png").width)
    assert widths[0] < widths[1] < widths[2]


class Recorder:
    """Stands for the axes: notes the points and their labels."""

    def __init__(self):
        self.points, self.names = {}, []
        self.xaxis = self

    def scatter(self, x, y, label, **_):
        self.points[label] = list(zip(x, y, strict=True))

    def annotate(self, text, *_, **__):
        self.names.append(text)

    def __getattr__(self, name):
        return lambda *_, **__: None


def test_points_means_and_names():
    everyone = rows()
    undefined = CategoryRow(99, "never seen", "r", 0, 0, 0, {"bbox": None})
    axes = Recorder()
    category_ap._panel(axes, [*everyone, undefined], "bbox", None)
    assert axes.points["rare: 24.5 (2 categories)"] == [(1, 20.0), (3, 29.0)]
    assert axes.points["frequent: 60.5 (2 categories)"] == [(81, 56.0), (243, 65.0)]
    assert axes.names == ["category 0", "category 2", "category 4"]  # below their groups' means
    counts = {row.category_id: 1000 + row.category_id for row in everyone}
    category_ap._panel(axes, everyone, "bbox", counts)
    assert axes.points["rare: 24.5 (2 categories)"] == [(1001, 20.0), (1002, 29.0)]


@pytest.mark.parametrize("case", [[], rows(kinds=()), rows([None] * 4), rows(ap=None or 0.0)])
def test_odd_cases_are_drawn(case, tmp_path):
    plot_category_ap(case, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_names_have_room():
    """Of many at the same place one is named; those above the mean never are."""
    same = [(10, 0.0, f"zero {i}") for i in range(30)]
    others = [(10, 60.0, "high"), (1000, 0.0, "far"), (12, 20.0, "between")]
    named = category_ap._worst([[*same, *others], [(10, 5.0, "alone")]])
    assert named == [(10, 0.0, "zero 0"), (1000, 0.0, "far")]
